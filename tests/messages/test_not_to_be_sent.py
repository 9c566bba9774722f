"""What waits to be sent is not, once what its receiver answers would go elsewhere or its bearer is no more."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from commonservices.v1 import bearer_service_pb2, message_pb2
from commonservices.v1 import conversation_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from server.caller import BearerType
from server.db import Database
from server.messages.send import SendWorker
from tests.clients import Client
from tests.conftest import MakeClient
from tests.factories import RECEIVER, SENDER, create_message
from tests.messages.conftest import MakeWorker
from tests.messages.inbound import STRANGER, Texts, outbound, received
from tests.messages.support import assert_each_sent_once, events_of, make_due, row_of, rows, until_settled
from tests.providers.servers import Sandbox


def scheduled() -> Timestamp:
    at = Timestamp()
    at.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    return at


async def deactivate(client: Client) -> None:
    """The pairing of the client's `conversation-1` and the contact."""
    request = pb.DeactivatePairingRequest(
        participant=pb.PairedParticipant(phone_number=RECEIVER, client_conversation_id="conversation-1")
    )
    await client.participants.DeactivatePairing(request, metadata=client.metadata)


async def delete(client: Client, *, by: Client) -> None:
    """The client's bearer."""
    request = bearer_service_pb2.DeleteBearerRequest(id=client.bearer_id)
    await by.bearers.DeleteBearer(request, metadata=by.metadata)


async def assert_failed(db: Database, message: message_pb2.Message, error_code: str) -> None:
    """It has failed for good, and is told so once."""
    row = await row_of(db, message)
    told = [(event.message.internal_status, event.message.error_code) for event in await events_of(db, message)]
    assert (row.internal_status, row.error_code, row.due_at, row.in_doubt) == ("failed", error_code, None, False)
    assert row.failed_at is not None
    assert row.error_description
    assert told == [("pending", ""), ("failed", error_code)]


@pytest.fixture
async def other(client_of: MakeClient) -> Client:
    """Another bearer."""
    return await client_of(BearerType.APPLICATION)


@pytest.mark.parametrize("scheduled_at", [None, scheduled()])
async def test_message_is_not_sent_whose_answer_would_be_another_bearers(
    client: Client,
    other: Client,
    db: Database,
    carrier: Sandbox,
    worker: SendWorker,
    scheduled_at: Timestamp | None,
) -> None:
    message = await create_message(client, scheduled_at=scheduled_at, message_body="Ours")
    await deactivate(client)
    theirs = await create_message(other, message_body="Theirs")

    await make_due(db)
    await worker.run_once()

    await until_settled(db)
    assert [taken["body"] for taken in await carrier.taken()] == ["Theirs"]
    assert (await row_of(db, theirs)).internal_status == "delivered"
    await assert_failed(db, message, "PHONE_NUMBER_PAIRED")
    assert await worker.run_once() == 0


