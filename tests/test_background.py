"""The pace at which background work asks others, and how long it waits for what failed."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.background import Backoff, Pace, parse_retry_after


class Clock:
    """A clock that moves when somebody sleeps, or as the test says."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(st.lists(st.floats(min_value=0, max_value=3), min_size=1, max_size=40), st.integers(min_value=1, max_value=50))
def test_turns_are_never_closer_than_the_rate_and_never_later_than_needed(idle: list[float], per_second: int) -> None:
    clock = Clock()
    pace = Pace(per_second, clock=clock, sleep=clock.sleep)
    asked, began = [], []

    async def run() -> None:
        for seconds in idle:
            clock.now += seconds
            asked.append(clock.now)
            await pace.turn()
            began.append(clock.now)

    asyncio.run(run())

    between = 1 / per_second
    assert all(later - earlier >= between - 1e-9 for earlier, later in pairwise(began))
    for index, at in enumerate(began):
        assert at == pytest.approx(max(asked[index], began[index - 1] + between if index else 0))


async def test_those_that_wait_together_begin_one_after_the_other() -> None:
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    pace = Pace(10, clock=lambda: 0.0, sleep=sleep)

    await asyncio.gather(*(pace.turn() for _ in range(5)))

    assert waits == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
BACKOFF = Backoff(timedelta(seconds=1), timedelta(minutes=5), longest_asked=timedelta(hours=1))
ROLLS = st.floats(min_value=0, max_value=1)
ASKED = st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=999))


@given(attempts=st.integers(min_value=1, max_value=10**9), asked=ASKED, roll=ROLLS)
def test_delay_is_within_its_bounds(attempts: int, asked: timedelta | None, roll: float) -> None:
    delay = BACKOFF.delay(attempts, asked, dice=lambda: roll)

    assert BACKOFF.first <= delay <= BACKOFF.longest_asked * 1.2
    assert delay >= min(asked or timedelta(0), BACKOFF.longest_asked)


@given(attempts=st.integers(min_value=1, max_value=40), asked=ASKED, roll=ROLLS)
def test_delay_never_shrinks_with_the_attempts(attempts: int, asked: timedelta | None, roll: float) -> None:
    delays = [BACKOFF.delay(n, asked, dice=lambda: roll) for n in (attempts, attempts + 1)]

    assert delays[0] <= delays[1]


def test_delays_double_to_the_longest() -> None:
    delays = [BACKOFF.delay(n, dice=lambda: 0) // timedelta(seconds=1) for n in range(1, 12)]

    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_what_failed_together_does_not_return_together() -> None:
    assert len({BACKOFF.delay(5) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("0", timedelta(0)),
        (" 120 ", timedelta(minutes=2)),
        ("9" * 400, timedelta(seconds=9999999999)),
        ("Mon, 23 Nov 2026 12:00:30 GMT", timedelta(seconds=30)),
        ("Mon, 23 Nov 2026 12:00:30 -0000", timedelta(seconds=30)),
        ("Mon, 23 Nov 2026 11:00:00 GMT", timedelta(0)),
        ("Mon, 99 Nov 2026 11:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, expected: timedelta | None) -> None:
    assert parse_retry_after(value, now=NOW) == expected


@given(value=st.text(max_size=40))
def test_any_retry_after_is_read_without_error(value: str) -> None:
    asked = parse_retry_after(value, now=NOW)

    assert asked is None or asked >= timedelta(0)


@given(wait=st.integers(0, 10**7))
def test_dates_say_the_same_as_seconds(wait: int) -> None:
    date = format_datetime(NOW + timedelta(seconds=wait), usegmt=True)

    assert parse_retry_after(date, now=NOW) == parse_retry_after(str(wait), now=NOW)
