"""The send worker against the sandbox carrier over sockets, with the real adapter and real callbacks through Envoy."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from commonservices.v1 import message_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from server.config import Settings
from server.db import Database
from server.messages.send import LEASE, SendWorker
from server.notifications import Notifications
from server.providers import registry
from server.providers.ports import MessageReport, MessageSender, MessageStatus, OutboundMessage
from tests.clients import Client
from tests.factories import create_message
from tests.messages.conftest import MakeWorker
from tests.messages.support import (
    assert_each_sent_once,
    count,
    events_of,
    kept_callbacks,
    make_due,
    row_of,
    rows,
    until,
    until_settled,
)
from tests.messages.wire import Wire
from tests.providers.servers import Sandbox, closed_port_url

SILENT = "[sandbox:callbacks=missing]"


async def step(worker: SendWorker, db: Database) -> None:
    """Let every delay run out, and one round be worked."""
    await make_due(db)
    await worker.run_once()


async def requests(carrier: Sandbox, method: str) -> list[int | None]:
    """How requests were answered, oldest first."""
    asked = (await carrier.control("GET", "requests", params={"method": method}))["requests"]
    return [request["status"] for request in asked]


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


@pytest.mark.parametrize("trigger", ["lost-response", "garbled", "500-taken", "502-taken", "504-taken"])
async def test_message_that_was_taken_is_found_and_not_sent_again(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, trigger: str
) -> None:
    message = await create_message(client, message_body=f"[sandbox:{trigger}]{SILENT}")

    await worker.run_once()
    waiting = await row_of(db, message)
    await step(worker, db)

    [taken] = await carrier.taken()
    assert (waiting.message_sid, waiting.in_doubt) == (None, True)
    assert waiting.due_at is not None
    assert waiting.due_at - waiting.updated_at >= timedelta(seconds=30)
    assert (await row_of(db, message)).message_sid == taken["sid"]
    assert len(await requests(carrier, "POST")) == 1
    assert_each_sent_once(await rows(db), await carrier.taken())


@pytest.mark.parametrize("trigger", ["lost-response", "500-taken"])
async def test_callback_alone_settles_a_message_whose_answer_was_lost(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, trigger: str
) -> None:
    await create_message(client, message_body=f"[sandbox:{trigger}]")

    await worker.run_once()
    await until_settled(db)

    assert len(await requests(carrier, "POST")) == 1
    assert await requests(carrier, "GET") == []
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


async def twins(client: Client, body: str) -> tuple[message_pb2.Message, message_pb2.Message]:
    return await create_message(client, message_body=body), await create_message(client, message_body=body)


async def test_twins_of_which_one_was_taken_end_as_two_copies(
    client: Client, db: Database, carrier: Sandbox, make_worker: MakeWorker
) -> None:
    await twins(client, SILENT)
    one_by_one = make_worker(concurrency=1)
    await carrier.misbehave(answer="lost-response", next_requests=1)
    await one_by_one.run_once()
    await carrier.misbehave(answer="500", next_requests=1)
    await one_by_one.run_once()
    taken_before = len(await carrier.taken())
    in_doubt = [m.in_doubt for m in await rows(db)]

    await step(make_worker(), db)
    await step(make_worker(), db)

    assert (taken_before, in_doubt) == (1, [True, True])
    assert len(await carrier.taken()) == 2
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_copy_that_a_twin_adopted_is_made_up_for(
    client: Client, db: Database, carrier: Sandbox, wire: Wire, make_worker: MakeWorker
) -> None:
    _, second = await twins(client, SILENT)
    await carrier.misbehave(answer="500", next_requests=1)
    await make_worker(concurrency=1).run_once()  # the first is in doubt, and was not taken
    wire.answers.hold(b"POST")
    sending = asyncio.create_task(make_worker(concurrency=1).run_once())  # the second is taken, its answer on the way
    await until(lambda: wire.requests.held or wire.answers.held)
    await db.execute(
        "UPDATE messages SET due_at = now() WHERE attempts = 1 AND message_uuid <> %s", [second.message_uuid]
    )
    await make_worker().run_once()  # the first finds the copy of the second

    wire.answers.open()
    await sending
    robbed = await row_of(db, second)
    await step(make_worker(), db)

    assert (robbed.message_sid, robbed.in_doubt) == (None, True)
    assert len(await carrier.taken()) == 2
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_twins_with_callbacks_each_end_delivered(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    await twins(client, "[sandbox:lost-response]")

    await worker.run_once()
    await until_settled(db)

    assert len(await carrier.taken()) == 2
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_message_whose_callback_comes_while_its_copy_is_looked_for_is_not_sent_again(
    client: Client, db: Database, carrier: Sandbox, wire: Wire, make_worker: MakeWorker
) -> None:
    message = await create_message(client)
    wire.requests.hold(b"POST")
    stuck = asyncio.create_task(make_worker().run_once())
    await until(lambda: wire.requests.held or wire.answers.held)
    await make_due(db)
    wire.answers.hold(b"GET")
    looking = asyncio.create_task(make_worker().run_once())  # it finds nothing
    await until(lambda: wire.answers.held)

    wire.requests.open()
    await stuck
    await until_settled(db)
    wire.answers.open()
    await looking

    assert (await row_of(db, message)).attempts == 2
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_worker_whose_claim_another_took_over_does_not_send(
    client: Client, db: Database, carrier: Sandbox, wire: Wire, make_worker: MakeWorker
) -> None:
    await create_message(client, message_body=f"[sandbox:500]{SILENT}")
    await make_worker().run_once()
    await make_due(db)
    wire.answers.hold(b"GET")
    slow = asyncio.create_task(make_worker().run_once())
    await until(lambda: wire.answers.held)
    await make_due(db)
    quick = asyncio.create_task(make_worker().run_once())
    await until(lambda: wire.answers.held == 2)
    wire.answers.open()
    await asyncio.gather(slow, quick)

    assert len(await carrier.taken()) == 1
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_lease_outlasts_every_call(client: Client, db: Database, wire: Wire, worker: SendWorker) -> None:
    message = await create_message(client)
    wire.requests.hold(b"POST")

    sending = asyncio.create_task(worker.run_once())
    await until(lambda: wire.requests.held or wire.answers.held)
    row = await row_of(db, message)
    wire.requests.open()
    await sending

    assert row.due_at is not None
    assert row.due_at - row.updated_at == LEASE >= timedelta(seconds=45)
    assert (row.internal_status, row.in_doubt, row.attempts) == ("processing", True, 1)


async def test_messages_sent_together_are_each_sent_once(
    client: Client, db: Database, carrier: Sandbox, make_worker: MakeWorker
) -> None:
    for n in range(60):
        await create_message(client, message_body=f"{n % 20} {SILENT}")

    async def work(worker: SendWorker) -> int:
        done = 0
        while worked := await worker.run_once():
            done += worked
        return done

    done = await asyncio.gather(*(work(make_worker(concurrency=7)) for _ in range(4)))

    assert sum(done) == 60
    assert_each_sent_once(await rows(db), await carrier.taken())


class Slow:
    """A carrier in memory that takes a message only when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Event] = []
        self.most_at_once = 0
        self.taken: list[OutboundMessage] = []
        self._at_once = 0

    async def send(self, message: OutboundMessage) -> MessageReport:
        let_go = asyncio.Event()
        self.waiting.append(let_go)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await let_go.wait()
        self._at_once -= 1
        self.taken.append(message)
        return MessageReport(f"SM{message.message_uuid.hex}", "queued", MessageStatus.PROCESSING, 2)

    async def find_copies(self, message: OutboundMessage, *, since: datetime) -> list[MessageReport]:
        return []

    async def fetch(self, message_sid: str) -> MessageReport | None:
        raise AssertionError("a send worker does not ask")

    async def aclose(self) -> None: ...

    def has_waiting(self, number: int) -> bool:
        return len(self.waiting) >= number

    def let_one_go(self) -> None:
        self.waiting.pop(0).set()


