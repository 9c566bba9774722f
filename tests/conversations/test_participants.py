"""Who is in a conversation: matched by number or id, opted out, and out of its pairing."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from commonservices.v1 import conversation_pb2
from commonservices.v1 import conversation_service_pb2 as pb

from server.caller import BearerType
from server.db import Database
from tests.clients import Client, refused
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
from tests.factories import RECEIVER, SENDER, create_message, make_messaging_service

BY_SERVICE = {"global_customer_id": "customer"}


def people(conversation: conversation_pb2.Conversation) -> list[tuple[str, str, str]]:
    return [(p.role, p.phone_number, p.client_participant_id) for p in conversation.participants]


async def opt_out(db: Database, phone_number: str, *, service: str = "school") -> None:
    await db.execute(
        "INSERT INTO opt_outs (messaging_service_id, phone_number, source)"
        " SELECT id, %s, 'keyword' FROM messaging_services WHERE name = %s",
        (phone_number, service),
    )


async def test_participants_are_added_in_order_and_none_is_removed(client: Client) -> None:
    made = await create(client, participants=[contact(RECEIVER), moderator("teacher")])

    changed = await update(client, made, participants=[moderator("", MODERATOR), contact(OTHER_CONTACT, "guardian")])
    same = await update(client, made)

    assert people(changed) == [
        ("contact", RECEIVER, ""),
        ("moderator", "", "teacher"),
        ("moderator", MODERATOR, ""),
        ("contact", OTHER_CONTACT, "guardian"),
    ]
    assert people(same) == people(changed)


async def test_participant_that_is_there_takes_what_is_given(client: Client) -> None:
    made = await create(client, participants=[contact(RECEIVER), moderator("teacher"), contact(OTHER_CONTACT, "b")])

    changed = await update(
        client,
        made,
        participants=[contact("(206) 555-0190", "a"), moderator("teacher", MODERATOR), contact(OTHER_CONTACT)],
    )

    assert people(changed) == [
        ("contact", RECEIVER, "a"),
        ("moderator", MODERATOR, "teacher"),
        ("contact", OTHER_CONTACT, "b"),
    ]
    assert [p.id for p in changed.participants] == [p.id for p in made.participants]
    assert changed.participants[0].updated_at != made.participants[0].updated_at
    assert changed.participants[2] == made.participants[2]


async def test_contact_with_another_number_is_paired_with_it(client: Client, db: Database) -> None:
    made = await create(client, participants=[contact(RECEIVER, "guardian")], sender_number=SECOND)

    changed = await update(client, made, participants=[contact(OTHER_CONTACT, "guardian")])

    assert people(changed) == [("contact", OTHER_CONTACT, "guardian")]
    assert await pairings(db) == {(SECOND, OTHER_CONTACT, made.id)}
    assert not changed.participants[0].HasField("pairing_deactivated_at")


async def test_contact_whose_new_number_cannot_be_paired_keeps_the_old_one(client: Client, db: Database) -> None:
    for number in (SENDER, SECOND):
        await create(client, OTHER_CONTACT, sender_number=number)
    made = await create(client, participants=[contact(RECEIVER, "guardian")], **BY_SERVICE)

    answer = await refused(update(client, made, participants=[contact(OTHER_CONTACT, "guardian")]))

    assert (answer.reason, answer.metadata) == ("NUMBER_POOL_EXHAUSTED", {"receiver_number": OTHER_CONTACT})
    assert await get(client, made) == made
    assert await broken(db) == []


async def test_number_may_be_a_moderators_and_a_contacts(client: Client) -> None:
    made = await create(client, participants=[contact(RECEIVER, "x"), moderator("x", RECEIVER)])

    assert people(made) == [("contact", RECEIVER, "x"), ("moderator", RECEIVER, "x")]


@pytest.mark.parametrize(
    ("participants", "fields"),
    [
        ([contact(RECEIVER), contact("206.555.0190")], ["participants[1].phone_number"]),
        ([contact(RECEIVER, "a"), contact(OTHER_CONTACT, "a")], ["participants[1].client_participant_id"]),
        ([moderator("a"), moderator("b"), moderator("a")], ["participants[2].client_participant_id"]),
        (
            [contact(RECEIVER, "a"), contact(RECEIVER, "a"), contact(RECEIVER)],
            [
                "participants[1].phone_number",
                "participants[1].client_participant_id",
                "participants[2].phone_number",
            ],
        ),
    ],
)
async def test_somebody_given_twice_is_refused(
    client: Client, db: Database, participants: list[pb.NewParticipant], fields: list[str]
) -> None:
    answer = await refused(create(client, participants=participants))

    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert list(answer.fields) == [f"conversation.{field}" for field in fields]
    assert await count(db, "conversations") == 0


@pytest.mark.parametrize(
    ("participants", "place"),
    [
        ([contact(RECEIVER, "b")], 0),
        ([contact(RECEIVER), contact("+12065550192", "a")], 1),
        ([contact("+12065550192", "a"), contact(RECEIVER)], 1),
    ],
)
async def test_somebody_who_is_two_is_refused(
    client: Client, participants: list[pb.NewParticipant], place: int
) -> None:
    made = await create(client, participants=[contact(RECEIVER, "a"), contact(OTHER_CONTACT, "b")])

    answer = await refused(update(client, made, participants=participants))

    assert answer.fields == (f"conversation.participants[{place}].client_participant_id",)
    assert await get(client, made) == made


async def test_conversation_has_at_most_250_participants(client: Client, db: Database) -> None:
    most = [contact(f"+1425555{n:04}") for n in range(250)]

    made = await create(client, participants=most, **BY_SERVICE)

    assert len(made.participants) == await count(db, "pairings") == 250
    assert [p.phone_number for p in made.participants] == [p.phone_number for p in most]
    assert (await refused(create(client, participants=[*most, contact(RECEIVER)]))).fields == (
        "conversation.participants",
    )
    assert (await refused(update(client, made, RECEIVER))).fields == ("conversation.participants",)
    assert len((await update(client, made, most[0].phone_number)).participants) == 250


async def test_conversation_that_messages_made_larger_can_still_be_changed(client: Client) -> None:
    most = [contact(f"+1425555{n:04}") for n in range(250)]
    made = await create(client, participants=most, client_conversation_id="conversation-1", **BY_SERVICE)
    await create_message(client)

    updated = await update(client, made, RECEIVER, callback_url="https://app.example/hook")

    assert (len(updated.participants), updated.callback_url) == (251, "https://app.example/hook")
    assert (await refused(update(client, made, OTHER_CONTACT))).fields == ("conversation.participants",)


async def test_deactivated_pairing_is_gone_and_its_number_remembered(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER, OTHER_CONTACT, **BY_SERVICE)
    await update(client, made, RECEIVER, sender_number=SECOND)
    before = datetime.now(UTC)

    deactivated = await deactivate(client, made, "206-555-0190")

    assert abs(deactivated.pairing_deactivated_at.ToDatetime(tzinfo=UTC) - before) < timedelta(seconds=5)
    assert deactivated.updated_at == deactivated.pairing_deactivated_at
    assert (deactivated.phone_number, deactivated.twilio_number) == (RECEIVER, SECOND)
    assert await pairings(db) == {(SENDER, OTHER_CONTACT, made.id)}
    assert (await get(client, made)).participants[0] == deactivated


async def test_deactivating_again_changes_nothing(client: Client) -> None:
    made = await create(client, RECEIVER, **BY_SERVICE)
    first = await deactivate(client, made, RECEIVER)

    again = await asyncio.gather(*(deactivate(client, made, RECEIVER) for _ in range(5)))

    assert again == [first] * 5


async def test_pairing_may_be_deactivated_after_it_was_made_again(client: Client) -> None:
    made = await create(client, RECEIVER, **BY_SERVICE)
    first = await deactivate(client, made, RECEIVER)
    await update(client, made, RECEIVER)

    second = await deactivate(client, made, RECEIVER)

    assert second.pairing_deactivated_at.ToDatetime() > first.pairing_deactivated_at.ToDatetime()


async def test_next_message_pairs_again(client: Client, db: Database) -> None:
    made = await create(client, RECEIVER, client_conversation_id="a", sender_number=SECOND)
    await deactivate(client, made, RECEIVER)

    await create_message(client, client_conversation_id="a", sender_number="")

    assert not (await get(client, made)).participants[0].HasField("pairing_deactivated_at")
    assert await pairings(db) == {(SECOND, RECEIVER, made.id)}


@pytest.mark.parametrize("key", ["client_conversation_id", "global_id", "internal_conversation_id"])
async def test_each_id_names_the_conversation(client: Client, key: str) -> None:
    made = await create(client, RECEIVER, client_conversation_id="a")
    given = pb.PairedParticipant(phone_number=RECEIVER, **{key: getattr(made, key)})

    deactivated = await client.participants.DeactivatePairing(
        pb.DeactivatePairingRequest(participant=given), metadata=client.metadata
    )

    assert deactivated.id == made.participants[0].id
    assert (deactivated.client_conversation_id, deactivated.global_id) == ("a", made.global_id)


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        ((), ("client_conversation_id", "global_id", "internal_conversation_id")),
        (("client_conversation_id", "global_id"),) * 2,
        (("global_id", "internal_conversation_id"),) * 2,
        (("client_conversation_id", "global_id", "internal_conversation_id"),) * 2,
    ],
)
async def test_not_exactly_one_id_is_refused(client: Client, ids: tuple[str, ...], named: tuple[str, ...]) -> None:
    given = pb.PairedParticipant(**dict.fromkeys(ids, "x"))
    request = pb.DeactivatePairingRequest(participant=given)

    answer = await refused(client.participants.DeactivatePairing(request, metadata=client.metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(answer.fields) == {"participant.phone_number", *(f"participant.{name}" for name in named)}


async def test_contact_must_be_given(client: Client) -> None:
    answer = await refused(
        client.participants.DeactivatePairing(pb.DeactivatePairingRequest(), metadata=client.metadata)
    )

    assert answer.fields == ("participant",)


@pytest.mark.parametrize("phone_number", [OTHER_CONTACT, MODERATOR])
async def test_only_contacts_of_the_conversation_are_found(client: Client, phone_number: str) -> None:
    made = await create(client, participants=[contact(RECEIVER), moderator("", MODERATOR)])
    await create(client, OTHER_CONTACT)

    answer = await refused(deactivate(client, made, phone_number))

    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "PARTICIPANT_NOT_FOUND")
    assert answer.metadata == {"phone_number": phone_number}


async def test_anothers_conversation_is_not_found(
    client: Client, client_of: MakeClient, admin: Client, db: Database
) -> None:
    made = await create(client, RECEIVER, **BY_SERVICE)

    answer = await refused(deactivate(await client_of(BearerType.USER), made, RECEIVER))

    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND")
    assert answer.metadata == {"global_id": made.global_id}
    assert await count(db, "pairings") == 1
    assert (await deactivate(admin, made, RECEIVER)).HasField("pairing_deactivated_at")
    assert await count(db, "pairings") == 0


async def test_opt_out_is_of_the_service_of_the_contacts_number(client: Client, db: Database) -> None:
    await make_messaging_service(
        db, name="b", global_customer_id="b", twilio_messaging_sid="MG2", phone_numbers=["+12535550100"]
    )
    made = await create(client, RECEIVER, OTHER_CONTACT, **BY_SERVICE)
    elsewhere = await create(client, RECEIVER, global_customer_id="b")
    await opt_out(db, RECEIVER)

    shown = await get(client, made)

    opted_out_at = shown.participants[0].opted_out_at.ToDatetime(tzinfo=UTC)
    assert abs(opted_out_at - datetime.now(UTC)) < timedelta(seconds=5)
    assert not shown.participants[1].HasField("opted_out_at")
    assert await get(client, elsewhere) == elsewhere
    assert (await deactivate(client, made, RECEIVER)).opted_out_at == shown.participants[0].opted_out_at


async def test_opt_out_of_a_contact_without_a_number_is_of_the_conversations_service(
    client: Client, db: Database
) -> None:
    made = await create(client, participants=[contact(RECEIVER), moderator("", RECEIVER)])
    await opt_out(db, RECEIVER)
    without_service = await get(client, made)

    with_service = await update(client, made, **BY_SERVICE)

    assert not without_service.participants[0].HasField("opted_out_at")
    assert [p.HasField("opted_out_at") for p in with_service.participants] == [True, False]
    assert numbers(with_service) == ["", ""]
