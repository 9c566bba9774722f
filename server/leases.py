"""What workers of recordings have in common: a row that is due is leased and seen through, the lease renewed meanwhile;
what fails is tried again later, and given up where that is hopeless."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Generic, Protocol, TypeVar

import sqlalchemy.exc
import structlog
from psycopg.rows import class_row

from server.background import Backoff
from server.db import DATABASE_DOWN, Database
from server.errors import Unavailable
from server.storage import StorageFailed

log = structlog.get_logger()

# The work may take longer, for which a lease is renewed when a third of it is over.
LEASE = timedelta(minutes=3)

BACKOFF = Backoff(timedelta(seconds=10), timedelta(minutes=15), longest_asked=timedelta(hours=1))

# What failed for so long, and so often, is given up. Often as well: where no worker ran for a day, that is no fault of
# the provider's.
GIVE_UP_AFTER = timedelta(hours=24)
LEAST_ATTEMPTS = 8


class Claim(Protocol):
    """A leased row of a call."""

    @property
    def id(self) -> int: ...

    @property
    def call_id(self) -> int: ...

    @property
    def attempts(self) -> int:
        """This one included."""
        ...

    @property
    def since(self) -> datetime:
        """When there was something to be had at first."""
        ...


ClaimT = TypeVar("ClaimT", bound=Claim)


@dataclass(frozen=True)
class Queue(Generic[ClaimT]):
    """Rows of `table` that are to be seen to at their `due_at`; the log calls one `name`. `claim` is the statement that
    leases one for %(lease)s and counts its `attempts`, `row` what it answers."""

    name: str
    table: str
    claim: str
    row: type[ClaimT]


@dataclass(frozen=True)
class Later:
    """An attempt came to nothing: another is made when BACKOFF says, and no sooner than was asked for."""

    outcome: str
    asked: timedelta | None = None
    # However long that takes: it is no fault of the recording's, nor of who has it.
    is_our_fault: bool = False


async def see_to_next(
    db: Database,
    queue: Queue[ClaimT],
    *,
    lease: timedelta,
    attempt: Callable[[ClaimT], Awaitable[str | Later]],
    give_up: Callable[[ClaimT], Awaitable[str]],
) -> bool:
    """Lease a row that is due and see to it; whether there was one.

    `attempt` records what became of the row and answers a word for the log, else Later. It may raise: a fault of
    nobody's knowing is tried again as well. `give_up` records that it never came to be, and answers a word too. Both
    change nothing of a row whose `attempts` are not the claim's any more.
    """
    claim = await db.fetch_one(queue.claim, {"lease": lease}, class_row(queue.row))
    if claim is None:
        return False
    began = time.monotonic()
    postpone = partial(_postpone, db, queue, claim)
    async with _renewed(partial(postpone, lease), lease):
        outcome = await _attempted(queue, claim, attempt)
    if isinstance(outcome, Later):
        if not outcome.is_our_fault and is_hopeless(claim.attempts, since=claim.since, now=datetime.now(UTC)):
            outcome = await give_up(claim)
        else:
            await postpone(BACKOFF.delay(claim.attempts, outcome.asked))
            outcome = outcome.outcome
    log.info(
        f"{queue.name}.attempted",
        id=claim.id,
        call_id=claim.call_id,
        attempt=claim.attempts,
        outcome=outcome,
        duration_ms=round((time.monotonic() - began) * 1000, 1),
    )
    return True


async def _attempted(
    queue: Queue[ClaimT], claim: ClaimT, attempt: Callable[[ClaimT], Awaitable[str | Later]]
) -> str | Later:
    try:
        return await attempt(claim)
    except Exception as error:
        if _is_storage_away(error):
            log.warning(f"{queue.name}.storage_failed", id=claim.id, error=str(error))
            return Later("storage_failed", is_our_fault=True)
        log.exception(f"{queue.name}.attempt_failed", id=claim.id, attempt=claim.attempts)
        return Later("fault")


def _is_storage_away(error: Exception) -> bool:
    """Whether it is our storage or our database that cannot be reached, or not changed now."""
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    return isinstance(cause, (StorageFailed, Unavailable, *DATABASE_DOWN))


async def _postpone(db: Database, queue: Queue[ClaimT], claim: ClaimT, delay: timedelta) -> None:
    """Have it due later. A claim that outlived its lease changes nothing."""
    statement = f"""
        UPDATE {queue.table} SET due_at = now() + %(delay)s
        WHERE id = %(id)s AND attempts = %(attempts)s AND due_at IS NOT NULL
    """
    await db.execute(statement, {"id": claim.id, "attempts": claim.attempts, "delay": delay})


@asynccontextmanager
async def _renewed(renew: Callable[[], Awaitable[None]], lease: timedelta) -> AsyncIterator[None]:
    """Renew the lease for as long as the block lasts. While the database is down it may run out: what is recorded is
    recorded by whoever claimed last."""

    async def keep() -> None:
        while True:
            await asyncio.sleep(lease.total_seconds() / 3)
            try:
                await renew()
            except DATABASE_DOWN as error:
                log.warning("lease.not_renewed", error=str(error))

    async with asyncio.TaskGroup() as tasks:
        renewal = tasks.create_task(keep())
        yield
        renewal.cancel()


def is_hopeless(attempts: int, *, since: datetime, now: datetime) -> bool:
    """Whether it has been tried for long enough, and often enough."""
    return attempts >= LEAST_ATTEMPTS and now - since > GIVE_UP_AFTER
