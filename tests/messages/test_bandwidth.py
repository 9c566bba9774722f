"""Bandwidth end to end: our worker, the sandbox's Bandwidth, and its callbacks, proven and let in by a real Envoy."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from commonservices.v1 import bandwidth_request_service_pb2_grpc, message_pb2
from google.api import httpbody_pb2
from pydantic import SecretStr

from server.api import running_api
from server.config import Settings
from server.db import Database
from server.messages.message import Message
from server.messages.send import SendWorker
from server.notifications import Notifications
from server.providers import registry
from server.providers.ports import MediaFetcher
from server.providers.sandbox.settings import BANDWIDTH_APPLICATION_ID, BANDWIDTH_NUMBERS, BANDWIDTH_TOKEN_PATH
from server.stack.ports import free_port
from tests.clients import Client, refused
from tests.factories import RECEIVER, create_message, make_messaging_service
from tests.messages.support import count, events_of, kept_callbacks, make_due, row_of, rows, until, until_settled
from tests.providers import bandwidth
from tests.providers.bandwidth import CALLBACK_PASSWORD, CALLBACK_USERNAME, NUMBER
from tests.providers.servers import Sandbox, running_sandbox
from tests.rest.front import Front, running_envoy, until_healthy

PATH = "/webhooks/bandwidth/messages_updates"
AUTHORIZED = aiohttp.encode_basic_auth(CALLBACK_USERNAME, CALLBACK_PASSWORD)


@dataclass(frozen=True)
class Live:
    """A system that sends through the sandbox's Bandwidth."""

    settings: Settings
    front: Front
    sandbox: Sandbox

    async def post(self, body: object, *, authorization: str | None = AUTHORIZED) -> tuple[int, Any, Any]:
        """Post a callback to the public address: status, JSON and header fields of the answer."""
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if authorization is not None:
            headers["Authorization"] = authorization
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.sandbox.http.post(self.front.url + PATH, data=data, headers=headers) as answer:
            return answer.status, await answer.json(), answer.headers

    async def text(self, body: str, **over: Any) -> str:
        """A text from a parent's phone; answers its id."""
        text = {"from": RECEIVER, "to": NUMBER, "body": body} | over
        sid: str = (await self.sandbox.control("POST", "texts", json=text))["message"]["sid"]
        return sid


@pytest.fixture(scope="module")
async def _live(settings: Settings) -> AsyncIterator[Live]:
    port = free_port()
    base_url = f"http://127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(running_sandbox(bandwidth=bandwidth.account(base_url + PATH)))
        live = settings.model_copy(
            update={
                "public_base_url": base_url,
                "bandwidth_account_id": bandwidth.ACCOUNT_ID,
                "bandwidth_client_id": bandwidth.CLIENT_ID,
                "bandwidth_client_secret": SecretStr(bandwidth.CLIENT_SECRET),
                "bandwidth_callback_username": CALLBACK_USERNAME,
                "bandwidth_callback_password": SecretStr(CALLBACK_PASSWORD),
                "bandwidth_api_base_url": sandbox.base_url,
                "bandwidth_token_url": sandbox.base_url + BANDWIDTH_TOKEN_PATH,
            }
        )
        api = await stack.enter_async_context(running_api(live, listen="127.0.0.1:0"))
        front = await stack.enter_async_context(running_envoy([f"127.0.0.1:{api.port}"], port=port))
        await until_healthy(front, 1)
        yield Live(live, front, sandbox)


@pytest.fixture
async def live(_live: Live, db: Database) -> AsyncIterator[Live]:
    """The carrier as on its first day, and a messaging service of ours with its numbers there."""
    await until_healthy(_live.front, 1)
    await _live.sandbox.control("POST", "reset")
    await make_messaging_service(
        db,
        provider="bandwidth",
        twilio_messaging_sid=None,
        bandwidth_messaging_sid=BANDWIDTH_APPLICATION_ID,
        phone_numbers=BANDWIDTH_NUMBERS,
    )
    yield _live
    # Nothing of this test may call back into the next.
    await _live.sandbox.control("POST", "reset")


