"""What an attempt's answer means for its delivery: pure, with the dice as an argument."""

from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

# The delays after the first, second, … failed attempt of a run; the one after the last of them ends the run.
SCHEDULE = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=10),
)
JITTER = 0.2

# A receiver may ask with Retry-After for more patience than the schedule has: up to twice as much, or up to this.
LONGEST_EARLY_WAIT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Delivered:
    """A 2xx."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Failed, and to be tried again after the delay."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Failed for good: dead-lettered. The endpoint is gone where it said so, and gets nothing more."""

    endpoint_gone: bool


Outcome = Delivered | RetryIn | GiveUp


def decide(*, attempt: int, status: int | None, retry_after: timedelta | None, roll: float) -> Outcome:
    """The outcome of the run's attempt number `attempt` (1 or more); no status means that no answer came.

    `roll`, from 0 to 1, spreads the schedule's delay by ±20 %. Redirects are failures like any other.
    """
    if status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Delivered()
    if status == HTTPStatus.GONE:
        return GiveUp(endpoint_gone=True)
    if attempt > len(SCHEDULE):
        return GiveUp(endpoint_gone=False)
    scheduled = SCHEDULE[attempt - 1]
    delay = scheduled * (1 - JITTER + 2 * JITTER * roll)
    if retry_after is not None:
        delay = max(delay, min(retry_after, max(2 * scheduled, LONGEST_EARLY_WAIT)))
    return RetryIn(delay)
