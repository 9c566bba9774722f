"""Which number talks to a contact of a conversation, when a contact is paired, and why it may not be."""

from typing import Any

import grpc
import pytest

from server.db import Database
from tests.clients import Client, Refusal, refused
from tests.conftest import MakeClient
from tests.conversations.support import (
    MODERATOR,
    OTHER_CONTACT,
    SECOND,
    broken,
    contact,
    count,
    create,
    deactivate,
    get,
    moderator,
    numbers,
    pairings,
    update,
)
from tests.factories import RECEIVER, SENDER, SERVICE_SID, create_message, make_messaging_service

POOL = ("+12535550100", "+12535550101")
BY_SERVICE = {"global_customer_id": "customer"}


async def make_pool(db: Database) -> None:
    """The K-12 pool of the state, and the customer of the other service a part of it."""
    await make_messaging_service(
        db, name="pool", global_customer_id="pool", twilio_messaging_sid="MG2", is_k12_pool=True, phone_numbers=POOL
    )
    await db.execute("UPDATE twilio_numbers SET state_code = 'WA'")
    await db.execute("UPDATE customers SET number_pool = 'k12', state = 'WA' WHERE global_customer_id = 'customer'")


async def nothing_was_made(db: Database) -> bool:
    tables = ("conversations", "participants", "pairings")
    return [await count(db, table) for table in tables] == [0] * len(tables)


def told(answer: Refusal) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    return answer.code, answer.reason, answer.metadata


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({"global_customer_id": "customer"}, SENDER),
        ({"messaging_service_sid": SERVICE_SID}, SENDER),
        ({"messaging_service_sid": "bw1"}, SENDER),
        ({"messaging_service_sid": SERVICE_SID, "global_customer_id": "customer"}, SENDER),
        ({"sender_number": "206 555 0101"}, SECOND),
        ({"sender_number": SECOND, "global_customer_id": "customer"}, SECOND),
    ],
)
async def test_contacts_are_paired_with_what_is_named(
    client: Client, db: Database, given: dict[str, str], number: str
) -> None:
    await db.execute("UPDATE messaging_services SET bandwidth_messaging_sid = 'bw1'")

    made = await create(client, RECEIVER, OTHER_CONTACT, **given)

    assert numbers(made) == [number, number]
    assert (made.global_customer_id, bool(made.messaging_service_uuid)) == ("customer", True)
    assert await pairings(db) == {(number, RECEIVER, made.id), (number, OTHER_CONTACT, made.id)}


async def test_nobody_is_paired_without_anything_to_send_from(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER)

    assert not made.participants[0].HasField("twilio_number")
    assert not made.participants[0].HasField("pairing_deactivated_at")
    assert not made.HasField("messaging_service_uuid")
    assert await pairings(db) == set()


async def test_moderators_are_not_paired(client: Client, db: Database) -> None:
    made = await create(client, participants=[moderator("t", MODERATOR), contact(RECEIVER)], sender_number=SENDER)

    assert numbers(made) == ["", SENDER]
    assert await pairings(db) == {(SENDER, RECEIVER, made.id)}


async def test_another_conversation_with_the_contact_gets_another_number(
    client: Client, client_of: MakeClient, db: Database
) -> None:
    first = await create(client, RECEIVER, **BY_SERVICE)
    second = await create(await client_of(), RECEIVER, OTHER_CONTACT, **BY_SERVICE)

    assert numbers(first) == [SENDER]
    # The second contact is written to from the number the first one knows.
    assert numbers(second) == [SECOND, SECOND]
    assert await broken(db) == []


async def test_pool_follows_the_customers_own_numbers(client: Client, db: Database) -> None:
    await make_pool(db)

    made = [await create(client, RECEIVER, **BY_SERVICE) for _ in range(4)]

    assert [numbers(c) for c in made[:2]] == [[SENDER], [SECOND]]
    assert {number for c in made[2:] for number in numbers(c)} == set(POOL)
    assert {c.global_customer_id for c in made} == {"customer"}
    assert (await refused(create(client, RECEIVER, **BY_SERVICE))).reason == "NUMBER_POOL_EXHAUSTED"


