"""Many at once: no two conversations get one number with a contact, and nobody is told a thing that is not so."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import grpc.aio
import pytest
from commonservices.v1 import conversation_pb2
from psycopg.rows import scalar_row

from server.caller import BearerType
from server.db import Database
from tests.clients import Client, refusal
from tests.conftest import MakeClient
from tests.conversations.support import (
    OTHER_CONTACT,
    SECOND,
    broken,
    contact,
    count,
    create,
    deactivate,
    moderator,
    numbers,
    pairings,
    update,
)
from tests.factories import RECEIVER, SENDER, create_message, make_messaging_service

BY_SERVICE = {"global_customer_id": "customer"}

_WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""

# What a message does that brings a contact into a conversation, before its commit.
_PAIR = """
WITH participant AS (
    INSERT INTO participants (conversation_id, role, phone_number, twilio_number)
    VALUES (%(conversation_id)s, 'contact', %(phone_number)s, %(twilio_number)s)
    ON CONFLICT (conversation_id, role, phone_number) DO UPDATE
    SET twilio_number = excluded.twilio_number, pairing_deactivated_at = NULL
    RETURNING id
)
INSERT INTO pairings (twilio_number, phone_number, participant_id, conversation_id)
SELECT %(twilio_number)s, %(phone_number)s, id, %(conversation_id)s FROM participant
"""


async def outcome(call: Awaitable[conversation_pb2.Conversation]) -> str:
    """The number that talks to its only participant, or why the call was refused."""
    try:
        [number] = numbers(await call)
    except grpc.aio.AioRpcError as error:
        return refusal(error).reason
    return number


@asynccontextmanager
async def pairing_in_hand(
    db: Database, conversation: conversation_pb2.Conversation, twilio_number: str
) -> AsyncIterator[None]:
    """Until the block ends, a message is about to pair the contact with the number in the conversation."""
    parameters = {"conversation_id": conversation.id, "phone_number": RECEIVER, "twilio_number": twilio_number}
    async with db.connection() as connection, connection.transaction():
        await connection.execute(_PAIR, parameters)
        yield


async def until_waiting(db: Database, task: "asyncio.Task[object]") -> None:
    """Until the call waits for a lock."""
    async with asyncio.timeout(30):
        while await db.fetch_one(_WAITING, {}, scalar_row) != 1:
            assert not task.done()


@pytest.mark.parametrize("free", [1, 7, 40])
async def test_conversations_with_one_contact_at_once_never_share_a_number(
    client: Client, client_of: MakeClient, db: Database, free: int
) -> None:
    ours = [f"+1360555{n:04}" for n in range(free)]
    await make_messaging_service(
        db, name="many", global_customer_id="many", twilio_messaging_sid="MG9", phone_numbers=ours
    )
    clients = [client, await client_of(BearerType.USER), await client_of(BearerType.ADMIN)]

    outcomes = await asyncio.gather(
        *(outcome(create(clients[n % 3], RECEIVER, global_customer_id="many")) for n in range(30))
    )

    succeeded = min(free, 30)
    found = Counter(outcomes)
    assert found.pop("NUMBER_POOL_EXHAUSTED", 0) == 30 - succeeded
    assert set(found.values()) == {1}
    assert set(found) <= set(ours)
    assert await count(db, "conversations") == await count(db, "pairings") == succeeded
    assert await broken(db) == []


async def test_conversations_and_messages_at_once_never_share_a_number(client: Client, db: Database) -> None:
    ours = [f"+1360555{n:04}" for n in range(10)]
    await make_messaging_service(
        db, name="many", global_customer_id="many", twilio_messaging_sid="MG9", phone_numbers=ours
    )

    async def message(number: int) -> str:
        call = create_message(
            client, sender_number="", global_customer_id="many", client_conversation_id=f"message-{number}"
        )
        try:
            return (await call).sender_number
        except grpc.aio.AioRpcError as error:
            return refusal(error).reason

    outcomes = await asyncio.gather(
        *(message(n) for n in range(15)),
        *(outcome(create(client, RECEIVER, global_customer_id="many")) for _ in range(15)),
    )

    assert Counter(outcomes) == {**dict.fromkeys(ours, 1), "NUMBER_POOL_EXHAUSTED": 20}
    assert await broken(db) == []


async def test_one_of_many_who_name_a_number_gets_it(client: Client, db: Database) -> None:
    outcomes = await asyncio.gather(*(outcome(create(client, RECEIVER, sender_number=SENDER)) for _ in range(20)))

    assert Counter(outcomes) == {SENDER: 1, "PHONE_NUMBER_PAIRED": 19}
    assert await count(db, "conversations") == 1


async def test_contacts_in_any_order_at_once_do_not_wait_for_each_other(client: Client, db: Database) -> None:
    contacts = [f"+1425555{n:04}" for n in range(12)]
    ours = [f"+1360555{n:04}" for n in range(20)]
    await make_messaging_service(
        db, name="many", global_customer_id="many", twilio_messaging_sid="MG9", phone_numbers=ours
    )

    made = await asyncio.gather(
        *(
            create(client, *(contacts[n % 12 :] + contacts[: n % 12])[:: 1 - n % 2 * 2], global_customer_id="many")
            for n in range(20)
        )
    )

    assert {len(set(numbers(conversation))) for conversation in made} == {1}
    assert await count(db, "pairings") == 20 * 12
    assert await broken(db) == []


async def test_updates_of_one_conversation_at_once_add_everybody_once(client: Client, db: Database) -> None:
    made = await create(client, **BY_SERVICE)
    contacts = [f"+1425555{n:04}" for n in range(6)]

    await asyncio.gather(
        *(update(client, made, *contacts[n % 6 :], client_conversation_id=f"{n}") for n in range(12)),
        *(update(client, made, participants=[contact(contacts[n], f"guardian-{n}")]) for n in range(6)),
    )

    assert await count(db, "participants") == await count(db, "pairings") == 6
    known = await db.fetch_all("SELECT client_participant_id FROM participants", {}, scalar_row)
    assert set(known) == {f"guardian-{n}" for n in range(6)}
    assert await broken(db) == []


async def test_moderators_in_any_order_at_once_do_not_wait_for_each_other(client: Client, db: Database) -> None:
    made = await create(client)
    moderators = [moderator(f"teacher-{n}") for n in range(50)]

    await asyncio.gather(
        *(update(client, made, participants=moderators[:: 1 - n % 2 * 2]) for n in range(10)),
    )

    assert await count(db, "participants") == 50


async def test_conversation_has_at_most_250_participants_also_of_many_who_add_them(
    client: Client, db: Database
) -> None:
    made = await create(client)
    halves = [[moderator(f"teacher-{half}-{n}") for n in range(150)] for half in range(4)]

    outcomes = await asyncio.gather(
        *(update(client, made, participants=half) for half in halves), return_exceptions=True
    )

    assert sum(isinstance(o, conversation_pb2.Conversation) for o in outcomes) == 1
    assert await count(db, "participants") == 150


async def test_messages_and_updates_at_once_add_everybody_once(client: Client, db: Database) -> None:
    made = await create(client, client_conversation_id="a", **BY_SERVICE)
    contacts = [f"+1425555{n:04}" for n in range(6)]

    await asyncio.gather(
        *(
            create_message(client, sender_number="", client_conversation_id="a", receiver_number=contacts[n % 6])
            for n in range(12)
        ),
        *(update(client, made, *contacts[n:]) for n in range(6)),
    )

    assert await count(db, "participants") == await count(db, "pairings") == 6
    assert await count(db, "messages") == 12
    assert await broken(db) == []


async def test_deactivating_and_pairing_at_once_leave_what_one_of_them_says(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER, client_conversation_id="a", **BY_SERVICE)

    for _ in range(5):
        await asyncio.gather(
            *(deactivate(client, made, RECEIVER) for _ in range(3)),
            *(update(client, made, RECEIVER) for _ in range(3)),
            *(create_message(client, sender_number="", client_conversation_id="a") for _ in range(3)),
        )

        assert await broken(db) == []


async def test_number_is_free_for_those_who_ask_after_it_was_deactivated(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER, sender_number=SENDER)

    outcomes = await asyncio.gather(
        *(outcome(create(client, RECEIVER, sender_number=SENDER)) for _ in range(6)),
        deactivate(client, made, RECEIVER),
        *(outcome(create(client, RECEIVER, sender_number=SENDER)) for _ in range(6)),
    )

    got = Counter(o for o in outcomes if isinstance(o, str))
    assert set(got) <= {SENDER, "PHONE_NUMBER_PAIRED"}
    assert got[SENDER] <= 1
    assert await count(db, "pairings") == got[SENDER]
    assert await broken(db) == []


async def test_deactivation_takes_the_pairing_that_a_message_has_in_hand(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER)
    async with pairing_in_hand(db, made, SENDER):
        deactivating = asyncio.create_task(deactivate(client, made, RECEIVER))
        await until_waiting(db, deactivating)

    assert (await deactivating).twilio_number == SENDER
    assert await pairings(db) == set()


async def test_pairing_waits_for_the_deactivation_in_hand(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER)
    async with db.connection() as connection, connection.transaction():
        await connection.execute("UPDATE participants SET pairing_deactivated_at = now()")
        updating = asyncio.create_task(update(client, made, RECEIVER, sender_number=SENDER))
        await until_waiting(db, updating)

    [participant] = (await updating).participants
    assert (participant.twilio_number, participant.HasField("pairing_deactivated_at")) == (SENDER, False)
    assert await broken(db) == []


async def test_new_id_does_not_stop_a_message_that_has_the_contact_in_hand(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER, client_conversation_id="a")
    async with db.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM participants FOR NO KEY UPDATE")
        updating = asyncio.create_task(update(client, made, RECEIVER, client_conversation_id="b"))
        await until_waiting(db, updating)
        # As its foreign key does, last.
        await connection.execute("SELECT FROM conversations FOR KEY SHARE")

    assert (await updating).client_conversation_id == "b"


async def test_contact_that_a_message_has_in_hand_is_not_added_twice(client: Client, db: Database) -> None:
    made = await create(client, **BY_SERVICE)
    async with pairing_in_hand(db, made, SECOND):
        updating = asyncio.create_task(update(client, made, participants=[contact(RECEIVER, "guardian")]))
        await until_waiting(db, updating)

    [participant] = (await updating).participants
    assert (participant.client_participant_id, participant.twilio_number) == ("guardian", SECOND)
    assert await broken(db) == []


async def test_number_that_a_message_has_in_hand_is_left_to_it(client: Client, db: Database) -> None:
    other = await create(client)
    async with pairing_in_hand(db, other, SENDER):
        creating = asyncio.create_task(create(client, OTHER_CONTACT, RECEIVER, **BY_SERVICE))
        await until_waiting(db, creating)

    made = await creating
    assert numbers(made) == [SENDER, SECOND]
    assert await pairings(db) == {
        (SENDER, RECEIVER, other.id),
        (SENDER, OTHER_CONTACT, made.id),
        (SECOND, RECEIVER, made.id),
    }


async def test_number_that_is_named_and_a_message_has_in_hand_is_refused(client: Client, db: Database) -> None:
    other = await create(client)
    async with pairing_in_hand(db, other, SENDER):
        creating = asyncio.create_task(outcome(create(client, RECEIVER, sender_number=SENDER)))
        await until_waiting(db, creating)

    assert await creating == "PHONE_NUMBER_PAIRED"
    assert await count(db, "conversations") == 1
