import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest

from server.providers.sandbox.settings import MESSAGING_SERVICE_SID
from tests.providers.servers import (
    ACCOUNT_SID,
    PATIENCE,
    Received,
    Receiver,
    Sandbox,
    closed_port_url,
    running_receiver,
)


def fields(received: Received) -> dict[str, str]:
    return dict(parse_qsl(received.body.decode(), keep_blank_values=True))


async def test_without_a_service_it_is_sent_then_delivered(sandbox: Sandbox, receiver: Receiver) -> None:
    _, created = await sandbox.create(StatusCallback=f"{receiver.base_url}/cb")

    assert created["status"] == "queued"
    assert await receiver.next_statuses(2) == ["sent", "delivered"]


async def test_with_a_service_it_is_queued_first(sandbox: Sandbox, receiver: Receiver) -> None:
    _, created = await sandbox.create(
        StatusCallback=f"{receiver.base_url}/cb", MessagingServiceSid=MESSAGING_SERVICE_SID, From=None
    )

    assert (created["status"], created["from"], created["num_segments"]) == ("accepted", None, "0")
    assert await receiver.next_statuses(3) == ["queued", "sent", "delivered"]


async def test_service_keeps_one_sender_for_one_receiver(sandbox: Sandbox, receiver: Receiver) -> None:
    asked = {"StatusCallback": f"{receiver.base_url}/cb", "MessagingServiceSid": MESSAGING_SERVICE_SID, "From": None}
    for _ in range(2):
        await sandbox.create(**asked)

    senders = {fields(await receiver.next())["From"] for _ in range(6)}

    assert len(senders) == 1


async def test_callback_holds_every_field_the_vendor_sends(sandbox: Sandbox, receiver: Receiver) -> None:
    url = f"{receiver.base_url}/cb?a=%20b&c=%C3%BC#rc=2"
    _, created = await sandbox.create(StatusCallback=url, MessagingServiceSid=MESSAGING_SERVICE_SID)

    queued, _, delivered = [await receiver.next() for _ in range(3)]

    common = {
        "AccountSid": ACCOUNT_SID,
        "ApiVersion": "2010-04-01",
        "From": "+12065550100",
        "MessageSid": created["sid"],
        "MessagingServiceSid": MESSAGING_SERVICE_SID,
        "SmsSid": created["sid"],
        "To": "+14155550123",
    }
    assert fields(queued) == common | {"MessageStatus": "queued", "SmsStatus": "queued"}
    done = fields(delivered).pop("RawDlrDoneDate")
    assert datetime.strptime(done, "%y%m%d%H%M").year >= 2024  # noqa: DTZ007 # the vendor sends no zone
    assert queued.url == f"{receiver.base_url}/cb?a=%20b&c=%C3%BC"
    assert queued.headers["Content-Type"] == "application/x-www-form-urlencoded; charset=UTF-8"
    assert queued.headers["I-Twilio-Idempotency-Token"] != delivered.headers["I-Twilio-Idempotency-Token"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[sandbox:undelivered=30003]", ["sent", "undelivered"]),
        ("[sandbox:failed=30007]", ["failed"]),
    ],
)
async def test_failed_delivery_carries_its_code(
    sandbox: Sandbox, receiver: Receiver, body: str, expected: list[str]
) -> None:
    _, created = await sandbox.create(StatusCallback=f"{receiver.base_url}/cb", Body=body)

    callbacks = [await receiver.next_callback() for _ in expected]

    assert [callback.report.provider_status for callback in callbacks] == expected
    assert callbacks[-1].report.error is not None
    assert callbacks[-1].report.error.code in body
    _, fetched = await sandbox.rest("GET", created["uri"])
    assert str(fetched["error_code"]) == callbacks[-1].report.error.code


