"""What is told of a video call: one event for each change of what the API shows of it.

The URLs of recordings are signed before the transaction, for a bucket's signature may need the network. Where a
recording was stored in between there is none for it, and the change is made anew.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime

from commonservices.v1 import video_call_pb2 as pb
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database, driver_connection
from server.errors import Unavailable
from server.events import outbox
from server.file_urls import file_urls
from server.notifications import Channel, Notifications
from server.storage import Storage
from server.video import convert, queries
from server.video.tables import VideoCallRecordingRow, VideoCallRow

STATUS_UPDATE = "video_calls.video_call.status_update"

# Changes rows of the call, which it is given locked; not its sequence and updated_at. It may be run again.
Change = Callable[[AsyncSession, VideoCallRow], Awaitable[None]]

_APPEND = outbox.append_from("video_calls WHERE id = %(video_call_id)s")

# How often a change is made anew because a recording was stored between signing and locking.
_TRIES = 10


class _StoredMeanwhile(Exception):
    """A recording has no URL yet."""


async def append_event(tx: AsyncSession, call: VideoCallRow, *, urls: Mapping[str, str], now: datetime) -> pb.VideoCall:
    """Tell of the call as it is now, and answer what is told. The transaction made the call or holds its row; whoever
    ends it wakes Channel.OUTBOX. `urls` has one for each recording that is stored."""
    call.sequence += 1
    call.updated_at = now
    await tx.flush()
    resource = await _resource(tx, call, urls)
    event = outbox.new_event(
        event_type=STATUS_UPDATE,
        bearer_id=call.bearer_id,
        resource_uuid=call.session_key,
        sequence=call.sequence,
        occurred_at=resource.updated_at,
    )
    event.video_call.CopyFrom(resource)
    connection = await driver_connection(tx)
    parameters = {**outbox.parameters(event, callback_url=call.callback_url), "video_call_id": call.id}
    await connection.execute(_APPEND.encode(), parameters)
    return resource


async def change_call(
    db: Database,
    notifications: Notifications,
    storage: Storage,
    *,
    video_call_id: int,
    change: Change,
    new_keys: Iterable[str] = (),
) -> bool:
    """Make a change in a transaction that holds the call, and tell of it if it is to be seen; whether it was.

    `new_keys` are storage keys that the change gives to recordings.
    """
    new_urls = await file_urls(storage, new_keys)
    for _ in range(_TRIES):
        urls = {**await _stored_urls(db, storage, video_call_id), **new_urls}
        try:
            async with db.begin() as tx:
                locked = select(VideoCallRow).where(VideoCallRow.id == video_call_id).with_for_update(key_share=True)
                call = (await tx.scalars(locked)).one()
                before = await _resource(tx, call, urls)
                await change(tx, call)
                await tx.flush()
                await tx.refresh(call)
                is_news = await _resource(tx, call, urls) != before
                if is_news:
                    await append_event(tx, call, urls=urls, now=datetime.now(UTC))
        except _StoredMeanwhile:
            continue
        if is_news:
            notifications.notify(Channel.OUTBOX)
        return is_news
    raise Unavailable("recordings keep being stored; try again")


async def _stored_urls(db: Database, storage: Storage, video_call_id: int) -> dict[str, str]:
    async with db.begin() as tx:
        query = select(VideoCallRecordingRow.storage_key).where(VideoCallRecordingRow.video_call_id == video_call_id)
        keys = (await tx.scalars(query)).all()
    return await file_urls(storage, keys)


async def _resource(tx: AsyncSession, call: VideoCallRow, urls: Mapping[str, str]) -> pb.VideoCall:
    recordings = await queries.recordings_of(tx, call.id)
    if any(recording.storage_key is not None and recording.storage_key not in urls for recording in recordings):
        raise _StoredMeanwhile
    conversation = await queries.conversation_of(tx, call)
    return convert.video_call_to_proto(call, conversation, recordings=recordings, urls=urls)
