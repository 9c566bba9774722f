"""What an answer means, and when the next attempt is."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from server.webhooks.retry import (
    LONGEST_EARLY_WAIT,
    SCHEDULE,
    Delivered,
    GiveUp,
    RetryIn,
    decide,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
_FAILURES = st.none() | st.integers(100, 199) | st.integers(300, 599).filter(lambda status: status != 410)
_ROLLS = st.floats(0, 1)
_WAITS = st.none() | st.timedeltas(timedelta(0), timedelta(days=400))


def test_schedule_is_as_documented() -> None:
    decided = [decide(attempt=n, status=500, retry_after=None, roll=0.5) for n in range(1, 9)]

    seconds = [o.delay.total_seconds() if isinstance(o, RetryIn) else None for o in decided]
    assert seconds == [5, 300, 1800, 7200, 18000, 36000, 36000, None]
    assert decided[-1] == GiveUp(endpoint_gone=False)


@given(status=st.integers(200, 299), attempt=st.integers(1, 100))
def test_2xx_is_success_whenever_it_comes(status: int, attempt: int) -> None:
    assert decide(attempt=attempt, status=status, retry_after=None, roll=0) == Delivered()


@given(attempt=st.integers(1, 100), roll=_ROLLS, retry_after=_WAITS)
def test_gone_is_the_end_whenever_it_comes(attempt: int, roll: float, retry_after: timedelta | None) -> None:
    assert decide(attempt=attempt, status=410, retry_after=retry_after, roll=roll) == GiveUp(endpoint_gone=True)


@given(attempt=st.integers(1, len(SCHEDULE)), status=_FAILURES, roll=_ROLLS, retry_after=_WAITS)
def test_delay_keeps_its_bounds_whatever_is_asked(
    attempt: int, status: int | None, roll: float, retry_after: timedelta | None
) -> None:
    outcome = decide(attempt=attempt, status=status, retry_after=retry_after, roll=roll)

    scheduled = SCHEDULE[attempt - 1]
    assert isinstance(outcome, RetryIn)
    assert outcome.delay >= scheduled * 0.8
    assert outcome.delay <= max(2 * scheduled, LONGEST_EARLY_WAIT)
    if retry_after is None:
        assert outcome.delay <= scheduled * 1.2
    elif retry_after <= max(2 * scheduled, LONGEST_EARLY_WAIT):
        assert outcome.delay >= retry_after


@given(attempt=st.integers(1, len(SCHEDULE)), low=_ROLLS, high=_ROLLS)
def test_delay_rises_with_the_roll(attempt: int, low: float, high: float) -> None:
    low, high = sorted((low, high))
    sooner = decide(attempt=attempt, status=500, retry_after=None, roll=low)
    later = decide(attempt=attempt, status=500, retry_after=None, roll=high)

    assert isinstance(sooner, RetryIn)
    assert isinstance(later, RetryIn)
    assert sooner.delay <= later.delay
