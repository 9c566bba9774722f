"""The selects of calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, inspect, select, union
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

    @property
    def words(self) -> TranscriptRow | None:
        """The transcript, once it is known what was said."""
        is_ready = self.transcript is not None and self.transcript.internal_status == "ready"
        return self.transcript if is_ready else None


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
    def voicemail_recording(self) -> Recording | None:
        """The voicemail's."""
        named = self.voicemail.recording_id if self.voicemail is not None else None
        return next((each for each in self.recordings if each.row.id == named), None)

    @property
    def expected_recordings(self) -> Sequence[Recording]:
        """Those of what it was recorded for: of a call that was sent to voicemail the voicemail's alone."""
        if self.voicemail is None:
            return self.recordings
        return [self.voicemail_recording] if self.voicemail_recording is not None else []

    @property
    def storage_keys(self) -> Sequence[str]:
        """Where its recordings are, those that are stored."""
        return [each.row.storage_key for each in self.recordings if each.row.storage_key is not None]

    @property
    def is_recording_absent(self) -> bool:
        """Whether the provider, asked when it was over, had none of these, and has told of none since."""
        return self.row.recording_absent_at is not None and not self.expected_recordings


async def call_of(tx: AsyncSession, row: CallRow) -> Call:
    """All that is known of a call, as it is stored now, without what was said in it."""
    return await _whole(tx, row, _legs_of(row.id))


async def hold_call(tx: AsyncSession, *, call_id: int) -> Call:
    """The same of a call that nobody else changes until the transaction ends, nor its legs, as workers do that claim
    them."""
    # By a statement of its own: one that waits for a lock answers that row as it is then, and all others as they were.
    row = (await tx.scalars(select(CallRow).where(CallRow.id == call_id).with_for_update(key_share=True))).one()
    return await _whole(tx, row, _legs_of(call_id).with_for_update(key_share=True))


async def _whole(tx: AsyncSession, row: CallRow, legs: Select[CallLegRow]) -> Call:
    found = await tx.execute(
        select(CallRow, ConversationRow, ConferenceCallRow, VoicemailRow, CallRecordingRow, TranscriptRow)
        .outerjoin(ConversationRow, ConversationRow.id == CallRow.conversation_id)
        .outerjoin(ConferenceCallRow, ConferenceCallRow.call_id == CallRow.id)
        .outerjoin(VoicemailRow, VoicemailRow.call_id == CallRow.id)
        .outerjoin(CallRecordingRow, CallRecordingRow.call_id == CallRow.id)
        .outerjoin(TranscriptRow, TranscriptRow.recording_id == CallRecordingRow.id)
        .where(CallRow.id == row.id)
        .order_by(CallRecordingRow.id),
        execution_options=_FRESH,
    )
    # One for each recording, and one where there is none.
    rows = found.all()
    _row, conversation, conference, voicemail, _recording, _transcript = rows[0]
    return Call(
        row,
        conversation,
        conference,
        (await tx.scalars(legs, execution_options=_FRESH)).all(),
        [Recording(recording, transcript) for *_, recording, transcript in rows if recording is not None],
        voicemail,
    )


async def legs_of(tx: AsyncSession, call_id: int) -> Sequence[CallLegRow]:
    """The legs of a call in their order, as they are stored now."""
    return (await tx.scalars(_legs_of(call_id), execution_options=_FRESH)).all()


def _legs_of(call_id: int) -> Select[CallLegRow]:
    return select(CallLegRow).where(CallLegRow.call_id == call_id).order_by(CallLegRow.position)


async def load_words(tx: AsyncSession, recording: Recording | None) -> None:
    """Read what was said in a recording that is shown, where that is known and was not read yet."""
    row = recording.words if recording is not None else None
    if row is not None and "words" in inspect(row).unloaded:
        await tx.refresh(row, ["words"])


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
