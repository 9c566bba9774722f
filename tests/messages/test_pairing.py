"""Which number a message goes out from, which conversation it joins, and that a pairing names one conversation."""

import asyncio
from collections import Counter

import grpc
import pytest
from commonservices.v1 import message_service_pb2 as pb
from psycopg.rows import scalar_row, tuple_row

from server.api import Api
from server.caller import BearerType
from server.db import Database
from tests.clients import Client, refusal, refused
from tests.conftest import MakeClient
from tests.factories import RECEIVER, SENDER, SERVICE_SID, create_message, make_messaging_service, new_message
from tests.messages.support import count

SECOND = "+12065550101"
OTHER_RECEIVER = "+12065550191"
POOL = ("+12535550100", "+12535550101", "+12535550102")
POOL_SID = "MG" + "2" * 32


@pytest.fixture(autouse=True)
async def _service(api: Api, db: Database) -> None:
    await make_messaging_service(db)


async def make_pool(db: Database, *, state: str = "WA") -> None:
    """The K-12 pool of a state, and the customer of the other service a part of it."""
    await make_messaging_service(
        db, name="pool", global_customer_id="pool", twilio_messaging_sid=POOL_SID, phone_numbers=POOL
    )
    await db.execute("UPDATE messaging_services SET is_k12_pool = true WHERE name = 'pool'")
    await db.execute("UPDATE twilio_numbers SET state_code = 'WA'")
    await db.execute(
        "UPDATE customers SET number_pool = 'k12', state = %s WHERE global_customer_id = 'customer'", (state,)
    )


async def deactivate(db: Database, conversation: str) -> None:
    """As the API does it."""
    await db.execute(
        "DELETE FROM pairings WHERE conversation_id IN"
        " (SELECT id FROM conversations WHERE client_conversation_id = %s)",
        (conversation,),
    )
    await db.execute(
        "UPDATE participants SET pairing_deactivated_at = now() WHERE conversation_id IN"
        " (SELECT id FROM conversations WHERE client_conversation_id = %s)",
        (conversation,),
    )


async def pairings(db: Database) -> set[tuple[str, str, str]]:
    """The active pairings, with their conversations' ids in the caller's system."""
    query = """
        SELECT twilio_number, phone_number, client_conversation_id
        FROM pairings JOIN conversations ON conversations.id = conversation_id
    """
    return set(await db.fetch_all(query, {}, tuple_row))


def by_service(conversation: str, **over: str) -> dict[str, str]:
    """A message that leaves its sender to the customer's messaging service."""
    return {"sender_number": "", "global_customer_id": "customer", "client_conversation_id": conversation, **over}


async def refused_create(client: Client, **over: str) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    request = pb.CreateMessageRequest(message=new_message(**over))
    answer = await refused(client.messages.CreateMessage(request, metadata=client.metadata))
    return answer.code, answer.reason, answer.metadata


async def test_first_message_pairs_the_two_numbers(client: Client, db: Database) -> None:
    await create_message(client)
    await create_message(client)

    assert await pairings(db) == {(SENDER, RECEIVER, "conversation-1")}
    participants = await db.fetch_all("SELECT role, phone_number, twilio_number FROM participants", {}, tuple_row)
    assert participants == [("contact", RECEIVER, SENDER)]


async def test_conversation_keeps_its_number(client: Client) -> None:
    first = await create_message(client, **by_service("a", sender_number=SECOND, global_customer_id=""))
    second = await create_message(client, **by_service("a"))
    third = await create_message(client, **by_service("a", global_customer_id=""))

    assert {m.sender_number for m in (first, second, third)} == {SECOND}


@pytest.mark.parametrize("named", [{"global_customer_id": "other"}, {"messaging_service_sid": "MG-other"}])
async def test_conversation_keeps_its_number_whichever_service_is_named(
    client: Client, db: Database, named: dict[str, str]
) -> None:
    await make_messaging_service(
        db, name="other", global_customer_id="other", twilio_messaging_sid="MG-other", phone_numbers=POOL
    )
    await create_message(client, **by_service("a"))

    known = await create_message(client, **{**by_service("a", global_customer_id=""), **named})
    elsewhere = await create_message(client, **{**by_service("b", global_customer_id=""), **named})

    assert (known.sender_number, elsewhere.sender_number) == (SENDER, POOL[0])
    assert (await refused_create(client, **by_service("a", global_customer_id="nobody")))[1] == "NO_SENDER_NUMBER"


