"""The pace at which background work asks others."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.background import Pace


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
