"""Creating conference calls through the front door."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from commonservices.v1 import call_pb2, conference_call_pb2
from commonservices.v1 import conference_call_service_pb2 as pb
from psycopg.rows import tuple_row

from server.caller import BearerType
from server.calls.opt_outs import toggle
from server.config import Settings
from server.db import Database
from tests.calls.conferences import (
    CONTACTS,
    MODERATOR,
    UPDATE,
    count,
    create,
    events_of,
    get,
    legs_of,
    new_conference,
    row_of,
)
from tests.clients import CALLBACK_URL, Client, Refusal, refused
from tests.conftest import MakeClient
from tests.conversations.support import create as create_conversation
from tests.factories import RECEIVER, SENDER, make_messaging_service

_TABLES = ("calls", "conference_calls", "call_legs", "conversations", "participants", "pairings", "events")


@pytest.fixture(autouse=True)
async def _numbers(db: Database) -> None:
    await make_messaging_service(db)


async def refused_create(client: Client, **over: Any) -> Refusal:
    request = new_conference(**over)
    return await refused(client.conference_calls.CreateConferenceCall(request, metadata=client.metadata))


async def is_untouched(db: Database) -> bool:
    return [await count(db, table) for table in (*_TABLES, "idempotency_keys")] == [0] * (len(_TABLES) + 1)


async def test_answer_has_every_documented_field(client: Client, settings: Settings) -> None:
    before = datetime.now(UTC)
    call = await create(client, welcome_message="Good morning.")

    assert abs(call.created_at.ToDatetime(tzinfo=UTC) - before) < timedelta(seconds=5)
    conference = call.conference_call
    assert len({UUID(call.uuid), UUID(conference.uuid), UUID(call.internal_conversation_id)}) == 3
    assert call == call_pb2.Call(
        id=call.id,
        uuid=call.uuid,
        kind="conference",
        client_conversation_id="family-1",
        internal_conversation_id=call.internal_conversation_id,
        global_id=call.global_id,
        internal_status="pending",
        created_at=call.created_at,
        updated_at=call.created_at,
        provider_number=SENDER,
        participant_number=MODERATOR,
        bearer_id=client.bearer_id,
        callback_url=CALLBACK_URL,
        conference_call=conference_call_pb2.ConferenceCall(
            id=conference.id,
            uuid=conference.uuid,
            client_conversation_id="family-1",
            friendly_name=conference.uuid,
            twilio_number=SENDER,
            moderator_number=MODERATOR,
            participant_numbers=CONTACTS,
            welcome_message="Good morning.",
            created_at=call.created_at,
            updated_at=call.created_at,
            call_uuid=call.uuid,
            internal_status="pending",
        ),
    )


async def test_get_answers_the_conference_flat_by_either_uuid(client: Client) -> None:
    call = await create(client)

    by_call = await get(client, call)
    request = pb.GetConferenceCallRequest(uuid=call.conference_call.uuid)
    by_conference = await client.conference_calls.GetConferenceCall(request, metadata=client.metadata)

    assert by_call == by_conference == call.conference_call


async def test_call_its_legs_and_its_first_event_are_one(client: Client, db: Database) -> None:
    call = await create(client)

    [event] = await events_of(db, call)
    appended = await db.fetch_all(
        """SELECT e.bearer_id, e.type, e.sequence, e.callback_url, e.xmin = c.xmin, f.xmin = c.xmin, l.xmin = c.xmin
           FROM events e JOIN calls c ON c.uuid = e.resource_uuid JOIN conference_calls f ON f.call_id = c.id
           JOIN call_legs l ON l.call_id = c.id""",
        {},
        tuple_row,
    )

    assert event.call == call
    assert (event.type, event.sequence, event.bearer_id) == (UPDATE, 1, client.bearer_id)
    assert event.occurred_at == call.created_at
    assert appended == [(client.bearer_id, UPDATE, 1, CALLBACK_URL, True, True, True)] * 3


async def test_only_the_moderator_is_due(client: Client, db: Database) -> None:
    legs = await legs_of(db, await create(client))

    assert [(leg.kind, leg.address, leg.position) for leg in legs] == [
        ("moderator", MODERATOR, 0),
        ("contact", CONTACTS[0], 1),
        ("contact", CONTACTS[1], 2),
    ]
    assert [leg.dial_at is not None for leg in legs] == [True, False, False]
    assert all(leg.call_sid is None and leg.dial_attempts == 0 for leg in legs)


async def test_call_expires_after_it_could_have_lasted(client: Client, db: Database, settings: Settings) -> None:
    row = await row_of(db, await create(client))

    assert row.expires_at is not None
    assert settings.maximum_call_length < row.expires_at - row.created_at < timedelta(hours=3)


async def test_default_is_what_participants_hear(client: Client, settings: Settings) -> None:
    given = [await create(client, welcome_message=text) for text in ("", " ")]

    assert {call.conference_call.welcome_message for call in given} == {settings.conference_welcome_message}


@pytest.mark.parametrize("bearer_type", list(BearerType))
async def test_every_key_may_create(client_of: MakeClient, bearer_type: BearerType) -> None:
    caller = await client_of(bearer_type)

    assert (await create(caller)).bearer_id == caller.bearer_id


async def test_other_spellings_of_numbers_are_normalised(client: Client) -> None:
    call = await create(
        client,
        twilio_number="(206) 555-0100",
        moderator_number="206.555.0110",
        participant_numbers=["1 206 555 0120", "tel:+1-206-555-0121"],
    )

    conference = call.conference_call
    assert (conference.twilio_number, conference.moderator_number) == (SENDER, MODERATOR)
    assert tuple(conference.participant_numbers) == CONTACTS


async def test_every_bad_field_is_named_at_once(client: Client, db: Database) -> None:
    answer = await refused_create(
        client,
        twilio_number="12",
        moderator_number="x",
        client_conversation_id="x" * 256,
        welcome_message="x" * 1001,
        callback_url="x",
        participant_numbers=["206-555-XXXX", "", CONTACTS[0], "206 555 0120"],
        request_id="x" * 256,
    )

    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(answer.fields) == {
        *("twilio_number", "moderator_number", "client_conversation_id", "welcome_message", "callback_url"),
        *("participant_numbers[0]", "participant_numbers[1]", "participant_numbers[3]", "request_id"),
    }
    assert await is_untouched(db)


async def test_what_is_required_is_named_at_once(client: Client) -> None:
    request = pb.CreateConferenceCallRequest()

    answer = await refused(client.conference_calls.CreateConferenceCall(request, metadata=client.metadata))

    assert set(answer.fields) == {
        "twilio_number",
        "moderator_number",
        "client_conversation_id",
        "participant_numbers",
    }


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"moderator_number": SENDER}, "moderator_number"),
        ({"participant_numbers": [SENDER]}, "participant_numbers[0]"),
        ({"participant_numbers": [CONTACTS[0], MODERATOR]}, "participant_numbers[1]"),
        ({"participant_numbers": [CONTACTS[0], CONTACTS[0]]}, "participant_numbers[1]"),
        ({"participant_numbers": []}, "participant_numbers"),
        ({"participant_numbers": [f"+1206555{n:04}" for n in range(200, 221)]}, "participant_numbers"),
        ({"client_conversation_id": " "}, "client_conversation_id"),
        ({"client_conversation_id": "a\nb"}, "client_conversation_id"),
        ({"callback_url": "ftp://x.example/"}, "callback_url"),
        ({"callback_url": "https://x.example/" + "x" * 2048}, "callback_url"),
        ({"welcome_message": "a\0"}, "welcome_message"),
    ],
)
async def test_bad_fields_are_refused(client: Client, db: Database, over: dict[str, Any], field: str) -> None:
    assert (await refused_create(client, **over)).fields == (field,)
    assert await is_untouched(db)


@pytest.mark.parametrize("participants", [1, 20])
async def test_so_many_may_be_called(client: Client, db: Database, participants: int) -> None:
    numbers = [f"+1206555{n:04}" for n in range(200, 200 + participants)]

    call = await create(client, participant_numbers=numbers)

    assert list(call.conference_call.participant_numbers) == numbers
    assert [leg.address for leg in await legs_of(db, call)] == [MODERATOR, *numbers]


async def test_number_that_is_not_ours_is_refused(client: Client, db: Database) -> None:
    answer = await refused_create(client, twilio_number="+12065550999", request_id="once")

    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SENDER_NUMBER_NOT_OWNED")
    assert answer.metadata == {"sender_number": "+12065550999"}
    assert await is_untouched(db)


async def test_number_that_was_released_or_is_bandwidths_is_refused(client: Client, db: Database) -> None:
    await make_messaging_service(
        db,
        name="other",
        global_customer_id="other",
        provider="bandwidth",
        twilio_messaging_sid=None,
        bandwidth_messaging_sid="app",
        phone_numbers=["+12065550300"],
    )
    await db.execute("UPDATE twilio_numbers SET released_at = now() WHERE phone_number = '+12065550101'")

    for number in ("+12065550300", "+12065550101"):
        assert (await refused_create(client, twilio_number=number)).reason == "SENDER_NUMBER_NOT_OWNED"


async def test_contact_of_another_conversation_at_this_number_is_refused(client: Client, db: Database) -> None:
    await create(client, client_conversation_id="family-1")
    before = [await count(db, table) for table in _TABLES]

    answer = await refused_create(client, client_conversation_id="family-2")

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "PHONE_NUMBER_PAIRED")
    assert answer.metadata == {"phone_number": SENDER}
    assert [await count(db, table) for table in _TABLES] == before


async def test_contact_who_takes_no_calls_is_refused(client: Client, db: Database) -> None:
    now = datetime.now(UTC)
    async with db.begin() as tx:
        assert await toggle(tx, provider_number=SENDER, phone_number=CONTACTS[1], since=now, now=now)

    answer = await refused_create(client)

    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RECIPIENT_OPTED_OUT_OF_CALLS")
    assert answer.metadata == {"phone_number": CONTACTS[1]}
    assert await is_untouched(db)


async def test_everybody_is_in_the_conversation_and_contacts_are_paired(client: Client, db: Database) -> None:
    await create(client)
    await create(client, participant_numbers=[CONTACTS[0], RECEIVER])

    members = await db.fetch_all(
        "SELECT role, phone_number, twilio_number FROM participants ORDER BY id", {}, tuple_row
    )
    paired = await db.fetch_all("SELECT twilio_number, phone_number FROM pairings ORDER BY 2", {}, tuple_row)

    assert members == [
        ("moderator", MODERATOR, None),
        ("contact", CONTACTS[0], SENDER),
        ("contact", CONTACTS[1], SENDER),
        ("contact", RECEIVER, SENDER),
    ]
    assert paired == sorted([(SENDER, CONTACTS[0]), (SENDER, CONTACTS[1]), (SENDER, RECEIVER)], key=lambda p: p[1])
    assert await count(db, "conversations") == 1


async def test_full_conversation_takes_nobody_more(client: Client, db: Database) -> None:
    call = await create(client)
    await db.execute(
        """INSERT INTO participants (conversation_id, role, phone_number)
           SELECT (SELECT id FROM conversations), 'contact', '+1206556' || lpad(n::text, 4, '0')
           FROM generate_series(1, 247) n"""
    )

    answer = await refused_create(client, participant_numbers=[CONTACTS[0], RECEIVER])

    assert answer.fields == ("participant_numbers",)
    assert (await create(client)).internal_conversation_id == call.internal_conversation_id


async def test_callback_url_is_the_requests_then_the_conversations_then_the_bearers(client: Client) -> None:
    first = await create(client, client_conversation_id="1", callback_url="https://first.example/")
    of_conversation = await create(client, client_conversation_id="1")
    of_request = await create(client, client_conversation_id="1", callback_url="https://second.example/")
    again = await create(client, client_conversation_id="1")
    numbers = ["+12065550140"]
    of_bearer = await create(client, client_conversation_id="2", participant_numbers=numbers)
    known = await create_conversation(client, client_conversation_id="3", callback_url="https://third.example/")
    of_known = await create(
        client, client_conversation_id=known.client_conversation_id, participant_numbers=["+12065550141"]
    )

    assert [call.callback_url for call in (first, of_conversation, of_request, again, of_bearer, of_known)] == [
        "https://first.example/",
        "https://first.example/",
        "https://second.example/",
        "https://first.example/",
        CALLBACK_URL,
        "https://third.example/",
    ]


async def test_repeated_request_id_answers_the_first_call(client: Client, db: Database) -> None:
    first = await create(client, request_id="once")
    again = await create(client, request_id="once")
    other = await refused_create(client, request_id="once", welcome_message="Another.")

    assert again == first
    assert other.code == grpc.StatusCode.ALREADY_EXISTS
    assert [await count(db, table) for table in ("calls", "call_legs", "events")] == [1, 3, 1]


async def test_concurrent_creates_of_one_new_conversation_are_all_made(client: Client, db: Database) -> None:
    made = await asyncio.gather(*(create(client) for _ in range(12)))

    assert len({call.internal_conversation_id for call in made}) == 1
    assert [await count(db, table) for table in ("calls", "conversations", "pairings", "events")] == [12, 1, 2, 12]


async def test_creates_and_conversations_that_share_contacts_do_not_wait_for_each_other(
    client: Client, db: Database
) -> None:
    async def make(number: int) -> None:
        contacts = CONTACTS if number % 2 else tuple(reversed(CONTACTS))
        await create(client, participant_numbers=contacts)

    async def update(number: int) -> None:
        await create_conversation(client, client_conversation_id=f"other-{number}")

    await asyncio.gather(*(make(n) for n in range(10)), *(update(n) for n in range(10)))

    assert await count(db, "calls") == 10