@pytest.fixture
async def listening(db: Database, database_url: str) -> AsyncIterator[tuple[SendWorker, Slow]]:
    """A worker of three messages at a time, listening, and its carrier."""
    notifications = Notifications(database_url, db)
    connected = asyncio.Event()
    notifications.on_connect(connected.set)
    slow = Slow()
    worker = SendWorker(db, notifications, {"twilio": slow}, priority="default", concurrency=3)
    task = asyncio.create_task(notifications.run())
    await connected.wait()
    yield worker, slow
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_running_worker_keeps_its_limit_and_stops_cleanly(
    client: Client, db: Database, carrier: Sandbox, listening: tuple[SendWorker, Slow]
) -> None:
    worker, slow = listening
    for _ in range(10):
        await create_message(client)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))

    for _ in range(4):
        await until(lambda: slow.has_waiting(3))
        slow.let_one_go()
    await until(lambda: slow.has_waiting(3))
    stop.set()
    while slow.waiting:
        slow.let_one_go()
    await asyncio.wait_for(running, 5)

    sent = [m for m in await rows(db) if m.message_sid is not None]
    assert slow.most_at_once == 3
    assert len(sent) == len(slow.taken) == 7
    assert {m.attempts for m in await rows(db) if m.message_sid is None} == {0}


