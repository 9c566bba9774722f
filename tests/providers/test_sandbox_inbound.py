"""Texts from phones: the webhook as Twilio posts it, what its answer may ask for, and what Twilio then shows."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from twilio.request_validator import RequestValidator

from server.providers.sandbox.carrier import phone_number_sid
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID
from server.providers.twilio.client import Refusal, TwilioClient
from tests.providers.servers import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    PATIENCE,
    Received,
    Receiver,
    Sandbox,
    closed_port_url,
    running_sandbox,
)
from tests.providers.test_sandbox_resources import fits
from tests.providers.test_twilio_adapter import documented_message

NUMBER_SID = phone_number_sid("+12065550100")
PNG = {"content_type": "image/png", "data": "iVBORw0KGgo="}


@pytest.fixture
async def sandbox(receiver: Receiver) -> AsyncIterator[Sandbox]:
    """A sandbox that tells the receiver of every text."""
    async with running_sandbox(inbound_url=f"{receiver.base_url}/inbound") as running:
        yield running


def fields(received: Received) -> dict[str, str]:
    return dict(parse_qsl(received.body.decode(), keep_blank_values=True))


async def until_taken(sandbox: Sandbox, count: int, **filters: str) -> list[dict[str, Any]]:
    """The messages taken, once there are so many and all have come to their end."""
    async with asyncio.timeout(PATIENCE):
        while True:
            taken = await sandbox.taken(**filters)
            if len(taken) >= count and all(each["status"] in ("delivered", "received") for each in taken):
                return taken


async def test_webhook_holds_every_field_the_vendor_sends(sandbox: Sandbox, receiver: Receiver) -> None:
    sent = await sandbox.text(body="Grüße & more")

    received = await receiver.next()
    sid = sent["message"]["sid"]
    assert sid.startswith("SM")
    assert fields(received) == {
        "AccountSid": ACCOUNT_SID,
        "AddOns": '{"status":"successful","message":null,"code":null,"results":{}}',
        "ApiVersion": "2010-04-01",
        "Body": "Grüße & more",
        "From": "+14155550123",
        "FromCity": "",
        "FromCountry": "US",
        "FromState": "",
        "FromZip": "",
        "MessageSid": sid,
        "MessagingServiceSid": MESSAGING_SERVICE_SID,
        "NumMedia": "0",
        "NumSegments": "1",
        "SmsMessageSid": sid,
        "SmsSid": sid,
        "SmsStatus": "received",
        "To": "+12065550100",
        "ToCity": "",
        "ToCountry": "US",
        "ToState": "",
        "ToZip": "",
    }
    assert received.url == f"{receiver.base_url}/inbound"
    assert received.headers["I-Twilio-Idempotency-Token"]
    signature = received.headers["X-Twilio-Signature"]
    assert RequestValidator(AUTH_TOKEN).validate(received.url, fields(received), signature)


async def test_media_are_named_one_by_one(sandbox: Sandbox, receiver: Receiver) -> None:
    sent = await sandbox.text(body="", media=[PNG, {"content_type": "text/x-vcard; charset=utf-8", "data": "QQ=="}])

    told = fields(await receiver.next())
    assert sent["message"]["sid"].startswith("MM")
    assert (told["NumMedia"], told["NumSegments"], told["Body"]) == ("2", "1", "")
    assert (told["MediaContentType0"], told["MediaContentType1"]) == ("image/png", "text/x-vcard; charset=utf-8")
    assert [told["MediaUrl0"], told["MediaUrl1"]] == sent["message"]["media_urls"]


@pytest.mark.parametrize(
    ("body", "segments"), [("a" * 161, "2"), ("ж" * 71, "2"), ("[" * 80, "1"), ("[" * 81, "2"), ("", "1")]
)
async def test_segments_are_counted(sandbox: Sandbox, receiver: Receiver, body: str, segments: str) -> None:
    await sandbox.text(body=body)

    assert fields(await receiver.next())["NumSegments"] == segments


@pytest.mark.parametrize("sender", ["+442079460123", "28581", "VERIZON"])
async def test_whatever_a_network_shows_as_sender_may_text(sandbox: Sandbox, receiver: Receiver, sender: str) -> None:
    await sandbox.text(from_=sender)

    told = fields(await receiver.next())
    assert (told["From"], told["FromCountry"], told["ToCountry"]) == (sender, "", "US")
    assert len(await sandbox.taken(**{"from": sender})) == 1


async def test_number_outside_of_services_names_none(
    sandbox: Sandbox, receiver: Receiver, twilio: TwilioClient
) -> None:
    await twilio.messaging.v1.services(MESSAGING_SERVICE_SID).phone_numbers(NUMBER_SID).delete_async()

    sent = await sandbox.text()

    assert "MessagingServiceSid" not in fields(await receiver.next())
    assert sent["message"]["messaging_service_sid"] is None


async def test_text_is_told_with_its_answer(sandbox: Sandbox, receiver: Receiver) -> None:
    sent = await sandbox.text()

    (taken,) = await sandbox.taken(direction="inbound")
    assert sent["message"] | {"callbacks_due": []} == taken
    assert (taken["status"], taken["from"], taken["by_carrier"]) == ("received", "+14155550123", False)
    url = f"{receiver.base_url}/inbound"
    assert sent["webhook"] == {"url": url, "answers": [{"status": 200, "failure": None, "problem": None}]}


async def test_messages_are_found_by_either_phone_and_by_time(sandbox: Sandbox) -> None:
    first = (await sandbox.text())["message"]
    await sandbox.create()
    await sandbox.text(from_="+14155550124")

    assert len(await sandbox.taken(phone="+14155550123")) == 2
    assert len(await sandbox.taken(updated_since=str(first["updated"]))) == 3
    assert await sandbox.taken(updated_since=str(first["updated"] + 1000)) == []
    refused = await sandbox.control("GET", "messages?updated_since=noon", expect=400)
    assert [error["field"] for error in refused["errors"]] == ["updated_since"]


async def test_sdk_reads_an_inbound_message(sandbox: Sandbox, twilio: TwilioClient) -> None:
    sid = (await sandbox.text(media=[PNG]))["message"]["sid"]
    await sandbox.create()

    (listed,) = await twilio.messages.list_async(to="+12065550100")
    fetched = await twilio.messages(sid).fetch_async()

    assert (listed.sid, listed.direction, listed.status) == (sid, "inbound", "received")
    assert (fetched.from_, fetched.body, fetched.num_media) == ("+14155550123", "hello", "1")
    assert fetched.date_sent is not None
    _, resource = await sandbox.rest("GET", f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{sid}.json")
    assert fits(resource, documented_message())


async def test_inbound_message_is_redacted_then_deleted(sandbox: Sandbox, twilio: TwilioClient) -> None:
    sid = (await sandbox.text())["message"]["sid"]

    assert (await twilio.messages(sid).update_async(body="")).body == ""
    assert await twilio.messages(sid).delete_async()
    with pytest.raises(Refusal, match="20404"):
        await twilio.messages(sid).fetch_async()


@pytest.mark.parametrize(
    ("told", "times"),
    [({"times": 3}, 3), ({"body": "[sandbox:callbacks=duplicated]"}, 2), ({"body": "[sandbox:callbacks=missing]"}, 0)],
)
async def test_account_is_told_as_often_as_asked(
    sandbox: Sandbox, receiver: Receiver, told: dict[str, Any], times: int
) -> None:
    sent = await sandbox.text(**told)

    received = [receiver.requests.get_nowait() for _ in range(receiver.requests.qsize())]
    assert len(received) == len(sent["webhook"]["answers"]) == times
    assert {fields(each)["MessageSid"] for each in received} <= {sent["message"]["sid"]}
    assert len({each.headers["I-Twilio-Idempotency-Token"] for each in received}) == min(times, 1)


async def test_callbacks_duplicated_for_everybody_count_here_too(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.misbehave(callbacks="duplicated")

    await sandbox.text()

    assert receiver.requests.qsize() == 2


@pytest.mark.parametrize(
    ("fragment", "answers", "tries", "failure"),
    [
        ("", [503], 1, "5xx"),
        ("#rc=2&rp=all", [503, 404, 200], 3, None),
        ("#rc=2&rp=5xx", [503, 404], 2, "4xx"),
    ],
)
async def test_webhook_is_repeated_as_its_url_says(
    sandbox: Sandbox, receiver: Receiver, fragment: str, answers: list[int], tries: int, failure: str | None
) -> None:
    await sandbox.rest(
        "POST",
        f"/v1/Services/{MESSAGING_SERVICE_SID}",
        data={"InboundRequestUrl": f"{receiver.base_url}/other{fragment}"},
    )
    receiver.statuses = list(answers)

    sent = await sandbox.text()

    received = [receiver.requests.get_nowait() for _ in range(receiver.requests.qsize())]
    assert len(received) == tries
    assert {each.url for each in received} == {f"{receiver.base_url}/other"}
    assert len({each.headers["I-Twilio-Idempotency-Token"] for each in received}) == 1
    assert sent["webhook"]["answers"] == [{"status": answers[-1], "failure": failure, "problem": None}]


async def test_unreachable_server_is_told(twilio: TwilioClient, sandbox: Sandbox) -> None:
    service = twilio.messaging.v1.services(MESSAGING_SERVICE_SID)
    await service.update_async(inbound_request_url=closed_port_url())

    sent = await sandbox.text()

    assert sent["webhook"]["answers"] == [{"status": None, "failure": "ct", "problem": None}]
    assert len(await sandbox.taken(direction="inbound")) == 1


@pytest.mark.parametrize("content_type", ["text/xml", "application/xml"])
async def test_twiml_message_goes_back_to_the_phone(
    sandbox: Sandbox, receiver: Receiver, twilio: TwilioClient, content_type: str
) -> None:
    receiver.answer = (content_type, "<Response><Message>Thank you</Message></Response>")

    await sandbox.text()

    (reply,) = await until_taken(sandbox, 1, direction="outbound-reply")
    assert (reply["from"], reply["to"], reply["body"]) == ("+12065550100", "+14155550123", "Thank you")
    assert reply["messaging_service_sid"] == MESSAGING_SERVICE_SID
    assert (await twilio.messages(reply["sid"]).fetch_async()).direction == "outbound-reply"


@pytest.mark.parametrize(("status", "body"), [(200, "<Response/>"), (200, ""), (204, "")])
async def test_answer_without_a_message_sends_nothing(
    sandbox: Sandbox, receiver: Receiver, status: int, body: str
) -> None:
    receiver.answer, receiver.statuses = ("text/xml", body), [status]

    sent = await sandbox.text()

    assert sent["webhook"]["answers"] == [{"status": status, "failure": None, "problem": None}]
    assert [taken["direction"] for taken in await sandbox.taken()] == ["inbound"]


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/json", "{}", "12300"),
        ("text/xml", "<Response>", "12100"),
        ("text/xml", "<Response><Message>" + "x" * 1601 + "</Message></Response>", "21617"),
    ],
)
async def test_answer_that_means_nothing_is_told(
    sandbox: Sandbox, receiver: Receiver, content_type: str, body: str, code: str
) -> None:
    receiver.answer = (content_type, body)

    sent = await sandbox.text()

    (answer,) = sent["webhook"]["answers"]
    assert (answer["status"], answer["failure"]) == (200, None)
    assert answer["problem"].startswith(f"{code}: ")
    assert len(await sandbox.taken()) == 1


async def test_every_bad_field_of_a_text_is_named_at_once(sandbox: Sandbox) -> None:
    bad: dict[str, Any] = {
        "from_": "nobody at all, surely",
        "to": "+13035550100",
        "body": "x" * 1601,
        "media": [{"content_type": "png", "data": "?"}, 7],
        "times": 11,
        "colour": "red",
    }

    refused = await sandbox.text(**bad, expect=400)

    assert [error["field"] for error in refused["errors"]] == [
        "times",
        "from",
        "to",
        "body",
        "media[0].content_type",
        "media[0].data",
        "media[1].content_type",
        "media[1].data",
        "colour",
    ]
    assert await sandbox.taken() == []


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"from_": None}, "from"),
        ({"to": ""}, "to"),
        ({"to": ["+12065550100"]}, "to"),
        ({"media": [PNG] * 11}, "media"),
        ({"body": "[sandbox:explode]"}, "body"),
    ],
)
async def test_impossible_text_is_refused(sandbox: Sandbox, over: dict[str, Any], field: str) -> None:
    refused = await sandbox.text(**over, expect=400)

    assert [error["field"] for error in refused["errors"]] == [field]


async def test_restarted_carrier_tells_what_was_not_told_yet(tmp_path: Path, receiver: Receiver) -> None:
    async with running_sandbox(data_dir=tmp_path, inbound_url=f"{receiver.base_url}/inbound") as sandbox:
        sent = await sandbox.text(media=[PNG])
        before = await receiver.next()
    lines = (tmp_path / "journal").read_text().splitlines(keepends=True)
    before_the_answer = max(n for n, line in enumerate(lines) if '"callbacks_due":[]' in line)
    (tmp_path / "journal").write_text("".join(lines[:before_the_answer]))

    async with running_sandbox(data_dir=tmp_path) as sandbox:
        again = await receiver.next()

    assert fields(again) == fields(before)
    assert fields(again)["MessageSid"] == sent["message"]["sid"]


async def test_journal_from_before_inbound_messages_is_read(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text(
        '["messages","SM1",{"sid":"SM1","to":"+14155550123","from_":"+12065550100","body":"b","media_urls":[],'
        '"messaging_service_sid":null,"status_callback":null,"status":"delivered","created":1,"updated":1,'
        '"send_at":null,"callbacks":"in-order","final_status":"delivered","final_error":null,"sent":1,'
        '"error_code":null,"callbacks_due":[]}]\n'
        f'["services","{MESSAGING_SERVICE_SID}",{{"sid":"{MESSAGING_SERVICE_SID}","friendly_name":"local",'
        f'"created":1,"number_sids":["{NUMBER_SID}"]}}]\n'
    )

    async with running_sandbox(data_dir=tmp_path, inbound_url="http://127.0.0.1:1/in") as sandbox:
        assert [taken["direction"] for taken in await sandbox.taken()] == ["outbound-api"]
        assert (await sandbox.text())["webhook"]["url"] == "http://127.0.0.1:1/in"
