"""What may become of a message: any order, repetition and loss of reports."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.messages.message import (
    FINAL,
    FIRST_CHECK_AFTER,
    NO_RANK,
    Message,
    cancelled,
    given_up,
    is_cancellable,
    refused,
    reported,
)
from server.providers.ports import MessageReport, MessageStatus, ProviderError
from server.providers.twilio import statuses

START = datetime(2026, 1, 1, tzinfo=UTC)
SEQUENCES = (
    ("accepted", "queued", "sending", "sent", "delivered"),
    ("queued", "sending", "sent", "delivered", "read"),
    ("accepted", "queued", "sending", "sent", "undelivered"),
    ("queued", "sending", "failed"),
    ("queued", "failed"),
    ("scheduled", "canceled"),
    ("accepted", "queued", "sending", "sent", "partially_delivered", "delivered"),
)
FORWARD = [
    MessageStatus.PENDING,
    MessageStatus.PROCESSING,
    MessageStatus.SENDING,
    MessageStatus.SENT,
]


def a_message(**over: object) -> Message:
    message = Message(
        id=1,
        message_uuid=UUID(int=1),
        bearer_id=1,
        conversation_id=None,
        direction="outbound",
        provider="twilio",
        messaging_service_id=None,
        messaging_service_sid=None,
        sender_number="+12065550100",
        receiver_number="+12065550190",
        message_body="text",
        media_urls=[],
        stored_media=[],
        message_type="sms",
        priority="default",
        callback_url=None,
        internal_status="processing",
        provider_status=None,
        provider_rank=NO_RANK,
        message_sid=None,
        error_code=None,
        error_description=None,
        scheduled_at=None,
        enqueued_at=START,
        sent_at=None,
        delivered_at=None,
        failed_at=None,
        created_at=START,
        updated_at=START,
        sequence=1,
        due_at=START,
        attempts=1,
        first_claimed_at=START,
        in_doubt=True,
        check_at=None,
        checks=0,
        client_conversation_id=None,
        internal_conversation_id=None,
        global_id=None,
        phone_number_type=None,
    )
    return replace(message, **over)  # type: ignore[arg-type]  # named in the tests


def report(provider_status: str, *, message_sid: str = "SM1") -> MessageReport:
    error_code = "30003" if provider_status in ("undelivered", "failed") else None
    return statuses.report(message_sid=message_sid, provider_status=provider_status, error_code=error_code)


def after(message: Message, provider_statuses: list[str]) -> list[Message]:
    """The message after each report that changed it, a second passing with each."""
    history = [message]
    for second, provider_status in enumerate(provider_statuses, start=1):
        changed = reported(history[-1], report(provider_status), now=START + timedelta(seconds=second))
        if changed is not None:
            history.append(changed)
    return history


@st.composite
def mangled(draw: st.DrawFn) -> tuple[tuple[str, ...], list[str]]:
    """A real sequence, and what arrives of it: some lost, some repeated, in any order."""
    sequence = draw(st.sampled_from(SEQUENCES))
    return sequence, draw(st.lists(st.sampled_from(sequence), min_size=1, max_size=12))


@given(mangled())
def test_no_order_moves_a_message_backwards(arrival: tuple[tuple[str, ...], list[str]]) -> None:
    history = after(a_message(), arrival[1])

    for before, now in itertools.pairwise(history):
        assert before.internal_status not in FINAL
        assert now.provider_rank > before.provider_rank
        if now.internal_status not in FINAL:
            assert FORWARD.index(MessageStatus(now.internal_status)) >= FORWARD.index(
                MessageStatus(before.internal_status)
            )
        assert now.sequence == before.sequence + 1
        assert now.updated_at > before.updated_at


@given(mangled())
def test_final_report_decides_in_whatever_order_it_comes(arrival: tuple[tuple[str, ...], list[str]]) -> None:
    sequence, arrived = arrival
    ordered = after(a_message(), list(sequence))[-1]

    end = after(a_message(), [*arrived, next(s for s in sequence if report(s).rank == 5)])[-1]

    assert end.internal_status == ordered.internal_status
    assert end.error_code == ordered.error_code
    assert (end.delivered_at is None) == (ordered.delivered_at is None)
    assert (end.failed_at is None) == (ordered.failed_at is None)


@given(mangled())
def test_times_and_sid_are_set_once(arrival: tuple[tuple[str, ...], list[str]]) -> None:
    history = after(a_message(), arrival[1])

    for field in ("sent_at", "delivered_at", "failed_at", "message_sid", "enqueued_at"):
        values = [getattr(m, field) for m in history]
        first = next((v for v in values if v is not None), None)
        assert all(v in (None, first) for v in values)
        assert values == sorted(values, key=lambda v: v is not None)


@given(mangled())
def test_reported_message_is_nobodys_to_send(arrival: tuple[tuple[str, ...], list[str]]) -> None:
    for message in after(a_message(), arrival[1])[1:]:
        assert (message.message_sid, message.due_at, message.in_doubt) == ("SM1", None, False)


ARRIVALS = st.lists(st.sampled_from([*sorted(statuses._STATUSES), "new-word"]), max_size=12)
# What ends a message before the provider has told its sid.
ENDS = st.sampled_from(
    [
        lambda message: refused(message, ProviderError("21211", "https://errors.example/21211"), now=START),
        lambda message: given_up(message, now=START),
        lambda message: cancelled(message, now=START),
    ]
)


def is_to_be_checked(message: Message) -> bool:
    return message.message_sid is not None and message.internal_status not in FINAL


@given(ARRIVALS)
def test_provider_is_asked_from_the_hand_over_to_a_final_status(arrived: list[str]) -> None:
    for message in after(a_message(), arrived):
        assert (message.check_at is not None) == is_to_be_checked(message)


@given(end=ENDS, arrived=ARRIVALS)
def test_provider_is_never_asked_about_a_message_that_ended_without_it(
    end: Callable[[Message], Message], arrived: list[str]
) -> None:
    assert all(message.check_at is None for message in after(end(a_message()), arrived))


@given(ARRIVALS, st.integers(min_value=1, max_value=7))
def test_news_begins_the_asking_anew(arrived: list[str], checks: int) -> None:
    asked = a_message(message_sid="SM1", due_at=None, in_doubt=False, check_at=START + timedelta(days=1), checks=checks)

    for second, provider_status in enumerate(arrived, start=1):
        now = START + timedelta(seconds=second)
        changed = reported(asked, report(provider_status), now=now)
        if changed is not None:
            assert changed.checks == 0
            assert changed.check_at == (now + FIRST_CHECK_AFTER if is_to_be_checked(changed) else None)


def test_news_in_quick_succession_leave_the_first_check_where_it_is() -> None:
    _, *history = after(a_message(), ["accepted", "queued", "sending", "sent"])

    assert {message.check_at for message in history} == {START + timedelta(seconds=1) + FIRST_CHECK_AFTER}


@given(ARRIVALS)
def test_repeated_history_changes_nothing(arrived: list[str]) -> None:
    [*_, end] = after(a_message(), arrived)

    assert after(end, arrived) == [end]


@pytest.mark.parametrize("first", ["delivered", "undelivered", "failed", "canceled"])
@pytest.mark.parametrize("second", ["delivered", "undelivered", "failed", "canceled", "read"])
def test_first_final_word_stays(first: str, second: str) -> None:
    end = after(a_message(), [first])[-1]

    assert after(end, [second]) == [end]


def test_delivered_without_sent_was_sent_too() -> None:
    end = after(a_message(), ["delivered"])[-1]

    assert end.sent_at == end.delivered_at == START + timedelta(seconds=1)


def test_failure_is_described_as_documented() -> None:
    error = ProviderError(code="21211", url="https://www.twilio.com/docs/api/errors/21211")

    end = refused(a_message(), error, now=START)

    assert (end.internal_status, end.error_code, end.failed_at) == ("failed", "21211", START)
    assert end.error_description == (
        "There was an error with the messaging provider. "
        "For more details visit: https://www.twilio.com/docs/api/errors/21211"
    )
    assert (end.due_at, end.in_doubt, end.sequence) == (None, False, 2)


def test_late_report_of_a_message_given_up_names_its_copy_and_no_more() -> None:
    end = given_up(a_message(), now=START)

    late = reported(end, report("delivered"), now=START + timedelta(hours=1))

    assert late is not None
    assert (late.message_sid, late.internal_status, late.delivered_at) == ("SM1", "failed", None)
    assert late.sequence == end.sequence + 1


def test_cancelled_message_has_nothing_to_do() -> None:
    message = a_message(attempts=0, internal_status="pending", scheduled_at=START, in_doubt=False)

    end = cancelled(message, now=START)

    assert is_cancellable(message)
    assert not is_cancellable(end)
    assert (end.internal_status, end.due_at) == ("cancelled", None)


@pytest.mark.parametrize(
    "over", [{"scheduled_at": None}, {"attempts": 1}, {"internal_status": "processing"}, {"internal_status": "failed"}]
)
def test_only_a_waiting_message_is_cancellable(over: dict[str, object]) -> None:
    waiting: dict[str, object] = {"attempts": 0, "internal_status": "pending", "scheduled_at": START}

    assert not is_cancellable(a_message(**{**waiting, **over}))
