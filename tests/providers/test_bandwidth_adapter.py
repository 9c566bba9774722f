import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from server.providers.bandwidth.adapter import BandwidthMessageSender
from server.providers.ports import (
    MessageCallback,
    MessageReport,
    MessageStatus,
    OutboundMessage,
    ProviderError,
    ProviderFailure,
    ProviderOutcomeUnknown,
    ProviderRejected,
    ProviderUnavailable,
)
from server.providers.sandbox.settings import BANDWIDTH_APPLICATION_ID
from tests.providers import bandwidth
from tests.providers.bandwidth import NUMBER
from tests.providers.contract import MessageSenderContract, make_message
from tests.providers.servers import (
    Receiver,
    Sandbox,
    closed_port_url,
    running_sandbox,
    scripted_vendor,
)

ERROR_PAGE = "https://dev.bandwidth.com/docs/messaging/errors"
PLAIN: dict[str, Any] = {"sender_number": NUMBER, "messaging_service_sid": BANDWIDTH_APPLICATION_ID}


def plain_message(**over: Any) -> OutboundMessage:
    return make_message(**{**PLAIN, **over})


@asynccontextmanager
async def sender_to(api_base_url: str, **over: Any) -> AsyncIterator[BandwidthMessageSender]:
    made: dict[str, Any] = {
        "account_id": bandwidth.ACCOUNT_ID,
        "credentials": bandwidth.credentials(api_base_url),
        "api_base_url": api_base_url,
    }
    sender = BandwidthMessageSender(**made | over)
    yield sender
    await sender.aclose()


@pytest.fixture
async def sandbox(receiver: Receiver) -> AsyncIterator[Sandbox]:
    receiver.challenge = True
    async with running_sandbox(bandwidth=bandwidth.account(f"{receiver.base_url}/cb")) as running:
        yield running


@pytest.fixture
async def sender(sandbox: Sandbox) -> AsyncIterator[BandwidthMessageSender]:
    async with sender_to(sandbox.base_url) as made:
        yield made


class TestBandwidthAgainstSandbox(MessageSenderContract):
    messaging_service_sid = BANDWIDTH_APPLICATION_ID
    plain = PLAIN
    other_sender = "+13035550101"
    # Whatever is a message is taken; that it may not be sent from this number is told by callback.
    refused: ClassVar[dict[str, Any]] = {"sender_number": "+12"}
    refusal = ProviderError("request-validation", ERROR_PAGE)
    # Bandwidth keeps no texts.
    told_apart = ()

    async def next_callback(self, receiver: Receiver) -> MessageCallback:
        return await bandwidth.next_callback(receiver)


async def test_another_text_of_the_same_length_looks_like_a_copy(sender: BandwidthMessageSender) -> None:
    """What Bandwidth does not keep cannot be compared: a callback's tag, not the list, says whose a copy is."""
    message, since = plain_message(message_body="Bring a coat"), datetime.now(UTC)
    other = await sender.send(replace(message, message_body="Bring a book"))

    copies = await sender.find_copies(message, since=since)

    assert [copy.message_sid for copy in copies] == [other.message_sid]


