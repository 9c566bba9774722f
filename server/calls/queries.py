"""The selects of calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, union
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls.tables import (
    CallLegRow,
    CallRecordingRow,
    CallRow,
    ConferenceCallRow,
    TranscriptRow,
    VoicemailRow,
)
from server.conversations.tables import ConversationRow

# A session would answer rows as it read them first.
_FRESH = {"populate_existing": True}


@dataclass(frozen=True)
class Recording:
    """A recording and what was said in it, so far."""

    row: CallRecordingRow
    transcript: TranscriptRow | None


@dataclass(frozen=True)
class Call:
    """A call with all that is known of it; legs in their order, recordings as they were told of."""

    row: CallRow
    conversation: ConversationRow | None
    conference: ConferenceCallRow | None
    legs: Sequence[CallLegRow]
    recordings: Sequence[Recording]
    voicemail: VoicemailRow | None

    @property
    def recording(self) -> Recording | None:
        """The one that is shown: the last that is stored, else the last."""
        stored = [each for each in self.recordings if each.row.storage_key is not None]
        return next(reversed(stored or self.recordings), None)

    @property
    def expected_recordings(self) -> Sequence[Recording]:
        """Those of what it was recorded for: of a call that was sent to voicemail the voicemail's alone."""
        if self.voicemail is None:
            return self.recordings
        return [each for each in self.recordings if each.row.id == self.voicemail.recording_id]

    @property
    def is_recording_absent(self) -> bool:
        """Whether the provider, asked when it was over, had none of these, and has told of none since."""
        return self.row.recording_absent_at is not None and not self.expected_recordings


async def call_of(tx: AsyncSession, row: CallRow, *, lock: bool = False) -> Call:
    """All that is known of a call, as it is stored now. With `lock` nobody else changes its legs until the transaction
    ends, as workers do that claim them."""
    parts = await tx.execute(
        select(CallRow, ConversationRow, ConferenceCallRow, VoicemailRow)
        .outerjoin(ConversationRow, ConversationRow.id == CallRow.conversation_id)
        .outerjoin(ConferenceCallRow, ConferenceCallRow.call_id == CallRow.id)
        .outerjoin(VoicemailRow, VoicemailRow.call_id == CallRow.id)
        .where(CallRow.id == row.id),
        execution_options=_FRESH,
    )
    _row, conversation, conference, voicemail = parts.one()
    recordings = await tx.execute(
        select(CallRecordingRow, TranscriptRow)
        .outerjoin(TranscriptRow, TranscriptRow.recording_id == CallRecordingRow.id)
        .where(CallRecordingRow.call_id == row.id)
        .order_by(CallRecordingRow.id),
        execution_options=_FRESH,
    )
    return Call(
        row,
        conversation,
        conference,
        await legs_of(tx, row.id, lock=lock),
        [Recording(recording, transcript) for recording, transcript in recordings],
        voicemail,
    )


async def legs_of(tx: AsyncSession, call_id: int, *, lock: bool = False) -> Sequence[CallLegRow]:
    """The legs of a call in their order, as they are stored now."""
    query = select(CallLegRow).where(CallLegRow.call_id == call_id).order_by(CallLegRow.position)
    if lock:
        query = query.with_for_update(key_share=True)
    return (await tx.scalars(query, execution_options=_FRESH)).all()


async def find_call(tx: AsyncSession, uuid: UUID, *, owner_id: int | None) -> CallRow | None:
    """The call of a UUID; only if it is the owner's, where there is one."""
    query = select(CallRow).where(CallRow.uuid == uuid)
    if owner_id is not None:
        query = query.where(CallRow.bearer_id == owner_id)
    return (await tx.scalars(query)).one_or_none()


async def find_conference(tx: AsyncSession, uuid: UUID, *, owner_id: int | None) -> CallRow | None:
    """The call of the conference that has this UUID, or whose call has it; the owner's alone, where there is one."""
    # Two questions of an index each: an OR over both tables reads them whole.
    named = union(
        select(ConferenceCallRow.call_id).where(ConferenceCallRow.uuid == uuid),
        select(ConferenceCallRow.call_id)
        .join(CallRow, CallRow.id == ConferenceCallRow.call_id)
        .where(CallRow.uuid == uuid),
    )
    query = select(CallRow).where(CallRow.id.in_(named))
    if owner_id is not None:
        query = query.where(CallRow.bearer_id == owner_id)
    return (await tx.scalars(query)).one_or_none()
