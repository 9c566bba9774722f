"""What a process does beside its requests: a step that is repeated, at which pace it asks others, and how long it waits
for what failed."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import structlog

log = structlog.get_logger()

_BACK_OFF_SECONDS = 1.0


async def repeat(
    step: Callable[[], Awaitable[bool]], *, name: str, every: timedelta, wake: asyncio.Event | None = None
) -> None:
    """Run a step until cancelled: again at once while it answers that there may be more to do, else after `every` or
    when woken. One that fails is told to the log and tried again; its work must stand a cancellation at any point."""
    while True:
        if wake is not None:
            wake.clear()
        try:
            if await step():
                continue
        except Exception:
            log.exception("background.failed", step=name)
            await asyncio.sleep(_BACK_OFF_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(every.total_seconds()):
                await (asyncio.Event() if wake is None else wake).wait()


async def seen_through(work: Coroutine[Any, Any, None]) -> None:
    """Wait for what must not be left half done: where the caller is cancelled meanwhile, it ends first."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


@dataclass(frozen=True)
class Backoff:
    """How long what failed waits: doubling from `first` to `longest`, and at least what the other side asked for.
    Beyond `longest_asked` that is taken for a mistake."""

    first: timedelta
    longest: timedelta
    longest_asked: timedelta

    def delay(
        self, attempts: int, asked: timedelta | None = None, *, dice: Callable[[], float] = random.random
    ) -> timedelta:
        """The wait after so many attempts (1 or more). The dice, from 0 to 1, spread it up to 20 % longer, so that what
        failed together does not return together."""
        doubled = min(self.first * (1 << min(attempts - 1, 20)), self.longest)
        granted = min(asked or timedelta(0), self.longest_asked)
        return max(doubled, granted) * (1 + 0.2 * dice())


def parse_retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """What a Retry-After header asks for, as seconds or as an HTTP date; None where there is none that makes sense."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # More digits than any wait that could be granted.
        return timedelta(seconds=int(value[:10]))
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, IndexError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(until - now, timedelta(0))


class Pace:
    """So many a second at most, evenly: each waits for its turn."""

    def __init__(
        self,
        per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._between = 1 / per_second
        self._clock = clock
        self._sleep = sleep
        self._next = clock()

    async def turn(self) -> None:
        """Wait until it is the caller's turn."""
        now = self._clock()
        at = max(now, self._next)
        self._next = at + self._between
        await self._sleep(at - now)
