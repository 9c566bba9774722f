"""Creating video calls through the front door."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
import pytest
from commonservices.v1 import conversation_service_pb2, video_call_pb2
from commonservices.v1 import video_call_service_pb2 as pb
from psycopg.rows import scalar_row, tuple_row

from server.api import running_api
from server.caller import BearerType
from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from tests.clients import CALLBACK_URL, Client, client_with, refused
from tests.conftest import ZOOM_SDK_KEY, MakeClient
from tests.conversations.support import create as create_conversation
from tests.factories import create_message, make_messaging_service
from tests.video.support import (
    HOST,
    SESSION_NAME,
    claims_of,
    count,
    counts,
    create,
    end,
    events_of,
    get,
    let_in,
    new_video_call,
    row_of,
    without_token,
)

GRINNING = "\N{GRINNING FACE}"
UNKNOWN = "00000000-0000-0000-0000-000000000000"


async def refused_create(client: Client, **over: object) -> tuple[str, ...]:
    request = pb.CreateVideoCallRequest(video_call=new_video_call(**over))
    answer = await refused(client.video_calls.CreateVideoCall(request, metadata=client.metadata))
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    return answer.fields


async def test_answer_has_every_documented_field(client: Client) -> None:
    before = datetime.now(UTC)
    call = await create(client, client_conversation_id="family-1", maximum_call_length=45)

    assert abs(call.created_at.ToDatetime(tzinfo=UTC) - before) < timedelta(seconds=5)
    [host] = call.video_call_participants
    assert UUID(call.shunkan_ido_session_key) != UUID(host.shunkan_ido_user_key)
    assert UUID(call.internal_conversation_id) != UUID(call.global_id)
    assert call == video_call_pb2.VideoCall(
        id=call.id,
        shunkan_ido_session_key=call.shunkan_ido_session_key,
        session_name=SESSION_NAME,
        internal_status="pending",
        bearer_id=client.bearer_id,
        client_conversation_id="family-1",
        internal_conversation_id=call.internal_conversation_id,
        global_id=call.global_id,
        maximum_call_length=45,
        created_at=call.created_at,
        updated_at=call.created_at,
        host_token=call.host_token,
        host_username=HOST,
        callback_url=CALLBACK_URL,
        video_call_participants=[
            video_call_pb2.VideoCallParticipant(
                shunkan_ido_user_key=host.shunkan_ido_user_key,
                shunkan_ido_session_key=call.shunkan_ido_session_key,
                is_host=True,
                username=HOST,
                bearer_id=client.bearer_id,
                video_call_id=call.id,
                session_name=SESSION_NAME,
                created_at=call.created_at,
                updated_at=call.created_at,
                internal_status="invited",
            )
        ],
    )


async def test_host_token_lets_the_host_into_the_session(client: Client) -> None:
    call = await create(client, maximum_call_length=30)

    claims = claims_of(call.host_token)

    assert claims["app_key"] == ZOOM_SDK_KEY
    assert claims["tpc"] == SESSION_NAME
    assert claims["role_type"] == 1
    assert claims["session_key"] == UUID(call.shunkan_ido_session_key).hex
    assert claims["user_identity"] == UUID(call.video_call_participants[0].shunkan_ido_user_key).hex
    latest_end = call.created_at.ToDatetime(tzinfo=UTC) + timedelta(hours=24, minutes=30)
    assert abs(datetime.fromtimestamp(claims["exp"], UTC) - latest_end) < timedelta(seconds=5)


async def test_get_answers_what_the_create_did(client: Client) -> None:
    made = await create(client, global_id=(await create_conversation(client)).global_id)

    got = await get(client, made)

    assert without_token(got) == without_token(made)
    assert claims_of(got.host_token)["user_identity"] == claims_of(made.host_token)["user_identity"]


async def test_call_its_host_and_its_first_event_are_one(client: Client, db: Database) -> None:
    call = await create(client, client_conversation_id="family-1")

    [event] = await events_of(db, call)
    [appended] = await db.fetch_all(
        """SELECT e.bearer_id, e.type, e.sequence, e.callback_url, e.occurred_at, e.event_id::text, e.position,
                  e.xmin = c.xmin, p.xmin = c.xmin, o.xmin = c.xmin
           FROM events e JOIN video_calls c ON c.session_key = e.resource_uuid
           JOIN video_call_participants p ON p.video_call_id = c.id JOIN conversations o ON o.id = c.conversation_id""",
        {},
        tuple_row,
    )

    told = without_token(call)
    told.ClearField("video_call_participants")
    assert event.video_call == told
    assert event.type == "video_calls.video_call.status_update"
    assert (event.bearer_id, event.sequence) == (client.bearer_id, 1)
    assert event.resource_uuid == call.shunkan_ido_session_key
    assert event.occurred_at == call.created_at
    assert appended == (
        client.bearer_id,
        event.type,
        1,
        CALLBACK_URL,
        call.created_at.ToDatetime(tzinfo=UTC),
        event.event_id,
        None,
        True,
        True,
        True,
    )


async def test_new_call_expires_in_a_day(client: Client, db: Database) -> None:
    row = await row_of(db, await create(client))

    assert row.expires_at == row.created_at + timedelta(hours=24)
    assert (row.start_time, row.end_at, row.sequence) == (None, None, 1)


@pytest.mark.parametrize("bearer_type", list(BearerType))
async def test_every_key_may_create(client_of: MakeClient, bearer_type: BearerType) -> None:
    caller = await client_of(bearer_type)

    assert (await create(caller)).bearer_id == caller.bearer_id


@pytest.mark.parametrize(("given", "length"), [({}, 60), *(({"maximum_call_length": n}, n) for n in (0, 1, 60, 120))])
async def test_length(client: Client, given: dict[str, Any], length: int) -> None:
    assert (await create(client, **given)).maximum_call_length == length


@pytest.mark.parametrize("length", [-1, 121, -(2**31), 2**31 - 1])
async def test_length_out_of_bounds_is_refused(client: Client, db: Database, length: int) -> None:
    assert await refused_create(client, maximum_call_length=length) == ("video_call.maximum_call_length",)
    assert await counts(db) == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("field", ["session_name", "host_username"])
@pytest.mark.parametrize("name", ["x", "x" * 199, GRINNING * 199, "  Ünï  ", "\N{LEFT-TO-RIGHT MARK}x"])
async def test_names_are_kept_as_given(client: Client, field: str, name: str) -> None:
    assert getattr(await create(client, **{field: name}), field) == name


@pytest.mark.parametrize("field", ["session_name", "host_username"])
@pytest.mark.parametrize(
    "name", ["", " ", "\N{NO-BREAK SPACE}", "x" * 200, GRINNING * 200, "a\nb", "\x7f", "a\x85", "a\0"]
)
async def test_bad_names_are_refused(client: Client, db: Database, field: str, name: str) -> None:
    assert await refused_create(client, **{field: name}) == (f"video_call.{field}",)
    assert await counts(db) == [0, 0, 0, 0, 0]


async def test_every_bad_field_is_named_at_once(client: Client) -> None:
    bad = pb.CreateVideoCallRequest(
        request_id="x" * 256,
        video_call=pb.NewVideoCall(
            session_name="x" * 200,
            host_username="\n",
            maximum_call_length=121,
            client_conversation_id="x" * 256,
            internal_conversation_id="x",
            global_id="x",
            callback_url="x",
        ),
    )

    answer = await refused(client.video_calls.CreateVideoCall(bad, metadata=client.metadata))

    assert set(answer.fields) == {"request_id"} | {f"video_call.{f.name}" for f in pb.NewVideoCall.DESCRIPTOR.fields}


async def test_missing_call_is_what_is_required(client: Client) -> None:
    request = pb.CreateVideoCallRequest(request_id="x" * 256)

    answer = await refused(client.video_calls.CreateVideoCall(request, metadata=client.metadata))

    assert answer.fields == ("video_call",)


async def test_call_needs_no_conversation(client: Client, db: Database) -> None:
    call = await create(client)

    for field in ("client_conversation_id", "internal_conversation_id", "global_id"):
        assert not call.HasField(field)
    assert await count(db, "conversations") == 0


async def test_conversation_is_made_once_and_found_again(client: Client, client_of: MakeClient, db: Database) -> None:
    other = await client_of()
    first = await create(client, session_name="1", client_conversation_id="family-1")
    second = await create(client, session_name="2", client_conversation_id="family-1")
    by_global_id = await create(client, session_name="3", global_id=first.global_id)
    by_internal_id = await create(client, session_name="4", internal_conversation_id=first.internal_conversation_id)
    of_other = await create(other, session_name="5", client_conversation_id="family-1")

    assert {c.global_id for c in (first, second, by_global_id, by_internal_id)} == {first.global_id}
    assert {c.client_conversation_id for c in (by_global_id, by_internal_id)} == {"family-1"}
    assert of_other.global_id != first.global_id
    assert await count(db, "conversations") == 2


@pytest.mark.parametrize("field", ["internal_conversation_id", "global_id"])
async def test_conversation_that_is_named_must_be_the_bearers_own(
    client: Client, client_of: MakeClient, admin: Client, db: Database, field: str
) -> None:
    theirs = getattr(await create_conversation(await client_of()), field)

    for caller, named in ((client, theirs), (admin, theirs), (client, UNKNOWN), (client, "nonsense")):
        request = pb.CreateVideoCallRequest(video_call=new_video_call(**{field: named}), request_id="once")
        answer = await refused(caller.video_calls.CreateVideoCall(request, metadata=caller.metadata))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND")
        assert answer.metadata == {field: named}
    assert await count(db, "video_calls") == await count(db, "idempotency_keys") == 0


async def test_concurrent_creates_of_one_new_conversation_are_all_made(client: Client, db: Database) -> None:
    made = await asyncio.gather(
        *(create(client, session_name=f"{n}", client_conversation_id="family-1") for n in range(20))
    )

    assert len({call.global_id for call in made}) == 1
    assert await count(db, "conversations") == 1
    assert await count(db, "video_calls") == await count(db, "events") == 20


async def test_calls_and_messages_of_one_new_conversation_at_once_are_all_made(client: Client, db: Database) -> None:
    await make_messaging_service(db)

    calls, messages = await asyncio.gather(
        asyncio.gather(*(create(client, session_name=f"{n}", client_conversation_id="family-1") for n in range(10))),
        asyncio.gather(*(create_message(client, client_conversation_id="family-1") for _ in range(10))),
    )

    assert len({call.global_id for call in calls} | {message.global_id for message in messages}) == 1
    assert await count(db, "conversations") == 1
    assert (await count(db, "video_calls"), await count(db, "messages")) == (10, 10)


async def test_callback_url_is_the_requests_then_the_conversations_then_the_bearers(client: Client) -> None:
    names = iter("abcdefgh")

    async def url(**given: str) -> str:
        return (await create(client, session_name=next(names), **given)).callback_url

    assert await url() == CALLBACK_URL
    assert await url(callback_url="http://own.example/") == "http://own.example/"
    assert await url(client_conversation_id="plain") == CALLBACK_URL
    assert await url(client_conversation_id="own", callback_url="http://own.example/") == "http://own.example/"
    assert await url(client_conversation_id="own") == "http://own.example/"
    assert await url(client_conversation_id="own", callback_url="http://o.example/") == "http://o.example/"
    assert await url(client_conversation_id="own") == "http://own.example/"
    conversation = await client.conversations.GetConversation(
        conversation_service_pb2.GetConversationRequest(client_conversation_id="own"), metadata=client.metadata
    )
    assert conversation.callback_url == "http://own.example/"


async def test_callback_url_is_resolved_at_the_create_and_kept(client: Client, db: Database) -> None:
    call = await create(client)

    await db.execute("UPDATE bearers SET callback_url = 'http://new.example/'")

    assert (await get(client, call)).callback_url == CALLBACK_URL
    assert (await create(client, session_name="later")).callback_url == "http://new.example/"


async def test_repeated_create_is_one_call(client: Client, db: Database) -> None:
    made = await asyncio.gather(*(create(client, request_id="once") for _ in range(20)))

    assert len({without_token(call).SerializeToString(deterministic=True) for call in made}) == 1
    assert len({claims_of(call.host_token)["user_identity"] for call in made}) == 1
    assert await counts(db) == [1, 1, 0, 1, 1]


async def test_request_id_is_for_one_request(client: Client, db: Database) -> None:
    await create(client, request_id="once")

    answer = await refused(create(client, request_id="once", maximum_call_length=60))

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert await count(db, "video_calls") == 1


async def test_repeated_create_answers_a_token_of_the_call_as_it_is_now(client: Client, db: Database) -> None:
    first = await create(client, request_id="once")
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=50)
    await db.execute("UPDATE video_calls SET internal_status = 'in_progress', end_at = %s", [ends])

    again = await create(client, request_id="once")

    assert without_token(again) == without_token(first)
    assert abs(claims_of(again.host_token)["exp"] - ends.timestamp()) <= 2
    assert claims_of(first.host_token)["exp"] > claims_of(again.host_token)["exp"]


@pytest.mark.parametrize("internal_status", ["finished", "expired"])
async def test_repeated_create_of_a_call_that_is_over_has_no_token(
    client: Client, db: Database, internal_status: str
) -> None:
    first = await create(client, request_id="once")
    await end(db, first, internal_status)

    again = await create(client, request_id="once")

    assert again == without_token(first)


async def test_tokens_are_not_kept(client: Client, db: Database, cipher: Cipher) -> None:
    call = await create(client, request_id="once")
    participant = await let_in(client, call, request_id="twice")

    query = "SELECT response_encrypted FROM idempotency_keys ORDER BY request_id"
    of_call, of_participant = [cipher.decrypt(kept) for kept in await db.fetch_all(query, {}, scalar_row)]

    assert video_call_pb2.VideoCall.FromString(of_call) == without_token(call)
    kept = video_call_pb2.VideoCallParticipant.FromString(of_participant)
    assert kept.shunkan_ido_user_key == participant.shunkan_ido_user_key
    assert not kept.HasField("token_signature")


async def test_without_a_zoom_account_nothing_is_made(client: Client, db: Database, settings: Settings) -> None:
    call = await create(client)
    names = ("sdk_key", "sdk_secret", "api_key", "api_secret", "webhook_secret_token")
    without_zoom = settings.model_copy(update={f"zoom_{name}": None for name in names})

    async with (
        running_api(without_zoom, listen="127.0.0.1:0") as api,
        grpc.aio.insecure_channel(f"127.0.0.1:{api.port}") as channel,
    ):
        caller = client_with(channel, bearer_id=client.bearer_id, token=client.token)
        answers = [await refused(create(caller, session_name="b")), await refused(let_in(caller, call))]
        fields = (await refused(create(caller, session_name=""))).fields
        got = await get(caller, call)

    assert {(a.code, a.reason) for a in answers} == {(grpc.StatusCode.FAILED_PRECONDITION, "VIDEO_NOT_CONFIGURED")}
    assert fields == ("video_call.session_name",)
    assert got == without_token(call)
    assert await count(db, "video_calls") == await count(db, "video_call_participants") == 1