async def test_other_contacts_of_a_conversation_get_its_number(client: Client) -> None:
    await create_message(client, **by_service("a", sender_number=SECOND))

    message = await create_message(client, **by_service("a", receiver_number=OTHER_RECEIVER))

    assert message.sender_number == SECOND


async def test_another_conversation_with_the_contact_gets_another_number(client: Client, db: Database) -> None:
    first = await create_message(client, **by_service("a"))
    second = await create_message(client, **by_service("b"))

    assert (first.sender_number, second.sender_number) == (SENDER, SECOND)
    assert await pairings(db) == {(SENDER, RECEIVER, "a"), (SECOND, RECEIVER, "b")}


async def test_number_paired_elsewhere_is_refused(client: Client, client_of: MakeClient, db: Database) -> None:
    other = await client_of()
    await create_message(client, client_conversation_id="a")

    for caller in (client, other):
        code, reason, metadata = await refused_create(caller, client_conversation_id="b")
        assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, "PHONE_NUMBER_PAIRED")
        assert metadata == {"phone_number": SENDER}
    assert await count(db, "messages") == await count(db, "conversations") == 1


async def test_a_second_number_of_a_conversation_is_a_second_pairing(client: Client, db: Database) -> None:
    await create_message(client)
    await create_message(client, sender_number=SECOND)

    assert await pairings(db) == {(SENDER, RECEIVER, "conversation-1"), (SECOND, RECEIVER, "conversation-1")}
    assert (await create_message(client, sender_number="")).sender_number == SENDER


async def test_message_without_a_conversation_joins_the_paired_one(
    client: Client, client_of: MakeClient, db: Database
) -> None:
    first = await create_message(client)
    by_number = await create_message(client, client_conversation_id="")
    by_sid = await create_message(
        client, client_conversation_id="", sender_number="", messaging_service_sid=SERVICE_SID
    )
    by_customer = await create_message(
        client, client_conversation_id="", sender_number="", global_customer_id="customer"
    )

    joined = {m.internal_conversation_id for m in (first, by_number, by_sid, by_customer)}
    assert len(joined) == 1
    assert by_customer.client_conversation_id == "conversation-1"
    other = await client_of()
    assert (await refused_create(other, client_conversation_id=""))[1] == "PHONE_NUMBER_PAIRED"
    assert await count(db, "conversations") == 1


@pytest.mark.parametrize("key", ["internal_conversation_id", "global_id"])
async def test_conversation_is_named_by_its_uuids(client: Client, client_of: MakeClient, key: str) -> None:
    first = await create_message(client)
    named = {"client_conversation_id": "", "sender_number": "", key: getattr(first, key)}

    message = await create_message(client, **named)

    assert message.client_conversation_id == "conversation-1"
    assert message.sender_number == SENDER
    for bearer_type in (BearerType.APPLICATION, BearerType.ADMIN):
        code, reason, metadata = await refused_create(await client_of(bearer_type), **named)
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND")
        assert metadata == {key: getattr(first, key)}
    assert (await refused_create(client, **{**named, key: "nonsense"}))[1] == "CONVERSATION_NOT_FOUND"


async def test_two_ids_of_a_conversation_are_one_too_many(client: Client) -> None:
    request = pb.CreateMessageRequest(message=new_message(internal_conversation_id="x", global_id="y"))

    answer = await refused(client.messages.CreateMessage(request, metadata=client.metadata))

    assert answer.fields == ("message.internal_conversation_id", "message.global_id")


async def test_conversation_without_a_number_needs_a_sender(client: Client, db: Database) -> None:
    await create_message(client)
    await db.execute("UPDATE conversations SET messaging_service_id = NULL")
    await deactivate(db, "conversation-1")
    await db.execute("UPDATE twilio_numbers SET released_at = now()")
    request = pb.CreateMessageRequest(message=new_message(sender_number=""))

    answer = await refused(client.messages.CreateMessage(request, metadata=client.metadata))

    assert (answer.reason, answer.fields) == ("INVALID_ARGUMENT", ("message.sender_number",))


