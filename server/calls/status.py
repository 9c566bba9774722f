"""What follows for a call from all that is known of it, written down: its status, and what its legs are to do."""

from datetime import datetime, timedelta

from server.calls import legs
from server.calls.queries import Call
from server.calls.state import (
    CONFERENCE,
    CONTACT,
    DIRECT,
    CallStatus,
    Conference,
    Leg,
    State,
    state_of_conference,
    state_of_direct_call,
    state_of_return_call,
)
from server.calls.tables import CallLegRow

# How long after a call was over, and then after each time in vain, the provider is asked what it recorded of it: for
# about a day.
RECORDING_CHECKS = (
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=4),
    timedelta(hours=18),
)


def leg_of(row: CallLegRow) -> Leg:
    """What is known of a leg."""
    return Leg(
        kind=row.kind,
        provider_status=row.provider_status,
        answered_by=row.answered_by,
        has_joined=row.joined_at is not None,
        is_refused=legs.is_given_up(row),
        is_withdrawn=row.ended_at is not None and row.call_sid is None and row.error_code is None,
    )


def state_of(call: Call) -> State:
    """What follows for a call, of whatever kind."""
    known = [leg_of(row) for row in call.legs]
    recording = call.recording
    is_recorded = recording is not None and recording.row.storage_key is not None
    is_transcribed = recording is not None and recording.words is not None
    if call.row.kind == CONFERENCE:
        assert call.conference is not None, "made with its call"
        facts = Conference(
            is_canceled=call.conference.canceled_at is not None,
            has_started=call.conference.started_at is not None,
            has_joined=call.conference.joined_at is not None,
            has_ended=call.conference.ended_at is not None,
        )
        return state_of_conference(facts, known)
    if call.row.kind == DIRECT:
        return state_of_direct_call(known, is_recorded=is_recorded, is_transcribed=is_transcribed)
    return state_of_return_call(
        known,
        has_voicemail=call.row.voicemail_at is not None,
        is_recorded=is_recorded,
        is_transcribed=is_transcribed,
    )


def update_status(call: Call, *, now: datetime) -> None:
    """Set the status of the call, and of its voicemail, to what follows; have contacts called where the moderator has
    joined, and have nobody called or in it any more where it is over.

    A transaction made the call or holds it; this changes its rows as the session has them.
    """
    row = call.row
    state = state_of(call)
    row.internal_status = state.internal_status
    row.provider_status = state.provider_status
    if state.internal_status != CallStatus.FAILED:
        row.failed_at = None
    elif row.failed_at is None:
        row.failed_at = now
    if state.is_over:
        row.expires_at = None
    if not is_recording_awaited(call, state):
        row.recordings_check_at = None
    elif row.recordings_check_at is None:
        row.recordings_check_at = now + RECORDING_CHECKS[row.recordings_check_attempts]
    if row.kind == CONFERENCE:
        for leg in call.legs:
            if state.is_over:
                _end(leg, now=now)
            elif state.internal_status == CallStatus.INVITING and leg.kind == CONTACT:
                _invite(leg, now=now)
    if call.voicemail is not None:
        status = voicemail_status(call)
        if call.voicemail.internal_status != status:
            call.voicemail.internal_status = status
            call.voicemail.updated_at = now


def is_recording_awaited(call: Call, state: State) -> bool:
    """Whether the provider is to be asked what it recorded: of a call that was recorded, until it has told what became
    of each recording, or that there is none."""
    if not state.was_recorded or call.row.recordings_check_attempts >= len(RECORDING_CHECKS):
        return False
    expected = [each.row for each in call.expected_recordings]
    if not expected:
        return not call.is_recording_absent
    return any(row.internal_status == "pending" and row.provider_status != "completed" for row in expected)


def voicemail_status(call: Call) -> str:
    """`internal_status` of the call's voicemail: what became of its recording."""
    assert call.voicemail is not None, "of calls that were sent to voicemail"
    recording = call.voicemail_recording
    if recording is None:
        return "failed" if call.is_recording_absent else "pending"
    if recording.row.internal_status == "pending":
        return "pending"
    if recording.row.internal_status != "stored":
        return "failed"
    return "transcripted" if recording.words is not None else "recorded"


def _invite(leg: CallLegRow, *, now: datetime) -> None:
    """Have somebody called who was not yet."""
    if leg.call_sid is None and leg.ended_at is None and leg.dial_at is None and not leg.dial_attempts:
        leg.dial_at = now


def _end(leg: CallLegRow, *, now: datetime) -> None:
    """Have somebody hung up on; one that may be being dialled this moment as soon as their call is known."""
    if leg_of(leg).is_over:
        return
    if leg.call_sid is None and not leg.in_doubt:
        legs.withdraw(leg, now=now)
    elif leg.hangup_at is None:
        leg.hangup_at = now
        leg.control_at = now if leg.call_sid is not None else None
