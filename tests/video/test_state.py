"""What follows from Zoom's events, in whatever order they come, how often, and however many are lost."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.providers.video_ports import VideoEvent, VideoUser
from server.video.video_call import (
    FILE_WORDS,
    KNOWN_EVENTS,
    RECORDING_WORDS,
    CallStatus,
    ParticipantStatus,
    Session,
    Word,
    file_word,
    last_word,
    session_after,
    state_of_call,
    time_to_end,
)
from tests.video.history import LENGTH, PEOPLE, START, History, Known, known_from, times_in, times_told


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def event(name: str, minutes: float, *, session_id: str = "s", **more: Any) -> VideoEvent:
    """An event that tells no more than it must."""
    nothing = dict.fromkeys(("session_key", "session_name", "start_time", "end_time", "user", "download_token"))
    told: dict[str, Any] = {**nothing, "files": (), **more}
    return VideoEvent(name=name, occurred_at=at(minutes), session_id=session_id, **told)


def user(user_id: str = "u", **times: Any) -> VideoUser:
    return VideoUser(
        user_id, None, "Somebody", **{"join_time": None, "leave_time": None, "leave_reason": None, **times}
    )


actions = st.lists(
    st.one_of(
        st.tuples(st.just("begin")),
        st.tuples(st.just("join"), st.sampled_from(PEOPLE)),
        st.tuples(st.just("join"), st.sampled_from(PEOPLE)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("record"), st.sampled_from(RECORDING_WORDS)),
        st.tuples(st.just("end")),
    ),
    min_size=1,
    max_size=25,
)


def happened(steps: list[tuple[Any, ...]]) -> History:
    """The steps that could be taken, one after the other."""
    history = History()
    for name, *arguments in steps:
        is_possible = {
            "begin": history.meeting is None,
            "leave": bool(history.present()),
        }.get(name, history.meeting is not None)
        if is_possible:
            getattr(history, name)(*arguments)
    return history


@given(actions, st.data())
def test_any_order_and_repetition_comes_to_the_same(steps: list[tuple[Any, ...]], data: st.DataObject) -> None:
    told = happened(steps).told
    repeated = data.draw(st.lists(st.sampled_from(told), max_size=10)) if told else []
    shuffled = data.draw(st.permutations([*told, *repeated]))

    assert known_from(shuffled) == known_from(told)


@given(actions, st.data())
def test_loss_invents_nothing(steps: list[tuple[Any, ...]], data: st.DataObject) -> None:
    told = happened(steps).told
    heard = data.draw(st.permutations([e for e in told if data.draw(st.booleans())]))

    known = known_from(heard)

    assert times_in(known) <= times_told(heard)
    assert (known.call() is None) == (not heard)


class Zoom(RuleBasedStateMachine):
    """Things happen, and are told as it comes: late, early, again. In the end everything was told."""

    @initialize()
    def nothing_happened(self) -> None:
        """The call was created."""
        self.history = History()
        self.known = Known()
        self.taken: set[int] = set()

    @precondition(lambda self: self.history.meeting is None)
    @rule()
    def begin(self) -> None:
        """A session begins, the first or another one after the end."""
        self.history.begin()

    @precondition(lambda self: self.history.meeting is not None)
    @rule(person=st.sampled_from(PEOPLE))
    def join(self, person: str) -> None:
        """Somebody comes, perhaps again."""
        self.history.join(person)

    @precondition(lambda self: self.history.present())
    @rule(place=st.integers(0, 5))
    def leave(self, place: int) -> None:
        """Somebody leaves."""
        self.history.leave(place)

    @precondition(lambda self: self.history.meeting is not None)
    @rule(word=st.sampled_from(RECORDING_WORDS))
    def record(self, word: str) -> None:
        """Something is done about the recording."""
        self.history.record(word)

    @precondition(lambda self: self.history.meeting is not None)
    @rule()
    def end(self) -> None:
        """The session ends."""
        self.history.end()

    @precondition(lambda self: self.history.told)
    @rule(place=st.integers(0, 50))
    def tell(self, place: int) -> None:
        """One of the events comes, whichever, perhaps not for the first time."""
        index = place % len(self.history.told)
        self.taken.add(index)
        self.known.take(self.history.told[index])

    @invariant()
    def nothing_is_invented(self) -> None:
        """What is shown was told."""
        assert times_in(self.known) <= times_told(self.history.told[index] for index in self.taken)

    def teardown(self) -> None:
        """The rest comes, the last first: then everything is known as it is."""
        if not hasattr(self, "history"):
            return
        for index in reversed(range(len(self.history.told))):
            if index not in self.taken:
                self.known.take(self.history.told[index])
        assert_true(self.known, self.history)


TestZoom = Zoom.TestCase
TestZoom.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def assert_true(known: Known, history: History) -> None:
    """What follows from all the events is what is so."""
    meetings = history.meetings
    call = known.call()
    assert (call is None) == (not meetings)
    if call is not None:
        assert call.start_time == meetings[0].began_at
        assert call.end_at == meetings[0].began_at + LENGTH
        assert call.provider_id == meetings[-1].session_id
        assert call.end_time == meetings[-1].ended_at
        assert call.internal_status == (CallStatus.IN_PROGRESS if history.meeting is not None else CallStatus.FINISHED)
        assert known.provider_status is not None
        assert known.provider_status.word == ("session.started" if history.meeting is not None else "session.ended")
    assert (known.recording_status.word if known.recording_status is not None else None) == history.recording
    for person in PEOPLE:
        assert_participant_true(known, history, person)


def assert_participant_true(known: Known, history: History, person: str) -> None:
    state, presences = known.participant(person), history.presences(person)
    assert (state is None) == (not presences)
    if state is None:
        return
    is_in = any(presence.person == person for presence in history.present())
    assert state.internal_status == (ParticipantStatus.JOINED if is_in else ParticipantStatus.LEFT)
    assert state.provider_id == presences[-1].user_id
    assert state.join_time == presences[-1].joined_at
    leaves = [presence.left_at for presence in presences if presence.left_at is not None]
    assert state.leave_time == max(leaves, default=None)
    assert state.leave_reason == (f"left at {max(leaves):%H:%M:%S}" if leaves else None)


def test_page_that_was_loaded_again_is_not_left() -> None:
    known = known_from(
        [
            event("session.user_joined", 1, user=user("first")),
            event("session.user_joined", 2, user=user("second")),
            # Zoom notices only then that the first is gone.
            event("session.user_left", 3, user=user("first")),
        ]
    )

    state = known.participant("telephone")

    assert state is not None
    assert (state.internal_status, state.provider_id) == (ParticipantStatus.JOINED, "second")
    assert (state.join_time, state.leave_time) == (at(2), at(3))


def test_user_of_a_session_that_ended_has_left_though_nobody_said_when() -> None:
    known = known_from([event("session.user_joined", 1, user=user()), event("session.ended", 5, end_time=at(5))])

    state = known.participant("telephone")

    assert state is not None
    assert (state.internal_status, state.join_time, state.leave_time) == (ParticipantStatus.LEFT, at(1), None)


def test_same_user_who_comes_back_is_in() -> None:
    came = [event("session.user_joined", minutes, user=user(join_time=at(minutes))) for minutes in (1, 3)]
    left = event("session.user_left", 2, user=user(leave_time=at(2), leave_reason="refreshed"))

    state = known_from([came[1], left, came[0]]).participant("telephone")

    assert state is not None
    assert (state.internal_status, state.join_time, state.leave_time) == (ParticipantStatus.JOINED, at(3), at(2))


def test_event_without_its_time_is_of_the_time_it_says_it_was_sent() -> None:
    known = known_from([event("session.ended", 9), event("session.started", 1)])

    call = known.call()

    assert call is not None
    assert (call.start_time, call.end_time, call.end_at) == (at(1), at(9), at(61))


def test_start_that_was_never_told_is_not_known() -> None:
    known = known_from([event("session.user_joined", 3, user=user())])

    call = known.call()

    assert call is not None
    assert (call.internal_status, call.start_time, call.end_at) == (CallStatus.IN_PROGRESS, None, None)


def test_session_is_to_be_ended_when_its_call_is() -> None:
    first = Session("a", heard_at=at(0), start_time=at(0), end_time=at(10))
    second = Session("b", heard_at=at(20), start_time=at(20))
    state = state_of_call([first, second], maximum_call_length=LENGTH)

    assert state is not None
    assert (state.internal_status, state.end_time) == (CallStatus.IN_PROGRESS, None)
    assert time_to_end(second, state, maximum_call_length=LENGTH) == at(60)
    assert time_to_end(first, state, maximum_call_length=LENGTH) is None


def test_session_whose_start_is_not_known_is_ended_some_time_all_the_same() -> None:
    session = session_after(None, "s", event("session.user_joined", 20))
    session = session_after(session, "s", event("session.user_joined", 3))
    state = state_of_call([session], maximum_call_length=LENGTH)

    assert state is not None
    assert time_to_end(session, state, maximum_call_length=LENGTH) == at(63)


def test_call_of_no_length_is_to_be_ended_as_it_begins() -> None:
    session = session_after(None, "s", event("session.started", 0, start_time=at(0)))
    state = state_of_call([session], maximum_call_length=timedelta(0))

    assert state is not None
    assert state.end_at == time_to_end(session, state, maximum_call_length=timedelta(0)) == at(0)


def test_zoom_says_when_a_session_ended_that_we_ended() -> None:
    ours = Session("s", heard_at=at(0), start_time=at(0), end_time=at(60.1))

    assert session_after(ours, "s", event("session.ended", 60.05, end_time=at(60))).end_time == at(60)
    assert session_after(ours, "s", event("session.user_left", 60.05)).end_time == at(60.1)


@given(st.lists(st.builds(Word, st.sampled_from(FILE_WORDS), st.integers(0, 3).map(at)), min_size=1), st.data())
def test_last_word_is_the_same_in_whatever_order_they_came(words: list[Word], data: st.DataObject) -> None:
    last = last_word(FILE_WORDS, *words)

    assert last is not None
    assert last.at == max(word.at for word in words)
    assert last_word(FILE_WORDS, *data.draw(st.permutations(words))) == last
    assert last_word(FILE_WORDS, last, None) == last


@pytest.mark.parametrize("word", ["trashed", "deleted", "recovered"])
def test_words_about_files_are_read(word: str) -> None:
    assert file_word(event(f"session.recording_{word}", 4)) == Word(word, at(4))


def test_what_is_known_of_zooms_events() -> None:
    assert {name.removeprefix("session.") for name in KNOWN_EVENTS} == {
        "started",
        "ended",
        "user_joined",
        "user_left",
        "recording_started",
        "recording_paused",
        "recording_resumed",
        "recording_stopped",
        "recording_completed",
        "recording_transcript_completed",
        "recording_summary_completed",
        "recording_trashed",
        "recording_deleted",
        "recording_recovered",
    }
