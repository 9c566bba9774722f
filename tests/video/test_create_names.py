"""Names of sessions: one live call has it, whoever asks, in whatever case and however many at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from commonservices.v1 import video_call_pb2
from commonservices.v1 import video_call_service_pb2 as pb

from server.caller import BearerType
from server.db import Database
from tests.clients import Client, refusal, refused
from tests.conftest import MakeClient
from tests.video.support import SESSION_NAME, count, counts, create, end, events_of, new_video_call, until_waiting


async def outcome(call: Awaitable[video_call_pb2.VideoCall]) -> str:
    try:
        return (await call).internal_status
    except grpc.aio.AioRpcError as error:
        return refusal(error).reason


async def test_name_of_a_live_call_is_taken_for_everybody_in_any_case(
    client: Client, client_of: MakeClient, db: Database
) -> None:
    call = await create(client, session_name="Room 4")

    for caller, name in ((client, "Room 4"), (await client_of(), "ROOM 4")):
        request = pb.CreateVideoCallRequest(
            video_call=new_video_call(session_name=name, client_conversation_id="a"), request_id="once"
        )
        answer = await refused(caller.video_calls.CreateVideoCall(request, metadata=caller.metadata))
        assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SESSION_NAME_TAKEN")
        assert answer.metadata == {"session_name": name}
    await db.execute("UPDATE video_calls SET internal_status = 'in_progress'")
    assert await outcome(create(client, session_name="Room 4")) == "SESSION_NAME_TAKEN"

    assert await counts(db) == [1, 1, 0, 1, 0]
    assert await events_of(db, call)


@pytest.mark.parametrize("internal_status", ["finished", "expired"])
async def test_name_of_a_call_that_is_over_is_free(client: Client, db: Database, internal_status: str) -> None:
    first = await create(client)
    await end(db, first, internal_status)

    second = await create(client)

    assert second.shunkan_ido_session_key != first.shunkan_ido_session_key


async def test_of_many_creates_of_one_name_at_once_one_is_made(
    client: Client, client_of: MakeClient, db: Database
) -> None:
    clients = [client, await client_of(BearerType.USER), await client_of(BearerType.ADMIN)]

    outcomes = await asyncio.gather(
        *(outcome(create(clients[n % 3], client_conversation_id=f"family-{n}")) for n in range(30))
    )

    assert sorted(outcomes) == ["SESSION_NAME_TAKEN"] * 29 + ["pending"]
    assert await counts(db) == [1, 1, 1, 1, 0]


@asynccontextmanager
async def call_in_hand(db: Database, client: Client, *, commits: bool) -> AsyncIterator[None]:
    """Until the block ends, another create of the name is about to commit, or to roll back."""
    async with db.connection() as connection, connection.transaction(force_rollback=not commits):
        await connection.execute(
            """INSERT INTO video_calls (session_key, bearer_id, session_name, host_username, maximum_call_length,
                                        internal_status, expires_at, sequence)
               VALUES (gen_random_uuid(), %s, %s, 'x', 60, 'pending', now(), 0)""",
            [client.bearer_id, SESSION_NAME],
        )
        yield


@pytest.mark.parametrize(("commits", "expected"), [(True, "SESSION_NAME_TAKEN"), (False, "pending")])
async def test_create_waits_for_another_of_the_name(client: Client, db: Database, commits: bool, expected: str) -> None:
    async with call_in_hand(db, client, commits=commits):
        task = asyncio.create_task(outcome(create(client)))
        await until_waiting(db, task)

    assert await task == expected
    assert await count(db, "video_calls") == 1
