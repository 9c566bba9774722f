"""What kind of line a number is, as the provider's lookup says: asked once, kept for 90 days, never waited for.

A message to a number whose line type is not known, or was asked for too long ago, makes the number due here. What was
known stays until the next lookup has answered. A number for which the provider has no answer after five attempts, some
80 minutes, is let go, and the next message to it asks again.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog
from psycopg.rows import class_row

from server.background import Backoff, Pace
from server.db import Database
from server.providers.ports import LineTypeLookup, ProviderUnavailable

log = structlog.get_logger()

# Of one process: lookups are not urgent, and paid for one by one.
LOOKUPS_PER_SECOND = 5
_AT_ONCE = 5

# Longer than a call may take, the wait for its turn included.
LEASE = timedelta(seconds=60)

ATTEMPTS = 5
BACKOFF = Backoff(timedelta(minutes=5), timedelta(hours=1), longest_asked=timedelta(hours=1))

# Of the row `l` of line_types: nothing is to be asked, or it is asked already.
IS_KNOWN = "l.due_at IS NOT NULL OR l.looked_up_at > now() - interval '90 days'"

# Has %(receiver_number)s looked up; changes no row that is fresh or due already. The body of a CTE.
ENQUEUE = """
    INSERT INTO line_types (phone_number, due_at) VALUES (%(receiver_number)s, now())
    ON CONFLICT (phone_number) DO UPDATE SET due_at = now(), attempts = 0
    WHERE line_types.due_at IS NULL
      AND coalesce(line_types.looked_up_at, '-infinity') <= now() - interval '90 days'
"""

_CLAIM = """
WITH due AS (
    SELECT phone_number FROM line_types WHERE due_at <= now()
    ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE line_types SET due_at = now() + %(lease)s, attempts = attempts + 1
FROM due WHERE line_types.phone_number = due.phone_number
RETURNING line_types.phone_number, line_types.attempts
"""

# A claim that outlived its lease writes nothing.
_AS_CLAIMED = "phone_number = %(phone_number)s AND attempts = %(attempts)s AND due_at IS NOT NULL"

_RECORD = f"""
UPDATE line_types SET line_type = %(line_type)s, looked_up_at = now(), due_at = NULL, attempts = 0 WHERE {_AS_CLAIMED}
"""

_POSTPONE = f"UPDATE line_types SET due_at = now() + %(delay)s WHERE {_AS_CLAIMED}"

_LET_GO = f"UPDATE line_types SET due_at = NULL, attempts = 0 WHERE {_AS_CLAIMED}"


@dataclass(frozen=True)
class _Claim:
    """A leased number."""

    phone_number: str
    attempts: int


class LineTypeWorker:
    """Looks up the numbers that are due, at a pace."""

    def __init__(self, db: Database, lookup: LineTypeLookup, *, pace: Pace) -> None:
        self._db = db
        self._lookup = lookup
        self._pace = pace

    async def step(self) -> bool:
        """Look up a few numbers; False if none is due."""
        claims = await self._db.fetch_all(_CLAIM, {"limit": _AT_ONCE, "lease": LEASE}, class_row(_Claim))
        async with asyncio.TaskGroup() as tasks:
            for claim in claims:
                tasks.create_task(self._handle(claim))
        return bool(claims)

    async def _handle(self, claim: _Claim) -> None:
        """Look up one number and record what came of it. What fails here leaves the lease to run out."""
        await self._pace.turn()
        try:
            outcome = await self._look_up(claim)
        except Exception:
            log.exception("line_type.attempt_failed", attempt=claim.attempts)
            return
        log.info("line_type.attempted", attempt=claim.attempts, outcome=outcome)

    async def _look_up(self, claim: _Claim) -> str:
        if claim.attempts > ATTEMPTS:
            # None of them came to an end; another is paid for too.
            await self._record(_LET_GO, claim)
            return "let_go"
        try:
            line_type = await self._lookup.line_type(claim.phone_number)
        except ProviderUnavailable as failure:
            if claim.attempts >= ATTEMPTS:
                await self._record(_LET_GO, claim)
                return "let_go"
            await self._record(_POSTPONE, claim, delay=BACKOFF.delay(claim.attempts, failure.retry_after))
            return "unavailable"
        await self._record(_RECORD, claim, line_type=line_type)
        return "not_known" if line_type is None else line_type

    async def _record(self, statement: str, claim: _Claim, **more: object) -> None:
        claimed = {"phone_number": claim.phone_number, "attempts": claim.attempts}
        await self._db.execute(statement, {**claimed, **more})