async def test_exhausted_numbers_are_told_apart_from_none(client: Client, db: Database) -> None:
    for conversation in ("a", "b"):
        await create_message(client, **by_service(conversation))

    code, reason, metadata = await refused_create(client, **by_service("c"))

    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NUMBER_POOL_EXHAUSTED")
    assert metadata == {"receiver_number": RECEIVER}
    assert (await create_message(client, **by_service("c", receiver_number=OTHER_RECEIVER))).sender_number == SENDER
    await make_messaging_service(db, name="e", global_customer_id="e", twilio_messaging_sid="MG3", phone_numbers=())
    assert (await refused_create(client, **by_service("c", global_customer_id="e")))[1] == "NO_SENDER_NUMBER"


async def test_customer_of_the_pool_sends_from_it_when_its_own_are_taken(client: Client, db: Database) -> None:
    await make_pool(db)
    sent = [await create_message(client, **by_service(f"conversation-{n}")) for n in range(5)]

    assert [m.sender_number for m in sent[:2]] == [SENDER, SECOND]
    assert {m.sender_number for m in sent[2:]} == set(POOL)
    assert (await refused_create(client, **by_service("one more")))[1] == "NUMBER_POOL_EXHAUSTED"
    sids = await db.fetch_all(
        "SELECT DISTINCT messaging_service_sid FROM messages WHERE sender_number LIKE '+1253%%'", {}, scalar_row
    )
    assert sids == [POOL_SID]


async def test_pool_of_another_state_and_dedicated_customers_send_from_their_own_alone(
    client: Client, db: Database
) -> None:
    await make_pool(db, state="OR")
    for n in range(2):
        await create_message(client, **by_service(f"conversation-{n}"))

    assert (await refused_create(client, **by_service("more")))[1] == "NUMBER_POOL_EXHAUSTED"
    await db.execute("UPDATE customers SET state = 'WA', number_pool = 'dedicated'")
    assert (await refused_create(client, **by_service("more")))[1] == "NUMBER_POOL_EXHAUSTED"


async def test_contacts_spread_over_the_pool(client: Client, db: Database) -> None:
    await make_pool(db)
    await db.execute("UPDATE twilio_numbers SET released_at = now() WHERE phone_number = ANY(%s)", ([SENDER, SECOND],))

    sent = [await create_message(client, **by_service(f"c-{n}", receiver_number=f"+1425555{n:04}")) for n in range(30)]

    assert set(Counter(m.sender_number for m in sent)) == set(POOL)


async def test_released_number_serves_its_pairings_and_no_new_ones(client: Client, db: Database) -> None:
    await create_message(client, **by_service("a"))
    await db.execute("UPDATE twilio_numbers SET released_at = now() WHERE phone_number = %s", (SENDER,))

    assert (await create_message(client, **by_service("a"))).sender_number == SENDER
    assert (await create_message(client, **by_service("b"))).sender_number == SECOND
    answer = await refused_create(client, client_conversation_id="d", receiver_number=OTHER_RECEIVER)
    assert answer[1] == "SENDER_NUMBER_NOT_OWNED"


async def test_next_message_pairs_again_with_the_same_number(client: Client, db: Database) -> None:
    await create_message(client, **by_service("a", sender_number=SECOND))
    await deactivate(db, "a")

    message = await create_message(client, **by_service("a"))

    assert message.sender_number == SECOND
    assert await pairings(db) == {(SECOND, RECEIVER, "a")}
    assert await db.fetch_all("SELECT pairing_deactivated_at FROM participants", {}, scalar_row) == [None]


async def test_next_message_pairs_with_another_number_when_the_old_one_is_taken(client: Client, db: Database) -> None:
    await create_message(client, **by_service("a"))
    await deactivate(db, "a")
    await create_message(client, **by_service("b"))

    message = await create_message(client, **by_service("a"))

    assert message.sender_number == SECOND
    assert await pairings(db) == {(SENDER, RECEIVER, "b"), (SECOND, RECEIVER, "a")}
    assert (await create_message(client, **by_service("a"))).sender_number == SECOND


@pytest.mark.parametrize("numbers", [1, 12])
async def test_conversations_with_one_contact_at_once_never_share_a_number(
    client_of: MakeClient, db: Database, numbers: int
) -> None:
    phone_numbers = [f"+1360555{n:04}" for n in range(numbers)]
    await make_messaging_service(
        db, name="many", global_customer_id="many", twilio_messaging_sid="MG9", phone_numbers=phone_numbers
    )
    clients = [await client_of(), await client_of(BearerType.USER)]

    async def attempt(number: int) -> str:
        given = by_service(f"conversation-{number}", global_customer_id="many")
        call = clients[number % 2].messages.CreateMessage(
            pb.CreateMessageRequest(message=new_message(**given)), metadata=clients[number % 2].metadata
        )
        try:
            return (await call).sender_number
        except grpc.aio.AioRpcError as error:
            return refusal(error).reason

    outcomes = Counter(await asyncio.gather(*(attempt(n) for n in range(20))))

    assert outcomes == {**dict.fromkeys(phone_numbers, 1), "NUMBER_POOL_EXHAUSTED": 20 - numbers}
    assert await count(db, "pairings") == await count(db, "messages") == await count(db, "conversations") == numbers


