"""Texts to our numbers: whose they are, what they become, once however often they are posted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import grpc
import grpc.aio
import pytest
from commonservices.v1 import message_pb2, message_service_pb2, twilio_request_service_pb2_grpc
from psycopg.rows import BaseRowFactory, dict_row

from server.api import running_api
from server.config import Settings
from server.db import Database, Parameters, Row
from server.messages.inbound import receive_message
from server.notifications import Notifications
from server.providers.ports import InboundMedia, InboundMessage
from server.providers.sandbox.callbacks import signature
from tests.clients import Client, refused
from tests.conftest import MakeClient
from tests.factories import RECEIVER, SENDER, SERVICE_SID, create_message, make_messaging_service
from tests.messages.inbound import FORM, PATH, STRANGER, Texts, inbound_form, outbound, received
from tests.messages.support import count, events_of, listing, rows
from tests.providers.servers import AUTH_TOKEN

PICTURES = (("https://api.twilio.com/1", "image/jpeg"), ("https://api.twilio.com/2", "video/mp4"))


@pytest.fixture
async def paired(admin: Client, client: Client, db: Database) -> message_pb2.Message:
    """A message of a client to a contact, in the conversation whose answers are the client's."""
    await make_messaging_service(db)
    return await create_message(client)


async def unpair(db: Database) -> None:
    """Deactivate every pairing."""
    await db.execute("DELETE FROM pairings")
    await db.execute("UPDATE participants SET pairing_deactivated_at = now()")


async def test_answer_belongs_to_the_conversation_and_is_told(
    texts: Texts, client: Client, db: Database, paired: message_pb2.Message
) -> None:
    before = datetime.now(UTC)

    sid = await texts.send("Is the bus late? ü 🚌")

    row = await received(db, sid)
    request = message_service_pb2.GetMessageRequest(uuid=str(row.message_uuid))
    message = await client.messages.GetMessage(request, metadata=client.metadata)
    [event] = await events_of(db, message)
    assert (message.direction, message.internal_status, message.provider_status) == ("inbound", "delivered", "received")
    assert (message.sender_number, message.receiver_number) == (RECEIVER, SENDER)
    assert (message.message_body, message.message_type, message.message_sid) == ("Is the bus late? ü 🚌", "sms", sid)
    assert (message.encoding, message.segment_count, message.provider) == ("UCS-2", 1, "twilio")
    assert (message.client_conversation_id, message.internal_conversation_id, message.global_id) == (
        paired.client_conversation_id,
        paired.internal_conversation_id,
        paired.global_id,
    )
    assert before <= message.created_at.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)
    assert message.delivered_at == message.created_at == message.updated_at
    assert not any(message.HasField(field) for field in ("enqueued_at", "sent_at", "failed_at", "scheduled_at"))
    assert (event.type, event.sequence, event.bearer_id) == ("messages.message.inbound_sms", 1, client.bearer_id)
    assert event.message == message
    assert (row.messaging_service_sid, row.due_at, row.check_at, row.stored_media) == (SERVICE_SID, None, None, [])


async def test_media_are_to_be_fetched(texts: Texts, db: Database, paired: message_pb2.Message) -> None:
    sid = await texts.send("", media=PICTURES)

    row = await received(db, sid)
    [event] = await events_of(db, message_pb2.Message(message_uuid=str(row.message_uuid)))
    media = await db.fetch_all(
        "SELECT message_id, place, url, content_type, due_at <= now() AS is_due FROM media_files ORDER BY place",
        {},
        dict_row,
    )
    assert (row.message_type, row.media_urls) == ("mms", [url for url, _ in PICTURES])
    assert (event.type, list(event.message.media_urls)) == ("messages.message.inbound_mms", row.media_urls)
    assert list(event.message.media_file_urls) == []
    assert media == [
        {"message_id": row.id, "place": place, "url": url, "content_type": content_type, "is_due": True}
        for place, (url, content_type) in enumerate(PICTURES)
    ]


async def test_long_text_without_media_is_no_mms(texts: Texts, db: Database, paired: message_pb2.Message) -> None:
    assert (await received(db, await texts.send("x" * 1600))).message_type == "sms"