async def test_number_of_the_pool_may_be_named_with_the_customer(client: Client, db: Database) -> None:
    await make_pool(db)

    with_customer = await create(client, RECEIVER, sender_number=POOL[0], **BY_SERVICE)
    alone = await create(client, RECEIVER, sender_number=POOL[1])
    later = await update(client, with_customer, OTHER_CONTACT, sender_number=POOL[0])

    assert (with_customer.global_customer_id, alone.global_customer_id) == ("customer", "pool")
    assert later.global_customer_id == "customer"


async def test_exhausted_numbers_are_refused_and_leave_nothing(client: Client, db: Database) -> None:
    for _ in range(2):
        await create(client, OTHER_CONTACT, **BY_SERVICE)
    before = await pairings(db)

    answer = await refused(
        create(client, RECEIVER, OTHER_CONTACT, client_conversation_id="a", request_id="once", **BY_SERVICE)
    )

    assert told(answer) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "NUMBER_POOL_EXHAUSTED",
        {"receiver_number": OTHER_CONTACT},
    )
    assert await pairings(db) == before
    assert [await count(db, table) for table in ("conversations", "participants", "idempotency_keys")] == [2, 2, 0]


async def test_number_paired_elsewhere_is_refused(client: Client, client_of: MakeClient, db: Database) -> None:
    await create(client, RECEIVER, sender_number=SENDER)

    for caller in (client, await client_of()):
        answer = await refused(create(caller, OTHER_CONTACT, RECEIVER, sender_number=SENDER))
        assert told(answer) == (grpc.StatusCode.ALREADY_EXISTS, "PHONE_NUMBER_PAIRED", {"phone_number": SENDER})
    assert await count(db, "conversations") == await count(db, "pairings") == 1


async def test_number_of_a_messages_pairing_is_not_given_away(client: Client) -> None:
    await create_message(client, client_conversation_id="a")

    assert numbers(await create(client, RECEIVER, **BY_SERVICE)) == [SECOND]
    assert (await refused(create(client, RECEIVER, sender_number=SENDER))).reason == "PHONE_NUMBER_PAIRED"


@pytest.mark.parametrize(
    "given",
    [
        {"sender_number": "+12065550109"},
        {"sender_number": SENDER, "messaging_service_sid": "MG-other"},
        {"sender_number": SENDER, "global_customer_id": "other"},
        {"sender_number": SENDER, "global_customer_id": "empty"},
        {"sender_number": SENDER, "messaging_service_sid": SERVICE_SID, "global_customer_id": "empty"},
        {"sender_number": "+12065550108"},
        {"sender_number": "+12065550107"},
    ],
)
@pytest.mark.parametrize("contacts", [(), (RECEIVER,)])
async def test_sender_that_is_not_owned_is_refused(
    client: Client, db: Database, given: dict[str, str], contacts: tuple[str, ...]
) -> None:
    await make_messaging_service(
        db, name="empty", global_customer_id="empty", twilio_messaging_sid="MG-empty", phone_numbers=()
    )
    await db.execute("INSERT INTO twilio_numbers (phone_number) VALUES ('+12065550108')")
    await db.execute(
        "INSERT INTO twilio_numbers (phone_number, messaging_service_id, released_at)"
        " SELECT '+12065550107', min(id), now() FROM messaging_services"
    )

    answer = await refused(create(client, *contacts, **given))

    assert told(answer) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "SENDER_NUMBER_NOT_OWNED",
        {"sender_number": given["sender_number"]},
    )
    assert await nothing_was_made(db)


@pytest.mark.parametrize(
    ("named", "contacts"),
    [
        ({"messaging_service_sid": "MG-unknown"}, ()),
        ({"global_customer_id": "unknown"}, (RECEIVER,)),
        ({"messaging_service_sid": SERVICE_SID, "global_customer_id": "empty"}, ()),
        ({"messaging_service_sid": "MG-empty"}, (RECEIVER,)),
        ({"global_customer_id": "empty"}, (RECEIVER,)),
    ],
)
async def test_service_that_is_not_there_or_has_no_number_is_refused(
    client: Client, db: Database, named: dict[str, str], contacts: tuple[str, ...]
) -> None:
    await make_messaging_service(
        db, name="empty", global_customer_id="empty", twilio_messaging_sid="MG-empty", phone_numbers=()
    )

    answer = await refused(create(client, *contacts, **named))

    assert told(answer) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_SENDER_NUMBER", named)
    assert await nothing_was_made(db)