async def test_messages_without_a_conversation_at_once_begin_one(client: Client, db: Database) -> None:
    made = await asyncio.gather(*(create_message(client, client_conversation_id="") for _ in range(10)))

    assert len({m.internal_conversation_id for m in made}) == 1
    assert await count(db, "pairings") == await count(db, "conversations") == 1
    assert await count(db, "messages") == 10


async def test_one_of_our_numbers_is_written_to_from_another(client: Client, db: Database) -> None:
    first = await create_message(client, **by_service("a", receiver_number=SENDER))
    second = await create_message(client, **by_service("b", receiver_number=SECOND))
    beside_another = await create_message(client, **by_service("c", receiver_number=OTHER_RECEIVER))
    in_its_conversation = await refused_create(client, **by_service("c", receiver_number=SENDER))

    assert [m.sender_number for m in (first, second, beside_another)] == [SECOND, SENDER, SENDER]
    assert in_its_conversation[1] == "NUMBER_POOL_EXHAUSTED"


async def test_only_number_of_the_pool_is_not_written_to_from_itself(client: Client, db: Database) -> None:
    await make_pool(db)
    await db.execute("UPDATE twilio_numbers SET released_at = now() WHERE phone_number <> %s", (POOL[0],))

    answer = await refused_create(client, **by_service("a", receiver_number=POOL[0]))

    assert answer[1:] == ("NO_SENDER_NUMBER", {"global_customer_id": "customer"})


async def test_customer_of_the_pool_without_a_messaging_service_is_told_what_is_missing(
    client: Client, db: Database
) -> None:
    await make_pool(db)
    await db.execute("INSERT INTO customers (global_customer_id, number_pool, state) VALUES ('new', 'k12', 'WA')")

    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await create_message(client, **by_service("a", global_customer_id="new"))

    assert refusal(failed.value).reason == "NO_SENDER_NUMBER"
    assert failed.value.details() == (
        "there is no messaging service with global_customer_id new to send from; "
        "a customer of the K-12 pool needs one, too"
    )


async def test_service_whose_only_number_is_the_receiver_has_none_to_send_from(client: Client, db: Database) -> None:
    await db.execute("UPDATE twilio_numbers SET released_at = now() WHERE phone_number <> %s", (SENDER,))

    answer = await refused_create(client, **by_service("a", receiver_number=SENDER))

    assert answer == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "NO_SENDER_NUMBER",
        {"global_customer_id": "customer"},
    )


async def test_opted_out_receiver_is_refused(client: Client, db: Database) -> None:
    await db.execute(
        "INSERT INTO opt_outs (messaging_service_id, phone_number, source)"
        " SELECT id, %s, 'keyword' FROM messaging_services",
        (RECEIVER,),
    )

    code, reason, metadata = await refused_create(client)

    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RECIPIENT_OPTED_OUT")
    assert metadata == {"receiver_number": RECEIVER}
    assert await count(db, "messages") == await count(db, "pairings") == 0
    await create_message(client, receiver_number=OTHER_RECEIVER)


async def test_number_is_looked_up_once(client: Client, db: Database) -> None:
    await asyncio.gather(*(create_message(client) for _ in range(5)))
    due = "SELECT count(*) FROM line_types WHERE due_at IS NOT NULL"
    assert await db.fetch_one(due, {}, scalar_row) == 1

    await db.execute("UPDATE line_types SET due_at = NULL, looked_up_at = now(), line_type = 'mobile'")
    assert (await create_message(client)).phone_number_type == "mobile"
    assert await db.fetch_one(due, {}, scalar_row) == 0

    await db.execute("UPDATE line_types SET looked_up_at = now() - interval '91 days'")
    assert (await create_message(client)).phone_number_type == "mobile"
    assert await db.fetch_one(due, {}, scalar_row) == 1