async def test_running_worker_is_woken_by_each_create(
    client: Client, carrier: Sandbox, listening: tuple[SendWorker, Slow]
) -> None:
    worker, slow = listening
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))

    began = asyncio.get_running_loop().time()
    for _ in range(10):
        await create_message(client)
        await until(lambda: slow.has_waiting(1))
        slow.let_one_go()
    took = asyncio.get_running_loop().time() - began
    stop.set()
    await asyncio.wait_for(running, 5)

    assert took < 5  # a poll a second would take ten


async def test_worker_outlives_a_failing_claim(
    client: Client,
    db: Database,
    carrier: Sandbox,
    listening: tuple[SendWorker, Slow],
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker, slow = listening
    await db.execute("ALTER TABLE messages RENAME TO messages_away")
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        await until(lambda: "send.claim_failed" in capsys.readouterr().out)
    finally:
        await db.execute("ALTER TABLE messages_away RENAME TO messages")

    await create_message(client)
    await until(lambda: slow.has_waiting(1))
    slow.let_one_go()
    stop.set()
    await asyncio.wait_for(running, 5)

    assert await count(db, "messages WHERE message_sid IS NOT NULL") == 1


async def test_high_priority_does_not_wait_behind_bulk(
    client: Client, db: Database, carrier: Sandbox, listening: tuple[SendWorker, Slow], make_worker: MakeWorker
) -> None:
    bulk, slow = listening
    one = await create_message(client)
    columns = "bearer_id, provider, sender_number, receiver_number, message_body, media_urls, message_type, priority"
    await db.execute(
        f"""INSERT INTO messages ({columns}, message_uuid, internal_status, sequence, due_at)
        SELECT {columns}, gen_random_uuid(), internal_status, 1, due_at FROM messages, generate_series(1, 1000)"""
    )
    stop = asyncio.Event()
    running = asyncio.create_task(bulk.run(stop))
    await until(lambda: slow.has_waiting(3))

    urgent = await create_message(client, priority="high", message_body="urgent")
    assert await make_worker("high").run_once() == 1

    [taken] = await carrier.taken()
    assert taken["body"] == "urgent"
    assert (await row_of(db, urgent)).message_sid == taken["sid"]
    assert (await row_of(db, one)).message_sid is None
    stop.set()
    while slow.waiting:
        slow.let_one_go()
    await asyncio.wait_for(running, 5)


async def test_worker_of_the_default_lane_leaves_the_high_one_alone(
    client: Client, carrier: Sandbox, worker: SendWorker
) -> None:
    await create_message(client, priority="high")

    assert await worker.run_once() == 0


async def test_unmatched_callbacks_are_none_after_all_is_settled(
    client: Client, db: Database, carrier: Sandbox, senders: dict[str, MessageSender], worker: SendWorker
) -> None:
    for n in range(10):
        await create_message(client, message_body=f"{n}")

    await worker.run_once()
    await until_settled(db)

    kept = await kept_callbacks(db)
    assert kept
    assert all(callback["message_id"] is not None for callback in kept)


async def test_claim_that_stood_still_is_left_to_its_successor(
    client: Client, db: Database, carrier: Sandbox, make_worker: MakeWorker
) -> None:
    await create_message(client, message_body=SILENT)
    times = iter([0.0, LEASE.total_seconds()])

    await make_worker(clock=lambda: next(times)).run_once()
    assert not await carrier.taken()
    await step(make_worker(), db)

    assert_each_sent_once(await rows(db), await carrier.taken())
