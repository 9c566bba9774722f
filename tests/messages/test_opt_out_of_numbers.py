"""What a contact says to one of our numbers holds for it wherever it goes, and for the service that it spoke for."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import grpc.aio
import pytest
from commonservices.v1 import message_pb2
from commonservices.v1 import messaging_service_service_pb2 as pb

from server.db import Database
from server.messages.callbacks import apply_callback
from server.messages.send import SendWorker
from server.notifications import Notifications
from server.providers.ports import MessageCallback
from server.providers.twilio import statuses
from tests.clients import Client, refusal
from tests.conversations import support as conversations
from tests.factories import RECEIVER, SENDER, create_message, make_messaging_service
from tests.messages.inbound import STRANGER, Texts, opted_out, outbound
from tests.messages.support import make_due, row_of
from tests.providers.servers import Sandbox

OTHER = "+12065550101"
ELSEWHERE = "+12065550200"


@pytest.fixture
async def service_id(db: Database, admin: Client) -> int:
    """The messaging service of SENDER and OTHER."""
    return (await make_messaging_service(db)).row.id


@pytest.fixture
async def other_id(db: Database, admin: Client) -> int:
    """Another messaging service, of ELSEWHERE."""
    made = await make_messaging_service(
        db, name="other", global_customer_id="other", twilio_messaging_sid="MG2", phone_numbers=[ELSEWHERE]
    )
    return made.row.id


async def move(db: Database, service_id: int | None, number: str = SENDER) -> None:
    """As a synchronisation does it."""
    await db.execute(
        "UPDATE twilio_numbers SET messaging_service_id = %s WHERE phone_number = %s", (service_id, number)
    )


async def is_refused(client: Client, number: str = SENDER) -> bool:
    """Whether nothing may be sent to the contact from a number, each in a conversation of its own."""
    sending = create_message(client, sender_number=number, client_conversation_id=f"from {number}")
    [outcome] = await asyncio.gather(sending, return_exceptions=True)
    if isinstance(outcome, message_pb2.Message):
        return False
    assert isinstance(outcome, grpc.aio.AioRpcError)
    assert refusal(outcome).reason == "RECIPIENT_OPTED_OUT"
    return True


async def test_stop_follows_its_number_through_updates_of_services(
    texts: Texts, admin: Client, client: Client, db: Database
) -> None:
    first = await make_messaging_service(db)
    second = await make_messaging_service(
        db, name="other", global_customer_id="other", twilio_messaging_sid="MG2", phone_numbers=[ELSEWHERE]
    )
    await texts.send("STOP")

    for service, destroy in ((first, True), (second, False)):
        number = pb.TwilioNumberAttributes(phone_number=SENDER, destroy=destroy)
        request = pb.UpdateMessagingServiceRequest(uuid=str(service.row.uuid), twilio_numbers_attributes=[number])
        await admin.messaging_services.UpdateMessagingService(request, metadata=admin.metadata)

    assert await is_refused(client, SENDER)
    assert await is_refused(client, OTHER)
    assert not await is_refused(client, ELSEWHERE)


async def test_start_takes_back_what_holds_for_the_number_and_for_its_service(
    texts: Texts, client: Client, db: Database, service_id: int, other_id: int
) -> None:
    await texts.send("STOP")
    await move(db, other_id)
    await texts.send("STOP", to=ELSEWHERE)

    await texts.send("START")

    assert not await is_refused(client, SENDER)
    assert not await is_refused(client, ELSEWHERE)
    assert await is_refused(client, OTHER)
    assert await opted_out(db) == {(service_id, RECEIVER, "keyword")}


async def test_start_to_another_number_counts_within_the_service_that_was_told(
    texts: Texts, client: Client, db: Database, service_id: int, other_id: int
) -> None:
    await texts.send("STOP")
    await texts.send("START", to=OTHER)
    at_home = await is_refused(client, SENDER)

    await texts.send("STOP")
    await move(db, other_id)
    await texts.send("START", to=OTHER)
    await texts.send("START", to=ELSEWHERE)
    moved = await is_refused(client, SENDER)
    await move(db, service_id)

    assert (at_home, moved, await is_refused(client, SENDER)) == (False, True, False)


async def test_stop_that_is_repeated_after_the_move_is_told_to_the_new_service_too(
    texts: Texts, client: Client, db: Database, service_id: int, other_id: int
) -> None:
    await texts.send("STOP")
    await move(db, other_id)

    await texts.send("STOP")

    assert await opted_out(db) == {(service_id, RECEIVER, "keyword"), (other_id, RECEIVER, "keyword")}
    assert await is_refused(client, ELSEWHERE)


async def test_stop_to_a_number_in_no_service_holds_once_it_is_in_one(
    texts: Texts, client: Client, db: Database, service_id: int
) -> None:
    await move(db, None)
    await texts.send("STOP")
    await move(db, service_id)
    other_number = await is_refused(client, OTHER)
    stopped = await is_refused(client)
    await texts.send("START")

    assert (stopped, other_number, await is_refused(client)) == (True, False, False)


async def test_repeated_stop_after_a_move_and_a_start_changes_nothing(
    texts: Texts, client: Client, db: Database, service_id: int, other_id: int
) -> None:
    sid = await texts.send("STOP")
    await move(db, other_id)
    await texts.send("START")

    await texts.send("STOP", sid=sid)

    assert not await is_refused(client)


def unsubscribed(message: message_pb2.Message, sid: str) -> MessageCallback:
    report = statuses.report(message_sid=sid, provider_status="undelivered", error_code="21610")
    return MessageCallback(report=report, message_uuid=UUID(message.message_uuid), body="raw")


@pytest.mark.parametrize("answered", [[], [SENDER], [OTHER]])
async def test_carriers_refusal_holds_for_its_number_unless_a_start_came_since(
    texts: Texts,
    client: Client,
    db: Database,
    notifications: Notifications,
    service_id: int,
    other_id: int,
    answered: list[str],
) -> None:
    message = await create_message(client, client_conversation_id=f"from {SENDER}")
    for number in answered:
        await texts.send("START", to=number)

    callback = unsubscribed(message, "SM1")
    await apply_callback(db, notifications, provider="twilio", callback=callback, now=datetime.now(UTC))
    at_home = await is_refused(client)
    await move(db, other_id)

    assert [at_home, await is_refused(client)] == [not answered] * 2


async def test_refusal_of_what_the_service_before_sent_says_nothing_of_a_number_that_was_told_start_since(
    texts: Texts, client: Client, db: Database, notifications: Notifications, service_id: int, other_id: int
) -> None:
    message = await create_message(client, client_conversation_id=f"from {SENDER}")
    await move(db, other_id)
    await texts.send("START")

    callback = unsubscribed(message, "SM1")
    await apply_callback(db, notifications, provider="twilio", callback=callback, now=datetime.now(UTC))

    assert await opted_out(db) == {(service_id, RECEIVER, "provider")}
    assert not await is_refused(client)


async def test_stops_and_starts_at_once_end_the_same_for_the_number_and_its_service(
    texts: Texts, client: Client, db: Database, service_id: int, other_id: int
) -> None:
    for n in range(12):
        words = [("STOP", SENDER), ("START", SENDER), ("STOP", OTHER), ("START", OTHER)]
        await asyncio.gather(*(texts.send(word, to=to) for word, to in words[n % 4 :] + words[: n % 4]))
        await texts.send("START", to=OTHER)
        assert not await is_refused(client)

        words = [("STOP", SENDER), ("START", SENDER)] * 2
        await asyncio.gather(*(texts.send(word, to=to) for word, to in words[n % 2 :]))
        at_home = await is_refused(client)
        await move(db, other_id)
        assert await is_refused(client) == at_home
        await move(db, service_id)


async def test_waiting_message_is_not_sent_from_a_number_that_was_told_stop_elsewhere(
    texts: Texts, admin: Client, client: Client, db: Database, carrier: Sandbox, worker: SendWorker, other_id: int
) -> None:
    message = await create_message(client)
    await move(db, other_id)
    await texts.send("STOP")

    await make_due(db)
    await worker.run_once()

    row = await row_of(db, message)
    assert await carrier.taken() == []
    assert (row.internal_status, row.error_code) == ("failed", "RECIPIENT_OPTED_OUT")


async def test_stranger_is_not_answered_from_a_number_that_they_told_stop(
    texts: Texts, db: Database, service_id: int, other_id: int
) -> None:
    await texts.send("STOP", sender=STRANGER)
    await move(db, other_id)

    await texts.send("Hello?", sender=STRANGER)

    assert await outbound(db) == []


async def test_contact_is_shown_opted_out_as_long_as_sends_are_refused(
    texts: Texts, client: Client, db: Database, service_id: int, other_id: int
) -> None:
    made = await conversations.create(client, RECEIVER, sender_number=SENDER)
    await texts.send("STOP")
    told = await conversations.get(client, made)
    await move(db, other_id)
    moved = await conversations.get(client, made)
    await texts.send("START")
    started = await conversations.get(client, made)

    assert moved.participants[0].opted_out_at == told.participants[0].opted_out_at
    assert told.participants[0].HasField("opted_out_at")
    assert not started.participants[0].HasField("opted_out_at")


async def test_stop_that_is_said_again_holds_where_it_was_said_last(
    texts: Texts, client: Client, db: Database, service_id: int, other_id: int
) -> None:
    await texts.send("STOP")
    await texts.send("START", to=OTHER)
    await texts.send("STOP")
    await move(db, other_id)
    await texts.send("STOP")
    await move(db, service_id)
    await texts.send("START", to=OTHER)
    back = await is_refused(client, SENDER)
    await move(db, other_id)
    await texts.send("START", to=ELSEWHERE)

    # Back in its first service it is the other one's STOP that holds, and in that one what is said to any number.
    assert back
    assert not await is_refused(client, SENDER)
