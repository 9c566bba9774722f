"""What follows for calls from facts: pure, and the same in whatever order they are told."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.calls.state import (
    CONTACT,
    LEG_STATUSES,
    MODERATOR,
    SDK,
    CallStatus,
    Conference,
    Leg,
    better_answered_by,
    is_machine,
    later,
    state_of_conference,
    state_of_direct_call,
    state_of_return_call,
)
from server.providers.voice_ports import FINAL_STATUSES

ANSWERED_BY = (
    "human",
    "machine_start",
    "machine_end_beep",
    "machine_end_silence",
    "machine_end_other",
    "fax",
    "unknown",
)

statuses = st.sampled_from([None, *LEG_STATUSES])
final = st.sampled_from(FINAL_STATUSES)
answers = st.sampled_from([None, *ANSWERED_BY])


def legs(kind: str) -> st.SearchStrategy[Leg]:
    """A leg with anything known of it."""
    return st.builds(
        Leg,
        kind=st.just(kind),
        provider_status=statuses,
        answered_by=answers,
        has_joined=st.booleans(),
        is_refused=st.booleans(),
        is_withdrawn=st.booleans(),
    )


conferences = st.builds(Conference, *(st.booleans() for _ in range(4)))


def moderator(status: str | None = "in-progress", *, joined: bool = True, **over: object) -> Leg:
    return Leg(MODERATOR, status, has_joined=joined, **over)  # type: ignore[arg-type]


def contact(status: str | None = None, *, joined: bool = False, **over: object) -> Leg:
    return Leg(CONTACT, status, has_joined=joined, **over)  # type: ignore[arg-type]


@given(st.lists(statuses))
def test_status_of_a_leg_is_one_in_whatever_order_it_is_told(told: list[str | None]) -> None:
    found = set()
    for order in itertools.islice(itertools.permutations(told), 24):
        known: str | None = None
        for word in order:
            known = later(LEG_STATUSES, known, word)
        found.add(known)

    known_words = [word for word in told if word is not None]
    assert found == {max(known_words, key=LEG_STATUSES.index) if known_words else None}


@given(st.lists(answers, max_size=4))
def test_who_answered_is_one_in_whatever_order_it_is_told(told: list[str | None]) -> None:
    found = set()
    for order in itertools.permutations(told):
        known: str | None = None
        for word in order:
            known = better_answered_by(known, word)
        found.add(known)

    assert len(found) == 1


def test_word_that_nobody_knows_replaces_none_but_nothing() -> None:
    assert later(LEG_STATUSES, None, "teleported") == "teleported"
    assert later(LEG_STATUSES, "queued", "teleported") == "queued"
    assert later(LEG_STATUSES, "teleported", "queued") == "queued"


@pytest.mark.parametrize(
    ("answered_by", "expected"),
    [
        *(("human", False), ("unknown", None), (None, None), ("fax", True)),
        *((word, True) for word in ANSWERED_BY if word.startswith("machine")),
    ],
)
def test_machines_are_told_from_people(answered_by: str | None, expected: bool | None) -> None:
    assert is_machine(answered_by) is expected


@given(conferences, legs(MODERATOR), st.lists(legs(CONTACT), min_size=1, max_size=3), st.randoms())
def test_order_of_contacts_does_not_matter(
    conference: Conference, first: Leg, others: list[Leg], random: object
) -> None:
    shuffled = [first, *others]
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert state_of_conference(conference, shuffled) == state_of_conference(conference, [first, *others])


@given(conferences, legs(MODERATOR), st.lists(legs(CONTACT), min_size=1, max_size=3))
def test_conference_is_over_or_live_and_never_both(conference: Conference, first: Leg, others: list[Leg]) -> None:
    state = state_of_conference(conference, [first, *others])

    live = {CallStatus.PENDING, CallStatus.INVITING}
    over = {CallStatus.FINISHED, CallStatus.CANCELED, CallStatus.FAILED, CallStatus.NO_ANSWER}
    assert state.internal_status in (over if state.is_over else live)
    assert (state.internal_status is CallStatus.CANCELED) == conference.is_canceled


@given(conferences, legs(MODERATOR), st.lists(legs(CONTACT), min_size=1, max_size=3), final)
def test_conference_that_is_over_stays_so_whatever_ends_then(
    conference: Conference, first: Leg, others: list[Leg], status: str
) -> None:
    before = state_of_conference(conference, [first, *others])
    ended = [leg if leg.is_over else Leg(leg.kind, status, leg.answered_by, leg.has_joined) for leg in [first, *others]]

    after = state_of_conference(conference, ended)

    assert after.is_over
    assert not before.is_over or before.internal_status in (after.internal_status, CallStatus.NO_ANSWER)


@pytest.mark.parametrize(
    ("conference", "first", "others", "internal_status", "provider_status"),
    [
        (Conference(), moderator(None, joined=False), [contact()], "pending", None),
        (Conference(), moderator("ringing", joined=False), [contact()], "pending", None),
        (Conference(), moderator(answered_by="machine_start"), [contact()], "pending", None),
        (Conference(has_joined=True), moderator(), [contact(), contact()], "inviting", "participant-join"),
        (Conference(has_started=True), moderator(), [contact("ringing")], "inviting", "conference-start"),
        (Conference(), moderator(), [contact("in-progress", joined=True)], "inviting", None),
        (Conference(), moderator("completed"), [contact("completed", joined=True)], "finished", "conference-end"),
        (Conference(), moderator(), [contact("no-answer"), contact("busy")], "no_answer", None),
        (Conference(), moderator("completed"), [contact("no-answer")], "no_answer", "conference-end"),
        (Conference(), moderator(), [contact("failed"), contact(is_refused=True)], "failed", None),
        (Conference(), moderator(), [contact("failed"), contact("busy")], "no_answer", None),
        (Conference(), moderator("no-answer", joined=False), [contact(is_withdrawn=True)], "no_answer", None),
        (Conference(), moderator("busy", joined=False), [contact(is_withdrawn=True)], "no_answer", None),
        (Conference(), moderator("failed", joined=False), [contact(is_withdrawn=True)], "failed", None),
        (Conference(), moderator(None, joined=False, is_refused=True), [contact()], "failed", None),
        (Conference(is_canceled=True), moderator("completed"), [contact("completed", joined=True)], "canceled", None),
        (Conference(has_ended=True), moderator("ringing", joined=False), [contact()], "no_answer", "conference-end"),
        (
            Conference(has_ended=True, has_started=True, has_joined=True),
            moderator(),
            [contact("in-progress", joined=True), contact("ringing")],
            "finished",
            "conference-end",
        ),
    ],
)
def test_state_of_conferences(
    conference: Conference, first: Leg, others: Sequence[Leg], internal_status: str, provider_status: str | None
) -> None:
    state = state_of_conference(conference, [first, *others])

    assert state.internal_status == internal_status
    if not conference.is_canceled:
        assert state.provider_status == provider_status


def direct(browser: Leg, phone: Leg, *, recorded: bool = False, transcribed: bool = False) -> str:
    return state_of_direct_call([browser, phone], is_recorded=recorded, is_transcribed=transcribed).internal_status


@pytest.mark.parametrize(
    ("browser", "phone", "expected"),
    [
        ("in-progress", None, "pending"),
        ("in-progress", "ringing", "pending"),
        ("in-progress", "in-progress", "pending"),
        ("in-progress", "completed", "finished"),
        ("in-progress", "busy", "busy"),
        ("in-progress", "no-answer", "no_answer"),
        ("in-progress", "failed", "failed"),
        ("in-progress", "canceled", "canceled"),
        ("completed", None, "canceled"),
        ("completed", "ringing", "pending"),
        ("completed", "in-progress", "finished"),
        ("completed", "completed", "finished"),
        ("failed", None, "failed"),
    ],
)
def test_state_of_direct_calls(browser: str, phone: str | None, expected: str) -> None:
    assert direct(Leg(SDK, browser), Leg(CONTACT, phone)) == expected


def test_only_what_was_spoken_is_told_as_recorded() -> None:
    for status in FINAL_STATUSES:
        plain = direct(Leg(SDK, "completed"), Leg(CONTACT, status))
        recorded = direct(Leg(SDK, "completed"), Leg(CONTACT, status), recorded=True)
        transcribed = direct(Leg(SDK, "completed"), Leg(CONTACT, status), recorded=True, transcribed=True)
        spoken = status == "completed"
        assert (recorded, transcribed) == (("recorded", "transcripted") if spoken else (plain, plain))


def test_direct_call_that_nothing_was_heard_of_failed() -> None:
    assert direct(Leg(SDK, None, is_refused=True), Leg(CONTACT, None, is_refused=True)) == "failed"


@given(legs(SDK), final)
def test_direct_call_that_was_answered_is_finished_once_both_have_ended(browser: Leg, status: str) -> None:
    ended = Leg(SDK, status)

    assert direct(ended, Leg(CONTACT, "in-progress")) == direct(ended, Leg(CONTACT, "completed")) == "finished"
    assert direct(browser, Leg(CONTACT, "completed")) == "finished"


def returned(*known: Leg, voicemail: bool = False, recorded: bool = False, transcribed: bool = False) -> str:
    return state_of_return_call(
        known, has_voicemail=voicemail, is_recorded=recorded, is_transcribed=transcribed
    ).internal_status


@pytest.mark.parametrize(
    ("caller", "browser", "expected"),
    [
        ("in-progress", None, "pending"),
        ("in-progress", "ringing", "pending"),
        ("in-progress", "in-progress", "pending"),
        ("in-progress", "completed", "finished"),
        ("completed", "in-progress", "finished"),
        ("completed", "completed", "finished"),
        ("completed", "no-answer", "no_answer"),
        ("completed", None, "no_answer"),
        ("failed", None, "failed"),
    ],
)
def test_state_of_return_calls(caller: str, browser: str | None, expected: str) -> None:
    known = [Leg(CONTACT, caller)] + ([Leg(SDK, browser)] if browser else [])

    assert returned(*known) == expected


@given(legs(CONTACT), legs(SDK))
def test_voicemail_comes_before_all_else(caller: Leg, browser: Leg) -> None:
    assert returned(caller, browser, voicemail=True) == "voicemail"
    assert returned(caller, browser, voicemail=True, recorded=True) == "recorded"
    assert returned(caller, browser, voicemail=True, recorded=True, transcribed=True) == "transcripted"
