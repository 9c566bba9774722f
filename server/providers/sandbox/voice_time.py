"""Simulated time: seconds of ringing, pausing and speaking that may pass faster than real ones."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class Clock:
    """`second` is how long a simulated one really takes."""

    def __init__(self, second: timedelta, *, now: Callable[[], datetime]) -> None:
        self._second = second.total_seconds()
        self._now = now

    def now(self) -> float:
        """The real time, in Unix seconds."""
        return self._now().astimezone(UTC).timestamp()

    def reading(self) -> float:
        """Simulated seconds since some moment; only differences mean something."""
        return asyncio.get_running_loop().time() / self._second

    def real(self, seconds: float) -> float:
        """How many real seconds so many simulated ones take."""
        return seconds * self._second

    async def sleep(self, seconds: float) -> None:
        """Let so many simulated seconds pass."""
        await asyncio.sleep(self.real(seconds))

    def call_later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        """Have something done so many simulated seconds from now."""
        return asyncio.get_running_loop().call_later(self.real(seconds), act)


def speech_seconds(text: str) -> float:
    """About how long somebody takes to say it: 150 words a minute, at least a second; nothing takes no time."""
    words = len(text.split())
    return max(1.0, words / 2.5) if words else 0.0
