"""Browsers' calls: made once, to whom and from which number, with what is dialled for them, kept and told."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from commonservices.v1 import conversation_pb2, conversation_service_pb2

from server.caller import BearerType
from server.db import Database
from tests.calls.browsers import calls_of, connect, events_of, get, new_token, only_call, respond, tokens_of
from tests.calls.twilio import Twilio, call_sid
from tests.clients import CALLBACK_URL, Client
from tests.conftest import MakeClient
from tests.factories import RECEIVER, SENDER, SERVICE_SID, create_message, make_messaging_service
from tests.messages.support import count

SECOND_SENDER = "+12065550101"
OTHER_CONTACT = "+12065550191"


async def conversation_of(
    client: Client, client_conversation_id: str = "conversation-1"
) -> conversation_pb2.Conversation:
    request = conversation_service_pb2.GetConversationRequest(client_conversation_id=client_conversation_id)
    return await client.conversations.GetConversation(request, metadata=client.metadata)


async def dialled(db: Database) -> list[tuple[str, str]]:
    """From which of our numbers whom was called, in the order of the calls."""
    return [(call.row.provider_number, call.row.participant_number) for call in await calls_of(db)]


@pytest.mark.usefixtures("messaging_service")
async def test_browser_is_connected_with_the_contact_of_its_token(twilio: Twilio, client: Client, db: Database) -> None:
    token = await new_token(client, phone_number=RECEIVER, messaging_service_sid=SERVICE_SID, client_call_id="call-7")
    [row] = await tokens_of(db)
    sid = call_sid()
    before = datetime.now(UTC)

    script = await connect(twilio, row, sid=sid)

    call = await only_call(db)
    shown = await get(client, call.row.uuid)
    [event] = await events_of(db, call.row.uuid)
    browser, contact = call.legs
    assert script.is_golden("direct_call")
    assert script.call_uuid == call.row.uuid
    assert f"leg_uuid={contact.uuid}" in script.url("Dial/Number", "statusCallback")
    assert (shown.kind, shown.internal_status, shown.provider_status) == ("direct", "pending", "")
    assert (shown.provider_number, shown.participant_number, shown.call_sid) == (SENDER, RECEIVER, sid)
    assert (shown.client_conversation_id, shown.client_call_id) == ("conversation-1", "call-7")
    assert (shown.bearer_id, shown.callback_url) == (client.bearer_id, CALLBACK_URL)
    assert before <= shown.created_at.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)
    assert not shown.HasField("machine_detected")
    assert (event.type, event.bearer_id, event.sequence) == ("direct_calls.call.status_update", client.bearer_id, 1)
    assert event.call == shown
    assert (browser.kind, browser.address, browser.call_sid, browser.provider_status) == (
        "sdk",
        token.identity,
        sid,
        "ringing",
    )
    assert (contact.kind, contact.address, contact.call_sid, contact.dial_at) == ("contact", RECEIVER, None, None)
    assert browser.check_at is not None
    assert call.row.expires_at is None
    participants = (await conversation_of(client)).participants
    assert [(p.role, p.phone_number, p.twilio_number) for p in participants] == [
        ("moderator", "", ""),
        ("contact", RECEIVER, SENDER),
    ]


@pytest.mark.usefixtures("messaging_service")
async def test_caller_of_the_api_is_answered_the_same(client: Client, db: Database) -> None:
    before = datetime.now(UTC)

    script = await respond(
        client, To="206-555-0190", client_conversation_id="conversation-1", messaging_service_sid=SERVICE_SID
    )

    call = await only_call(db)
    [event] = await events_of(db, call.row.uuid)
    browser, contact = call.legs
    assert script.is_golden("direct_call")
    assert script.call_uuid == call.row.uuid
    assert (browser.call_sid, browser.address, browser.check_at) == (None, "", None)
    assert contact.address == RECEIVER
    assert event.call == await get(client, call.row.uuid)
    assert call.row.expires_at is not None
    assert before <= call.row.expires_at - timedelta(hours=1) <= datetime.now(UTC)


@pytest.mark.usefixtures("messaging_service")
async def test_browser_of_an_api_callers_call_is_the_one_of_the_newest_token(client: Client, db: Database) -> None:
    await new_token(client, moderator_id="first")
    token = await new_token(client)

    await respond(client, To=RECEIVER, client_conversation_id="conversation-1", global_customer_id="customer")

    assert (await only_call(db)).legs[0].address == token.identity


@pytest.mark.usefixtures("messaging_service")
async def test_call_is_made_once_however_often_the_provider_asks(twilio: Twilio, client: Client, db: Database) -> None:
    await new_token(client, phone_number=RECEIVER, messaging_service_sid=SERVICE_SID)
    [row] = await tokens_of(db)
    sid = call_sid()

    at_once = await asyncio.gather(*(connect(twilio, row, sid=sid) for _ in range(16)))
    await db.execute("UPDATE voice_tokens SET expires_at = now() - interval '1 day'")
    later = await connect(twilio, row, sid=sid)

    assert len({script.document for script in (*at_once, later)}) == 1
    assert await count(db, "calls") == 1
    assert await count(db, "call_legs") == 2
    assert await count(db, "events") == 1
    assert await count(db, "pairings") == 1


@pytest.mark.usefixtures("messaging_service")
async def test_number_is_the_one_that_messages_are_sent_from(client: Client, db: Database) -> None:
    await create_message(client, sender_number=SECOND_SENDER)

    await respond(client, client_conversation_id="conversation-1")
    await respond(client, client_conversation_id="conversation-1", To=OTHER_CONTACT)
    message = await create_message(client, sender_number="", receiver_number=OTHER_CONTACT)

    assert await dialled(db) == [(SECOND_SENDER, RECEIVER), (SECOND_SENDER, OTHER_CONTACT)]
    assert message.sender_number == SECOND_SENDER


@pytest.mark.usefixtures("messaging_service")
async def test_token_and_call_leave_the_conversation_something_to_send_from(
    twilio: Twilio, client: Client, db: Database
) -> None:
    await new_token(client, messaging_service_sid=SERVICE_SID, phone_number=RECEIVER)
    [row] = await tokens_of(db)
    await connect(twilio, row, to=RECEIVER)

    await respond(client, client_conversation_id="conversation-1", To=OTHER_CONTACT)
    message = await create_message(client, sender_number="")

    assert await dialled(db) == [(SENDER, RECEIVER), (SENDER, OTHER_CONTACT)]
    assert message.sender_number == SENDER


@pytest.mark.usefixtures("messaging_service")
async def test_conversations_that_call_a_contact_at_once_have_a_number_each(
    client: Client, client_of: MakeClient, db: Database
) -> None:
    clients = [client, await client_of()]

    await asyncio.gather(
        *(
            respond(
                clients[place % 2], To=RECEIVER, client_conversation_id=f"{place % 2}", global_customer_id="customer"
            )
            for place in range(8)
        )
    )

    calls = await calls_of(db)
    numbers = {(call.row.bearer_id, call.row.provider_number) for call in calls}
    assert len(calls) == 8
    assert len(numbers) == 2
    assert {number for _bearer, number in numbers} == {SENDER, SECOND_SENDER}


@pytest.mark.usefixtures("messaging_service")
async def test_deactivated_pairing_is_made_again(client: Client, db: Database) -> None:
    await create_message(client, sender_number=SECOND_SENDER)
    await db.execute("DELETE FROM pairings")
    await db.execute("UPDATE participants SET pairing_deactivated_at = now()")

    await respond(client, client_conversation_id="conversation-1")

    assert await dialled(db) == [(SECOND_SENDER, RECEIVER)]
    assert await count(db, "pairings") == 1


@pytest.mark.usefixtures("messaging_service")
async def test_without_a_conversation_it_is_the_last_that_calls_from_there(client: Client, db: Database) -> None:
    await make_messaging_service(
        db, name="b", global_customer_id="b", twilio_messaging_sid="MG2", phone_numbers=["+12065550102"]
    )
    await create_message(client)

    await respond(client, To=RECEIVER, messaging_service_sid=SERVICE_SID)
    await respond(client, To=RECEIVER, global_customer_id="customer")
    await asyncio.gather(*(respond(client, To=RECEIVER, global_customer_id="b") for _ in range(4)))

    calls = await calls_of(db)
    assert [call.row.conversation_id for call in calls[:2]] == [(await conversation_of(client)).id] * 2
    assert len({call.row.conversation_id for call in calls[2:]}) == 1
    assert await count(db, "conversations") == 2
    assert [call.row.provider_number for call in calls] == [SENDER] * 2 + ["+12065550102"] * 4


@pytest.mark.usefixtures("messaging_service")
@pytest.mark.parametrize(
    ("of_call", "of_conversation", "expected"),
    [
        ("http://a.example/call", "http://a.example/conversation", "http://a.example/call"),
        (None, "http://a.example/conversation", "http://a.example/conversation"),
        (None, None, CALLBACK_URL),
    ],
)
async def test_events_go_where_the_call_says_else_its_conversation_else_its_bearer(
    twilio: Twilio,
    client: Client,
    db: Database,
    of_call: str | None,
    of_conversation: str | None,
    expected: str,
) -> None:
    await create_message(client, callback_url=of_conversation or "")
    given = {"callback_url": of_call} if of_call else {}

    await respond(client, client_conversation_id="conversation-1", **given)
    await new_token(client, **given)
    [row] = await tokens_of(db)
    await connect(twilio, row)

    assert [call.row.callback_url for call in await calls_of(db)] == [expected] * 2
    assert (await conversation_of(client)).callback_url == (of_conversation or "")


@pytest.mark.usefixtures("messaging_service")
async def test_call_that_makes_its_conversation_says_where_its_events_go_from_then_on(
    client: Client, db: Database
) -> None:
    url = "http://a.example/call"

    await respond(client, To=RECEIVER, client_conversation_id="a", callback_url=url, messaging_service_sid=SERVICE_SID)
    await respond(client, client_conversation_id="a")

    assert [call.row.callback_url for call in await calls_of(db)] == [url] * 2


@pytest.mark.usefixtures("messaging_service")
@pytest.mark.parametrize("bearer_type", list(BearerType))
async def test_every_role_may_call(client_of: MakeClient, db: Database, bearer_type: BearerType) -> None:
    client = await client_of(bearer_type)

    await respond(client, To=RECEIVER, client_conversation_id="a", messaging_service_sid=SERVICE_SID)

    assert (await only_call(db)).row.bearer_id == client.bearer_id
