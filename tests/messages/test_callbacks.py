"""Twilio's status callbacks: proven, kept raw, applied once."""

import asyncio
from datetime import UTC, datetime
from urllib.parse import urlencode
from uuid import UUID, uuid4

import aiohttp
import grpc
import grpc.aio
import pytest
from commonservices.v1 import message_pb2, twilio_request_service_pb2_grpc
from google.api import httpbody_pb2
from twilio.request_validator import RequestValidator

from server.api import Api
from server.config import Settings
from server.db import Database
from server.messages.callbacks import apply_callback, apply_report, forget_old
from server.notifications import Notifications
from server.providers.ports import MessageCallback
from server.providers.sandbox.callbacks import signature
from server.providers.twilio import statuses
from tests.clients import Client, refused
from tests.factories import create_message, make_messaging_service
from tests.messages.support import count, events_of, kept_callbacks, row_of
from tests.providers.servers import AUTH_TOKEN, Sandbox

PATH = "/api/v1/twilio_requests/webhook_message_updates"
FORM = "application/x-www-form-urlencoded"
GOLDEN_FIELDS = {"MessageSid": "SIDTESTING", "MessageStatus": "delivered"}
GOLDEN_SIGNATURE = "fSX0swfxH1zw3AxBsY8hFGSlQR4="


@pytest.fixture
def twilio(channel: grpc.aio.Channel) -> "twilio_request_service_pb2_grpc.TwilioRequestServiceAsyncStub":
    return twilio_request_service_pb2_grpc.TwilioRequestServiceStub(channel)


@pytest.fixture
async def message(api: Api, db: Database, client: Client) -> message_pb2.Message:
    """A message that a worker has claimed and asked Twilio to send."""
    await make_messaging_service(db)
    message = await create_message(client)
    await db.execute(
        """UPDATE messages SET internal_status = 'processing', attempts = 1, in_doubt = true,
        first_claimed_at = now(), due_at = now() + interval '60 s'"""
    )
    return message


def form(fields: dict[str, str]) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=FORM, data=urlencode(fields).encode())


def callback(status: str, *, message: message_pb2.Message | None = None, sid: str = "SM1") -> MessageCallback:
    error_code = "30003" if status in ("undelivered", "failed") else None
    return MessageCallback(
        report=statuses.report(message_sid=sid, provider_status=status, error_code=error_code),
        message_uuid=None if message is None else UUID(message.message_uuid),
        body="raw",
    )


class Applies:
    """Applies callbacks and reports as handlers and workers do."""

    def __init__(self, db: Database, notifications: Notifications) -> None:
        self._db = db
        self._notifications = notifications

    async def callback(self, callback: MessageCallback) -> None:
        await apply_callback(self._db, self._notifications, provider="twilio", callback=callback, now=datetime.now(UTC))

    async def answer(self, message: message_pb2.Message, status: str = "accepted", *, sid: str = "SM1") -> None:
        report = statuses.report(message_sid=sid, provider_status=status, error_code=None)
        row = await row_of(self._db, message)
        await apply_report(self._db, self._notifications, message=row, report=report, now=datetime.now(UTC))


@pytest.fixture
def applies(db: Database, notifications: Notifications) -> Applies:
    return Applies(db, notifications)


async def test_golden_signature_is_accepted_and_the_callback_kept(
    twilio: "twilio_request_service_pb2_grpc.TwilioRequestServiceAsyncStub", db: Database
) -> None:
    answer = await twilio.UpdateMessageStatus(form(GOLDEN_FIELDS), metadata=(("x-twilio-signature", GOLDEN_SIGNATURE),))

    [kept] = await kept_callbacks(db)
    assert (answer.content_type, answer.data) == ("text/xml", b"<Response/>")
    assert (kept["message_id"], kept["message_sid"], kept["provider_status"]) == (None, "SIDTESTING", "delivered")
    assert kept["body"] == "MessageSid=SIDTESTING&MessageStatus=delivered"