async def test_event_goes_to_the_conversations_url_else_the_bearers(
    texts: Texts, client_of: MakeClient, admin: Client, db: Database
) -> None:
    await make_messaging_service(db)
    client = await client_of(callback_url="http://bearer.example/")
    await create_message(client, callback_url="http://conversation.example/")
    await create_message(client, client_conversation_id="2", receiver_number=STRANGER)

    sids = [await texts.send(), await texts.send(sender=STRANGER)]

    urls = [(await received(db, sid)).callback_url for sid in sids]
    told = await db.fetch_all(
        "SELECT callback_url FROM events WHERE type = 'messages.message.inbound_sms' ORDER BY id", {}, dict_row
    )
    assert urls == ["http://conversation.example/", "http://bearer.example/"]
    assert [event["callback_url"] for event in told] == urls


async def test_each_pair_of_numbers_has_its_conversation(
    texts: Texts, client: Client, client_of: MakeClient, admin: Client, db: Database
) -> None:
    await make_messaging_service(db)
    other = await client_of()
    await create_message(client, client_conversation_id="first")
    await create_message(other, client_conversation_id="of another bearer", sender_number="+12065550101")
    await create_message(client, client_conversation_id="of another contact", receiver_number=STRANGER)

    sids = [
        await texts.send(),
        await texts.send(to="+12065550101"),
        await texts.send(sender=STRANGER),
        await texts.send(sender=STRANGER, to="+12065550101"),
    ]

    messages = [await received(db, sid) for sid in sids]
    assert [(m.bearer_id, m.client_conversation_id) for m in messages] == [
        (client.bearer_id, "first"),
        (other.bearer_id, "of another bearer"),
        (client.bearer_id, "of another contact"),
        (admin.bearer_id, None),
    ]


async def test_after_deactivation_the_sender_is_unknown_until_the_pairing_is_made_again(
    texts: Texts, client: Client, admin: Client, db: Database, paired: message_pb2.Message
) -> None:
    await unpair(db)
    unknown = await received(db, await texts.send())
    await create_message(client)
    known = await received(db, await texts.send())

    assert (unknown.bearer_id, unknown.conversation_id) == (admin.bearer_id, None)
    assert (known.bearer_id, known.client_conversation_id) == (client.bearer_id, paired.client_conversation_id)


async def test_other_spellings_of_numbers_are_the_same_numbers(
    texts: Texts, db: Database, paired: message_pb2.Message
) -> None:
    message = await received(db, await texts.send(sender="(206) 555-0190", to="2065550100"))

    assert (message.sender_number, message.receiver_number) == (RECEIVER, SENDER)
    assert message.conversation_id is not None


@pytest.mark.parametrize("sender", ["729725", "12345", "SCHOOL", "555SCHOOLS1", "+266696687"])
async def test_sender_without_a_full_number_is_kept_as_it_came(
    texts: Texts, db: Database, paired: message_pb2.Message, sender: str
) -> None:
    assert (await received(db, await texts.send(sender=sender))).sender_number == sender


async def test_nul_in_a_text_loses_no_message(texts: Texts, db: Database, paired: message_pb2.Message) -> None:
    assert (await received(db, await texts.send("a\0b"))).message_body == "a\ufffdb"


async def test_line_type_of_the_sender_is_told(texts: Texts, db: Database, paired: message_pb2.Message) -> None:
    await db.execute(
        """INSERT INTO line_types (phone_number, line_type, looked_up_at) VALUES (%s, 'mobile', now())
        ON CONFLICT (phone_number) DO UPDATE SET line_type = 'mobile', looked_up_at = now(), due_at = NULL""",
        (RECEIVER,),
    )

    row = await received(db, await texts.send())

    [event] = await events_of(db, message_pb2.Message(message_uuid=str(row.message_uuid)))
    assert event.message.phone_number_type == "mobile"


async def test_messages_of_both_directions_are_listed_apart(
    texts: Texts, client: Client, db: Database, paired: message_pb2.Message
) -> None:
    sid = await texts.send()

    there = await client.messages.ListMessages(listing(SENDER, RECEIVER), metadata=client.metadata)
    back = await client.messages.ListMessages(listing(RECEIVER, SENDER), metadata=client.metadata)

    assert [m.message_uuid for m in there.messages] == [paired.message_uuid]
    assert [m.message_sid for m in back.messages] == [sid]


