"""What happens in the sessions of a call, and what Zoom tells of it: a model of which the end is known by itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from server.providers.video_ports import VideoEvent, VideoUser
from server.video.video_call import (
    RECORDING_WORDS,
    SESSION_WORDS,
    USER_JOINED,
    USER_LEFT,
    CallState,
    ParticipantState,
    Session,
    Stay,
    Word,
    last_word,
    recording_word,
    session_after,
    session_word,
    state_of_call,
    state_of_participant,
    stay_after,
)

START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
LENGTH = timedelta(minutes=60)

# People come with a token of ours; one has come by telephone.
PEOPLE = ("host", "parent", "telephone")


@dataclass
class Presence:
    """Somebody who is in a session, or was."""

    person: str
    user_id: str
    joined_at: datetime
    left_at: datetime | None = None


@dataclass
class Meeting:
    """A session as it is."""

    session_id: str
    began_at: datetime
    ended_at: datetime | None = None
    presences: list[Presence] = field(default_factory=list)


@dataclass
class History:
    """Everything that happened, one second after the other."""

    meetings: list[Meeting] = field(default_factory=list)
    told: list[VideoEvent] = field(default_factory=list)
    recording: str | None = None
    seconds: int = 0

    @property
    def meeting(self) -> Meeting | None:
        """The session that lasts; a name has one at a time."""
        return next((meeting for meeting in self.meetings if meeting.ended_at is None), None)

    def begin(self) -> None:
        """The first person comes, and the session with them."""
        now = self._later()
        meeting = Meeting(f"session-{len(self.meetings)}", now)
        self.meetings.append(meeting)
        self._tell("session.started", meeting, now, start_time=now)

    def join(self, person: str) -> None:
        """Somebody comes, perhaps from a second device. Zoom's ids of users begin anew in every session."""
        assert self.meeting is not None
        now = self._later()
        presence = Presence(person, f"user-{len(self.meeting.presences)}", now)
        self.meeting.presences.append(presence)
        self._tell(USER_JOINED, self.meeting, now, user=_user(presence))

    def leave(self, place: int) -> None:
        """One of those who are there leaves."""
        assert self.meeting is not None
        there = self.present()
        presence = there[place % len(there)]
        presence.left_at = self._later()
        self._tell(USER_LEFT, self.meeting, presence.left_at, user=_user(presence))

    def record(self, word: str) -> None:
        """The recording is started, paused and so on."""
        assert self.meeting is not None
        self.recording = word
        self._tell(f"session.recording_{word}", self.meeting, self._later())

    def end(self) -> None:
        """The session ends, and everybody is out of it."""
        assert self.meeting is not None
        meeting, now = self.meeting, self._later()
        for presence in self.present():
            presence.left_at = now
            self._tell(USER_LEFT, meeting, now, user=_user(presence))
        meeting.ended_at = now
        self._tell("session.ended", meeting, now, start_time=meeting.began_at, end_time=now)

    def present(self) -> list[Presence]:
        """Who is in the session that lasts."""
        return [p for p in self.meeting.presences if p.left_at is None] if self.meeting is not None else []

    def presences(self, person: str) -> list[Presence]:
        """All of somebody's, in their order."""
        return [p for meeting in self.meetings for p in meeting.presences if p.person == person]

    def _later(self) -> datetime:
        self.seconds += 1
        return START + timedelta(seconds=self.seconds)

    def _tell(self, name: str, meeting: Meeting, at: datetime, **more: object) -> None:
        told = {"start_time": None, "end_time": None, "user": None, **more}
        self.told.append(
            VideoEvent(
                name=name,
                occurred_at=at,
                session_id=meeting.session_id,
                session_key=None,
                session_name=None,
                files=(),
                download_token=None,
                **told,  # type: ignore[arg-type]
            )
        )


def key_of(person: str) -> UUID | None:
    """The key in somebody's token."""
    return None if person == "telephone" else UUID(int=PEOPLE.index(person) + 1)


def _user(presence: Presence) -> VideoUser:
    """As Zoom tells of it: of one event the time of joining, of the other that of leaving."""
    return VideoUser(
        user_id=presence.user_id,
        user_key=key_of(presence.person),
        name=presence.person,
        join_time=presence.joined_at if presence.left_at is None else None,
        leave_time=presence.left_at,
        leave_reason=None if presence.left_at is None else f"left at {presence.left_at:%H:%M:%S}",
    )


@dataclass
class Known:
    """What is known from some of the events, put together one after the other as they come."""

    sessions: dict[str, Session] = field(default_factory=dict)
    stays: dict[tuple[str, str], Stay] = field(default_factory=dict)
    people: dict[tuple[str, str], UUID | None] = field(default_factory=dict)
    provider_status: Word | None = None
    recording_status: Word | None = None

    def take(self, event: VideoEvent) -> None:
        """One more event."""
        assert event.session_id is not None
        self.sessions[event.session_id] = session_after(self.sessions.get(event.session_id), event.session_id, event)
        self.provider_status = last_word(SESSION_WORDS, self.provider_status, session_word(event))
        self.recording_status = last_word(RECORDING_WORDS, self.recording_status, recording_word(event))
        if event.user is not None:
            place = (event.session_id, event.user.user_id)
            self.people[place] = event.user.user_key
            self.stays[place] = stay_after(self.stays.get(place), event.user, event)

    def call(self) -> CallState | None:
        """What follows for the call."""
        return state_of_call(list(self.sessions.values()), maximum_call_length=LENGTH)

    def participant(self, person: str) -> ParticipantState | None:
        """What follows for somebody."""
        stays = [
            (self.sessions[place[0]], stay)
            for place, stay in self.stays.items()
            if self.people[place] == key_of(person)
        ]
        return state_of_participant(stays)


def known_from(events: Iterable[VideoEvent]) -> Known:
    """What is known after these."""
    known = Known()
    for event in events:
        known.take(event)
    return known


def times_in(known: Known, people: Sequence[str] = PEOPLE) -> set[datetime]:
    """Every time that is shown, but for the one that is reckoned."""
    states = [known.participant(person) for person in people]
    shown = [time for state in states if state is not None for time in (state.join_time, state.leave_time)]
    call = known.call()
    if call is not None:
        shown += [call.start_time, call.end_time]
    return {time for time in shown if time is not None}


def times_told(events: Iterable[VideoEvent]) -> set[datetime]:
    """Every time that some event tells."""
    told = [(event.occurred_at, event.start_time, event.end_time) for event in events]
    told += [(e.occurred_at, e.user.join_time, e.user.leave_time) for e in events if e.user is not None]
    return {time for times in told for time in times if time is not None}
