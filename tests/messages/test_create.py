"""Creating messages through the front door."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import grpc
import grpc.aio
import pytest
from commonservices.v1 import message_pb2
from commonservices.v1 import message_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from psycopg.rows import BaseRowFactory, scalar_row, tuple_row

from server.api import Api
from server.caller import BearerType, Caller
from server.db import Database, Parameters, Row
from server.encryption import Cipher
from server.idempotency import RequestKey, fingerprint_of
from server.messages.create import create_message as create
from server.messages.drafts import read_draft
from server.notifications import Notifications
from tests.clients import CALLBACK_URL, Client, refusal, refused
from tests.conftest import MakeClient
from tests.factories import RECEIVER, SENDER, SERVICE_SID, create_message, make_messaging_service, new_message
from tests.messages.support import count, events_of, listing, row_of

GRINNING = "\N{GRINNING FACE}"


@pytest.fixture(autouse=True)
async def _service(api: Api, db: Database) -> None:
    await make_messaging_service(db)


def at(when: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(when)
    return timestamp


async def refused_create(client: Client, **over: object) -> tuple[str, ...]:
    request = pb.CreateMessageRequest(message=new_message(**over))
    answer = await refused(client.messages.CreateMessage(request, metadata=client.metadata))
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    return answer.fields


async def nothing_is_left(db: Database) -> bool:
    return [await count(db, table) for table in ("messages", "conversations", "events", "idempotency_keys")] == [0] * 4


async def test_answer_has_every_documented_field(client: Client) -> None:
    before = datetime.now(UTC)
    message = await create_message(client, priority="high")

    assert abs(message.created_at.ToDatetime(tzinfo=UTC) - before) < timedelta(seconds=5)
    assert UUID(message.message_uuid).version == 7
    assert UUID(message.internal_conversation_id) != UUID(message.global_id)
    assert message == message_pb2.Message(
        id=message.id,
        sender_number=SENDER,
        receiver_number=RECEIVER,
        message_body="School is closed tomorrow.",
        provider="twilio",
        message_type="sms",
        message_uuid=message.message_uuid,
        client_conversation_id="conversation-1",
        internal_conversation_id=message.internal_conversation_id,
        global_id=message.global_id,
        priority="high",
        internal_status="pending",
        enqueued_at=message.created_at,
        callback_url=CALLBACK_URL,
        created_at=message.created_at,
        updated_at=message.created_at,
        direction="outbound",
        encoding="GSM-7",
        segment_count=1,
    )


async def test_get_and_list_answer_what_the_create_did(client: Client) -> None:
    made = await create_message(client, media_urls=["https://school.example/a.png"], message_body="")

    got = await client.messages.GetMessage(pb.GetMessageRequest(uuid=made.message_uuid), metadata=client.metadata)
    listed = await client.messages.ListMessages(listing(SENDER, RECEIVER), metadata=client.metadata)

    assert got == made
    assert list(listed.messages) == [made]


async def test_message_and_its_first_event_are_one(client: Client, db: Database) -> None:
    message = await create_message(client)

    [event] = await events_of(db, message)
    [appended] = await db.fetch_all(
        """SELECT e.bearer_id, e.type, e.sequence, e.callback_url, e.occurred_at, e.event_id::text, e.position,
                  e.xmin = m.xmin FROM events e JOIN messages m ON m.message_uuid = e.resource_uuid""",
        {},
        tuple_row,
    )

    assert event.message == message
    assert event.type == "messages.message.status_update"
    assert (event.bearer_id, event.sequence, event.resource_uuid) == (client.bearer_id, 1, message.message_uuid)
    assert event.occurred_at == message.updated_at
    assert appended == (
        client.bearer_id,
        event.type,
        1,
        CALLBACK_URL,
        message.created_at.ToDatetime(tzinfo=UTC),
        event.event_id,
        None,
        True,
    )


async def test_new_message_is_due_now_and_untouched(client: Client, db: Database) -> None:
    row = await row_of(db, await create_message(client))

    assert (row.due_at, row.attempts, row.in_doubt, row.sequence) == (row.created_at, 0, False, 1)
    assert row.messaging_service_sid == SERVICE_SID


@pytest.mark.parametrize(
    ("body", "media_urls", "message_type"),
    [
        ("x" * 160, [], "sms"),
        ("x" * 161, [], "mms"),
        (GRINNING * 160, [], "sms"),
        (GRINNING * 161, [], "mms"),
        ("x", ["https://school.example/a.png"], "mms"),
        ("", ["https://school.example/a.png"], "mms"),
        ("x" * 1600, [f"https://school.example/{n}.png" for n in range(10)], "mms"),
        (GRINNING * 1600, [], "mms"),
    ],
)
async def test_message_type(client: Client, body: str, media_urls: list[str], message_type: str) -> None:
    message = await create_message(client, message_body=body, media_urls=media_urls)

    assert message.message_type == message_type
    assert message.message_body == body
    assert list(message.media_urls) == media_urls


@pytest.mark.parametrize("body", ["x" * 1601, GRINNING * 1601])
async def test_body_over_1600_characters_is_refused(client: Client, db: Database, body: str) -> None:
    assert await refused_create(client, message_body=body) == ("message.message_body",)
    assert await nothing_is_left(db)


@pytest.mark.parametrize("body", ["", "  \n\t", "\N{NO-BREAK SPACE}"])
async def test_message_without_content_is_refused(client: Client, body: str) -> None:
    assert await refused_create(client, message_body=body) == ("message.message_body",)


async def test_over_10_media_are_refused(client: Client) -> None:
    urls = [f"https://school.example/{n}.png" for n in range(11)]

    assert await refused_create(client, media_urls=urls) == ("message.media_urls",)


async def test_each_bad_media_url_is_named(client: Client) -> None:
    urls = ["https://school.example/a.png", "file:///etc/passwd", "", "https://u:p@school.example/"]

    assert set(await refused_create(client, media_urls=urls)) == {f"message.media_urls[{n}]" for n in (1, 2, 3)}


@pytest.mark.parametrize("priority", ["", "default", "high"])
async def test_priority(client: Client, priority: str) -> None:
    assert (await create_message(client, priority=priority)).priority == (priority or "default")


@pytest.mark.parametrize("priority", ["urgent", "HIGH", "default "])
async def test_unknown_priority_is_refused(client: Client, priority: str) -> None:
    assert await refused_create(client, priority=priority) == ("message.priority",)


@pytest.mark.parametrize(
    ("spelled", "number"),
    [
        ("(206) 555-0190", "+12065550190"),
        ("206.555.0190", "+12065550190"),
        ("1-206-555-0190", "+12065550190"),
        (" +1 206 555 0190 ", "+12065550190"),
        ("+44 20 7946 0000", "+442079460000"),
        ("tel:+1-206-555-0190", "+12065550190"),
    ],
)
async def test_other_spellings_of_numbers_are_normalised(client: Client, spelled: str, number: str) -> None:
    message = await create_message(client, receiver_number=spelled, sender_number="206-555-0100")

    assert (message.sender_number, message.receiver_number) == (SENDER, number)


@pytest.mark.parametrize(
    "number", ["206-555-XXXX", "(206) 555-NNNN", "1-800-FLOWERS", "whatsapp:+12065550190", "cell 2065550190"]
)
async def test_letters_are_not_taken_for_digits(client: Client, number: str) -> None:
    assert await refused_create(client, receiver_number=number) == ("message.receiver_number",)


@pytest.mark.parametrize(
    "number", ["", "abc", "555-0190", "+1206555019", "+120655501900", "+1 206 555 0190 ext. 5", "911", "+", "0" * 33]
)
async def test_impossible_number_is_refused(client: Client, number: str) -> None:
    assert await refused_create(client, receiver_number=number) == ("message.receiver_number",)


async def test_message_to_its_own_sender_is_refused(client: Client) -> None:
    assert await refused_create(client, receiver_number="(206) 555-0100") == ("message.receiver_number",)


@pytest.mark.parametrize(
    "field",
    [
        "sender_number",
        "receiver_number",
        "message_body",
        "client_conversation_id",
        "callback_url",
        "messaging_service_sid",
        "global_customer_id",
    ],
)
async def test_nul_is_refused(client: Client, db: Database, field: str) -> None:
    assert await refused_create(client, **{field: "a\0b"}) == (f"message.{field}",)
    assert await nothing_is_left(db)


async def test_every_bad_field_is_named_at_once(client: Client) -> None:
    bad = pb.CreateMessageRequest(
        request_id="x" * 256,
        message=pb.NewMessage(
            sender_number="1",
            receiver_number="2",
            message_body="x" * 1601,
            media_urls=["x"],
            client_conversation_id="x" * 256,
            callback_url="x",
            scheduled_at=Timestamp(seconds=300_000_000_000),
            priority="x",
            messaging_service_sid="x" * 256,
            global_customer_id="x" * 256,
            internal_conversation_id="x",
            global_id="x",
        ),
    )

    answer = await refused(client.messages.CreateMessage(bad, metadata=client.metadata))

    assert set(answer.fields) == {"request_id", "message.media_urls[0]"} | {
        f"message.{f.name}" for f in pb.NewMessage.DESCRIPTOR.fields if f.name != "media_urls"
    }


async def test_missing_message_is_what_is_required(client: Client) -> None:
    answer = await refused(client.messages.CreateMessage(pb.CreateMessageRequest(), metadata=client.metadata))

    assert answer.fields == ("message",)


async def test_message_without_any_sender_is_refused(client: Client) -> None:
    assert await refused_create(client, sender_number="") == ("message.sender_number",)


@pytest.mark.parametrize("named", [{"messaging_service_sid": SERVICE_SID}, {"global_customer_id": "customer"}])
async def test_service_sends_from_its_first_number(client: Client, named: dict[str, str]) -> None:
    assert (await create_message(client, sender_number="", **named)).sender_number == SENDER


async def test_sender_may_be_any_number_of_the_service(client: Client) -> None:
    message = await create_message(
        client, sender_number="+12065550101", messaging_service_sid=SERVICE_SID, global_customer_id="customer"
    )

    assert message.sender_number == "+12065550101"


@pytest.mark.parametrize(
    "over",
    [
        {"sender_number": "+12065550109"},
        {"messaging_service_sid": "MG-other"},
        {"global_customer_id": "other"},
        {"messaging_service_sid": SERVICE_SID, "global_customer_id": "other"},
    ],
)
async def test_sender_that_is_not_owned_is_refused(client: Client, db: Database, over: dict[str, str]) -> None:
    request = pb.CreateMessageRequest(message=new_message(**over), request_id="once")

    answer = await refused(client.messages.CreateMessage(request, metadata=client.metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SENDER_NUMBER_NOT_OWNED")
    assert answer.metadata == {"sender_number": over.get("sender_number", SENDER)}
    assert await nothing_is_left(db)


@pytest.mark.parametrize(
    "named",
    [
        {"messaging_service_sid": "MG-empty"},
        {"messaging_service_sid": "MG-unknown"},
        {"global_customer_id": "empty"},
        {"global_customer_id": "unknown"},
        {"messaging_service_sid": SERVICE_SID, "global_customer_id": "empty"},
    ],
)
async def test_service_without_a_number_is_refused(client: Client, db: Database, named: dict[str, str]) -> None:
    await make_messaging_service(
        db, name="empty", global_customer_id="empty", twilio_messaging_sid="MG-empty", phone_numbers=()
    )
    request = pb.CreateMessageRequest(message=new_message(sender_number="", **named))

    answer = await refused(client.messages.CreateMessage(request, metadata=client.metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_SENDER_NUMBER")
    assert answer.metadata == named
    assert await nothing_is_left(db)


async def test_error_names_the_service_without_a_number(client: Client) -> None:
    request = pb.CreateMessageRequest(message=new_message(sender_number="", global_customer_id="nobody"))

    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await client.messages.CreateMessage(request, metadata=client.metadata)

    assert failed.value.details() == (
        "there is no messaging service with global_customer_id nobody to send from; "
        "a customer of the K-12 pool needs one, too"
    )


async def test_conversation_is_made_once_and_found_again(client: Client, client_of: MakeClient, db: Database) -> None:
    other = await client_of()
    first, second = await create_message(client), await create_message(client)
    elsewhere = await create_message(client, client_conversation_id="conversation-2", receiver_number="+12065550191")
    of_other = await create_message(other, receiver_number="+12065550192")

    assert (first.internal_conversation_id, first.global_id) == (second.internal_conversation_id, second.global_id)
    assert len({m.internal_conversation_id for m in (first, elsewhere, of_other)}) == 3
    assert await count(db, "conversations") == 3


async def test_message_without_a_conversation_begins_one(client: Client, db: Database) -> None:
    message = await create_message(client, client_conversation_id="")

    assert not message.HasField("client_conversation_id")
    assert message.internal_conversation_id
    assert message.global_id
    assert await count(db, "conversations") == 1


@pytest.mark.parametrize("with_request_ids", [False, True])
async def test_concurrent_creates_of_one_new_conversation_are_all_accepted(
    client: Client, db: Database, with_request_ids: bool
) -> None:
    made = await asyncio.gather(
        *(create_message(client, request_id=f"request-{n}" if with_request_ids else "") for n in range(20))
    )

    stored = await db.fetch_all("SELECT message_uuid::text FROM messages", {}, scalar_row)
    assert {m.message_uuid for m in made} == set(stored)
    assert len({m.internal_conversation_id for m in made}) == 1
    assert await count(db, "conversations") == 1
    assert await count(db, "messages") == await count(db, "events") == 20


async def test_callback_url_is_the_requests_then_the_conversations_then_the_bearers(client: Client) -> None:
    own = "+12065550191"
    bearers = await create_message(client, client_conversation_id="plain")
    requests = await create_message(
        client, receiver_number=own, client_conversation_id="own", callback_url="http://own.example/"
    )
    conversations = await create_message(client, receiver_number=own, client_conversation_id="own")
    one_of_its_own = await create_message(
        client, receiver_number=own, client_conversation_id="own", callback_url="http://other.example/"
    )
    still_conversations = await create_message(client, receiver_number=own, client_conversation_id="own")
    not_stored_later = await create_message(client, client_conversation_id="plain", callback_url="http://o.example/")
    still_bearers = await create_message(client, client_conversation_id="plain")

    assert [bearers.callback_url, still_bearers.callback_url] == [CALLBACK_URL] * 2
    assert {m.callback_url for m in (requests, conversations, still_conversations)} == {"http://own.example/"}
    assert one_of_its_own.callback_url == "http://other.example/"
    assert not_stored_later.callback_url == "http://o.example/"


async def test_callback_url_is_resolved_at_the_create_and_kept(client: Client, db: Database) -> None:
    message = await create_message(client)

    await db.execute("UPDATE bearers SET callback_url = 'http://new.example/'")
    got = await client.messages.GetMessage(pb.GetMessageRequest(uuid=message.message_uuid), metadata=client.metadata)

    assert got.callback_url == CALLBACK_URL
    assert (await create_message(client)).callback_url == "http://new.example/"


async def test_scheduled_message_waits(client: Client, db: Database) -> None:
    when = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)

    message = await create_message(client, scheduled_at=at(when))

    assert message.scheduled_at.ToDatetime(tzinfo=UTC) == when
    assert not message.HasField("enqueued_at")
    assert message.internal_status == "pending"
    assert (await row_of(db, message)).due_at == when


async def test_past_schedule_means_now(client: Client, db: Database) -> None:
    message = await create_message(client, scheduled_at=at(datetime.now(UTC) - timedelta(days=1000)))

    assert not message.HasField("scheduled_at")
    assert message.enqueued_at == message.created_at


@pytest.mark.parametrize(
    "when",
    [
        at(datetime.now(UTC) + timedelta(days=367)),
        Timestamp(seconds=2**62),
        Timestamp(seconds=-(2**62)),
        Timestamp(seconds=0, nanos=-1),
        Timestamp(seconds=0, nanos=2**31 - 1),
    ],
)
async def test_impossible_schedule_is_refused(client: Client, when: Timestamp) -> None:
    assert await refused_create(client, scheduled_at=when) == ("message.scheduled_at",)


async def test_repeated_create_is_one_message(client: Client, db: Database) -> None:
    made = await asyncio.gather(*(create_message(client, request_id="once") for _ in range(20)))

    assert len({m.SerializeToString(deterministic=True) for m in made}) == 1
    assert await count(db, "messages") == await count(db, "events") == await count(db, "conversations") == 1


async def test_repeat_answers_the_first_result_whatever_came_after(client: Client, db: Database) -> None:
    first = await create_message(client, request_id="once")
    await db.execute("UPDATE messages SET internal_status = 'delivered', due_at = NULL")
    await db.execute("DELETE FROM twilio_numbers")

    assert await create_message(client, request_id="once") == first


async def test_different_messages_with_one_request_id_leave_one(client: Client, db: Database) -> None:
    outcomes = await asyncio.gather(
        *(
            create_message(client, request_id="once", message_body=f"{n}", client_conversation_id=f"{n}")
            for n in range(20)
        ),
        return_exceptions=True,
    )

    refusals = [refusal(o) for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
    assert len(refusals) == 19
    assert {(r.code, r.reason) for r in refusals} == {(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")}
    assert refusals[0].metadata == {"request_id": "once"}
    assert await count(db, "messages") == await count(db, "events") == await count(db, "conversations") == 1


async def test_request_ids_are_each_bearers_own(client: Client, client_of: MakeClient) -> None:
    other = await client_of()

    first = await create_message(client, request_id="once")
    second = await create_message(other, request_id="once", receiver_number="+12065550191")

    assert first.message_uuid != second.message_uuid


async def test_request_id_is_remembered_for_24_hours(client: Client, db: Database) -> None:
    first = await create_message(client, request_id="once")
    await db.execute("UPDATE idempotency_keys SET created_at = now() - interval '23 hours 59 minutes'")
    second = await create_message(client, request_id="once")
    await db.execute("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'")
    later = await asyncio.gather(
        *(create_message(client, request_id="once", message_body="another") for _ in range(10))
    )

    assert second == first
    assert {m.message_uuid for m in later} == {later[0].message_uuid}
    assert later[0].message_uuid != first.message_uuid
    assert await count(db, "messages") == 2


async def test_request_id_may_come_as_metadata(client: Client) -> None:
    request = pb.CreateMessageRequest(message=new_message())
    metadata = (*client.metadata, ("idempotency-key", "once"))

    call = client.messages.CreateMessage(request, metadata=metadata)
    first = await call
    again = client.messages.CreateMessage(request, metadata=metadata)

    assert await again == first == await create_message(client, request_id="once")
    assert "idempotent-replayed" not in dict(await call.initial_metadata())
    assert dict(await again.initial_metadata())["idempotent-replayed"] == "true"


async def test_remembered_answer_is_encrypted(client: Client, db: Database) -> None:
    await create_message(client, request_id="once", message_body="very private")

    stored = await db.fetch_one("SELECT response_encrypted FROM idempotency_keys", {}, scalar_row)

    assert stored
    assert b"very private" not in stored


async def test_unknown_conversation_and_uuid_texts_are_data(client: Client) -> None:
    odd = f"'; DROP TABLE messages; -- {GRINNING} %s {uuid4()}"

    message = await create_message(client, client_conversation_id=odd, message_body=odd)

    assert (message.client_conversation_id, message.message_body) == (odd, odd)


class CountingDatabase(Database):
    """Counts round trips."""

    statements = 0

    async def fetch_one(self, query: str, parameters: Parameters, row: BaseRowFactory[Row]) -> Row | None:
        self.statements += 1
        return await super().fetch_one(query, parameters, row)


@pytest.mark.parametrize("request_id", ["", "once"])
async def test_create_takes_two_statements_and_a_repeat_one(
    client: Client, database_url: str, notifications: Notifications, cipher: Cipher, request_id: str
) -> None:
    caller = Caller(bearer_id=client.bearer_id, bearer_type=BearerType.APPLICATION, api_key_id=1)
    request = pb.CreateMessageRequest(message=new_message())
    request_key = RequestKey(client.bearer_id, request_id, fingerprint_of(request)) if request_id else None
    counting = CountingDatabase(database_url, max_size=1)
    await counting.open()
    counts = []

    for _ in range(2):
        before = counting.statements
        await create(
            counting,
            notifications,
            cipher,
            caller=caller,
            draft=read_draft(request, now=datetime.now(UTC)),
            request_key=request_key,
        )
        counts.append(counting.statements - before)
    await counting.close()

    assert counts == ([2, 1] if request_id else [2, 2])


async def test_url_that_no_index_could_hold_is_refused(client: Client) -> None:
    url = "http://own.example/" + "".join(chr(0x4E00 + number) for number in range(1000))

    answer = await refused(create_message(client, callback_url=url))

    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("message.callback_url",))