async def test_inbound_message_cannot_be_cancelled(
    texts: Texts, client: Client, db: Database, paired: message_pb2.Message
) -> None:
    row = await received(db, await texts.send())
    request = message_service_pb2.CancelMessageRequest(uuid=str(row.message_uuid))

    answer = await refused(client.messages.CancelMessage(request, metadata=client.metadata))

    assert answer.reason == "MESSAGE_NOT_CANCELLABLE"


async def test_without_any_admin_the_text_stays_with_the_provider(
    texts: Texts, client: Client, db: Database, admin: Client
) -> None:
    await make_messaging_service(db)
    await create_message(client)
    await db.execute("UPDATE bearers SET deleted_at = now() WHERE id = %s", (admin.bearer_id,))
    form = inbound_form(sender=STRANGER)

    answer = await refused(texts.post(form))
    left = await count(db, "messages WHERE direction = 'inbound'")
    await db.execute("UPDATE bearers SET deleted_at = NULL WHERE id = %s", (admin.bearer_id,))
    await texts.post(form)

    assert (answer.code, answer.reason, left) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", 0)
    assert (await received(db, form["MessageSid"])).bearer_id == admin.bearer_id


async def test_repeated_text_is_one_message_and_one_event(
    texts: Texts, db: Database, paired: message_pb2.Message
) -> None:
    form = inbound_form(media=PICTURES)

    answers = [await texts.post(form) for _ in range(3)]
    # The sid is the provider's, whatever else is posted with it.
    await texts.post(form | {"Body": "changed", "From": STRANGER})

    assert {(answer.content_type, answer.data) for answer in answers} == {("text/xml", b"<Response/>")}
    assert await count(db, "messages WHERE direction = 'inbound'") == 1
    assert await count(db, "events WHERE type ~ 'inbound'") == 1
    assert await count(db, "media_files") == len(PICTURES)


async def test_same_sid_of_another_provider_is_another_message(
    db: Database, notifications: Notifications, paired: message_pb2.Message
) -> None:
    text = InboundMessage("SM1", RECEIVER, SENDER, "hello", (), None)

    for provider in ("twilio", "bandwidth", "twilio"):
        await receive_message(
            db, notifications, provider=provider, message=text, unknown_sender_answer="?", now=datetime.now(UTC)
        )

    messages = [m for m in await rows(db) if m.message_sid == "SM1"]
    assert [(m.provider, m.messaging_service_sid) for m in messages] == [("twilio", SERVICE_SID), ("bandwidth", None)]


@pytest.fixture
async def servers(settings: Settings, texts: Texts) -> AsyncIterator[list[Texts]]:
    """Texts that come to two servers."""
    async with (
        running_api(settings, listen="127.0.0.1:0") as second,
        grpc.aio.insecure_channel(f"127.0.0.1:{second.port}") as channel,
    ):
        yield [texts, Texts(twilio_request_service_pb2_grpc.TwilioRequestServiceStub(channel))]


@pytest.mark.parametrize("sender", [RECEIVER, STRANGER])
async def test_repeats_at_the_same_moment_on_two_servers_are_one_message(
    servers: list[Texts], db: Database, paired: message_pb2.Message, sender: str
) -> None:
    forms = [inbound_form(sender=sender, media=PICTURES) for _ in range(5)]

    answers = await asyncio.gather(*(server.post(form) for form in forms for server in servers * 5))

    messages = [m for m in await rows(db) if m.direction == "inbound"]
    assert {answer.data for answer in answers} == {b"<Response/>"}
    assert sorted(m.message_sid or "" for m in messages) == sorted(form["MessageSid"] for form in forms)
    assert await count(db, "events WHERE type ~ 'inbound'") == len(forms)
    assert await count(db, "media_files") == len(forms) * len(PICTURES)
    assert len(await outbound(db)) == (1 if sender == STRANGER else 0)


