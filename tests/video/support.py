"""What the tests of video calls ask for and look at: the calls, their rows and events, and what is in a token."""

import asyncio
from typing import Any
from uuid import UUID

import jwt
from commonservices.v1 import event_pb2, video_call_pb2
from commonservices.v1 import video_call_service_pb2 as pb
from psycopg.rows import scalar_row
from sqlalchemy import select

from server.db import Database
from server.video.tables import VideoCallRecordingRow, VideoCallRow
from tests.clients import Client
from tests.conftest import ZOOM_SDK_SECRET

SESSION_NAME = "Parents' evening, room 4"
HOST = "Ms. Rivera"

_WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def new_video_call(**over: Any) -> pb.NewVideoCall:
    """A call that needs no more."""
    return pb.NewVideoCall(**{"session_name": SESSION_NAME, "host_username": HOST, **over})


async def create(client: Client, *, request_id: str = "", **over: Any) -> video_call_pb2.VideoCall:
    """A video call, made through the API."""
    request = pb.CreateVideoCallRequest(video_call=new_video_call(**over), request_id=request_id)
    return await client.video_calls.CreateVideoCall(request, metadata=client.metadata)


async def let_in(
    client: Client, call: video_call_pb2.VideoCall, *, request_id: str = "", **over: Any
) -> video_call_pb2.VideoCallParticipant:
    """A participant of the call, let in through the API."""
    given = {"shunkan_ido_session_key": call.shunkan_ido_session_key, "username": "A parent", **over}
    participant = pb.NewVideoCallParticipant(**given)
    request = pb.CreateVideoCallParticipantRequest(participant=participant, request_id=request_id)
    return await client.video_calls.CreateVideoCallParticipant(request, metadata=client.metadata)


async def get(client: Client, call: video_call_pb2.VideoCall) -> video_call_pb2.VideoCall:
    """The call as the API tells it now."""
    request = pb.GetVideoCallRequest(session_key=call.shunkan_ido_session_key)
    return await client.video_calls.GetVideoCall(request, metadata=client.metadata)


async def row_of(db: Database, call: video_call_pb2.VideoCall) -> VideoCallRow:
    """The call as stored."""
    async with db.begin() as tx:
        found = await tx.scalars(
            select(VideoCallRow).where(VideoCallRow.session_key == UUID(call.shunkan_ido_session_key))
        )
        return found.one()


async def events_of(db: Database, call: video_call_pb2.VideoCall) -> list[event_pb2.Event]:
    """The call's events in the order they were appended."""
    query = "SELECT payload FROM events WHERE resource_uuid = %(uuid)s ORDER BY sequence"
    payloads: list[bytes] = await db.fetch_all(query, {"uuid": call.shunkan_ido_session_key}, scalar_row)
    return [event_pb2.Event.FromString(payload) for payload in payloads]


async def count(db: Database, table: str) -> int:
    """How many rows a table has."""
    found = await db.fetch_one(f"SELECT count(*) FROM {table}", {}, scalar_row)
    assert isinstance(found, int)
    return found


async def end(db: Database, call: video_call_pb2.VideoCall, internal_status: str = "finished") -> None:
    """As if the call were over; nobody is told."""
    query = "UPDATE video_calls SET internal_status = %s WHERE session_key = %s"
    await db.execute(query, [internal_status, UUID(call.shunkan_ido_session_key)])


async def add_recording(db: Database, call: video_call_pb2.VideoCall, **over: Any) -> None:
    """A file of a recording of the call, as Zoom told of it; nobody is told."""
    given = {
        "video_call_id": call.id,
        "file_type": "MP4",
        "recording_type": "shared_screen_with_speaker_view",
        "file_size": 5_000_000_000,
        "internal_status": "pending",
        "url": "https://zoom.example/recording",
        **over,
    }
    async with db.begin() as tx:
        tx.add(VideoCallRecordingRow(**given))


async def until_waiting(db: Database, task: "asyncio.Task[Any]") -> None:
    """Until the call waits for a lock."""
    async with asyncio.timeout(30):
        while await db.fetch_one(_WAITING, {}, scalar_row) != 1:
            assert not task.done()


async def counts(db: Database) -> list[int]:
    """How many calls, participants, conversations, events and request ids there are."""
    tables = ("video_calls", "video_call_participants", "conversations", "events", "idempotency_keys")
    return [await count(db, table) for table in tables]


def claims_of(token: str) -> dict[str, Any]:
    """What a token says; it is signed with the SDK's secret."""
    return dict(jwt.decode(token, ZOOM_SDK_SECRET, algorithms=["HS256"]))


def without_token(call: video_call_pb2.VideoCall) -> video_call_pb2.VideoCall:
    """The call without what differs between answers."""
    bare = video_call_pb2.VideoCall()
    bare.CopyFrom(call)
    bare.ClearField("host_token")
    return bare
