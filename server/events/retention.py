"""Retention: old events leave the log, oldest first, when nothing waits for them any more."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import structlog
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from server.db import Database

log = structlog.get_logger()

# Deletes the finished deliveries of these events (by events.id) and answers those of them that nothing waits for.
Release = Callable[[AsyncConnection[TupleRow], Sequence[int]], Awaitable[Sequence[int]]]

_BATCH = 500
_PAUSE = timedelta(minutes=1)

_LOCK = "SELECT pg_try_advisory_xact_lock(x'72657461696e'::bigint)"

# Those that came of age since the last time: up to the first that is still young, so that the log stays complete after
# `oldest_position`.
_AGED = """
WITH next AS (
    SELECT id, position, occurred_at < now() - %(keep)s AS aged FROM events
    WHERE position > (SELECT oldest_position FROM event_log) ORDER BY position LIMIT %(limit)s
)
SELECT id, position FROM next
WHERE position < coalesce((SELECT min(position) FROM next WHERE NOT aged), 9223372036854775807) ORDER BY position
"""

# Those that were held back when they came of age.
_HELD = """
SELECT id, position FROM events
WHERE position > %(after)s AND position <= (SELECT oldest_position FROM event_log) ORDER BY position LIMIT %(limit)s
"""

_MOVE = "UPDATE event_log SET oldest_position = greatest(oldest_position, %(position)s)"

_DELETE = "DELETE FROM events WHERE id = ANY(%(ids)s)"


class Retention:
    """Any number of processes may run one: a lock picks which of them works."""

    def __init__(self, db: Database, release: Release, *, keep: timedelta) -> None:
        self._db = db
        self._release = release
        self._keep = keep
        # How far the events that are held back have been looked at again; after the last it begins anew.
        self._held_up_to = 0

    async def run(self) -> None:
        """Prune until cancelled."""
        while True:
            try:
                while await self.run_once() == _BATCH:
                    pass
            except Exception:
                log.exception("retention.failed")
            await asyncio.sleep(_PAUSE.total_seconds())

    async def run_once(self) -> int:
        """Look at up to a batch of events that came of age, and at as many that were held back; answer how many came
        of age."""
        async with self._db.connection() as connection, connection.transaction():
            locked = await (await connection.execute(_LOCK)).fetchone()
            assert locked is not None, "a SELECT of a function answers a row"
            if not locked[0]:
                return 0
            held = await self._prune(connection, _HELD, {"after": self._held_up_to, "limit": _BATCH})
            aged = await self._prune(connection, _AGED, {"keep": self._keep, "limit": _BATCH})
            if aged:
                # The last statement, because the relay waits for this row.
                await connection.execute(_MOVE, {"position": aged[-1]})
        self._held_up_to = held[-1] if len(held) == _BATCH else 0
        return len(aged)

    async def _prune(
        self, connection: AsyncConnection[TupleRow], query: str, parameters: dict[str, object]
    ) -> Sequence[int]:
        """Delete what may go of the events that the query finds, and answer the positions of all of them."""
        found = await (await connection.execute(query.encode(), parameters)).fetchall()
        if found:
            free = await self._release(connection, [event_id for event_id, _ in found])
            await connection.execute(_DELETE, {"ids": list(free)})
        return [position for _, position in found]