@pytest.mark.parametrize("signed", [None, "", "nonsense", "R/t8sPRgN+rlhwL3LEQFwLJl7Jk="])
async def test_bad_signature_is_refused_and_nothing_kept(
    twilio: "twilio_request_service_pb2_grpc.TwilioRequestServiceAsyncStub", db: Database, signed: str | None
) -> None:
    metadata = () if signed is None else (("x-twilio-signature", signed),)

    answer = await refused(twilio.UpdateMessageStatus(form(GOLDEN_FIELDS), metadata=metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SIGNATURE_INVALID")
    assert await count(db, "message_callbacks") == 0


async def test_changed_body_is_refused(
    twilio: "twilio_request_service_pb2_grpc.TwilioRequestServiceAsyncStub", db: Database
) -> None:
    changed = form({**GOLDEN_FIELDS, "MessageStatus": "failed"})

    answer = await refused(twilio.UpdateMessageStatus(changed, metadata=(("x-twilio-signature", GOLDEN_SIGNATURE),)))

    assert answer.reason == "SIGNATURE_INVALID"
    assert await count(db, "message_callbacks") == 0


async def test_api_key_is_not_looked_at(
    twilio: "twilio_request_service_pb2_grpc.TwilioRequestServiceAsyncStub", client: Client
) -> None:
    answer = await refused(twilio.UpdateMessageStatus(form(GOLDEN_FIELDS), metadata=client.metadata))

    assert answer.reason == "SIGNATURE_INVALID"


@pytest.mark.parametrize("fields", [{"MessageSid": "SM1"}, {"MessageSid": "SM\0", "MessageStatus": "sent"}])
async def test_signed_callback_that_says_nothing_is_malformed(
    twilio: "twilio_request_service_pb2_grpc.TwilioRequestServiceAsyncStub", settings: Settings, fields: dict[str, str]
) -> None:
    validator = RequestValidator(settings.twilio_auth_token.get_secret_value())
    signed = validator.compute_signature(settings.public_base_url + PATH, fields)

    answer = await refused(twilio.UpdateMessageStatus(form(fields), metadata=(("x-twilio-signature", signed),)))

    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("body",))


async def posted(
    http: aiohttp.ClientSession, live: Settings, fields: dict[str, str], *, query: str = "", signed: str | None = None
) -> tuple[int, str]:
    url = f"{live.public_base_url}{PATH}{query}"
    headers = {"X-Twilio-Signature": signed or signature(AUTH_TOKEN, url, fields)}
    async with http.post(url, data=fields, headers=headers) as answer:
        return answer.status, await answer.text()


async def test_callback_through_envoy_adopts_the_sid_of_the_message_in_its_url(
    callback_http: aiohttp.ClientSession, live: Settings, client: Client, db: Database
) -> None:
    message = await create_message(client)
    query = f"?message_uuid={message.message_uuid}&another=one"

    answer = await posted(callback_http, live, {"MessageSid": "SM1", "MessageStatus": "sent"}, query=query)

    row = await row_of(db, message)
    created, sent = await events_of(db, message)
    [kept] = await kept_callbacks(db)
    assert answer == (200, "<Response/>")
    assert (row.message_sid, row.internal_status, row.provider_status, row.due_at) == ("SM1", "sent", "sent", None)
    assert (created.sequence, sent.sequence, sent.message.message_sid) == (1, 2, "SM1")
    assert sent.message.HasField("sent_at")
    assert kept["message_id"] == row.id


@pytest.mark.parametrize("query", ["?message_uuid=other", "?message_uuid=", ""])
async def test_signature_through_envoy_covers_url_and_body(
    callback_http: aiohttp.ClientSession, live: Settings, db: Database, query: str
) -> None:
    fields = {"MessageSid": "SM1", "MessageStatus": "sent"}
    signed = signature(AUTH_TOKEN, f"{live.public_base_url}{PATH}?message_uuid={uuid4()}", fields)

    status, body = await posted(callback_http, live, fields, query=query, signed=signed)

    assert (status, '"reason":"SIGNATURE_INVALID"' in body.replace(" ", "")) == (403, True)
    assert await count(db, "message_callbacks") == 0


async def test_host_header_counts_for_nothing(
    callback_http: aiohttp.ClientSession, live: Settings, carrier: Sandbox
) -> None:
    fields = {"MessageSid": "SM1", "MessageStatus": "sent"}
    headers = {
        "Host": "evil.example",
        "X-Twilio-Signature": signature(AUTH_TOKEN, f"http://evil.example{PATH}", fields),
    }

    async with callback_http.post(PATH, data=fields, headers=headers) as answer:
        assert answer.status == 403


async def test_callback_before_the_answer_settles_the_message(
    message: message_pb2.Message, applies: Applies, db: Database
) -> None:
    await applies.callback(callback("queued", message=message))
    settled = await row_of(db, message)

    await applies.answer(message, "accepted")

    assert (settled.message_sid, settled.due_at, settled.in_doubt) == ("SM1", None, False)
    assert await row_of(db, message) == settled
    assert len(await events_of(db, message)) == 2


async def test_callback_without_uuid_waits_for_the_sid(
    message: message_pb2.Message, applies: Applies, db: Database
) -> None:
    for status in ("delivered", "sent", "queued"):
        await applies.callback(callback(status))
    before = await row_of(db, message)

    await applies.answer(message)

    row = await row_of(db, message)
    assert before.message_sid is None
    assert (row.internal_status, row.message_sid) == ("delivered", "SM1")
    assert {kept["message_id"] for kept in await kept_callbacks(db)} == {row.id}
    told = [event.message.internal_status for event in await events_of(db, message)]
    assert told == ["pending", "processing", "processing", "sent", "delivered"]


async def test_callback_without_uuid_after_the_sid_is_applied(
    message: message_pb2.Message, applies: Applies, db: Database
) -> None:
    await applies.answer(message)

    await applies.callback(callback("undelivered"))

    row = await row_of(db, message)
    assert (row.internal_status, row.error_code) == ("failed", "30003")
    assert row.error_description == (
        "There was an error with the messaging provider. "
        "For more details visit: https://www.twilio.com/docs/api/errors/30003"
    )


async def test_callbacks_and_the_answer_at_once_lose_nothing(
    client: Client, applies: Applies, db: Database, message: message_pb2.Message
) -> None:
    messages = [message, *[await create_message(client) for _ in range(15)]]

    await asyncio.gather(
        *(
            step
            for n, one in enumerate(messages)
            for step in (
                applies.callback(callback("delivered", sid=f"SM{n}")),
                applies.callback(callback("sent", sid=f"SM{n}", message=one)),
                applies.answer(one, sid=f"SM{n}"),
                applies.callback(callback("sent", sid=f"SM{n}")),
                applies.callback(callback("delivered", sid=f"SM{n}")),
            )
        )
    )

    for n, one in enumerate(messages):
        row = await row_of(db, one)
        told = [event.message.internal_status for event in await events_of(db, one)]
        assert (row.internal_status, row.message_sid, row.due_at) == ("delivered", f"SM{n}", None)
        assert told[-1] == "delivered"
        assert [event.sequence for event in await events_of(db, one)] == list(range(1, len(told) + 1))
    assert await count(db, "message_callbacks WHERE message_id IS NULL") == 0
    assert await count(db, "message_callbacks") == 4 * len(messages)


async def test_duplicates_make_one_event_and_are_all_kept(
    message: message_pb2.Message, applies: Applies, db: Database
) -> None:
    await asyncio.gather(*(applies.callback(callback("sent", message=message)) for _ in range(20)))

    assert [event.message.internal_status for event in await events_of(db, message)] == ["pending", "sent"]
    assert await count(db, "message_callbacks") == 20
    assert (await row_of(db, message)).sequence == 2


async def test_late_callback_is_kept_and_changes_nothing(
    message: message_pb2.Message, applies: Applies, db: Database
) -> None:
    await applies.callback(callback("delivered", message=message))
    before = await row_of(db, message)

    for status in ("queued", "sending", "sent", "delivered", "undelivered", "made-up"):
        await applies.callback(callback(status, message=message))

    assert await row_of(db, message) == before
    assert [kept["provider_status"] for kept in await kept_callbacks(db)][-1] == "made-up"
    assert {kept["message_id"] for kept in await kept_callbacks(db)} == {before.id}


async def test_contradiction_of_a_final_word_is_logged(
    message: message_pb2.Message, applies: Applies, capsys: pytest.CaptureFixture[str]
) -> None:
    await applies.callback(callback("delivered", message=message))
    await applies.callback(callback("undelivered", message=message))

    assert "message.conflicting_report" in capsys.readouterr().out


async def test_callback_for_another_copy_of_a_message_is_kept_apart(
    message: message_pb2.Message, applies: Applies, db: Database
) -> None:
    await applies.answer(message, sid="SM1")

    await applies.callback(callback("delivered", message=message, sid="SM2"))

    row = await row_of(db, message)
    [kept] = await kept_callbacks(db)
    assert (row.message_sid, row.internal_status) == ("SM1", "processing")
    assert (kept["message_sid"], kept["message_id"]) == ("SM2", None)


async def test_callback_names_its_message_by_sid_even_if_the_url_names_a_twin(
    message: message_pb2.Message, client: Client, applies: Applies, db: Database
) -> None:
    twin = await create_message(client)
    await applies.answer(twin, sid="SM1")

    await applies.callback(callback("delivered", message=message, sid="SM1"))

    assert (await row_of(db, twin)).internal_status == "delivered"
    assert (await row_of(db, message)).message_sid is None


async def test_callback_for_an_unknown_message_is_kept(applies: Applies, api: Api, db: Database) -> None:
    unknown = message_pb2.Message(message_uuid=str(uuid4()))

    await applies.callback(callback("delivered", message=unknown))

    [kept] = await kept_callbacks(db)
    assert (kept["message_id"], kept["internal_status"], kept["body"]) == (None, "delivered", "raw")


async def test_callbacks_are_forgotten_after_a_week(
    message: message_pb2.Message, applies: Applies, db: Database
) -> None:
    await applies.callback(callback("sent", message=message))
    for sid in ("old", "young"):
        await applies.callback(callback("sent", sid=sid))
    aged = "UPDATE message_callbacks SET received_at = now() - interval '7 days 1 second' WHERE message_sid <> 'young'"
    await db.execute(aged)
    await applies.callback(callback("delivered", message=message))

    assert not await forget_old(db)

    assert [(kept["message_sid"], kept["provider_status"]) for kept in await kept_callbacks(db)] == [
        ("young", "sent"),
        ("SM1", "delivered"),
    ]
    assert (await row_of(db, message)).internal_status == "delivered"


async def test_callbacks_are_forgotten_in_small_batches(applies: Applies, db: Database) -> None:
    await applies.callback(callback("sent"))
    copy = """INSERT INTO message_callbacks
        (provider, message_sid, provider_status, provider_rank, internal_status, body, received_at)
        SELECT provider, message_sid, provider_status, provider_rank, internal_status, body, now() - interval '8 days'
        FROM message_callbacks, generate_series(1, 600)"""
    await db.execute(copy)

    assert await forget_old(db)
    assert await count(db, "message_callbacks") == 101
    assert not await forget_old(db)
    assert await count(db, "message_callbacks") == 1