@pytest.mark.parametrize("text", ["😀 ü", "a" * 400])
async def test_copy_is_known_by_the_length_of_its_text_in_any_unit(text: str) -> None:
    message = plain_message(message_body=text)
    for length in {len(text), len(text.encode("utf-16-le")) // 2, len(text.encode())}:
        listing = {"messages": [documented_item(messageLength=length, messageStatus="SENT")]}
        assert [copy.rank for copy in await copies_in(listing, message)] == [4]
    assert await copies_in({"messages": [documented_item(messageLength=len(text) + 10)]}, message) == []


@pytest.mark.parametrize(
    ("over", "is_copy"),
    [
        ({}, True),
        ({"attachmentCount": 3}, True),
        ({"attachmentCount": None, "messageLength": None}, True),
        ({"attachmentCount": 0}, False),
        ({"messageType": "sms"}, False),
        ({"messageDirection": "INBOUND"}, False),
        ({"sourceTn": "+13035550101"}, False),
    ],
)
async def test_what_the_list_does_not_say_is_not_held_against_a_copy(over: dict[str, Any], is_copy: bool) -> None:
    message = plain_message(message_body="hello", media_urls=("https://media.example/1.jpg",))
    item = documented_item(messageType="mms", attachmentCount=1, messageLength=5)

    assert len(await copies_in({"messages": [item | over]}, message)) == is_copy


async def copies_in(listing: dict[str, Any], message: OutboundMessage) -> list[MessageReport]:
    async with scripted_vendor(200, json.dumps(listing)) as url, sender_to(url) as sender:
        return await sender.find_copies(message, since=datetime(2020, 4, 7, tzinfo=UTC))


async def test_priority_and_tag_go_with_a_message(sender: BandwidthMessageSender, sandbox: Sandbox) -> None:
    message = plain_message(priority="high")

    await sender.send(message)
    await sender.send(plain_message(priority="high", media_urls=("https://media.example/1.jpg",)))

    asked = (await sandbox.control("GET", "requests", params={"path": "/messages"}))["requests"]
    text, picture = [dict(each["form"]) for each in asked]
    assert (text["priority"], text["tag"]) == ("high", str(message.message_uuid))
    assert "priority" not in picture


async def test_message_without_an_application_is_refused(sender: BandwidthMessageSender) -> None:
    with pytest.raises(ProviderRejected) as rejected:
        await sender.send(plain_message(messaging_service_sid=None))

    assert rejected.value.error.code == "request-validation"


async def test_number_of_somebody_else_fails_by_callback(sender: BandwidthMessageSender, receiver: Receiver) -> None:
    await sender.send(plain_message(sender_number="+12065550100"))

    callback = await bandwidth.next_callback(receiver)

    assert callback.report.internal_status is MessageStatus.FAILED
    assert callback.report.error == ProviderError("4403", ERROR_PAGE)


async def test_opted_out_receiver_is_known_as_one(
    sender: BandwidthMessageSender, sandbox: Sandbox, receiver: Receiver
) -> None:
    await sandbox.control("PUT", "handsets/+14155550123", json={"opted_out": True})
    sent = await sender.send(plain_message())
    callbacks = [await bandwidth.next_callback(receiver) for _ in range(2)]

    fetched = await sender.fetch(sent.message_sid)

    assert [callback.report.provider_status for callback in callbacks] == ["message-sent", "message-failed"]
    assert callbacks[-1].report.error == ProviderError("4775", ERROR_PAGE, recipient_opted_out=True)
    assert fetched is not None
    assert (fetched.internal_status, fetched.error) == (MessageStatus.FAILED, callbacks[-1].report.error)


async def test_picture_is_told_when_it_is_sending(sender: BandwidthMessageSender, receiver: Receiver) -> None:
    await sender.send(plain_message(media_urls=("https://media.example/1.jpg",)))

    assert await bandwidth.next_statuses(receiver, 3) == ["message-sending", "message-sent", "message-delivered"]


async def test_message_is_fetched_as_it_is_now(sender: BandwidthMessageSender, receiver: Receiver) -> None:
    sent = await sender.send(plain_message())
    await bandwidth.next_statuses(receiver, 2)

    fetched = await sender.fetch(sent.message_sid)

    assert fetched == MessageReport(sent.message_sid, "message-delivered", MessageStatus.DELIVERED, 5)
    assert await sender.fetch("1589228074636lm4k2je7j7jklbn2") is None


@pytest.mark.parametrize("answer", ["429", "500", "502", "503", "garbled", "lost-response"])
async def test_fetching_in_vain_is_not_finding_nothing(
    sender: BandwidthMessageSender, sandbox: Sandbox, answer: str
) -> None:
    await sandbox.misbehave(answer=answer)

    with pytest.raises(ProviderUnavailable):
        await sender.fetch("1589228074636lm4k2je7j7jklbn2")


def error_body(kind: str) -> str:
    return json.dumps({"type": kind, "description": "why"})


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (429, error_body("max-message-queue-size-exceeded"), ProviderUnavailable),
        (429, "Too many requests", ProviderUnavailable),
        (503, "<html>", ProviderUnavailable),
        (500, error_body("internal-server-error"), ProviderOutcomeUnknown),
        (502, "<html>", ProviderOutcomeUnknown),
        (504, "<html>", ProviderOutcomeUnknown),
        (401, error_body("unauthorized"), ProviderUnavailable),
        (403, error_body("forbidden"), ProviderUnavailable),
        (404, json.dumps({"status": 404, "error": "Not Found"}), ProviderUnavailable),
        (415, error_body("unsupported-content-type"), ProviderUnavailable),
        (400, "<html>a proxy's own page</html>", ProviderUnavailable),
        (400, json.dumps({"type": 7}), ProviderUnavailable),
        (302, "", ProviderUnavailable),
        (400, error_body("request-validation"), ProviderRejected),
        (422, error_body("request-validation"), ProviderRejected),
        (202, "", ProviderOutcomeUnknown),
        (202, "[]", ProviderOutcomeUnknown),
        (202, "{}", ProviderOutcomeUnknown),
        (202, '{"id": 7}', ProviderOutcomeUnknown),
        (202, "{", ProviderOutcomeUnknown),
    ],
)
async def test_answer_decides_what_happens_next(status: int, body: str, failure: type[ProviderFailure]) -> None:
    async with scripted_vendor(status, body) as url, sender_to(url) as sender:
        with pytest.raises(failure):
            await sender.send(plain_message())