async def test_service_without_a_number_yet_may_be_named(client: Client, db: Database) -> None:
    await make_messaging_service(
        db, name="empty", global_customer_id="empty", twilio_messaging_sid="MG-empty", phone_numbers=()
    )

    made = await create(client, global_customer_id="empty")

    assert made.global_customer_id == "empty"
    answer = await refused(update(client, made, RECEIVER))
    assert told(answer)[1:] == ("NO_SENDER_NUMBER", {"global_customer_id": "empty"})


async def test_sender_number_is_no_contact(client: Client) -> None:
    answer = await refused(create(client, OTHER_CONTACT, SENDER, sender_number="(206) 555-0100"))

    assert answer.fields == ("conversation.participants[1].phone_number",)


async def test_update_pairs_with_what_the_conversation_has(client: Client, db: Database) -> None:
    made = await create(client, sender_number=SECOND)

    changed = await update(client, made, RECEIVER)

    # The service of the number, whose first number it is.
    assert numbers(changed) == [SENDER]
    assert await pairings(db) == {(SENDER, RECEIVER, made.id)}


async def test_update_pairs_contacts_that_were_not(client: Client) -> None:
    made = await create(client, RECEIVER, OTHER_CONTACT)

    changed = await update(client, made, RECEIVER, **BY_SERVICE)
    again = await update(client, made, OTHER_CONTACT)

    assert numbers(changed) == [SENDER, ""]
    assert numbers(again) == [SENDER, SENDER]
    assert [p.id for p in again.participants] == [p.id for p in made.participants]


async def test_update_with_another_number_pairs_with_it_too(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER, sender_number=SENDER)

    changed = await update(client, made, RECEIVER, sender_number=SECOND)

    assert numbers(changed) == [SECOND]
    assert await pairings(db) == {(SENDER, RECEIVER, made.id), (SECOND, RECEIVER, made.id)}
    message = await create_message(client, client_conversation_id="", global_id=made.global_id, sender_number="")
    assert message.sender_number == SECOND


async def test_number_is_for_those_who_are_given_with_it(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER, sender_number=SENDER)

    changed = await update(client, made, OTHER_CONTACT, sender_number=SECOND)

    assert numbers(changed) == [SENDER, SECOND]
    assert await pairings(db) == {(SENDER, RECEIVER, made.id), (SECOND, OTHER_CONTACT, made.id)}


async def test_update_leaves_a_pairing_as_it_is(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER, sender_number=SECOND)
    await db.execute("UPDATE twilio_numbers SET released_at = now() WHERE phone_number = %s", (SECOND,))

    changed = await update(client, made, RECEIVER)
    by_number = await update(client, made, RECEIVER, sender_number=SECOND)

    assert numbers(changed) == numbers(by_number) == [SECOND]
    assert changed.participants[0] == made.participants[0]
    assert (await refused(update(client, made, OTHER_CONTACT, sender_number=SECOND))).reason == (
        "SENDER_NUMBER_NOT_OWNED"
    )


