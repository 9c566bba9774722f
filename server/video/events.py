"""What is told of a video call: one event for each change of what the API shows of it."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from commonservices.v1 import video_call_pb2 as pb
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations.tables import ConversationRow
from server.db import Database
from server.events import outbox
from server.events.changes import Urls, change_and_tell
from server.notifications import Channel, Notifications
from server.storage import Storage
from server.video import convert, queries
from server.video.tables import VideoCallRecordingRow, VideoCallRow

STATUS_UPDATE = "video_calls.video_call.status_update"

# Changes rows of the call, which it is given locked; not its sequence and updated_at. It may be run again.
Change = Callable[[AsyncSession, VideoCallRow], Awaitable[None]]


@dataclass(frozen=True)
class _Told:
    """A call with what else is told of it."""

    row: VideoCallRow
    conversation: ConversationRow | None
    recordings: Sequence[VideoCallRecordingRow]

    @property
    def storage_keys(self) -> Iterable[str]:
        return [recording.storage_key for recording in self.recordings if recording.storage_key is not None]


async def append_created(
    tx: AsyncSession, call: VideoCallRow, *, conversation: ConversationRow | None, now: datetime
) -> None:
    """Tell of a call that the transaction has made. Whoever ends it wakes Channel.OUTBOX."""
    await _append(tx, _Told(call, conversation, ()), {}, now=now)


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

    async def hold(tx: AsyncSession) -> _Told:
        locked = select(VideoCallRow).where(VideoCallRow.id == video_call_id).with_for_update(key_share=True)
        call = (await tx.scalars(locked)).one()
        return _Told(call, await queries.conversation_of(tx, call), await queries.recordings_of(tx, call.id))

    async def make(tx: AsyncSession, held: _Told) -> _Told:
        await change(tx, held.row)
        # It may have added some.
        return _Told(held.row, held.conversation, await queries.recordings_of(tx, held.row.id))

    async def tell(tx: AsyncSession, call: _Told, urls: Urls) -> None:
        await _append(tx, call, urls, now=datetime.now(UTC))

    _call, is_news = await change_and_tell(
        db, storage, hold=hold, change=make, show=_shown, tell=tell, new_keys=new_keys
    )
    if is_news:
        notifications.notify(Channel.OUTBOX)
    return is_news


async def _append(tx: AsyncSession, call: _Told, urls: Urls, *, now: datetime) -> None:
    row = call.row
    row.sequence += 1
    row.updated_at = now
    await tx.flush()
    resource = _shown(call, urls)
    event = outbox.new_event(
        event_type=STATUS_UPDATE,
        bearer_id=row.bearer_id,
        resource_uuid=row.session_key,
        sequence=row.sequence,
        occurred_at=resource.updated_at,
    )
    event.video_call.CopyFrom(resource)
    await outbox.append(tx, event, callback_url=row.callback_url)


def _shown(call: _Told, urls: Urls) -> pb.VideoCall:
    return convert.video_call_to_proto(call.row, call.conversation, recordings=call.recordings, urls=urls)