async def test_nor_one_whose_answer_would_be_of_another_conversation_of_its_bearer(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    message = await create_message(client, scheduled_at=scheduled())
    await deactivate(client)
    await create_message(client, client_conversation_id="conversation-2", scheduled_at=scheduled())

    await make_due(db)
    await worker.run_once()

    assert len(await carrier.taken()) == 1
    await assert_failed(db, message, "PHONE_NUMBER_PAIRED")


async def test_message_is_sent_whose_pairing_is_nobodys(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    message = await create_message(client, scheduled_at=scheduled())
    await deactivate(client)

    await make_due(db)
    await worker.run_once()

    assert (await row_of(db, message)).message_sid is not None


async def test_message_is_sent_whose_pairing_is_its_conversations_again(
    client: Client, other: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    message = await create_message(client, scheduled_at=scheduled())
    await deactivate(client)
    await create_message(other)
    await deactivate(other)
    await create_message(client)

    await make_due(db)
    await worker.run_once()

    assert (await row_of(db, message)).message_sid is not None


async def test_message_that_was_refused_for_now_is_looked_at_again(
    client: Client, other: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    message = await create_message(client, message_body="[sandbox:429]")
    await worker.run_once()
    waiting = await row_of(db, message)
    await deactivate(client)
    await create_message(other, scheduled_at=scheduled())

    await make_due(db)
    await worker.run_once()

    assert (waiting.message_sid, waiting.in_doubt) == (None, False)
    assert SENDER in {taken["from"] for taken in await carrier.taken()}
    await assert_failed(db, message, "PHONE_NUMBER_PAIRED")


async def test_answer_to_a_stranger_is_not_sent_once_they_are_in_a_conversation(
    texts: Texts, admin: Client, client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    await texts.send("Hello?", sender=STRANGER)
    await create_message(client, receiver_number=STRANGER, scheduled_at=scheduled())

    await worker.run_once()

    answer, _ = await outbound(db)
    assert (answer.conversation_id, answer.error_code) == (None, "PHONE_NUMBER_PAIRED")
    assert await carrier.taken() == []


async def test_answer_to_a_stranger_is_sent_otherwise(
    texts: Texts, admin: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    await texts.send("Hello?", sender=STRANGER)

    await worker.run_once()

    [answer] = await outbound(db)
    assert answer.message_sid is not None


@pytest.mark.parametrize("scheduled_at", [None, scheduled()])
async def test_message_of_a_deleted_bearer_is_not_sent(
    admin: Client,
    client: Client,
    db: Database,
    carrier: Sandbox,
    worker: SendWorker,
    scheduled_at: Timestamp | None,
) -> None:
    message = await create_message(client, scheduled_at=scheduled_at)
    kept = await create_message(admin, receiver_number="+12065550191", client_conversation_id="kept")
    await delete(client, by=admin)

    await make_due(db)
    await worker.run_once()

    assert [taken["to"] for taken in await carrier.taken()] == ["+12065550191"]
    assert (await row_of(db, kept)).message_sid is not None
    await assert_failed(db, message, "BEARER_DELETED")


async def in_doubt(client: Client, worker: SendWorker, db: Database, message_body: str) -> message_pb2.Message:
    """A message whose first claim has no outcome."""
    message = await create_message(client, message_body=message_body)
    await worker.run_once()
    row = await row_of(db, message)
    assert (row.in_doubt, row.message_sid) == (True, None)
    return message


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_message_that_the_carrier_took_before_is_found_all_the_same(
    admin: Client,
    client: Client,
    other: Client,
    db: Database,
    carrier: Sandbox,
    worker: SendWorker,
    is_deleted: bool,
) -> None:
    message = await in_doubt(client, worker, db, "[sandbox:lost-response][sandbox:callbacks=missing]")
    await (delete(client, by=admin) if is_deleted else deactivate(client))
    await create_message(other, scheduled_at=scheduled())

    await db.execute("UPDATE messages SET due_at = now() WHERE in_doubt")
    await worker.run_once()

    row = await row_of(db, message)
    [taken] = await carrier.taken()
    assert (row.message_sid, row.error_code) == (taken["sid"], None)


@pytest.mark.parametrize(("is_deleted", "error_code"), [(False, "PHONE_NUMBER_PAIRED"), (True, "BEARER_DELETED")])
async def test_message_in_doubt_that_the_carrier_never_had_is_not_sent(
    admin: Client,
    client: Client,
    other: Client,
    db: Database,
    carrier: Sandbox,
    worker: SendWorker,
    is_deleted: bool,
    error_code: str,
) -> None:
    message = await in_doubt(client, worker, db, "[sandbox:500]")
    await (delete(client, by=admin) if is_deleted else deactivate(client))
    await create_message(other, scheduled_at=scheduled())

    await db.execute("UPDATE messages SET due_at = now() WHERE in_doubt")
    await worker.run_once()

    assert await carrier.taken() == []
    await assert_failed(db, message, error_code)


async def test_of_many_that_change_hands_while_they_are_sent_each_is_sent_once_or_failed(
    client: Client, other: Client, db: Database, carrier: Sandbox, make_worker: MakeWorker
) -> None:
    contacts = [f"+1206555{number:04}" for number in range(300, 324)]
    for contact in contacts:
        await create_message(client, receiver_number=contact, client_conversation_id=contact, scheduled_at=scheduled())
    workers = [make_worker(concurrency=4) for _ in range(4)]

    async def take_over(contact: str) -> None:
        paired = pb.PairedParticipant(phone_number=contact, client_conversation_id=contact)
        request = pb.DeactivatePairingRequest(participant=paired)
        await client.participants.DeactivatePairing(request, metadata=client.metadata)
        await create_message(other, receiver_number=contact, client_conversation_id=contact, scheduled_at=scheduled())

    async def send() -> None:
        for _ in range(6):
            await make_due(db)
            await asyncio.gather(*(worker.run_once() for worker in workers))

    await asyncio.gather(send(), *(take_over(contact) for contact in contacts[::2]))
    await make_due(db)
    while sum([await worker.run_once() for worker in workers]):
        pass
    await until_settled(db)

    ours = [m for m in await rows(db) if m.bearer_id == client.bearer_id]
    assert_each_sent_once(await rows(db), await carrier.taken())
    assert {m.error_code for m in ours if m.internal_status == "failed"} <= {"PHONE_NUMBER_PAIRED"}
    assert {m.internal_status for m in ours if m.receiver_number in contacts[1::2]} == {"delivered"}


async def test_what_the_contact_then_writes_is_the_conversations_that_was_written_from(
    texts: Texts, client: Client, other: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    await create_message(client, scheduled_at=scheduled(), message_body="Ours")
    await deactivate(client)
    await create_message(other, message_body="Theirs")
    await make_due(db)
    await worker.run_once()

    answer = await received(db, await texts.send("Yes"))

    assert answer.bearer_id == other.bearer_id
    assert {taken["body"] for taken in await carrier.taken()} == {"Theirs"}
