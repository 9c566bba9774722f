"""What Zoom's events say of a video call, and what follows from it: pure.

Events come in any order, more than once or not at all. So each is taken for the facts that it tells, which are the same
in whatever order they are put together, and statuses and times are what follows from all that is known.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from server.providers.video_ports import VideoEvent, VideoUser

SESSION_STARTED = "session.started"
SESSION_ENDED = "session.ended"
USER_JOINED = "session.user_joined"
USER_LEFT = "session.user_left"

# Events that list files, which are there from then on.
FILES_COMPLETED = frozenset(
    {
        "session.recording_completed",
        "session.recording_transcript_completed",
        "session.recording_summary_completed",
    }
)

# Of words of one instant, which have an order all the same, a later one replaces an earlier.
SESSION_WORDS = (SESSION_STARTED, SESSION_ENDED)
RECORDING_WORDS = ("started", "paused", "resumed", "stopped", "completed")
FILE_WORDS = ("completed", "trashed", "recovered", "deleted")

_RECORDING_WORD_OF = {f"session.recording_{word}": word for word in RECORDING_WORDS}
_FILE_WORD_OF = {f"session.recording_{word}": word for word in FILE_WORDS if word != "completed"}

# Events that tell of a session of ours; of others nothing is known that could be wanted.
KNOWN_EVENTS = frozenset(
    {SESSION_STARTED, SESSION_ENDED, USER_JOINED, USER_LEFT, *FILES_COMPLETED, *_RECORDING_WORD_OF, *_FILE_WORD_OF}
)


class CallStatus(StrEnum):
    """`internal_status` of a video call, as documented."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    FINISHED = "finished"
    EXPIRED = "expired"


class ParticipantStatus(StrEnum):
    """`internal_status` of a participant, as documented."""

    INVITED = "invited"
    JOINED = "joined"
    LEFT = "left"


@dataclass(frozen=True)
class Word:
    """What Zoom says of something, and when it did."""

    word: str
    at: datetime


def word_of(word: str | None, at: datetime | None) -> Word | None:
    """What a row has of it; None where nothing was said."""
    return Word(word, at) if word is not None and at is not None else None


@dataclass(frozen=True)
class Session:
    """A session at Zoom: when it was first told of, when it began and ended."""

    session_id: str
    heard_at: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True)
class Stay:
    """Somebody's stay in a session: the last time they came and the last time they left."""

    user_id: str
    join_time: datetime | None = None
    leave_time: datetime | None = None
    leave_reason: str | None = None


@dataclass(frozen=True)
class CallState:
    """What follows for a call from its sessions."""

    internal_status: CallStatus
    provider_id: str
    start_time: datetime | None
    end_time: datetime | None
    end_at: datetime | None


@dataclass(frozen=True)
class ParticipantState:
    """What follows for somebody from their stays."""

    internal_status: ParticipantStatus
    provider_id: str
    join_time: datetime | None
    leave_time: datetime | None
    leave_reason: str | None


def session_after(session: Session | None, session_id: str, event: VideoEvent) -> Session:
    """The session with what an event tells of it."""
    started_at = event.start_time or (event.occurred_at if event.name == SESSION_STARTED else None)
    ended_at = (event.end_time or event.occurred_at) if event.name == SESSION_ENDED else None
    if session is None:
        return Session(session_id, event.occurred_at, started_at, ended_at)
    starts = [at for at in (session.start_time, started_at) if at is not None]
    return Session(
        session_id,
        heard_at=min(session.heard_at, event.occurred_at),
        start_time=min(starts, default=None),
        # What Zoom says, where it was ours.
        end_time=ended_at or session.end_time,
    )


