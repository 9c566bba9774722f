"""What workers of recordings have in common: leases that are renewed, and how long a retry waits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog

from server.background import Backoff
from server.db import DATABASE_DOWN

log = structlog.get_logger()

# The work may take longer, for which a lease is renewed when a third of it is over.
LEASE = timedelta(minutes=3)

BACKOFF = Backoff(timedelta(seconds=10), timedelta(minutes=15), longest_asked=timedelta(hours=1))

# What failed for so long, and so often, is given up. Often as well: where no worker ran for a day, that is no fault of
# the provider's.
GIVE_UP_AFTER = timedelta(hours=24)
LEAST_ATTEMPTS = 8


@asynccontextmanager
async def renewed(renew: Callable[[], Awaitable[None]], lease: timedelta) -> AsyncIterator[None]:
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
