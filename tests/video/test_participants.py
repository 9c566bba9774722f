"""Letting people into video calls through the front door."""

import asyncio
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
import pytest
from commonservices.v1 import video_call_pb2
from commonservices.v1 import video_call_service_pb2 as pb

from server.db import Database
from tests.clients import Client, refused
from tests.conftest import MakeClient
from tests.video.support import (
    HOST,
    SESSION_NAME,
    claims_of,
    count,
    create,
    end,
    events_of,
    get,
    let_in,
    row_of,
    until_waiting,
)

UNKNOWN = "00000000-0000-0000-0000-000000000000"


async def refused_participant(client: Client, **given: Any) -> tuple[str, ...]:
    request = pb.CreateVideoCallParticipantRequest(participant=pb.NewVideoCallParticipant(**given))
    answer = await refused(client.video_calls.CreateVideoCallParticipant(request, metadata=client.metadata))
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    return answer.fields


def without_token(participant: video_call_pb2.VideoCallParticipant) -> video_call_pb2.VideoCallParticipant:
    bare = video_call_pb2.VideoCallParticipant()
    bare.CopyFrom(participant)
    bare.ClearField("token_signature")
    return bare


async def test_call_takes_no_more_than_can_be_in_a_session(client: Client, db: Database) -> None:
    call = await create(client)
    others = """INSERT INTO video_call_participants
        (user_key, video_call_id, is_host, username, internal_status, created_at, updated_at)
        SELECT gen_random_uuid(), %s, false, 'A parent with a long name, in all 34', 'invited', now(), now()
        FROM generate_series(1, 4998)"""
    await db.execute(others, [call.id])
    last = await let_in(client, call)

    refusal = await refused(let_in(client, call))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VIDEO_CALL_FULL")
    found = await get(client, call)
    assert len(found.video_call_participants) == 5000
    assert found.video_call_participants[-1].shunkan_ido_user_key == last.shunkan_ido_user_key


async def test_answer_has_every_documented_field(client: Client) -> None:
    call = await create(client)

    participant = await let_in(client, call)

    assert UUID(participant.shunkan_ido_user_key)
    assert participant == video_call_pb2.VideoCallParticipant(
        shunkan_ido_user_key=participant.shunkan_ido_user_key,
        shunkan_ido_session_key=call.shunkan_ido_session_key,
        token_signature=participant.token_signature,
        username="A parent",
        bearer_id=client.bearer_id,
        video_call_id=call.id,
        session_name=SESSION_NAME,
        created_at=participant.created_at,
        updated_at=participant.created_at,
        internal_status="invited",
    )


@pytest.mark.parametrize("is_host", [True, False])
async def test_token_is_the_participants_own(client: Client, is_host: bool) -> None:
    call = await create(client)

    participant = await let_in(client, call, is_host=is_host)
    claims = claims_of(participant.token_signature)

    assert participant.is_host == is_host
    assert claims["role_type"] == int(is_host)
    assert claims["tpc"] == SESSION_NAME
    assert claims["session_key"] == UUID(call.shunkan_ido_session_key).hex
    assert claims["user_identity"] == UUID(participant.shunkan_ido_user_key).hex
    assert claims["exp"] == pytest.approx(claims_of(call.host_token)["exp"], abs=1)


async def test_token_is_in_this_answer_alone(client: Client) -> None:
    call = await create(client)
    participants = [await let_in(client, call) for _ in range(2)]

    got = await get(client, call)

    assert list(got.video_call_participants[1:]) == [without_token(participant) for participant in participants]
    assert [participant.username for participant in got.video_call_participants] == [HOST, "A parent", "A parent"]
    assert not any(participant.HasField("token_signature") for participant in got.video_call_participants)


async def test_nothing_is_told(client: Client, db: Database) -> None:
    call = await create(client)

    await let_in(client, call)

    assert len(await events_of(db, call)) == 1
    assert (await row_of(db, call)).sequence == 1


@pytest.mark.parametrize("name", ["shunkan_ido_session_key", "session_key"])
@pytest.mark.parametrize("spelled", [str, lambda key: key.upper(), lambda key: UUID(key).hex])
async def test_call_is_named_in_two_ways(client: Client, name: str, spelled: type[str]) -> None:
    call = await create(client)
    key = spelled(call.shunkan_ido_session_key)

    participant = await let_in(client, call, **{"shunkan_ido_session_key": "", name: key})

    assert participant.shunkan_ido_session_key == call.shunkan_ido_session_key


async def test_call_in_progress_lets_people_in(client: Client, db: Database) -> None:
    call = await create(client)
    await db.execute("UPDATE video_calls SET internal_status = 'in_progress'")

    assert (await let_in(client, call)).token_signature


