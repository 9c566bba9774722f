import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from server.providers.ports import InboundMedia, InboundMessage, MessageCallback
from server.providers.sandbox.settings import (
    BANDWIDTH_APPLICATION_ID,
    BANDWIDTH_NUMBERS,
    BANDWIDTH_TOKEN_PATH,
    MESSAGING_SERVICE_SID,
)
from tests.providers import bandwidth
from tests.providers.bandwidth import MESSAGES, NUMBER, create, listed
from tests.providers.servers import Receiver, Sandbox, closed_port_url, running_sandbox

PHONE = "+14155550123"


def running(receiver: Receiver, **over: Any) -> AbstractAsyncContextManager[Sandbox]:
    return running_sandbox(bandwidth=bandwidth.account(f"{receiver.base_url}/cb"), **over)


@pytest.fixture
async def sandbox(receiver: Receiver) -> AsyncIterator[Sandbox]:
    receiver.challenge = True
    async with running(receiver) as made:
        yield made


async def test_message_is_accepted_sent_and_delivered(sandbox: Sandbox, receiver: Receiver) -> None:
    status, created = await create(sandbox, tag="ours", priority="high")

    assert status == 202
    assert (created["owner"], created["to"], created["from"], created["text"]) == (NUMBER, [PHONE], NUMBER, "hello")
    assert (created["direction"], created["segmentCount"], created["tag"]) == ("out", 1, "ours")
    assert (created["applicationId"], created["priority"]) == (BANDWIDTH_APPLICATION_ID, "high")
    assert await bandwidth.next_statuses(receiver, 2) == ["message-sent", "message-delivered"]


async def test_callback_is_an_array_without_the_text(sandbox: Sandbox, receiver: Receiver) -> None:
    _, created = await create(sandbox, tag="ours")

    received = await bandwidth.next_post(receiver)

    (event,) = json.loads(received.body)
    assert set(event) == {"time", "type", "to", "description", "message"}
    del created["priority"]
    assert event["message"] == {**created, "text": "", "tag": "ours"}
    assert received.headers["Content-Type"] == "application/json; charset=utf-8"
    assert received.headers["User-Agent"] == "BandwidthAPI/v2"


async def test_credentials_are_given_only_when_asked_for(sandbox: Sandbox, receiver: Receiver) -> None:
    await create(sandbox)

    first, second = [await receiver.next() for _ in range(2)]

    assert "Authorization" not in first.headers
    assert second.headers["Authorization"] == aiohttp.encode_basic_auth("callbacks", "another-password")
    assert first.body == second.body


