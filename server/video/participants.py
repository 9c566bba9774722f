"""Participants: who is let into a video call, and which of them a token is for."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.errors import FailedPrecondition
from server.video.tables import VideoCallParticipantRow, VideoCallRow
from server.video.tokens import is_over

# As many as can join a session (developers.zoom.us/docs/video-sdk/web/sessions), which an answer still has room for.
MOST_PARTICIPANTS = 5000


class VideoCallEnded(FailedPrecondition):
    """The call is over: nobody is let in."""

    reason = "VIDEO_CALL_ENDED"

    def __init__(self, call: VideoCallRow) -> None:
        super().__init__(
            f"the video call is {call.internal_status}",
            session_key=str(call.session_key),
            internal_status=call.internal_status,
        )


class VideoCallFull(FailedPrecondition):
    """As many are let in as can be in a session."""

    reason = "VIDEO_CALL_FULL"

    def __init__(self, call: VideoCallRow) -> None:
        super().__init__(
            f"{MOST_PARTICIPANTS} participants were let into the video call already", session_key=str(call.session_key)
        )


async def let_in(
    tx: AsyncSession, *, call: VideoCallRow, username: str, is_host: bool, now: datetime
) -> VideoCallParticipantRow:
    """A new participant of a call that the transaction has made or locked. Raises VideoCallEnded or VideoCallFull."""
    if is_over(call):
        raise VideoCallEnded(call)
    # Whoever is let in at the same moment does not count yet: what is given out stays bounded all the same.
    let_in_before = select(func.count()).where(VideoCallParticipantRow.video_call_id == call.id)
    if (await tx.scalar(let_in_before) or 0) >= MOST_PARTICIPANTS:
        raise VideoCallFull(call)
    row = VideoCallParticipantRow(
        user_key=uuid4(),
        video_call_id=call.id,
        is_host=is_host,
        username=username,
        internal_status="invited",
        created_at=now,
        updated_at=now,
    )
    tx.add(row)
    await tx.flush()
    return row


async def find_participant(tx: AsyncSession, *, user_key: UUID) -> tuple[VideoCallParticipantRow, VideoCallRow]:
    """A participant that was let in, and the call as it is now."""
    query = (
        select(VideoCallParticipantRow, VideoCallRow)
        .join(VideoCallRow, VideoCallRow.id == VideoCallParticipantRow.video_call_id)
        .where(VideoCallParticipantRow.user_key == user_key)
    )
    participant, call = (await tx.execute(query)).one()
    return participant, call
