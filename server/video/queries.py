"""The selects of video calls."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations.tables import ConversationRow
from server.video.tables import VideoCallParticipantRow, VideoCallRecordingRow, VideoCallRow


async def video_call_of(
    tx: AsyncSession, session_key: UUID, *, owner_id: int | None, lock: bool
) -> tuple[VideoCallRow, ConversationRow | None] | None:
    """The call of a key and its conversation; only if it is the owner's, where there is one. A lock keeps it from
    changing until the transaction ends, and lets others hold it so as well."""
    query = (
        select(VideoCallRow, ConversationRow)
        .outerjoin(ConversationRow, ConversationRow.id == VideoCallRow.conversation_id)
        .where(VideoCallRow.session_key == session_key)
    )
    if owner_id is not None:
        query = query.where(VideoCallRow.bearer_id == owner_id)
    found = (await tx.execute(query.with_for_update(read=True, of=VideoCallRow) if lock else query)).one_or_none()
    return None if found is None else (found[0], found[1])


async def conversation_of(tx: AsyncSession, call: VideoCallRow) -> ConversationRow | None:
    """The conversation that the call belongs to."""
    return None if call.conversation_id is None else await tx.get_one(ConversationRow, call.conversation_id)


async def recordings_of(tx: AsyncSession, video_call_id: int) -> Sequence[VideoCallRecordingRow]:
    """The call's recordings in their order, as they are stored now."""
    query = (
        select(VideoCallRecordingRow)
        .where(VideoCallRecordingRow.video_call_id == video_call_id)
        .order_by(VideoCallRecordingRow.recording_start.nulls_last(), VideoCallRecordingRow.id)
        .execution_options(populate_existing=True)
    )
    return (await tx.scalars(query)).all()


async def participants_of(tx: AsyncSession, video_call_id: int) -> Sequence[VideoCallParticipantRow]:
    """Who was let in or came, in that order: the host of the create first."""
    query = (
        select(VideoCallParticipantRow)
        .where(VideoCallParticipantRow.video_call_id == video_call_id)
        .order_by(VideoCallParticipantRow.id)
    )
    return (await tx.scalars(query)).all()