async def test_people_are_let_into_own_calls_and_by_an_admin_into_all(
    client: Client, client_of: MakeClient, admin: Client, db: Database
) -> None:
    call = await create(client)

    answer = await refused(let_in(await client_of(), call, request_id="once"))
    by_admin = await let_in(admin, call)

    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "VIDEO_CALL_NOT_FOUND")
    assert answer.metadata == {"session_key": call.shunkan_ido_session_key}
    assert by_admin.bearer_id == client.bearer_id
    assert await count(db, "video_call_participants") == 2
    assert await count(db, "idempotency_keys") == 0


@pytest.mark.parametrize("key", [UNKNOWN, "nonsense", "é", "1"])
async def test_unknown_call_is_not_found(client: Client, admin: Client, key: str) -> None:
    participant = pb.NewVideoCallParticipant(session_key=key, username="x")
    request = pb.CreateVideoCallParticipantRequest(participant=participant)

    for caller in (client, admin):
        answer = await refused(caller.video_calls.CreateVideoCallParticipant(request, metadata=caller.metadata))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "VIDEO_CALL_NOT_FOUND")
        assert answer.metadata == {"session_key": key}


@pytest.mark.parametrize("internal_status", ["finished", "expired"])
async def test_nobody_is_let_into_a_call_that_is_over(client: Client, db: Database, internal_status: str) -> None:
    call = await create(client)
    await end(db, call, internal_status)

    answer = await refused(let_in(client, call))

    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VIDEO_CALL_ENDED")
    assert answer.metadata == {"session_key": call.shunkan_ido_session_key, "internal_status": internal_status}
    assert await count(db, "video_call_participants") == 1


@pytest.mark.parametrize(("ends", "participants"), [(True, 1), (False, 2)])
async def test_letting_in_waits_for_a_change_of_the_call(
    client: Client, db: Database, ends: bool, participants: int
) -> None:
    call = await create(client)
    async with db.connection() as connection, connection.transaction(force_rollback=not ends):
        await connection.execute("UPDATE video_calls SET internal_status = 'finished'")
        task = asyncio.ensure_future(let_in(client, call))
        await until_waiting(db, task)

    if ends:
        assert (await refused(task)).reason == "VIDEO_CALL_ENDED"
    else:
        assert (await task).token_signature
    assert await count(db, "video_call_participants") == participants


async def test_people_are_let_in_at_once(client: Client) -> None:
    call = await create(client)

    made = await asyncio.gather(*(let_in(client, call) for _ in range(20)))

    keys = {participant.shunkan_ido_user_key for participant in made}
    assert len(keys) == 20
    got = await get(client, call)
    assert {participant.shunkan_ido_user_key for participant in got.video_call_participants[1:]} == keys


async def test_every_bad_field_is_named_at_once(client: Client) -> None:
    assert set(await refused_participant(client)) == {"participant.shunkan_ido_session_key", "participant.username"}
    both = {"shunkan_ido_session_key": UNKNOWN, "session_key": UNKNOWN, "username": "x" * 200}
    assert set(await refused_participant(client, **both)) == {"participant.session_key", "participant.username"}


@pytest.mark.parametrize("username", ["", "\t", "x" * 200, "a\nb", "a\0"])
async def test_bad_names_are_refused(client: Client, username: str) -> None:
    fields = await refused_participant(client, session_key=UNKNOWN, username=username)

    assert fields == ("participant.username",)


async def test_missing_participant_is_what_is_required(client: Client) -> None:
    request = pb.CreateVideoCallParticipantRequest()

    answer = await refused(client.video_calls.CreateVideoCallParticipant(request, metadata=client.metadata))

    assert answer.fields == ("participant",)


async def test_repeated_create_is_one_participant(client: Client, db: Database) -> None:
    call = await create(client)

    made = await asyncio.gather(*(let_in(client, call, request_id="once") for _ in range(20)))

    assert len({without_token(p).SerializeToString(deterministic=True) for p in made}) == 1
    assert all(claims_of(p.token_signature)["role_type"] == 0 for p in made)
    assert await count(db, "video_call_participants") == 2


async def test_request_id_is_for_one_request(client: Client) -> None:
    call = await create(client)
    await let_in(client, call, request_id="once")

    answer = await refused(let_in(client, call, request_id="once", is_host=True))

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_repeated_create_for_a_call_that_is_over_has_no_token(client: Client, db: Database) -> None:
    call = await create(client)
    first = await let_in(client, call, request_id="once")
    await end(db, call)

    again = await let_in(client, call, request_id="once")

    assert again == without_token(first)
