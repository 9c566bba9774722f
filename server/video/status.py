"""The rows of a call brought to what follows from the facts in them."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import fields
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.video.tables import VideoCallParticipantRow, VideoCallRow, VideoCallStayRow, VideoSessionRow
from server.video.video_call import (
    CallState,
    CallStatus,
    ParticipantState,
    Session,
    Stay,
    state_of_call,
    state_of_participant,
    time_to_end,
)

_LIVE = (CallStatus.PENDING, CallStatus.IN_PROGRESS)


def session_of(row: VideoSessionRow) -> Session:
    """The facts of a session."""
    return Session(row.session_id, row.heard_at, row.start_time, row.end_time)


def stay_of(row: VideoCallStayRow) -> Stay:
    """The facts of a stay."""
    return Stay(row.user_id, row.join_time, row.leave_time, row.leave_reason)


async def update_status(tx: AsyncSession, call: VideoCallRow, *, moved: Collection[int] | None, now: datetime) -> None:
    """Bring the call, which the transaction holds, participants, and what is due of its sessions to what follows.

    `moved` are the ids of the participants who came or left, None where a session has ended, which all have left then:
    thousands may be in it, and each of them comes and leaves.

    A call that was over stays as it is, and the session that began it anew is to be ended at once, where another call
    has taken its name since: at Zoom the two would be one session.
    """
    sessions = await _sessions(tx, call)
    maximum_call_length = timedelta(minutes=call.maximum_call_length)
    state = state_of_call([session_of(row) for row in sessions], maximum_call_length=maximum_call_length)
    if state is None:
        return
    if moved is None or moved:
        await _update_participants(tx, call, sessions, moved, now=now)
    is_held = state.internal_status is CallStatus.IN_PROGRESS and await _is_name_taken(tx, call)
    if not is_held:
        for field in fields(CallState):
            setattr(call, field.name, getattr(state, field.name))
    for row in sessions:
        due_at = time_to_end(session_of(row), state, maximum_call_length=maximum_call_length)
        if due_at is None:
            row.due_at = None
        elif row.attempts == 0:
            # One that a worker has taken up is due when that worker says.
            row.due_at = min(due_at, now) if is_held else due_at
    await tx.flush()


async def _sessions(tx: AsyncSession, call: VideoCallRow) -> Sequence[VideoSessionRow]:
    """The sessions as they are now: claims change them without the call."""
    query = (
        select(VideoSessionRow)
        .where(VideoSessionRow.video_call_id == call.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await tx.scalars(query)).all()


async def _is_name_taken(tx: AsyncSession, call: VideoCallRow) -> bool:
    if call.internal_status in _LIVE:
        return False
    other = select(VideoCallRow.id).where(
        func.lower(VideoCallRow.session_name) == func.lower(call.session_name),
        VideoCallRow.internal_status.in_(_LIVE),
    )
    return await tx.scalar(other.limit(1)) is not None


async def _update_participants(
    tx: AsyncSession,
    call: VideoCallRow,
    sessions: Collection[VideoSessionRow],
    moved: Collection[int] | None,
    *,
    now: datetime,
) -> None:
    by_id = {row.id: session_of(row) for row in sessions}
    of_call = select(VideoCallStayRow).where(VideoCallStayRow.video_session_id.in_(by_id))
    participants = select(VideoCallParticipantRow).where(VideoCallParticipantRow.video_call_id == call.id)
    if moved is not None:
        of_call = of_call.where(VideoCallStayRow.participant_id.in_(moved))
        participants = participants.where(VideoCallParticipantRow.id.in_(moved))
    stays: dict[int, list[tuple[Session, Stay]]] = defaultdict(list)
    for row in await tx.scalars(of_call):
        stays[row.participant_id].append((by_id[row.video_session_id], stay_of(row)))
    for participant in await tx.scalars(participants):
        state = state_of_participant(stays[participant.id])
        if state is not None:
            _update_participant(participant, state, now=now)


def _update_participant(participant: VideoCallParticipantRow, state: ParticipantState, *, now: datetime) -> None:
    for field in fields(ParticipantState):
        value = getattr(state, field.name)
        if getattr(participant, field.name) != value:
            setattr(participant, field.name, value)
            participant.updated_at = now