async def test_update_changes_the_service_for_those_who_come(client: Client, db: Database) -> None:
    await make_messaging_service(
        db, name="b", global_customer_id="b", twilio_messaging_sid="MG2", phone_numbers=["+12535550100"]
    )
    made = await create(client, global_customer_id="customer")

    changed = await update(client, made, global_customer_id="b")
    by_number = await update(client, made, sender_number=SECOND)

    assert changed.global_customer_id == "b"
    assert changed.messaging_service_uuid != made.messaging_service_uuid
    assert by_number.global_customer_id == "customer"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"sender_number": SENDER}, "PHONE_NUMBER_PAIRED"),
        ({"global_customer_id": "customer"}, "NUMBER_POOL_EXHAUSTED"),
        ({"global_customer_id": "unknown"}, "NO_SENDER_NUMBER"),
        ({"sender_number": "+12065550109"}, "SENDER_NUMBER_NOT_OWNED"),
    ],
)
async def test_refused_update_changes_nothing(client: Client, db: Database, given: dict[str, str], reason: str) -> None:
    for number in (SENDER, SECOND):
        await create(client, OTHER_CONTACT, sender_number=number)
    made = await create(client, callback_url="http://a.example/")
    before = await pairings(db)

    answer = await refused(update(client, made, RECEIVER, OTHER_CONTACT, callback_url="http://b.example/", **given))

    assert answer.reason == reason
    assert await get(client, made) == made
    assert await pairings(db) == before


async def test_deactivated_pairing_is_made_again_with_its_number(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER, sender_number=SECOND)
    await deactivate(client, made, RECEIVER)

    changed = await update(client, made, RECEIVER)

    assert numbers(changed) == [SECOND]
    assert not changed.participants[0].HasField("pairing_deactivated_at")
    assert await pairings(db) == {(SECOND, RECEIVER, made.id)}


async def test_deactivated_pairing_is_made_again_with_another_number_where_its_own_is_taken(
    client: Client, db: Database
) -> None:
    made = await create(client, RECEIVER, sender_number=SECOND)
    await deactivate(client, made, RECEIVER)
    other = await create(client, RECEIVER, sender_number=SECOND)

    changed = await update(client, made, RECEIVER)

    assert numbers(changed) == [SENDER]
    assert await pairings(db) == {(SENDER, RECEIVER, made.id), (SECOND, RECEIVER, other.id)}


async def test_contact_that_is_not_given_stays_deactivated(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER, **BY_SERVICE)
    await deactivate(client, made, RECEIVER)

    changed = await update(client, made, OTHER_CONTACT)

    assert changed.participants[0].HasField("pairing_deactivated_at")
    assert await pairings(db) == {(SENDER, OTHER_CONTACT, made.id)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("SELECT 1", None),
        ("UPDATE twilio_numbers SET released_at = now()", "NO_SENDER_NUMBER"),
        ("UPDATE twilio_numbers SET messaging_service_id = NULL", "NO_SENDER_NUMBER"),
    ],
)
async def test_number_alone_is_enough_to_be_paired_again(
    client: Client, db: Database, change: str, reason: str | None
) -> None:
    made = await create(client, RECEIVER, sender_number=SECOND)
    await db.execute("UPDATE conversations SET messaging_service_id = NULL")
    await deactivate(client, made, RECEIVER)
    await db.execute(change)

    if reason is None:
        assert numbers(await update(client, made, RECEIVER)) == [SECOND]
    else:
        assert told(await refused(update(client, made, RECEIVER)))[1:] == (reason, {})


async def test_number_that_was_all_there_is_may_be_taken_meanwhile(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER, sender_number=SECOND)
    await db.execute("UPDATE conversations SET messaging_service_id = NULL")
    await deactivate(client, made, RECEIVER)
    await create(client, RECEIVER, sender_number=SECOND)

    assert (await refused(update(client, made, RECEIVER))).reason == "NUMBER_POOL_EXHAUSTED"


@pytest.mark.parametrize("given", [{}, {"sender_number": SENDER}])
async def test_contact_deactivated_before_it_was_paired_is_paired_when_it_can_be(
    client: Client, db: Database, given: dict[str, Any]
) -> None:
    made = await create(client, RECEIVER)
    await deactivate(client, made, RECEIVER)

    changed = await update(client, made, RECEIVER, **given)

    assert numbers(changed) == [given.get("sender_number", "")]
    assert changed.participants[0].HasField("pairing_deactivated_at") is not bool(given)
    assert await broken(db) == []


async def test_contact_who_is_one_of_our_numbers_is_paired_with_another(client: Client) -> None:
    made = await create(client, SENDER, SECOND, **BY_SERVICE)

    assert numbers(made) == [SECOND, SENDER]