async def test_retry_after_is_kept() -> None:
    async with scripted_vendor(429, "", {"Retry-After": "3"}) as url, sender_to(url) as sender:
        with pytest.raises(ProviderUnavailable) as unavailable:
            await sender.send(plain_message())

    assert unavailable.value.retry_after == timedelta(seconds=3)


async def test_refused_connection_took_nothing(sandbox: Sandbox) -> None:
    async with sender_to(closed_port_url(), credentials=bandwidth.credentials(sandbox.base_url)) as sender:
        with pytest.raises(ProviderUnavailable):
            await sender.send(plain_message())


async def test_unreachable_token_endpoint_took_nothing() -> None:
    async with sender_to(closed_port_url()) as sender:
        with pytest.raises(ProviderUnavailable):
            await sender.send(plain_message())
        with pytest.raises(ProviderUnavailable):
            await sender.find_copies(plain_message(), since=datetime.now(UTC))


@pytest.mark.parametrize(
    "listing", ["{}", '{"messages": 1}', '{"messages": [1]}', '{"messages": [{"messageId": "1"}]}', "[]"]
)
async def test_list_that_is_no_list_is_no_answer(listing: str) -> None:
    async with scripted_vendor(200, listing) as url, sender_to(url) as sender:
        with pytest.raises(ProviderUnavailable):
            await sender.find_copies(plain_message(), since=datetime.now(UTC))


async def test_wrong_credentials_lose_no_message(sandbox: Sandbox) -> None:
    secret = bandwidth.credentials(sandbox.base_url, client_secret="another")
    for wrong in ({"credentials": secret}, {"account_id": "5500000"}):
        async with sender_to(sandbox.base_url, **wrong) as sender:
            with pytest.raises(ProviderUnavailable):
                await sender.send(plain_message())

    assert await sandbox.taken() == []


async def test_token_that_ended_is_replaced_and_nothing_is_sent_twice(receiver: Receiver) -> None:
    receiver.challenge = True
    later = timedelta(0)
    account = bandwidth.account(f"{receiver.base_url}/cb")
    async with (
        running_sandbox(bandwidth=account, now=lambda: datetime.now(UTC) + later) as sandbox,
        sender_to(sandbox.base_url) as sender,
    ):
        await sender.send(plain_message())
        later = timedelta(hours=2)
        reports = await asyncio.gather(*(sender.send(plain_message()) for _ in range(10)))
        tokens = (await sandbox.control("GET", "requests", params={"path": "/token"}))["requests"]
        taken = await sandbox.taken()

    assert len(tokens) == 2
    assert len(taken) == 11
    assert {report.message_sid for report in reports} < {message["sid"] for message in taken}


async def test_answer_that_comes_too_late_is_unknown(sandbox: Sandbox, receiver: Receiver) -> None:
    message, since = plain_message(), datetime.now(UTC)
    await sandbox.misbehave(delay_ms=1500, next_requests=1)
    async with sender_to(sandbox.base_url, timeout=timedelta(seconds=1)) as sender:
        with pytest.raises(ProviderOutcomeUnknown):
            await sender.send(message)
        callback = await bandwidth.next_callback(receiver)

    async with sender_to(sandbox.base_url) as sender:
        (copy,) = await sender.find_copies(message, since=since)
    assert callback.message_uuid == message.message_uuid
    assert copy.message_sid == callback.report.message_sid


async def test_documented_answers_are_read() -> None:
    created = {"id": "14762070468292kw2fuqty55yp2b2", "to": ["+12345678902"], "direction": "out", "segmentCount": 1}
    async with scripted_vendor(202, json.dumps(created)) as url, sender_to(url) as sender:
        report = await sender.send(plain_message())
    listing = {"totalCount": 1, "pageInfo": {}, "messages": [documented_item()]}
    async with scripted_vendor(200, json.dumps(listing)) as url, sender_to(url) as sender:
        fetched = await sender.fetch("1589228074636lm4k2je7j7jklbn2")

    assert report == MessageReport("14762070468292kw2fuqty55yp2b2", "ACCEPTED", MessageStatus.PROCESSING, 1)
    assert fetched == MessageReport("1589228074636lm4k2je7j7jklbn2", "message-delivered", MessageStatus.DELIVERED, 5)


def documented_item(**over: Any) -> dict[str, Any]:
    """A message of the list in the shape of Bandwidth's reference, between the numbers of `plain_message`."""
    return {
        "messageId": "1589228074636lm4k2je7j7jklbn2",
        "accountId": "12345",
        "sourceTn": NUMBER,
        "destinationTn": "+14155550123",
        "messageStatus": "DELIVERED",
        "messageDirection": "OUTBOUND",
        "messageType": "sms",
        "segmentCount": 1,
        "errorCode": 0,
        "receiveTime": "2020-04-07T14:03:07.000Z",
        "carrierName": "other",
        "messageSize": 27,
        "messageLength": 18,
        "attachmentCount": 1,
        "recipientCount": 1,
        "campaignClass": "T",
    } | over
