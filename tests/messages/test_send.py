"""The send worker against the sandbox carrier over sockets, with the real adapter and real callbacks through Envoy."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from server.config import Settings
from server.db import Database
from server.messages.send import SendWorker
from server.notifications import Notifications
from server.providers import registry
from tests.clients import Client
from tests.factories import create_message
from tests.messages.conftest import MakeWorker
from tests.messages.support import (
    SILENT,
    assert_each_sent_once,
    events_of,
    requests,
    row_of,
    rows,
    step,
    until_settled,
)
from tests.providers.servers import Sandbox, closed_port_url


async def test_message_is_delivered_and_every_change_told(
    client: Client, db: Database, carrier: Sandbox, live: Settings, worker: SendWorker
) -> None:
    message = await create_message(client, media_urls=["https://school.example/a.png"])

    assert await worker.run_once() == 1
    await until_settled(db)

    [taken] = await carrier.taken()
    row = await row_of(db, message)
    told = [event.message for event in await events_of(db, message)]
    assert (taken["from"], taken["to"], taken["body"]) == (
        message.sender_number,
        message.receiver_number,
        message.message_body,
    )
    assert taken["media_urls"] == list(message.media_urls)
    assert taken["status_callback"] == (
        f"{live.public_base_url}/api/v1/twilio_requests/webhook_message_updates?message_uuid={message.message_uuid}"
        "#rc=5&rp=all"
    )
    assert (row.message_sid, row.internal_status, row.provider_status) == (taken["sid"], "delivered", "delivered")
    assert [m.provider_status for m in told if m.message_sid] == sorted(
        {m.provider_status for m in told if m.message_sid}, key=[m.provider_status for m in told].index
    )
    assert told[0].internal_status == "pending"
    assert told[-1].internal_status == "delivered"
    assert told[-1].HasField("sent_at")
    assert await worker.run_once() == 0


async def test_long_text_goes_out_as_mms(client: Client, carrier: Sandbox, worker: SendWorker) -> None:
    await create_message(client, message_body="x" * 161)

    await worker.run_once()

    [taken] = await carrier.taken()
    assert taken["sid"].startswith("MM")


async def test_undelivered_message_fails_with_the_documented_error(
    client: Client, db: Database, worker: SendWorker
) -> None:
    message = await create_message(client, message_body="[sandbox:undelivered=30005]")

    await worker.run_once()
    await until_settled(db)

    row = await row_of(db, message)
    assert (row.internal_status, row.provider_status, row.error_code) == ("failed", "undelivered", "30005")
    assert row.error_description == (
        "There was an error with the messaging provider. "
        "For more details visit: https://www.twilio.com/docs/api/errors/30005"
    )
    assert row.failed_at is not None


@pytest.mark.parametrize("behaviour", ["duplicated", "reordered"])
async def test_disorderly_callbacks_end_in_the_same_state(
    client: Client, db: Database, worker: SendWorker, behaviour: str
) -> None:
    message = await create_message(client, message_body=f"[sandbox:callbacks={behaviour}]")

    await worker.run_once()
    await until_settled(db)

    statuses = [event.message.internal_status for event in await events_of(db, message)]
    assert statuses[-1] == "delivered"
    assert statuses == sorted(statuses, key=["pending", "processing", "sending", "sent", "delivered"].index)


async def test_retry_after_is_honoured_and_then_the_message_sent(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    message = await create_message(client, message_body=f"[sandbox:429x2][sandbox:retry-after=40s]{SILENT}")
    before = datetime.now(UTC)

    await worker.run_once()
    waiting = await row_of(db, message)
    early = await worker.run_once()
    await step(worker, db)
    await step(worker, db)

    assert waiting.due_at is not None
    assert timedelta(seconds=40) <= waiting.due_at - before <= timedelta(seconds=60)
    assert (waiting.internal_status, waiting.in_doubt) == ("processing", False)
    assert early == 0
    assert await requests(carrier, "POST") == [429, 429, 201]
    assert await requests(carrier, "GET") == []
    assert_each_sent_once(await rows(db), await carrier.taken())


@pytest.mark.parametrize(
    ("trigger", "lookups"),
    [("503", 0), ("500", 1), ("502", 1), ("504", 1)],
)
async def test_message_that_was_not_taken_is_sent_again(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, trigger: str, lookups: int
) -> None:
    message = await create_message(client, message_body=f"[sandbox:{trigger}]{SILENT}")

    await worker.run_once()
    waiting = await row_of(db, message)
    await step(worker, db)

    assert waiting.in_doubt == bool(lookups)
    assert await requests(carrier, "POST") == [int(trigger), 201]
    assert len(await requests(carrier, "GET")) == lookups
    assert_each_sent_once(await rows(db), await carrier.taken())


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"receiver_number": "+15005550001"}, "21211"),
        ({"receiver_number": "+15005550004"}, "21610"),
        ({"receiver_number": "+15005550009"}, "21614"),
        ({"message_body": "[sandbox:nonsense]"}, "90001"),
    ],
)
async def test_refused_message_fails_and_is_never_tried_again(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, over: dict[str, str], code: str
) -> None:
    message = await create_message(client, **over)

    await worker.run_once()
    await step(worker, db)

    row = await row_of(db, message)
    _, failed = await events_of(db, message)
    assert (row.internal_status, row.error_code, row.due_at, row.message_sid) == ("failed", code, None, None)
    assert failed.message.error_description == (
        "There was an error with the messaging provider. "
        f"For more details visit: https://www.twilio.com/docs/api/errors/{code}"
    )
    assert failed.message.HasField("failed_at")
    assert await requests(carrier, "POST") == [400]


@pytest.mark.parametrize("trigger", ["503x*", "429x*", "500x*"])
async def test_message_is_given_up_after_24_hours(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, trigger: str
) -> None:
    message = await create_message(client, message_body=f"[sandbox:{trigger}]")
    await worker.run_once()
    await db.execute("UPDATE messages SET first_claimed_at = now() - interval '23 hours 59 minutes'")
    await step(worker, db)
    still_trying = await row_of(db, message)

    await db.execute("UPDATE messages SET first_claimed_at = now() - interval '24 hours 1 minute'")
    await step(worker, db)

    row = await row_of(db, message)
    assert still_trying.internal_status == "processing"
    assert (row.internal_status, row.error_code, row.due_at) == ("failed", "PROVIDER_UNAVAILABLE", None)
    assert row.error_description == "The messaging provider did not accept the message within 24 hours."
    assert await carrier.taken() == []


async def test_message_that_was_taken_is_not_given_up(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    await create_message(client, message_body=f"[sandbox:lost-response]{SILENT}")
    await worker.run_once()
    await db.execute("UPDATE messages SET first_claimed_at = now() - interval '25 hours'")

    await step(worker, db)

    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_message_of_a_provider_that_is_gone_waits_for_it_as_for_one_that_is_down(
    client: Client,
    db: Database,
    carrier: Sandbox,
    notifications: Notifications,
    make_worker: MakeWorker,
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = await create_message(client, message_body=SILENT)
    without = SendWorker(db, notifications, {}, priority="default")

    await without.run_once()
    waiting = await row_of(db, message)
    assert waiting.due_at is not None
    delay = waiting.due_at - datetime.now(UTC)
    logged = capsys.readouterr().out
    await step(without, db)
    await step(make_worker(), db)

    assert (waiting.internal_status, waiting.in_doubt) == ("processing", False)
    assert delay < timedelta(seconds=1.2)
    assert "message.provider_not_configured" in logged
    assert "message.attempt_failed" not in logged
    assert_each_sent_once(await rows(db), await carrier.taken())
    # Nothing was asked about: nothing had been sent.
    assert await requests(carrier, "GET") == []


async def test_message_of_a_provider_that_is_gone_is_given_up_after_24_hours(
    client: Client, db: Database, carrier: Sandbox, notifications: Notifications
) -> None:
    message = await create_message(client)
    without = SendWorker(db, notifications, {}, priority="default")
    await without.run_once()
    await db.execute("UPDATE messages SET first_claimed_at = now() - interval '24 hours 1 minute'")

    await step(without, db)

    row = await row_of(db, message)
    assert (row.internal_status, row.error_code, row.due_at) == ("failed", "PROVIDER_UNAVAILABLE", None)


async def test_message_in_doubt_stays_so_while_its_provider_is_gone(
    client: Client, db: Database, carrier: Sandbox, notifications: Notifications, worker: SendWorker
) -> None:
    message = await create_message(client, message_body=f"[sandbox:lost-response]{SILENT}")
    await worker.run_once()
    await db.execute("UPDATE messages SET first_claimed_at = now() - interval '25 hours'")

    await step(SendWorker(db, notifications, {}, priority="default"), db)

    waiting = await row_of(db, message)
    assert (waiting.internal_status, waiting.in_doubt) == ("processing", True)
    await step(worker, db)
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_message_in_doubt_is_not_sent_while_the_carrier_cannot_be_asked(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    message = await create_message(client, message_body=f"[sandbox:lost-response]{SILENT}")
    await worker.run_once()
    await carrier.misbehave(answer="503")

    for _ in range(3):
        await step(worker, db)
    waiting = await row_of(db, message)
    await carrier.control("DELETE", "misbehaviour")
    await step(worker, db)

    assert waiting.in_doubt
    assert len(await requests(carrier, "POST")) == 1
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_outage_of_the_carrier_loses_nothing(
    client: Client, db: Database, notifications: Notifications, carrier: Sandbox, live: Settings, worker: SendWorker
) -> None:
    for n in range(10):
        await create_message(client, message_body=f"{n} {SILENT}")
    away = registry.message_senders(live.model_copy(update={"twilio_api_base_url": closed_port_url()}))["twilio"]

    await SendWorker(db, notifications, {"twilio": away}, priority="default").run_once()
    waiting = await rows(db)
    await step(worker, db)
    await away.aclose()

    assert {(m.internal_status, m.in_doubt) for m in waiting} == {("processing", False)}
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_scheduled_message_is_sent_when_its_time_comes(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    when = Timestamp()
    when.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    message = await create_message(client, scheduled_at=when)

    early = await worker.run_once()
    await step(worker, db)
    await until_settled(db)

    row = await row_of(db, message)
    assert early == 0
    assert row.internal_status == "delivered"
    assert row.enqueued_at is not None
    assert row.enqueued_at == row.first_claimed_at
    assert_each_sent_once(await rows(db), await carrier.taken())
