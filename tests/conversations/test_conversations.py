"""Conversations through the front door: made, read, listed, changed."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import grpc.aio
import pytest
from commonservices.v1 import conversation_pb2, participant_pb2
from commonservices.v1 import conversation_service_pb2 as pb

from server.caller import BearerType
from server.db import Database
from tests.clients import Client, refusal, refused
from tests.conftest import MakeClient
from tests.conversations.support import (
    MODERATOR,
    OTHER_CONTACT,
    contact,
    count,
    create,
    get,
    moderator,
    numbers,
    update,
)
from tests.factories import RECEIVER, SENDER, SERVICE_SID, create_message, make_messaging_service

GRINNING = "\N{GRINNING FACE}"


async def nothing_is_left(db: Database) -> bool:
    tables = ("conversations", "participants", "pairings", "idempotency_keys")
    return [await count(db, table) for table in tables] == [0] * len(tables)


async def fill(db: Database, conversation: conversation_pb2.Conversation, size: int) -> None:
    """Have this many in it, as messages may bring them in."""
    query = """INSERT INTO participants (conversation_id, role, client_participant_id)
    SELECT %(conversation_id)s, 'moderator', n FROM generate_series(1, %(size)s) n"""
    await db.execute(query, {"conversation_id": conversation.id, "size": size})


async def test_answer_has_every_documented_field(client: Client) -> None:
    before = datetime.now(UTC)
    made = await create(
        client,
        client_conversation_id="family-1",
        callback_url="http://own.example/",
        messaging_service_sid=SERVICE_SID,
        participants=[moderator("teacher-7", MODERATOR), contact("(206) 555-0190", "guardian-1")],
    )

    assert abs(made.created_at.ToDatetime(tzinfo=UTC) - before) < timedelta(seconds=5)
    assert UUID(made.internal_conversation_id) != UUID(made.global_id)
    common: dict[str, Any] = {
        "client_conversation_id": "family-1",
        "internal_conversation_id": made.internal_conversation_id,
        "global_id": made.global_id,
        "created_at": made.created_at,
        "updated_at": made.created_at,
    }
    teacher, guardian = made.participants
    assert made == conversation_pb2.Conversation(
        id=made.id,
        callback_url="http://own.example/",
        global_customer_id="customer",
        messaging_service_uuid=made.messaging_service_uuid,
        participants=[
            participant_pb2.Participant(
                id=teacher.id,
                role="moderator",
                phone_number=MODERATOR,
                client_participant_id="teacher-7",
                **common,
            ),
            participant_pb2.Participant(
                id=guardian.id,
                role="contact",
                phone_number=RECEIVER,
                client_participant_id="guardian-1",
                twilio_number=SENDER,
                **common,
            ),
        ],
        bearer_id=client.bearer_id,
        **common,
    )


async def test_get_and_list_answer_what_the_create_did(client: Client) -> None:
    made = await create(client, RECEIVER, client_conversation_id="a", sender_number=SENDER)

    listed = await client.conversations.ListConversations(pb.ListConversationsRequest(), metadata=client.metadata)

    assert await get(client, made) == made
    assert list(listed.conversations) == [made]


@pytest.mark.parametrize("key", ["id", "client_conversation_id", "global_id", "internal_conversation_id"])
async def test_each_id_names_the_conversation(client: Client, key: str) -> None:
    made = await create(client, client_conversation_id=f"x{uuid4()}")
    named = {key: getattr(made, key)}

    got = await client.conversations.GetConversation(pb.GetConversationRequest(**named), metadata=client.metadata)
    change = pb.UpdateConversationRequest(**named, conversation=pb.NewConversation(callback_url="http://c.example/"))
    changed = await client.conversations.UpdateConversation(change, metadata=client.metadata)

    assert got == made
    assert (changed.id, changed.callback_url) == (made.id, "http://c.example/")


@pytest.mark.parametrize(
    "key",
    [
        {"id": 0},
        {"id": 4294967295},
        {"client_conversation_id": ""},
        {"client_conversation_id": GRINNING},
        {"global_id": ""},
        {"global_id": "nonsense"},
        {"global_id": "00000000-0000-0000-0000-000000000000"},
        {"internal_conversation_id": "é"},
    ],
)
async def test_unknown_conversation_is_not_found(client: Client, key: dict[str, Any]) -> None:
    await create(client)
    reading = client.conversations.GetConversation(pb.GetConversationRequest(**key), metadata=client.metadata)
    changing = client.conversations.UpdateConversation(
        pb.UpdateConversationRequest(conversation=pb.NewConversation(), **key),
        metadata=client.metadata,
    )

    for answer in (await refused(reading), await refused(changing)):
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND")
        assert answer.metadata == {name: str(value) for name, value in key.items()}


async def test_conversation_must_be_named(client: Client) -> None:
    reading = client.conversations.GetConversation(pb.GetConversationRequest(), metadata=client.metadata)
    changing = client.conversations.UpdateConversation(pb.UpdateConversationRequest(), metadata=client.metadata)

    assert (await refused(reading)).fields == ("key",)
    assert set((await refused(changing)).fields) == {"key", "conversation"}


@pytest.mark.parametrize("bearer_type", [BearerType.APPLICATION, BearerType.USER, BearerType.ADMIN])
async def test_ids_in_the_callers_system_are_each_bearers_own(
    client: Client, client_of: MakeClient, bearer_type: BearerType
) -> None:
    other = await client_of(bearer_type)
    first = await create(client, client_conversation_id="a")
    second = await create(other, client_conversation_id="a")
    request = pb.GetConversationRequest(client_conversation_id="a")

    assert first.id != second.id
    assert await other.conversations.GetConversation(request, metadata=other.metadata) == second
    assert await client.conversations.GetConversation(request, metadata=client.metadata) == first


async def test_only_an_admin_sees_and_changes_anothers(client: Client, client_of: MakeClient, admin: Client) -> None:
    made = await create(client, client_conversation_id="a")
    other = await client_of(BearerType.USER)

    for refusing in (get(other, made), update(other, made, client_conversation_id="b")):
        assert (await refused(refusing)).reason == "CONVERSATION_NOT_FOUND"
    assert await get(admin, made) == made
    changed = await update(admin, made, client_conversation_id="b")
    assert (changed.bearer_id, changed.client_conversation_id) == (client.bearer_id, "b")


async def test_taken_id_is_refused_and_leaves_nothing(client: Client, db: Database) -> None:
    await create(client, RECEIVER, client_conversation_id="a", sender_number=SENDER)
    untouched = [await count(db, table) for table in ("conversations", "participants", "pairings")]

    answer = await refused(
        create(client, OTHER_CONTACT, client_conversation_id="a", sender_number=SENDER, request_id="once")
    )

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "CONVERSATION_EXISTS")
    assert answer.metadata == {"client_conversation_id": "a"}
    assert [await count(db, table) for table in ("conversations", "participants", "pairings")] == untouched
    assert await count(db, "idempotency_keys") == 0


async def test_id_of_a_conversation_that_a_message_began_is_taken(client: Client) -> None:
    await create_message(client, client_conversation_id="a")

    assert (await refused(create(client, client_conversation_id="a"))).reason == "CONVERSATION_EXISTS"


async def test_one_of_many_who_want_an_id_at_once_gets_it(client: Client, db: Database) -> None:
    outcomes = await asyncio.gather(
        *(create(client, RECEIVER, client_conversation_id="a", global_customer_id="customer") for _ in range(20)),
        return_exceptions=True,
    )

    reasons = {refusal(o).reason for o in outcomes if isinstance(o, grpc.aio.AioRpcError)}
    assert sum(isinstance(o, conversation_pb2.Conversation) for o in outcomes) == 1
    assert reasons <= {"CONVERSATION_EXISTS", "NUMBER_POOL_EXHAUSTED"}
    assert [await count(db, t) for t in ("conversations", "participants", "pairings")] == [1, 1, 1]


async def test_repeated_create_answers_the_same_conversation(client: Client, db: Database) -> None:
    given = {"client_conversation_id": "a", "global_customer_id": "customer", "request_id": "once"}

    made = await asyncio.gather(*(create(client, RECEIVER, **given) for _ in range(10)))

    assert len({conversation.SerializeToString(deterministic=True) for conversation in made}) == 1
    assert await count(db, "conversations") == 1
    assert (await refused(create(client, OTHER_CONTACT, **given))).reason == "REQUEST_ID_REUSED"


async def test_list_pages_hold_every_conversation_once_newest_first(client: Client, client_of: MakeClient) -> None:
    other = await client_of()
    made = []
    for number in range(5):
        made.append(
            await create(client, *[f"+1206555017{n}" for n in range(number)], client_conversation_id=f"{number}")
        )
        await create(other, RECEIVER, client_conversation_id=f"{number}")

    seen: list[conversation_pb2.Conversation] = []
    token = ""
    while True:
        page = await client.conversations.ListConversations(
            pb.ListConversationsRequest(page_size=2, page_token=token), metadata=client.metadata
        )
        seen += page.conversations
        token = page.next_page_token
        if not token:
            break

    assert seen == made[::-1]


async def test_page_ends_before_it_has_too_many_participants(client: Client, db: Database) -> None:
    made = [await create(client) for _ in range(5)]
    for conversation, size in zip(made, (1, 2000, 2999, 6000, 1), strict=True):
        await fill(db, conversation, size)

    pages = []
    token = ""
    while True:
        request = pb.ListConversationsRequest(page_size=1000, page_token=token)
        page = await client.conversations.ListConversations(request, metadata=client.metadata)
        pages.append([(conversation.id, len(conversation.participants)) for conversation in page.conversations])
        token = page.next_page_token
        if not token:
            break

    first, second, third, huge, last = (conversation.id for conversation in made)
    assert pages == [[(last, 1)], [(huge, 6000)], [(third, 2999), (second, 2000), (first, 1)]]


async def test_admin_lists_everybodys(client: Client, admin: Client) -> None:
    made = [await create(client), await create(admin)]

    listed = await admin.conversations.ListConversations(pb.ListConversationsRequest(), metadata=admin.metadata)

    assert list(listed.conversations) == made[::-1]


async def test_conversation_that_a_message_began_is_shown_with_its_contact(client: Client) -> None:
    message = await create_message(client, client_conversation_id="")
    request = pb.GetConversationRequest(internal_conversation_id=message.internal_conversation_id)

    conversation = await client.conversations.GetConversation(request, metadata=client.metadata)

    assert not conversation.HasField("client_conversation_id")
    assert [(p.role, p.phone_number, p.twilio_number) for p in conversation.participants] == [
        ("contact", RECEIVER, SENDER)
    ]


async def test_update_sets_what_is_given_alone(client: Client) -> None:
    made = await create(client, RECEIVER, client_conversation_id="a", callback_url="http://a.example/")

    changed = await update(client, made, callback_url="http://b.example/")
    renamed = await update(client, made, client_conversation_id="b", global_customer_id="customer")
    same = await update(client, made)

    assert changed.updated_at.ToDatetime() > made.updated_at.ToDatetime()
    changed.updated_at.CopyFrom(made.updated_at)
    changed.callback_url = "http://a.example/"
    assert changed == made
    assert (renamed.client_conversation_id, renamed.callback_url) == ("b", "http://b.example/")
    assert (renamed.global_customer_id, renamed.created_at) == ("customer", made.created_at)
    assert renamed.participants[0].client_conversation_id == "b"
    same.updated_at.CopyFrom(renamed.updated_at)
    assert same == renamed
    assert await get(client, made) != made


async def test_update_to_a_taken_id_is_refused_and_changes_nothing(client: Client, db: Database) -> None:
    await create(client, client_conversation_id="a")
    other = await create(client, client_conversation_id="b")

    answer = await refused(
        update(client, other, RECEIVER, client_conversation_id="a", callback_url="http://c.example/")
    )

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "CONVERSATION_EXISTS")
    assert await get(client, other) == other


async def test_callback_url_goes_before_the_bearers(client: Client) -> None:
    made = await create(client, client_conversation_id="a", callback_url="http://a.example/")
    first = await create_message(client, client_conversation_id="a")
    await update(client, made, callback_url="http://b.example/")
    second = await create_message(client, client_conversation_id="a")

    assert (first.callback_url, second.callback_url) == ("http://a.example/", "http://b.example/")


async def test_messages_go_out_from_what_the_conversation_names(client: Client, db: Database) -> None:
    await make_messaging_service(
        db, name="b", global_customer_id="b", twilio_messaging_sid="MG2", phone_numbers=["+12535550100"]
    )
    made = await create(client, RECEIVER, client_conversation_id="a", global_customer_id="b")

    to_known = await create_message(client, client_conversation_id="a", sender_number="")
    to_new = await create_message(client, client_conversation_id="a", sender_number="", receiver_number=OTHER_CONTACT)

    assert {to_known.sender_number, to_new.sender_number} == {"+12535550100"}
    assert to_known.internal_conversation_id == made.internal_conversation_id
    assert numbers(await get(client, made)) == ["+12535550100"] * 2


@pytest.mark.parametrize(
    "field",
    ["client_conversation_id", "callback_url", "messaging_service_sid", "global_customer_id", "sender_number"],
)
async def test_nul_is_refused(client: Client, db: Database, field: str) -> None:
    answer = await refused(create(client, **{field: "a\0b"}))

    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (f"conversation.{field}",))
    assert await nothing_is_left(db)


async def test_nul_in_an_id_is_refused(client: Client) -> None:
    request = pb.GetConversationRequest(client_conversation_id="a\0b")

    answer = await refused(client.conversations.GetConversation(request, metadata=client.metadata))

    assert answer.fields == ("client_conversation_id",)


async def test_every_bad_field_is_named_at_once(client: Client, db: Database) -> None:
    request = pb.CreateConversationRequest(
        request_id="x" * 256,
        conversation=pb.NewConversation(
            client_conversation_id="x" * 256,
            callback_url="x",
            messaging_service_sid="x" * 256,
            global_customer_id="x" * 256,
            sender_number="1",
            participants=[
                pb.NewParticipant(role="x", phone_number=RECEIVER),
                contact(""),
                moderator(),
                contact("1", "x" * 256),
            ],
        ),
    )

    answer = await refused(client.conversations.CreateConversation(request, metadata=client.metadata))

    assert set(answer.fields) == {"request_id"} | {
        f"conversation.{name}"
        for name in (
            "client_conversation_id",
            "callback_url",
            "messaging_service_sid",
            "global_customer_id",
            "sender_number",
            "participants[0].role",
            "participants[1].phone_number",
            "participants[2].phone_number",
            "participants[3].phone_number",
            "participants[3].client_participant_id",
        )
    }
    assert await nothing_is_left(db)


async def test_odd_texts_are_data(client: Client) -> None:
    odd = f"'; DROP TABLE conversations; -- {GRINNING} %s {uuid4()}"

    made = await create(client, client_conversation_id=odd, participants=[moderator(odd)])

    assert made.client_conversation_id == made.participants[0].client_participant_id == odd
    assert (await refused(create(client, global_customer_id=odd))).metadata == {"global_customer_id": odd}