@pytest.fixture
async def worker(live: Live, db: Database, notifications: Notifications) -> AsyncIterator[Callable[[str], SendWorker]]:
    """Makes workers of a lane, which send through the real adapters."""
    senders = registry.message_senders(live.settings)
    yield lambda priority: SendWorker(db, notifications, senders, priority=priority)
    for sender in senders.values():
        await sender.aclose()


Worker = Callable[[str], SendWorker]


def event(event_type: str, message: message_pb2.Message | None = None, *, sid: str = "1", **over: Any) -> Any:
    """What Bandwidth tells of a message of ours."""
    tag = "" if message is None else message.message_uuid
    about = {"id": sid, "direction": "out", "from": NUMBER, "to": [RECEIVER], "text": "", "tag": tag}
    return {"type": event_type, "time": "2026-11-23T08:00:00Z", "to": RECEIVER, "message": about} | over


async def received(db: Database, sid: str) -> list[Message]:
    return [row for row in await rows(db) if row.message_sid == sid]


async def told(db: Database, message: message_pb2.Message) -> list[str]:
    return [each.message.internal_status for each in await events_of(db, message)]


async def test_message_of_a_bandwidth_service_is_delivered_through_bandwidth(
    live: Live, client: Client, db: Database, worker: Worker
) -> None:
    message = await create_message(client, sender_number=NUMBER, priority="high")

    await worker("high").run_once()
    await until_settled(db)

    row = await row_of(db, message)
    (taken,) = await live.sandbox.taken()
    (asked,) = (await live.sandbox.control("GET", "requests", params={"path": "/messages"}))["requests"]
    assert (row.provider, row.messaging_service_sid) == ("bandwidth", BANDWIDTH_APPLICATION_ID)
    assert (row.internal_status, row.provider_status) == ("delivered", "message-delivered")
    assert row.message_sid == taken["sid"]
    assert (taken["from"], taken["to"], taken["body"]) == (NUMBER, RECEIVER, "School is closed tomorrow.")
    assert {**dict(asked["form"]), "text": ""} == {
        "applicationId": BANDWIDTH_APPLICATION_ID,
        "from": NUMBER,
        "to": json.dumps([RECEIVER]),
        "text": "",
        "tag": message.message_uuid,
        "priority": "high",
    }
    assert await told(db, message) == ["pending", "processing", "sent", "delivered"]


@pytest.mark.parametrize("how", ["duplicated", "reordered"])
async def test_callbacks_in_any_number_and_order_tell_each_thing_once(
    live: Live, client: Client, db: Database, worker: Worker, how: str
) -> None:
    body = f"[sandbox:callbacks={how}]"
    message = await create_message(client, sender_number=NUMBER, message_body=body)

    await worker("default").run_once()
    await until_settled(db)
    callbacks = 4 if how == "duplicated" else 2
    await until(lambda: _are_kept(db, callbacks))

    statuses = await told(db, message)
    assert statuses[-1] == "delivered"
    assert len(set(statuses)) == len(statuses)


async def _are_kept(db: Database, callbacks: int) -> bool:
    return await count(db, "message_callbacks WHERE message_id IS NOT NULL") == callbacks


@pytest.mark.parametrize("answer", ["lost-response", "502-taken"])
async def test_callback_settles_a_message_whose_answer_was_lost(
    live: Live, client: Client, db: Database, worker: Worker, answer: str
) -> None:
    message = await create_message(client, sender_number=NUMBER, message_body=f"[sandbox:{answer}]")

    await worker("default").run_once()
    await until_settled(db)

    (taken,) = await live.sandbox.taken()
    row = await row_of(db, message)
    assert (row.message_sid, row.internal_status, row.in_doubt) == (taken["sid"], "delivered", False)