def stay_after(stay: Stay | None, user: VideoUser, event: VideoEvent) -> Stay:
    """The stay with what an event of joining or leaving tells of it."""
    known = stay or Stay(user.user_id)
    if event.name == USER_JOINED:
        joined_at = user.join_time or event.occurred_at
        return Stay(
            known.user_id,
            join_time=joined_at if known.join_time is None else max(known.join_time, joined_at),
            leave_time=known.leave_time,
            leave_reason=known.leave_reason,
        )
    left = (user.leave_time or event.occurred_at, user.leave_reason or "")
    if known.leave_time is not None:
        left = max(left, (known.leave_time, known.leave_reason or ""))
    return Stay(known.user_id, known.join_time, leave_time=left[0], leave_reason=left[1] or None)


def session_word(event: VideoEvent) -> Word | None:
    """What an event says of the session."""
    return Word(event.name, event.occurred_at) if event.name in SESSION_WORDS else None


def recording_word(event: VideoEvent) -> Word | None:
    """What an event says of the recording."""
    word = _RECORDING_WORD_OF.get(event.name)
    return Word(word, event.occurred_at) if word is not None else None


def file_word(event: VideoEvent) -> Word | None:
    """What an event says has become of the files of a session at Zoom."""
    word = _FILE_WORD_OF.get(event.name)
    return Word(word, event.occurred_at) if word is not None else None


def last_word(words: Sequence[str], *said: Word | None) -> Word | None:
    """The last of what was said, in the order of `words` where it was said at one time."""
    return max(
        (word for word in said if word is not None), key=lambda word: (word.at, words.index(word.word)), default=None
    )


def state_of_call(sessions: Collection[Session], *, maximum_call_length: timedelta) -> CallState | None:
    """What follows from all sessions of a call; None where there was none, and only time tells what it is."""
    if not sessions:
        return None
    last = max(
        sessions, key=lambda session: (session.start_time or session.heard_at, session.heard_at, session.session_id)
    )
    start_time = min((session.start_time for session in sessions if session.start_time is not None), default=None)
    ends = [session.end_time for session in sessions if session.end_time is not None]
    is_over = len(ends) == len(sessions)
    return CallState(
        internal_status=CallStatus.FINISHED if is_over else CallStatus.IN_PROGRESS,
        provider_id=last.session_id,
        start_time=start_time,
        end_time=max(ends) if is_over else None,
        end_at=start_time + maximum_call_length if start_time is not None else None,
    )


def time_to_end(session: Session, state: CallState, *, maximum_call_length: timedelta) -> datetime | None:
    """When a session is to be ended: at the end of its call. Where no start was told, so much later than it was first
    told of, when it had begun; None once it has ended."""
    if session.end_time is not None:
        return None
    return state.end_at or session.heard_at + maximum_call_length


def state_of_participant(stays: Sequence[tuple[Session, Stay]]) -> ParticipantState | None:
    """What follows from all stays of somebody; None where they never came."""
    if not stays:
        return None
    _session, last = max(stays, key=lambda each: (_last_moved(each[1]), each[0].session_id, each[1].user_id))
    joins = [stay.join_time for _, stay in stays if stay.join_time is not None]
    leaves = [(stay.leave_time, stay.leave_reason or "") for _, stay in stays if stay.leave_time is not None]
    leave_time, leave_reason = max(leaves, default=(None, ""))
    is_in = any(_lasts(session, stay) for session, stay in stays)
    return ParticipantState(
        internal_status=ParticipantStatus.JOINED if is_in else ParticipantStatus.LEFT,
        provider_id=last.user_id,
        join_time=max(joins, default=None),
        leave_time=leave_time,
        leave_reason=leave_reason or None,
    )


def _last_moved(stay: Stay) -> datetime:
    at = stay.join_time or stay.leave_time
    assert at is not None, "a stay is known from a joining or a leaving"
    return at


def _lasts(session: Session, stay: Stay) -> bool:
    """A session that has ended has let everybody go, whether or not that was told of each."""
    if session.end_time is not None or stay.join_time is None:
        return False
    return stay.leave_time is None or stay.leave_time < stay.join_time
