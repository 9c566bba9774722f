"""Video calls: made with their host, and read with everybody and everything in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.caller import Caller
from server.conversations.conversations import callback_url_of, find_or_make_conversation
from server.conversations.tables import ConversationRow
from server.db import violated_constraint
from server.errors import AlreadyExists, FailedPrecondition, NotFound
from server.validation import parse_uuid
from server.video import queries
from server.video.drafts import VideoCallDraft
from server.video.events import append_created
from server.video.participants import let_in
from server.video.tables import VideoCallParticipantRow, VideoCallRecordingRow, VideoCallRow

# A call that nobody has joined by then is over.
EXPIRES_AFTER = timedelta(hours=24)

_LIVE_NAME_IS_UNIQUE = "uq_video_calls_session_name"


class VideoCallNotFound(NotFound):
    """No such video call, or another bearer's."""

    reason = "VIDEO_CALL_NOT_FOUND"

    def __init__(self, session_key: str) -> None:
        super().__init__(f"no video call {session_key}", session_key=session_key)


class SessionNameTaken(AlreadyExists):
    """A call of this name is not over: at the provider the two would be one session."""

    reason = "SESSION_NAME_TAKEN"

    def __init__(self, session_name: str) -> None:
        super().__init__("a video call of this session_name is not over yet", session_name=session_name)


class VideoNotConfigured(FailedPrecondition):
    """There is no provider to join a session at."""

    reason = "VIDEO_NOT_CONFIGURED"

    def __init__(self) -> None:
        super().__init__("no Zoom account is configured")


@dataclass(frozen=True)
class VideoCall:
    """A video call with its conversation, what was recorded, and who was let in or came, its first host first."""

    row: VideoCallRow
    conversation: ConversationRow | None
    recordings: Sequence[VideoCallRecordingRow]
    participants: Sequence[VideoCallParticipantRow]


async def create_video_call(tx: AsyncSession, *, caller: Caller, draft: VideoCallDraft, now: datetime) -> VideoCall:
    """A new video call of the caller's with its host, and the first event of it.

    Raises ConversationNotFound or SessionNameTaken.
    """
    conversation = None
    if draft.conversation is not None:
        conversation = await find_or_make_conversation(
            tx, caller=caller, key=draft.conversation, callback_url=draft.callback_url
        )
    row = VideoCallRow(
        session_key=uuid4(),
        bearer_id=caller.bearer_id,
        conversation_id=conversation.id if conversation is not None else None,
        session_name=draft.session_name,
        host_username=draft.host_username,
        maximum_call_length=draft.maximum_call_length,
        callback_url=await callback_url_of(
            tx, bearer_id=caller.bearer_id, conversation=conversation, given=draft.callback_url
        ),
        internal_status="pending",
        expires_at=now + EXPIRES_AFTER,
        sequence=0,
        created_at=now,
        updated_at=now,
    )
    tx.add(row)
    try:
        await tx.flush()
    except IntegrityError as error:
        if violated_constraint(error) != _LIVE_NAME_IS_UNIQUE:
            raise
        raise SessionNameTaken(draft.session_name) from error
    host = await let_in(tx, call=row, username=draft.host_username, is_host=True, now=now)
    await append_created(tx, row, conversation=conversation, now=now)
    return VideoCall(row, conversation, recordings=(), participants=(host,))


async def get_video_call(tx: AsyncSession, *, caller: Caller, session_key: str) -> VideoCall:
    """A video call of the caller's; any for an Admin. Raises VideoCallNotFound."""
    row, conversation = await _find(tx, caller=caller, session_key=session_key, lock=False)
    return VideoCall(
        row,
        conversation,
        await queries.recordings_of(tx, row.id),
        await queries.participants_of(tx, row.id),
    )


async def hold_video_call(tx: AsyncSession, *, caller: Caller, session_key: str) -> VideoCallRow:
    """A video call of the caller's, any for an Admin, that does not end before the transaction does."""
    row, _conversation = await _find(tx, caller=caller, session_key=session_key, lock=True)
    return row


async def _find(
    tx: AsyncSession, *, caller: Caller, session_key: str, lock: bool
) -> tuple[VideoCallRow, ConversationRow | None]:
    parsed = parse_uuid(session_key)
    found = None
    if parsed is not None:
        found = await queries.video_call_of(tx, parsed, owner_id=caller.owner_id, lock=lock)
    if found is None:
        raise VideoCallNotFound(session_key)
    return found
