import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from server.providers.ports import (
    MessageCallback,
    MessageReport,
    MessageStatus,
    ProviderError,
    ProviderFailure,
    ProviderOutcomeUnknown,
    ProviderRejected,
    ProviderUnavailable,
)
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID
from server.providers.twilio.adapter import TwilioMessageSender
from tests.providers.contract import MessageSenderContract, make_message
from tests.providers.servers import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Receiver,
    Sandbox,
    closed_port_url,
    scripted_vendor,
    twilio_account,
)


class TestTwilioAgainstSandbox(MessageSenderContract):
    messaging_service_sid = MESSAGING_SERVICE_SID
    other_sender = "+12065550101"
    refused: ClassVar[dict[str, Any]] = {"sender_number": "+13035550100"}
    refusal = ProviderError("21606", "https://www.twilio.com/docs/api/errors/21606")
    # Of the same length: Twilio keeps texts.
    told_apart = ({"message_body": "School is opened tomorrow"},)

    async def next_callback(self, receiver: Receiver) -> MessageCallback:
        return await receiver.next_callback()


@asynccontextmanager
async def sender_to(
    api_base_url: str, *, auth_token: str = AUTH_TOKEN, public_base_url: str = "https://api.example", **over: Any
) -> AsyncIterator[TwilioMessageSender]:
    account = twilio_account(api_base_url, auth_token=auth_token)
    sender = TwilioMessageSender(account, public_base_url=public_base_url, **over)
    yield sender
    await sender.aclose()


def error_body(code: int) -> str:
    return json.dumps({"code": code, "message": "why", "more_info": f"https://www.twilio.com/docs/errors/{code}"})


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (429, error_body(20429), ProviderUnavailable),
        (429, "Too many requests", ProviderUnavailable),
        (400, error_body(21611), ProviderUnavailable),
        (400, error_body(30001), ProviderUnavailable),
        (503, "<html>", ProviderUnavailable),
        (500, error_body(20500), ProviderOutcomeUnknown),
        (502, "<html>", ProviderOutcomeUnknown),
        (504, "<html>", ProviderOutcomeUnknown),
        (401, error_body(20003), ProviderUnavailable),
        (403, error_body(20003), ProviderUnavailable),
        (403, error_body(30002), ProviderUnavailable),
        (404, error_body(20404), ProviderUnavailable),
        (400, "<html>a proxy's own page</html>", ProviderUnavailable),
        (302, "", ProviderUnavailable),
        (400, error_body(21211), ProviderRejected),
        (400, error_body(21610), ProviderRejected),
        (403, error_body(21408), ProviderRejected),
        (201, "", ProviderOutcomeUnknown),
        (201, "[]", ProviderOutcomeUnknown),
        (201, "{}", ProviderOutcomeUnknown),
        (201, "{", ProviderOutcomeUnknown),
    ],
)
async def test_answer_decides_what_happens_next(status: int, body: str, failure: type[ProviderFailure]) -> None:
    async with scripted_vendor(status, body) as url, sender_to(url) as sender:
        with pytest.raises(failure):
            await sender.send(make_message())


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("3", timedelta(seconds=3)),
        ("0", timedelta(0)),
        ("Mon, 01 Jan 2001 00:00:00 GMT", timedelta(0)),
        ("soon", None),
        ("-1", None),
    ],
)
async def test_retry_after_is_kept_where_it_says_something(header: str, expected: timedelta | None) -> None:
    async with scripted_vendor(429, error_body(20429), {"Retry-After": header}) as url, sender_to(url) as sender:
        with pytest.raises(ProviderUnavailable) as unavailable:
            await sender.send(make_message())

    assert unavailable.value.retry_after == expected


async def test_refused_connection_took_nothing() -> None:
    async with sender_to(closed_port_url()) as sender:
        with pytest.raises(ProviderUnavailable):
            await sender.send(make_message())