async def test_copy_is_adopted_where_no_callback_came(live: Live, client: Client, db: Database, worker: Worker) -> None:
    body = "[sandbox:lost-response][sandbox:callbacks=missing]"
    message = await create_message(client, sender_number=NUMBER, message_body=body)
    await worker("default").run_once()
    assert (await row_of(db, message)).in_doubt
    await make_due(db)

    await worker("default").run_once()

    (taken,) = await live.sandbox.taken()
    row = await row_of(db, message)
    assert (row.message_sid, row.in_doubt, row.due_at) == (taken["sid"], False, None)


async def test_refused_message_fails_with_the_page_that_explains_it(
    live: Live, client: Client, db: Database, worker: Worker
) -> None:
    message = await create_message(client, sender_number=NUMBER, message_body="[sandbox:nonsense]")

    await worker("default").run_once()

    row = await row_of(db, message)
    assert (row.internal_status, row.error_code) == ("failed", "request-validation")
    assert row.error_description is not None
    assert "https://dev.bandwidth.com/docs/messaging/errors" in row.error_description


async def test_parents_answer_comes_into_the_conversation(
    live: Live, client: Client, db: Database, worker: Worker
) -> None:
    message = await create_message(client, sender_number=NUMBER)
    await worker("default").run_once()

    sid = await live.text("Thank you", times=3)

    (answer,) = await received(db, sid)
    asked = await row_of(db, message)
    assert (answer.direction, answer.provider, answer.message_body) == ("inbound", "bandwidth", "Thank you")
    assert (answer.sender_number, answer.receiver_number) == (RECEIVER, NUMBER)
    assert answer.conversation_id == asked.conversation_id
    (inbound,) = await events_of(db, message_pb2.Message(message_uuid=str(answer.message_uuid)))
    assert inbound.type == "messages.message.inbound_sms"


async def test_stop_is_ours_to_heed(live: Live, client: Client, db: Database, worker: Worker) -> None:
    await create_message(client, sender_number=NUMBER)
    await worker("default").run_once()

    await live.text("Stop")

    answer = await refused(create_message(client, sender_number=NUMBER))
    assert answer.reason == "RECIPIENT_OPTED_OUT"


async def test_opt_out_that_only_the_carrier_knew_of_is_noted(
    live: Live, client: Client, db: Database, worker: Worker
) -> None:
    await live.sandbox.control("PUT", f"handsets/{RECEIVER}", json={"opted_out": True})
    message = await create_message(client, sender_number=NUMBER)

    await worker("default").run_once()
    await until_settled(db)

    row = await row_of(db, message)
    answer = await refused(create_message(client, sender_number=NUMBER))
    assert (row.internal_status, row.error_code) == ("failed", "4775")
    assert answer.reason == "RECIPIENT_OPTED_OUT"


async def test_picture_can_be_fetched_from_where_the_message_says(live: Live, admin: Client, db: Database) -> None:
    image = {"content_type": "image/png", "data": b64encode(b"a picture").decode()}

    sid = await live.text("", media=[image])

    (message,) = await received(db, sid)
    (url,) = message.media_urls
    assert message.message_type == "mms"
    fetchers: dict[str, MediaFetcher] = registry.media_fetchers(live.settings)
    media = await fetchers["bandwidth"].fetch(url, max_bytes=100)
    for fetcher in fetchers.values():
        await fetcher.aclose()
    assert (media.content_type, media.data) == ("image/png", b"a picture")


@pytest.mark.parametrize("wrapped", [False, True])
async def test_all_events_of_an_array_are_kept(live: Live, client: Client, db: Database, wrapped: bool) -> None:
    messages = [await create_message(client, sender_number=NUMBER) for _ in range(2)]
    inbound = event("message-received", sid="3", to=NUMBER)
    inbound["message"] |= {"direction": "in", "from": RECEIVER, "text": "Thank you"}
    events = [
        event("message-sent", messages[0], sid="1"),
        event("message-delivered", messages[0], sid="1"),
        event("message-failed", messages[1], sid="2", errorCode=4720),
        inbound,
    ]

    answers = [await live.post({"_json": events} if wrapped else events) for _ in range(2)]

    assert [answer[:2] for answer in answers] == [(200, {})] * 2
    first, second = [await row_of(db, message) for message in messages]
    assert (first.internal_status, first.message_sid) == ("delivered", "1")
    assert (second.internal_status, second.message_sid, second.error_code) == ("failed", "2", "4720")
    assert [row.message_body for row in await received(db, "3")] == ["Thank you"]
    # Those that are repeated are kept, and change nothing.
    assert await count(db, "message_callbacks") == 6
    assert await told(db, messages[0]) == ["pending", "sent", "delivered"]