@asynccontextmanager
async def failing(db: Database, table: str, check: str = "false") -> AsyncIterator[None]:
    """What is inserted meanwhile fails, unless it fulfils the check."""
    await db.execute(f"ALTER TABLE {table} ADD CONSTRAINT failing CHECK ({check}) NOT VALID")
    try:
        yield
    finally:
        await db.execute(f"ALTER TABLE {table} DROP CONSTRAINT failing")


@pytest.mark.parametrize(
    ("form", "table", "check"),
    [
        (inbound_form(), "events", "false"),
        (inbound_form(media=PICTURES), "media_files", "place = 0"),
        (inbound_form("STOP"), "opt_outs", "false"),
        (inbound_form(sender=STRANGER), "unknown_sender_answers", "false"),
        (inbound_form(sender=STRANGER), "messages", "direction = 'inbound'"),
        (inbound_form(sender=STRANGER), "events", "type ~ 'inbound'"),
    ],
)
async def test_what_a_text_brings_about_is_all_or_nothing(
    texts: Texts, db: Database, paired: message_pb2.Message, form: dict[str, str], table: str, check: str
) -> None:
    async def written() -> list[int]:
        tables = ("messages", "events", "media_files", "opt_outs", "unknown_sender_answers")
        return [await count(db, table) for table in tables]

    before = await written()
    async with failing(db, table, check):
        answer = await refused(texts.post(form))
    between = await written()
    await texts.post(form)

    assert answer.code is grpc.StatusCode.INTERNAL
    assert between == before
    assert await written() > before


class CountingDatabase(Database):
    """Counts the statements that are transactions of their own."""

    statements = 0

    async def fetch_one(self, query: str, parameters: Parameters, row: BaseRowFactory[Row]) -> Row | None:
        self.statements += 1
        return await super().fetch_one(query, parameters, row)


@pytest.mark.parametrize(("body", "media"), [("hello", ()), ("STOP", ()), ("", (InboundMedia("a", "b"),))])
async def test_text_in_a_conversation_takes_two_statements(
    database_url: str,
    notifications: Notifications,
    paired: message_pb2.Message,
    body: str,
    media: tuple[InboundMedia, ...],
) -> None:
    counting = CountingDatabase(database_url, max_size=1)
    await counting.open()
    text = InboundMessage("SM1", RECEIVER, SENDER, body, media, None)

    await receive_message(
        counting, notifications, provider="twilio", message=text, unknown_sender_answer="?", now=datetime.now(UTC)
    )
    await counting.close()

    assert counting.statements == 2


async def posted(
    http: aiohttp.ClientSession, form: dict[str, str], *, url: str, token: str = AUTH_TOKEN
) -> tuple[int, str, str]:
    headers = {"X-Twilio-Signature": signature(token, url, form), "Content-Type": FORM}
    async with http.post(PATH, data=aiohttp.FormData(form)(), headers=headers) as answer:
        return answer.status, answer.content_type, await answer.text()


async def test_text_through_envoy_is_answered_with_empty_twiml(
    callback_http: aiohttp.ClientSession, live: Settings, client: Client, admin: Client, db: Database
) -> None:
    await create_message(client)
    form = inbound_form("Is the bus late? a b+c&ü")

    answer = await posted(callback_http, form, url=live.public_base_url + PATH)

    assert answer == (200, "text/xml", "<Response/>")
    assert (await received(db, form["MessageSid"])).message_body == "Is the bus late? a b+c&ü"


@pytest.mark.parametrize(
    ("base_url", "token"), [("http://evil.example", AUTH_TOKEN), (None, "another account's"), (None, "")]
)
async def test_text_through_envoy_that_twilio_did_not_sign_is_refused(
    callback_http: aiohttp.ClientSession, live: Settings, admin: Client, db: Database, base_url: str | None, token: str
) -> None:
    url = (base_url or live.public_base_url) + PATH

    status, _type, body = await posted(callback_http, inbound_form(), url=url, token=token)

    assert (status, '"reason":"SIGNATURE_INVALID"' in body) == (403, True)
    assert await count(db, "messages") == 0


async def test_signed_text_that_names_no_message_is_malformed(texts: Texts, admin: Client) -> None:
    answer = await refused(texts.post(inbound_form() | {"MessageSid": "", "To": ""}))

    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("body",))
