"""Reading video calls through the front door: who sees which, with what in them, at which cost."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import pytest
from commonservices.v1 import video_call_service_pb2 as pb
from sqlalchemy import Engine, event

from server.caller import BearerType
from server.config import Settings
from server.db import Database
from tests.clients import Client, refused
from tests.conftest import MakeClient
from tests.files.support import request_of, signer_of
from tests.video.support import add_recording, claims_of, create, end, get, let_in, without_token

UNKNOWN = "00000000-0000-0000-0000-000000000000"
BEGAN = datetime(2026, 11, 23, 12, tzinfo=UTC)


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that sessions of this process run meanwhile."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("bearer_type", [BearerType.APPLICATION, BearerType.USER])
async def test_call_is_its_bearers_own_and_every_admins(
    client: Client, client_of: MakeClient, admin: Client, bearer_type: BearerType
) -> None:
    call = await create(client, client_conversation_id="family-1")

    answer = await refused(get(await client_of(bearer_type), call))

    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "VIDEO_CALL_NOT_FOUND")
    assert answer.metadata == {"session_key": call.shunkan_ido_session_key}
    assert without_token(await get(admin, call)) == without_token(call)


@pytest.mark.parametrize("key", ["", "nonsense", UNKNOWN, "é", "1", "a\0"])
async def test_unknown_call_is_not_found(client: Client, admin: Client, key: str) -> None:
    request = pb.GetVideoCallRequest(session_key=key)

    for caller in (client, admin):
        answer = await refused(caller.video_calls.GetVideoCall(request, metadata=caller.metadata))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "VIDEO_CALL_NOT_FOUND")


@pytest.mark.parametrize("spelled", [str.upper, lambda key: UUID(key).hex])
async def test_key_is_read_in_other_spellings(client: Client, spelled: type[str]) -> None:
    call = await create(client)

    request = pb.GetVideoCallRequest(session_key=spelled(call.shunkan_ido_session_key))
    got = await client.video_calls.GetVideoCall(request, metadata=client.metadata)

    assert without_token(got) == without_token(call)


async def test_host_token_is_the_hosts_and_good_while_the_call_may_last(client: Client, db: Database) -> None:
    call = await create(client)
    await let_in(client, call, is_host=True)
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=50)
    await db.execute("UPDATE video_calls SET internal_status = 'in_progress', end_at = %s", [ends])

    claims = claims_of((await get(client, call)).host_token)

    assert claims["user_identity"] == UUID(call.video_call_participants[0].shunkan_ido_user_key).hex
    assert abs(claims["exp"] - ends.timestamp()) <= 2


@pytest.mark.parametrize("internal_status", ["finished", "expired"])
async def test_call_that_is_over_has_no_token(client: Client, db: Database, internal_status: str) -> None:
    call = await create(client)
    await end(db, call, internal_status)

    got = await get(client, call)

    assert got.internal_status == internal_status
    assert not got.HasField("host_token")


async def test_participants_are_in_the_order_they_were_let_in(client: Client, db: Database) -> None:
    call = await create(client)
    names = [f"parent {n}" for n in range(5)]
    for name in names:
        await let_in(client, call, username=name)
    await db.execute(
        """UPDATE video_call_participants SET internal_status = 'left', join_time = %s, leave_time = %s,
           leave_reason = 'left', provider_id = '16778240' WHERE username = 'parent 0'""",
        [BEGAN, BEGAN + timedelta(minutes=1)],
    )

    participants = (await get(client, call)).video_call_participants

    assert [participant.username for participant in participants] == [call.host_username, *names]
    left = participants[1]
    assert (left.internal_status, left.leave_reason, left.provider_id) == ("left", "left", "16778240")
    assert left.leave_time.ToDatetime(tzinfo=UTC) - left.join_time.ToDatetime(tzinfo=UTC) == timedelta(minutes=1)


async def test_recordings_are_in_their_order_and_found_at_expiring_urls(
    client: Client, db: Database, settings: Settings
) -> None:
    call = await create(client)
    later = {"recording_start": BEGAN + timedelta(minutes=30)}
    await add_recording(db, call, provider_id="b", storage_key="recordings/bbb.mp4", internal_status="stored", **later)
    await add_recording(
        db, call, provider_id="c", internal_status="failed", error_description="is gone", file_size=None
    )
    await add_recording(db, call, provider_id="a", recording_start=BEGAN)

    first, second, third = (await get(client, call)).video_call_recordings

    assert [first.provider_id, second.provider_id, third.provider_id] == ["a", "b", "c"]
    assert [r.internal_status for r in (first, second, third)] == ["pending", "stored", "failed"]
    assert (first.HasField("recording_url"), third.HasField("recording_url")) == (False, False)
    assert (first.file_size, third.file_size) == (5_000_000_000, 0)
    assert third.error_description == "is gone"
    asked = request_of(second.recording_url)
    assert signer_of(settings).holds("recordings/bbb.mp4", expires=asked.expires, signature=asked.signature)
    good_for = datetime.fromtimestamp(asked.expires, UTC) - datetime.now(UTC)
    assert abs(good_for - timedelta(hours=24)) < timedelta(seconds=10)


async def test_a_call_costs_three_statements_however_much_is_in_it(client: Client, db: Database) -> None:
    call = await create(client, client_conversation_id="family-1")
    for n in range(5):
        await let_in(client, call)
        await add_recording(db, call, provider_id=f"{n}", storage_key=f"recordings/{n}.mp4", internal_status="stored")

    with statements() as seen:
        got = await get(client, call)

    assert (len(got.video_call_participants), len(got.video_call_recordings)) == (6, 5)
    assert len(seen) == 3
