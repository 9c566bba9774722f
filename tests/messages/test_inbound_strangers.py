"""Texts of senders who are in no conversation: the number's owner has them, and they are answered once a day."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from commonservices.v1 import bearer_service_pb2, message_pb2, message_service_pb2

from server.caller import BearerType
from server.config import Settings
from server.db import Database
from server.messages.inbound import receive_message
from server.messages.message import Message
from server.messages.send import SendWorker
from server.notifications import Notifications
from server.providers.ports import InboundMessage
from tests.clients import Client, refused
from tests.conftest import MakeClient
from tests.factories import SENDER, SERVICE_SID, create_message, make_messaging_service
from tests.messages.inbound import STRANGER, Texts, outbound, received
from tests.messages.support import count, events_of, listing, rows, until_settled
from tests.providers.servers import Sandbox

# A number that the provider brings texts of and that we do not know.
UNKNOWN_NUMBER = "+12065550999"

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def test_text_of_a_stranger_is_the_owners(
    texts: Texts, admin: Client, client: Client, client_of: MakeClient, db: Database
) -> None:
    other = await client_of()
    await make_messaging_service(db, bearer_id=client.bearer_id)

    row = await received(db, await texts.send(sender=STRANGER))

    request = message_service_pb2.GetMessageRequest(uuid=str(row.message_uuid))
    message = await client.messages.GetMessage(request, metadata=client.metadata)
    [event] = await events_of(db, message)
    assert (row.bearer_id, row.conversation_id) == (client.bearer_id, None)
    assert not message.HasField("client_conversation_id")
    assert not message.HasField("internal_conversation_id")
    assert (event.type, event.bearer_id) == ("messages.message.inbound_sms", client.bearer_id)
    assert client.bearer_id != other.bearer_id


async def test_without_an_owner_it_is_the_oldest_admins(
    texts: Texts, client: Client, client_of: MakeClient, db: Database
) -> None:
    await make_messaging_service(db)
    first, second = await client_of(BearerType.ADMIN), await client_of(BearerType.ADMIN)

    before = await received(db, await texts.send(sender=STRANGER))
    await delete(second, first)
    after = await received(db, await texts.send(sender=STRANGER))

    assert client.bearer_id < first.bearer_id < second.bearer_id
    assert [before.bearer_id, after.bearer_id] == [first.bearer_id, second.bearer_id]


async def test_deleted_owner_has_the_oldest_admin_for_an_heir(
    texts: Texts, admin: Client, client: Client, db: Database
) -> None:
    await make_messaging_service(db, bearer_id=client.bearer_id)
    await delete(admin, client)

    row = await received(db, await texts.send(sender=STRANGER))

    [answer] = await outbound(db)
    assert {row.bearer_id, answer.bearer_id} == {admin.bearer_id}


async def test_contacts_of_a_deleted_bearer_are_strangers_and_their_numbers_free(
    texts: Texts, admin: Client, client: Client, client_of: MakeClient, db: Database
) -> None:
    await make_messaging_service(db)
    await create_message(client)
    await delete(admin, client)

    row = await received(db, await texts.send())

    assert (row.bearer_id, row.conversation_id) == (admin.bearer_id, None)
    assert await count(db, "pairings") == 0
    again = await create_message(await client_of())
    assert (await received(db, await texts.send())).internal_conversation_id == UUID(again.internal_conversation_id)


async def test_text_to_a_number_that_is_not_ours_is_kept_and_not_answered(
    texts: Texts, admin: Client, db: Database
) -> None:
    await make_messaging_service(db)

    row = await received(db, await texts.send(sender=STRANGER, to=UNKNOWN_NUMBER))

    assert (row.bearer_id, row.messaging_service_id, row.messaging_service_sid) == (admin.bearer_id, None, None)
    assert await outbound(db) == []


async def test_stranger_is_answered_by_an_ordinary_message_of_the_owner(
    texts: Texts, admin: Client, client: Client, db: Database, settings: Settings
) -> None:
    await make_messaging_service(db, bearer_id=client.bearer_id)

    text = await received(db, await texts.send(sender=STRANGER, media=[("https://x.example/1", "image/png")]))

    [answer] = await outbound(db)
    [event] = await events_of(db, message_pb2.Message(message_uuid=str(answer.message_uuid)))
    assert (answer.sender_number, answer.receiver_number) == (SENDER, STRANGER)
    assert (answer.message_body, answer.media_urls) == (settings.unknown_sender_answer, [])
    assert (answer.bearer_id, answer.conversation_id, answer.priority) == (client.bearer_id, None, "default")
    assert (answer.internal_status, answer.message_type, answer.message_sid) == ("pending", "sms", None)
    assert (answer.messaging_service_id, answer.messaging_service_sid) == (text.messaging_service_id, SERVICE_SID)
    assert answer.due_at == answer.enqueued_at == answer.created_at
    assert (answer.delivered_at, answer.provider_status) == (None, None)
    assert answer.id != text.id
    assert answer.message_uuid != text.message_uuid
    assert (event.type, event.sequence, event.bearer_id) == ("messages.message.status_update", 1, client.bearer_id)
    assert (event.message.message_uuid, event.message.direction) == (str(answer.message_uuid), "outbound")
    assert event.message.message_body == settings.unknown_sender_answer


class Days:
    """Receives texts at a time of its own."""

    def __init__(self, db: Database, notifications: Notifications) -> None:
        self._db = db
        self._notifications = notifications
        self._sids = iter(range(1000))

    async def text(self, at: datetime, *, sender: str = STRANGER, to: str = SENDER, answer: str = "Who?") -> None:
        await receive_message(
            self._db,
            self._notifications,
            provider="twilio",
            message=InboundMessage(f"SM{next(self._sids)}", sender, to, "hello", (), None),
            unknown_sender_answer=answer,
            now=at,
        )


@pytest.fixture
async def days(db: Database, notifications: Notifications, admin: Client) -> Days:
    await make_messaging_service(db)
    return Days(db, notifications)


async def test_stranger_is_answered_once_in_a_day(days: Days, db: Database) -> None:
    a_day_later = NOON + timedelta(days=1)

    answered = []
    for at in (NOON, NOON, a_day_later - timedelta(microseconds=1), a_day_later, a_day_later + timedelta(hours=23)):
        await days.text(at)
        answered.append(len(await outbound(db)))

    assert answered == [1, 1, 1, 2, 2]


async def test_server_whose_clock_is_behind_answers_nobody_again(days: Days, db: Database) -> None:
    await days.text(NOON)
    await days.text(NOON - timedelta(days=1))
    await days.text(NOON)

    assert len(await outbound(db)) == 1


async def test_once_a_day_is_counted_by_sender_whatever_number_of_ours_it_came_to(days: Days, db: Database) -> None:
    await days.text(NOON)
    await days.text(NOON, to="+12065550101")
    await days.text(NOON, sender="+13035550112")

    assert len(await outbound(db)) == 1
    assert len(await outbound(db, "+13035550112")) == 1


async def test_long_answer_goes_out_as_mms(days: Days, db: Database) -> None:
    await days.text(NOON, answer="x" * 161)

    assert [m.message_type for m in await outbound(db)] == ["mms"]


async def test_many_texts_of_a_stranger_at_once_are_all_kept_and_answered_once(
    texts: Texts, admin: Client, db: Database
) -> None:
    await make_messaging_service(db)

    sids = await asyncio.gather(*(texts.send(sender=STRANGER) for _ in range(40)))

    kept = {m.message_sid for m in await rows(db) if m.direction == "inbound"}
    assert kept == set(sids)
    assert len(await outbound(db)) == 1
    assert await count(db, "events") == len(sids) + 1


@pytest.mark.parametrize("sender", ["729725", "SCHOOL", "+266696687"])
async def test_sender_that_cannot_be_written_to_is_not_answered(
    texts: Texts, admin: Client, db: Database, sender: str
) -> None:
    await make_messaging_service(db)

    await texts.send(sender=sender)

    assert [m.direction for m in await rows(db)] == ["inbound"]


@pytest.mark.parametrize("sender", ["729725", "SCHOOL"])
async def test_messages_of_a_sender_that_is_no_phone_are_listed(
    texts: Texts, admin: Client, db: Database, sender: str
) -> None:
    await make_messaging_service(db)
    await texts.send(sender=sender)

    listed = await admin.messages.ListMessages(listing(sender, SENDER), metadata=admin.metadata)
    refusal = await refused(admin.messages.ListMessages(listing("206-555-XXXX", SENDER), metadata=admin.metadata))

    assert [message.sender_number for message in listed.messages] == [sender]
    assert refusal.fields == ("from",)


@pytest.mark.parametrize("keyword", ["STOP", "opt_out", "Start", "yes", "HELP", "info"])
async def test_keyword_is_not_answered(texts: Texts, admin: Client, db: Database, keyword: str) -> None:
    await make_messaging_service(db)

    await texts.send(keyword, sender=STRANGER)
    await texts.send("words of its own", sender=STRANGER, opt_out_type="HELP")

    assert await outbound(db) == []
    assert await count(db, "messages") == 2


async def test_stranger_who_has_opted_out_is_not_answered(texts: Texts, admin: Client, db: Database) -> None:
    await make_messaging_service(db)
    await texts.send("STOP", sender=STRANGER)

    await texts.send("hello", sender=STRANGER)
    before = await outbound(db)
    await texts.send("START", sender=STRANGER)
    await texts.send("hello", sender=STRANGER)

    assert before == []
    assert len(await outbound(db)) == 1


async def test_contact_in_a_conversation_is_not_answered(
    texts: Texts, admin: Client, client: Client, db: Database
) -> None:
    await make_messaging_service(db)
    await create_message(client, receiver_number=STRANGER)

    await texts.send(sender=STRANGER)

    [only] = await outbound(db)
    assert only.message_body == "School is closed tomorrow."


async def test_answer_is_sent_and_its_delivery_told(
    texts: Texts, admin: Client, db: Database, carrier: Sandbox, worker: SendWorker, settings: Settings
) -> None:
    await texts.send(sender=STRANGER)

    await worker.run_once()
    await until_settled(db)

    [taken] = await carrier.taken()
    [answer] = await outbound(db)
    told = await events_of(db, message_pb2.Message(message_uuid=str(answer.message_uuid)))
    assert (taken["from"], taken["to"], taken["body"]) == (SENDER, STRANGER, settings.unknown_sender_answer)
    assert status_of(answer) == ("delivered", taken["sid"])
    assert {event.type for event in told} == {"messages.message.status_update"}
    assert told[-1].message.internal_status == "delivered"


def status_of(message: Message) -> tuple[str, str | None]:
    return message.internal_status, message.message_sid


async def delete(by: Client, bearer: Client) -> None:
    request = bearer_service_pb2.DeleteBearerRequest(id=bearer.bearer_id)
    await by.bearers.DeleteBearer(request, metadata=by.metadata)