async def test_unknown_status_is_kept_and_moves_nothing(live: Live, client: Client, db: Database) -> None:
    message = await create_message(client, sender_number=NUMBER)
    await live.post([event("message-delivered", message)])
    before = await row_of(db, message)

    status, _, _ = await live.post([event("message-thrown", message), {"type": "suggestion-response"}])

    assert status == 200
    assert await row_of(db, message) == before
    assert [kept["provider_status"] for kept in await kept_callbacks(db)] == ["message-delivered", "message-thrown"]


async def test_each_event_of_a_post_is_kept_alone(live: Live, client: Client, db: Database) -> None:
    message = await create_message(client, sender_number=NUMBER)
    events = [event("message-sent", message), event("message-delivered", message), event("message-sent", sid="2")]

    status, _, _ = await live.post(events)

    assert status == 200
    assert [json.loads(kept["body"]) for kept in await kept_callbacks(db)] == events


@pytest.mark.parametrize("posted", [[event("message-sent")], b""])
async def test_without_credentials_they_are_asked_for(live: Live, db: Database, posted: object) -> None:
    status, body, headers = await live.post(posted, authorization=None)

    assert (status, body["error"]["code"]) == (401, 401)
    assert (body["error"]["status"], body["error"]["reason"]) == ("UNAUTHENTICATED", "CREDENTIALS_MISSING")
    assert headers["WWW-Authenticate"] == 'Basic realm="callbacks"'
    assert await count(db, "message_callbacks") == 0


async def test_other_credentials_are_refused(live: Live, client: Client, db: Database) -> None:
    others = [aiohttp.encode_basic_auth(CALLBACK_USERNAME, "another"), f"Bearer {client.token}", "Basic nonsense"]

    answers = [await live.post([event("message-sent")], authorization=other) for other in others]

    assert {(status, body["error"]["reason"]) for status, body, _ in answers} == {(403, "SIGNATURE_INVALID")}
    assert all("WWW-Authenticate" not in headers for _, _, headers in answers)
    assert await count(db, "message_callbacks") == 0


async def test_what_is_malformed_is_named_and_all_else_is_kept(live: Live, client: Client, db: Database) -> None:
    message = await create_message(client, sender_number=NUMBER)
    malformed = {"type": "message-received"}
    posted = [malformed, event("message-sent", message), 5, event("message-delivered", message)]

    answers = [await live.post(posted) for _ in range(2)]

    told = "body: event 0: message is not a JSON object; body: event 2 is not a JSON object"
    assert [(status, body["error"]["reason"], body["error"]["message"]) for status, body, _ in answers] == [
        (400, "INVALID_ARGUMENT", told)
    ] * 2
    assert (await row_of(db, message)).internal_status == "delivered"


async def test_without_an_account_nothing_is_from_it(channel: grpc.aio.Channel, db: Database) -> None:
    stub = bandwidth_request_service_pb2_grpc.BandwidthRequestServiceStub(channel)
    body = httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps([event("message-sent")]).encode())

    for metadata in ((), (("authorization", AUTHORIZED),)):
        answer = await refused(stub.ReceiveBandwidthEvents(body, metadata=metadata))
        assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SIGNATURE_INVALID")


async def test_tag_counts_only_for_messages_of_bandwidth(live: Live, client: Client, db: Database) -> None:
    await make_messaging_service(db, name="another", global_customer_id="another")
    twilios = await create_message(client)

    status, _, _ = await live.post([event("message-delivered", twilios)])

    assert status == 200
    assert (await row_of(db, twilios)).internal_status == "pending"
    assert (await kept_callbacks(db))[0]["message_id"] is None
