"""The relay gives committed events their positions: commit order, which the ids of inserts are not.

It numbers and fans out in one transaction under an advisory lock, so whatever has a position has its deliveries, and
killing it at any instant leaves neither a gap nor a repetition.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row

from server.db import Database
from server.events.log import RelayedEvent
from server.notifications import Channel, Notifications

log = structlog.get_logger()

FanOut = Callable[[AsyncConnection[TupleRow], Sequence[RelayedEvent]], Awaitable[None]]

_BATCH = 500
_POLL_SECONDS = 1.0
# How long events gather after a batch: a busy relay writes few big transactions, an idle one waits for nothing.
_GATHER_SECONDS = 0.005
_BACK_OFF_SECONDS = 1.0

# The advisory lock of whoever relays.
LOCK = "x'72656c6179'::bigint"

# A statement of its own: the next one's snapshot then includes all that the relay before committed.
_TRY_LOCK = f"SELECT set_config('relay.has_lock', pg_try_advisory_xact_lock({LOCK})::text, true)"

_NUMBER = f"""
WITH unrelayed AS (
    SELECT id, row_number() OVER (ORDER BY id) AS place FROM (
        SELECT id FROM events WHERE position IS NULL AND current_setting('relay.has_lock')::boolean
        ORDER BY id LIMIT {_BATCH}
    ) AS oldest
), log AS (
    UPDATE event_log SET last_position = last_position + (SELECT count(*) FROM unrelayed)
    WHERE EXISTS (SELECT FROM unrelayed)
    RETURNING last_position - (SELECT count(*) FROM unrelayed) AS last_position_before
)
UPDATE events SET position = log.last_position_before + unrelayed.place
FROM unrelayed, log WHERE events.id = unrelayed.id
RETURNING events.id, position, bearer_id, type, resource_uuid, callback_url
"""


class Relay:
    """Any number of processes may run one: the lock picks which of them works."""

    def __init__(self, db: Database, notifications: Notifications, fan_out: FanOut) -> None:
        self._db = db
        self._notifications = notifications
        self._fan_out = fan_out
        self._wake = notifications.wake(Channel.OUTBOX)

    async def run(self) -> None:
        """Relay until cancelled."""
        while True:
            self._wake.clear()
            try:
                while (relayed := await self.run_once()) == _BATCH:
                    pass
                if relayed:
                    await asyncio.sleep(_GATHER_SECONDS)
            except Exception:
                log.exception("relay.failed")
                await asyncio.sleep(_BACK_OFF_SECONDS)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._wake.wait()

    async def run_once(self) -> int:
        """Relay up to a batch of events and answer how many; none while another relay is at work."""
        async with self._db.connection() as connection:
            events = await self._relay(connection)
        if events:
            self._notifications.notify(Channel.EVENTS, Channel.DELIVERIES)
        return len(events)

    async def _relay(self, connection: AsyncConnection[TupleRow]) -> list[RelayedEvent]:
        # One round trip begins, locks and numbers; leaving the connection's block commits, an error there rolls back.
        await connection.set_autocommit(False)
        async with connection.pipeline(), connection.cursor(row_factory=class_row(RelayedEvent)) as cursor:
            await connection.execute(_TRY_LOCK)
            await cursor.execute(_NUMBER)
            events = sorted(await cursor.fetchall(), key=lambda event: event.position)
        if events:
            await self._fan_out(connection, events)
        return events