async def test_unreachable_carrier_finds_no_copies_for_certain() -> None:
    async with sender_to(closed_port_url()) as sender:
        with pytest.raises(ProviderUnavailable):
            await sender.find_copies(make_message(), since=datetime.now(UTC))


async def test_list_that_is_no_list_is_no_answer() -> None:
    async with scripted_vendor(200, '{"a": 1, "b": 2}') as url, sender_to(url) as sender:
        with pytest.raises(ProviderUnavailable):
            await sender.find_copies(make_message(), since=datetime.now(UTC))


@pytest.mark.parametrize("body", ["", "{}", "[]", "{"])
async def test_answer_without_a_message_says_nothing_of_it(body: str) -> None:
    async with scripted_vendor(200, body) as url, sender_to(url) as sender:
        with pytest.raises(ProviderUnavailable):
            await sender.fetch("SM1")


async def test_wrong_credentials_lose_no_message(sandbox: Sandbox) -> None:
    async with sender_to(sandbox.base_url, auth_token="another") as sender:
        with pytest.raises(ProviderUnavailable):
            await sender.send(make_message())

    assert await sandbox.taken() == []


async def test_answer_that_comes_too_late_is_unknown(sandbox: Sandbox, receiver: Receiver) -> None:
    message, since = make_message(), datetime.now(UTC)
    await sandbox.misbehave(delay_ms=1500, next_requests=1)
    patience = timedelta(seconds=1)
    async with sender_to(sandbox.base_url, public_base_url=receiver.base_url, timeout=patience) as sender:
        with pytest.raises(ProviderOutcomeUnknown):
            await sender.send(message)
        callback = await receiver.next_callback()

    async with sender_to(sandbox.base_url) as sender:
        (copy,) = await sender.find_copies(message, since=since)
    assert callback.message_uuid == message.message_uuid
    assert copy.message_sid == callback.report.message_sid


async def test_copies_on_a_trial_account_are_recognised() -> None:
    recorded = documented_message(body="Sent from your Twilio trial account - hello", num_media="0")
    listing = json.dumps({"messages": [recorded], "next_page_uri": None, "page": 0})
    message = make_message(message_body="hello", sender_number=recorded["from"], receiver_number=recorded["to"])
    async with scripted_vendor(200, listing) as url, sender_to(url) as sender:
        copies = await sender.find_copies(message, since=datetime(2024, 5, 1, tzinfo=UTC))

    assert [copy.message_sid for copy in copies] == [recorded["sid"]]


async def test_documented_answer_is_read() -> None:
    async with scripted_vendor(201, json.dumps(documented_message())) as url, sender_to(url) as sender:
        report = await sender.send(make_message())

    assert report == MessageReport("SM" + "a" * 32, "sent", MessageStatus.SENT, 4)


async def test_documented_failure_in_an_answer_is_read() -> None:
    failed = documented_message(status="failed", error_code=30007, error_message="Carrier violation")
    async with scripted_vendor(201, json.dumps(failed)) as url, sender_to(url) as sender:
        report = await sender.send(make_message())

    assert report.internal_status is MessageStatus.FAILED
    assert report.error == ProviderError("30007", "https://www.twilio.com/docs/api/errors/30007")


def documented_message(**over: Any) -> dict[str, Any]:
    """The Message resource in the shape of Twilio's reference."""
    path = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/SM{'a' * 32}"
    return {
        "account_sid": ACCOUNT_SID,
        "api_version": "2010-04-01",
        "body": "hello",
        "date_created": "Wed, 01 May 2024 10:00:00 +0000",
        "date_sent": "Wed, 01 May 2024 10:00:02 +0000",
        "date_updated": "Wed, 01 May 2024 10:00:02 +0000",
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": "+14155552345",
        "messaging_service_sid": None,
        "num_media": "0",
        "num_segments": "1",
        "price": "-0.00750",
        "price_unit": "USD",
        "sid": "SM" + "a" * 32,
        "status": "sent",
        "subresource_uris": {"media": f"{path}/Media.json"},
        "to": "+14155552346",
        "uri": f"{path}.json",
    } | over