async def test_callback_is_posted_until_it_is_taken(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.statuses = [500, 403, 200]

    await create(sandbox)

    assert await bandwidth.next_statuses(receiver, 4) == ["message-sent"] * 3 + ["message-delivered"]


async def test_callbacks_that_nobody_takes_do_not_stop_the_message(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.statuses = [500] * 8

    await create(sandbox)
    await bandwidth.next_statuses(receiver, 8)

    (taken,) = await sandbox.taken()
    assert taken["status"] == "delivered"


async def test_unreachable_receiver_loses_the_callback() -> None:
    async with running_sandbox(bandwidth=bandwidth.account(closed_port_url())) as sandbox:
        answer = await sandbox.control("POST", "texts", json={"from": PHONE, "to": NUMBER, "body": "hello"})

    assert answer["webhook"]["answers"] == [{"status": None, "failure": "ct", "problem": None}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[sandbox:callbacks=duplicated]", ["sent", "sent", "delivered", "delivered"]),
        ("[sandbox:callbacks=reordered]", ["delivered", "sent"]),
        ("[sandbox:failed=4470]", ["failed"]),
        ("[sandbox:undelivered=4702]", ["sent", "failed"]),
    ],
)
async def test_triggers_count_here_too(sandbox: Sandbox, receiver: Receiver, body: str, expected: list[str]) -> None:
    await create(sandbox, text=body)

    statuses = await bandwidth.next_statuses(receiver, len(expected))

    assert statuses == [f"message-{status}" for status in expected]


async def test_missing_callbacks_never_come_though_it_is_delivered(sandbox: Sandbox, receiver: Receiver) -> None:
    await create(sandbox, text="[sandbox:callbacks=missing]", to="+14155550001")
    await create(sandbox, to=["+14155550002"])

    to = [json.loads((await bandwidth.next_post(receiver)).body)[0]["to"] for _ in range(2)]

    assert to == ["+14155550002"] * 2
    assert [taken["status"] for taken in await sandbox.taken()] == ["delivered", "delivered"]


@pytest.mark.parametrize(
    ("answer", "status", "retry_after"),
    [("429", 429, "2"), ("503", 503, "2"), ("500", 500, "2"), ("502", 502, None), ("504", 504, None)],
)
async def test_refusing_answers_take_nothing(
    sandbox: Sandbox, answer: str, status: int, retry_after: str | None
) -> None:
    await sandbox.misbehave(answer=answer, retry_after_ms=1500)
    headers = await bandwidth.authorization(sandbox)

    async with sandbox.http.post(sandbox.base_url + MESSAGES, headers=headers, json={}) as response:
        assert response.status == status
        assert response.headers.get("Retry-After") == retry_after

    assert await sandbox.taken() == []


async def test_attempts_are_counted_for_each_tag(sandbox: Sandbox) -> None:
    text = "[sandbox:429x2][sandbox:500] hello"

    answers = [(await create(sandbox, text=text, tag=tag))[0] for _ in range(4) for tag in ("one", "two")]

    assert answers == [429, 429, 429, 429, 500, 500, 202, 202]


async def test_unknown_trigger_is_named(sandbox: Sandbox) -> None:
    status, body = await create(sandbox, text="[sandbox:nonsense]")

    assert (status, body["type"]) == (400, "request-validation")
    said = [{"fieldName": "text", "description": "the sandbox does not know [sandbox:nonsense]"}]
    assert body["fieldErrors"] == said


@pytest.mark.parametrize(
    ("over", "fields"),
    [
        ({"from": "12065550100"}, ["from"]),
        ({"to": ["+1"]}, ["to"]),
        ({"to": []}, ["to"]),
        ({"to": ["+14155550001", "+14155550002"]}, ["to"]),
        ({"to": None, "from": None, "applicationId": None, "text": None}, ["applicationId", "from", "to", "text"]),
        ({"text": ""}, ["text"]),
        ({"text": "a" * 2049}, ["text"]),
        ({"text": 7}, ["text"]),
        ({"media": "https://media.example/1.jpg"}, ["media"]),
        ({"media": ["ftp://media.example/1.jpg"]}, ["media"]),
        ({"media": ["https://media.example/" + "a" * 4096]}, ["media"]),
        ({"tag": "a" * 1025}, ["tag"]),
        ({"priority": "urgent"}, ["priority"]),
    ],
)
async def test_what_is_no_message_is_refused_field_by_field(
    sandbox: Sandbox, over: dict[str, Any], fields: list[str]
) -> None:
    status, body = await create(sandbox, **over)

    assert (status, body["type"]) == (400, "request-validation")
    assert [error["fieldName"] for error in body["fieldErrors"]] == fields
    assert await sandbox.taken() == []


@pytest.mark.parametrize(
    ("method", "path", "over", "status", "kind"),
    [
        ("POST", MESSAGES, {"headers": {"Authorization": "Bearer another"}, "json": {}}, 401, "unauthorized"),
        ("POST", MESSAGES.replace("9900000", "5500000"), {"json": {}}, 403, "forbidden"),
        ("POST", MESSAGES, {"data": b"{}"}, 415, "unsupported-content-type"),
        ("POST", MESSAGES, {"json": []}, 400, "request-validation"),
        ("GET", MESSAGES, {}, 400, "request-validation"),
        ("GET", f"{MESSAGES}?limit=0", {}, 400, "request-validation"),
        ("GET", f"{MESSAGES}?limit=10001", {}, 400, "request-validation"),
        ("GET", f"{MESSAGES}?limit=1&pageToken=%C3%BC", {}, 400, "request-validation"),
        ("GET", f"{MESSAGES}?fromDateTime=yesterday", {}, 400, "request-validation"),
        ("GET", f"{MESSAGES}/happy", {}, 404, None),
        ("PUT", MESSAGES, {"json": {}}, 405, None),
    ],
)
async def test_requests_are_refused_as_documented(
    sandbox: Sandbox, method: str, path: str, over: dict[str, Any], status: int, kind: str | None
) -> None:
    answered, body = await bandwidth.request(sandbox, method, path, **over)

    assert (answered, body.get("type")) == (status, kind)
    assert kind is not None or (body["status"], body["path"]) == (status, path)


async def test_token_is_given_for_the_clients_credentials_alone(sandbox: Sandbox) -> None:
    async def ask(secret: str, grant: str) -> tuple[int, Any]:
        headers = {"Authorization": aiohttp.encode_basic_auth(bandwidth.CLIENT_ID, secret)}
        url = sandbox.base_url + BANDWIDTH_TOKEN_PATH
        async with sandbox.http.post(url, headers=headers, data={"grant_type": grant}) as response:
            return response.status, await response.json()

    assert await ask("another", "client_credentials") == (401, {"error": "invalid_client"})
    assert await ask(bandwidth.CLIENT_SECRET, "password") == (400, {"error": "unsupported_grant_type"})
    status, answer = await ask(bandwidth.CLIENT_SECRET, "client_credentials")
    assert (status, answer["token_type"], answer["expires_in"]) == (200, "Bearer", 3600)


async def test_client_credentials_themselves_let_nobody_in(sandbox: Sandbox) -> None:
    basic = {"Authorization": aiohttp.encode_basic_auth(bandwidth.CLIENT_ID, bandwidth.CLIENT_SECRET)}

    for headers in ({}, basic):
        status, body = await bandwidth.request(sandbox, "GET", f"{MESSAGES}?limit=1", headers=headers)
        assert (status, body["type"]) == (401, "unauthorized")


async def test_token_ends_after_an_hour(receiver: Receiver) -> None:
    later = timedelta(0)
    async with running(receiver, now=lambda: datetime.now(UTC) + later) as sandbox:
        token = await bandwidth.authorization(sandbox)
        statuses = []
        for age in (59, 61):
            later = timedelta(minutes=age)
            status, _ = await bandwidth.request(sandbox, "GET", f"{MESSAGES}?limit=1", headers=token)
            statuses.append(status)

    assert statuses == [200, 401]


async def test_tokens_are_given_however_messages_are_treated(sandbox: Sandbox) -> None:
    await sandbox.misbehave(answer="503", next_requests=1)

    token = await bandwidth.authorization(sandbox)

    statuses = [(await bandwidth.request(sandbox, "GET", f"{MESSAGES}?limit=1", headers=token))[0] for _ in range(2)]
    assert statuses == [503, 200]


async def test_list_tells_everything_but_the_text(sandbox: Sandbox, receiver: Receiver) -> None:
    _, created = await create(sandbox, text="hellö", media=["https://media.example/1.jpg"])
    await bandwidth.next_statuses(receiver, 3)

    (item,) = await listed(sandbox, messageId=created["id"])

    assert item.pop("receiveTime") == created["time"]
    assert item == {
        "messageId": created["id"],
        "accountId": bandwidth.ACCOUNT_ID,
        "sourceTn": NUMBER,
        "destinationTn": PHONE,
        "messageStatus": "DELIVERED",
        "messageDirection": "OUTBOUND",
        "messageType": "mms",
        "segmentCount": 1,
        "errorCode": 0,
        "carrierName": "other",
        "messageSize": 6,
        "messageLength": 5,
        "attachmentCount": 1,
        "recipientCount": 1,
        "campaignClass": None,
    }


async def test_list_is_filtered(sandbox: Sandbox, receiver: Receiver) -> None:
    _, first = await create(sandbox)
    _, second = await create(sandbox, to=["+14155550124"], media=["https://media.example/1.jpg"])
    _, third = await create(sandbox, text="[sandbox:failed=4470]", **{"from": "+13035550101"})
    await bandwidth.next_statuses(receiver, 6)
    await sandbox.control("POST", "texts", json={"from": PHONE, "to": NUMBER, "body": "hello"})
    a, b, c = first["id"], second["id"], third["id"]

    async def found(**filters: str) -> list[str]:
        return [item["messageId"] for item in await listed(sandbox, messageDirection="OUTBOUND", **filters)]

    assert await found() == [c, b, a]
    assert await found(sourceTn=NUMBER) == [b, a]
    assert await found(destinationTn=PHONE) == [c, a]
    assert await found(sourceTn=f"{NUMBER},+13035550101", destinationTn=f"{PHONE},+14155550124") == [c, b, a]
    assert await found(messageType="mms") == [b]
    assert await found(messageStatus="FAILED") == [c]
    assert await found(errorCode="4470") == [c]
    assert await found(fromDateTime="2100-01-01T00:00:00.000Z") == []
    assert await found(toDateTime="2020-01-01T00:00:00.000Z") == []
    (inbound,) = await listed(sandbox, messageDirection="INBOUND")
    assert (inbound["sourceTn"], inbound["destinationTn"], inbound["messageStatus"]) == (PHONE, NUMBER, "RECEIVED")


async def test_pages_follow_each_other_to_the_end(sandbox: Sandbox) -> None:
    made = [(await create(sandbox))[1]["id"] for _ in range(5)]
    made.reverse()
    pages: list[list[str]] = []
    page: dict[str, str] = {"sourceTn": NUMBER, "limit": "2"}
    while True:
        _, body = await bandwidth.request(sandbox, "GET", MESSAGES, params=page)
        pages.append([item["messageId"] for item in body["messages"]])
        assert body["totalCount"] == 5
        if not body["pageInfo"]:
            break
        page["pageToken"] = body["pageInfo"]["nextPageToken"]
        assert parse_qs(urlsplit(body["pageInfo"]["nextPage"]).query) == {n: [v] for n, v in page.items()}

    assert pages == [made[:2], made[2:4], made[4:]]


async def test_vendors_do_not_see_each_others_messages(sandbox: Sandbox) -> None:
    _, ours = await create(sandbox)
    _, twilios = await sandbox.create(MessagingServiceSid=MESSAGING_SERVICE_SID)

    _, listing = await sandbox.rest("GET", f"/2010-04-01/Accounts/{twilios['account_sid']}/Messages.json")
    status, _ = await sandbox.rest("GET", f"/2010-04-01/Accounts/{twilios['account_sid']}/Messages/{ours['id']}.json")

    assert [message["sid"] for message in listing["messages"]] == [twilios["sid"]]
    assert status == 404
    assert [item["messageId"] for item in await listed(sandbox, destinationTn=PHONE)] == [ours["id"]]
    taken = [(each["sid"], each["vendor"]) for each in await sandbox.taken()]
    assert taken == [(ours["id"], "bandwidth"), (twilios["sid"], "twilio")]


async def test_without_an_account_there_is_no_bandwidth() -> None:
    async with running_sandbox() as sandbox:
        status, _ = await create(sandbox)
        await sandbox.control("POST", "texts", expect=400, json={"from": PHONE, "to": NUMBER, "body": "hello"})

    assert status == 404


async def test_text_from_a_phone_is_told_with_its_media(sandbox: Sandbox, receiver: Receiver) -> None:
    image = {"content_type": "image/png", "data": b64encode(b"a picture").decode()}
    text = {"from": PHONE, "to": NUMBER, "body": "STOP", "media": [image], "times": 2}

    answer = await sandbox.control("POST", "texts", json=text)

    first, second = [await bandwidth.next_event(receiver) for _ in range(2)]
    sid, (url,) = answer["message"]["sid"], answer["message"]["media_urls"]
    assert first == second == InboundMessage(sid, PHONE, NUMBER, "STOP", (InboundMedia(url, "image/png"),), None)
    assert [told["status"] for told in answer["webhook"]["answers"]] == [200, 200]
    # A local number's STOP is the account's to heed.
    assert len(await sandbox.taken()) == 1
    assert (await create(sandbox))[0] == 202


async def test_numbers_are_listed_with_where_they_are_told(sandbox: Sandbox, receiver: Receiver) -> None:
    numbers = (await sandbox.control("GET", "numbers"))["numbers"]

    assert [number["number"] for number in numbers[-10:]] == list(BANDWIDTH_NUMBERS)
    assert numbers[-1] == {
        "number": BANDWIDTH_NUMBERS[-1],
        "sid": None,
        "messaging_service_sid": BANDWIDTH_APPLICATION_ID,
        "inbound_url": f"{receiver.base_url}/cb",
        "voice_url": None,
    }


async def test_media_need_the_credentials(sandbox: Sandbox) -> None:
    image = {"content_type": "image/png", "data": b64encode(b"a picture").decode()}
    text = {"from": PHONE, "to": NUMBER, "media": [image]}
    (url,) = (await sandbox.control("POST", "texts", json=text))["message"]["media_urls"]
    authorized = await bandwidth.authorization(sandbox)

    async with sandbox.http.get(url) as anonymous, sandbox.http.get(url, headers=authorized) as known:
        assert anonymous.status == 401
        assert (known.status, await known.read()) == (200, b"a picture")
        assert known.headers["Content-Type"] == "application/octet-stream"
    async with sandbox.http.get(url.replace("/0/", "/1/"), headers=authorized) as another:
        assert another.status == 404


async def test_requests_are_recorded_with_their_fields(sandbox: Sandbox) -> None:
    await create(sandbox)

    (asked,) = (await sandbox.control("GET", "requests", params={"path": "/messages"}))["requests"]

    assert (asked["method"], asked["path"], asked["status"]) == ("POST", MESSAGES, 202)
    assert dict(asked["form"])["to"] == json.dumps([PHONE])


async def test_restart_takes_a_message_up_where_it_was(receiver: Receiver, tmp_path: Path) -> None:
    receiver.challenge = True
    async with running(receiver, data_dir=tmp_path) as sandbox:
        await sandbox.misbehave(callbacks="reordered")
        _, created = await create(sandbox, tag="ours", text="hello")
        image = {"content_type": "image/png", "data": b64encode(b"a picture").decode()}
        texted = await sandbox.control("POST", "texts", json={"from": PHONE, "to": NUMBER, "media": [image]})
    async with running(receiver, data_dir=tmp_path) as sandbox:
        events = [await bandwidth.next_event(receiver) for _ in range(3)]
        items = await listed(sandbox, messageId=created["id"])
        path = texted["message"]["media_urls"][0].partition("/api/")[2]
        authorized = await bandwidth.authorization(sandbox)
        async with sandbox.http.get(f"{sandbox.base_url}/api/{path}", headers=authorized) as media:
            assert await media.read() == b"a picture"

    told = {event.report.provider_status for event in events if isinstance(event, MessageCallback)}
    assert told == {"message-sent", "message-delivered"}
    assert [item["messageId"] for item in items] == [created["id"]]