async def test_unreachable_handset_ends_undelivered(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.control("PUT", "handsets/+14155550123", json={"delivery_error": 30005})

    await sandbox.create(StatusCallback=f"{receiver.base_url}/cb")

    assert await receiver.next_statuses(2) == ["sent", "undelivered"]


async def test_duplicated_callbacks_come_twice_under_one_token(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.create(StatusCallback=f"{receiver.base_url}/cb", Body="[sandbox:callbacks=duplicated]")

    received = [await receiver.next() for _ in range(4)]

    assert [fields(each)["MessageStatus"] for each in received] == ["sent", "sent", "delivered", "delivered"]
    assert len({each.headers["I-Twilio-Idempotency-Token"] for each in received}) == 2


async def test_reordered_callbacks_come_last_first(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.create(
        StatusCallback=f"{receiver.base_url}/cb",
        MessagingServiceSid=MESSAGING_SERVICE_SID,
        Body="[sandbox:callbacks=reordered]",
    )

    assert await receiver.next_statuses(3) == ["delivered", "sent", "queued"]


async def test_missing_callbacks_never_come_though_it_is_delivered(sandbox: Sandbox, receiver: Receiver) -> None:
    url = f"{receiver.base_url}/cb"
    await sandbox.create(StatusCallback=url, Body="[sandbox:callbacks=missing]", To="+14155550001")
    await sandbox.create(StatusCallback=url, To="+14155550002")

    received = [fields(await receiver.next())["To"] for _ in range(2)]

    assert received == ["+14155550002"] * 2
    assert [taken["status"] for taken in await sandbox.taken()] == ["delivered", "delivered"]


async def test_callbacks_misbehave_for_everybody_when_told(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.misbehave(callbacks="reordered", next_requests=1)

    await sandbox.create(StatusCallback=f"{receiver.base_url}/first")
    assert await receiver.next_statuses(2) == ["delivered", "sent"]

    await sandbox.create(StatusCallback=f"{receiver.base_url}/second")
    assert await receiver.next_statuses(2) == ["sent", "delivered"]


async def test_failed_callback_is_not_repeated_by_default(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.statuses = [500, 200]

    await sandbox.create(StatusCallback=f"{receiver.base_url}/cb")

    assert await receiver.next_statuses(2) == ["sent", "delivered"]


@pytest.mark.parametrize(
    ("fragment", "answers", "tries"),
    [
        ("rc=3&rp=5xx", [500, 503, 200], 3),
        ("rc=1&rp=5xx", [500, 500], 2),
        ("rc=5&rp=all", [404, 500, 200], 3),
        ("rc=5&rp=4xx,rt", [429, 500], 2),
        ("rc=9&rp=4xx", [400] * 6, 6),
        ("rc=many&rp=4xx", [400] * 2, 2),
    ],
)
async def test_fragment_of_the_url_says_what_is_repeated(
    sandbox: Sandbox, receiver: Receiver, fragment: str, answers: list[int], tries: int
) -> None:
    receiver.statuses = list(answers)

    await sandbox.create(StatusCallback=f"{receiver.base_url}/cb#{fragment}")

    received = [await receiver.next() for _ in range(tries + 1)]
    assert [fields(each)["MessageStatus"] for each in received] == ["sent"] * tries + ["delivered"]
    assert len({each.headers["I-Twilio-Idempotency-Token"] for each in received[:tries]}) == 1
    assert len({each.headers["X-Twilio-Signature"] for each in received[:tries]}) == 1


async def test_unreachable_receiver_does_not_stop_the_message(sandbox: Sandbox) -> None:
    _, created = await sandbox.create(StatusCallback=closed_port_url())

    async with asyncio.timeout(PATIENCE):
        while created["status"] != "delivered":
            _, created = await sandbox.rest("GET", created["uri"])


async def test_credentials_of_the_url_are_sent_only_when_asked_for(sandbox: Sandbox) -> None:
    async with running_receiver() as receiver:
        receiver.challenge = True
        url = receiver.base_url.replace("http://", "http://user:secret@")

        await sandbox.create(StatusCallback=f"{url}/cb")

        first, second, *_ = [await receiver.next() for _ in range(4)]
        assert "Authorization" not in first.headers
        assert second.headers["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
        assert second.url == f"{receiver.base_url}/cb"


async def test_canceled_scheduled_message_reports_so(sandbox: Sandbox, receiver: Receiver) -> None:
    send_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    asked: dict[str, Any] = {"ScheduleType": "fixed", "SendAt": send_at, "From": None}
    _, created = await sandbox.create(
        StatusCallback=f"{receiver.base_url}/cb", MessagingServiceSid=MESSAGING_SERVICE_SID, **asked
    )
    assert created["status"] == "scheduled"

    status, canceled = await sandbox.rest("POST", created["uri"], data={"Status": "canceled"})

    assert (status, canceled["status"]) == (200, "canceled")
    assert (await receiver.next_callback()).report.provider_status == "canceled"
