"""The control worker: has legs hung up on, muted and held as they are wanted to be. It claims, asks the provider, and
is done with it.

Each request says how a leg is to be, so it may be asked twice; what is wanted meanwhile is due anew. Another worker may
have that done while this one's request is still on its way, and arrives later: then it is asked once more.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from psycopg.rows import class_row
from sqlalchemy.ext.asyncio import AsyncSession

from server.background import Backoff, seen_through
from server.calls.events import change_call
from server.calls.legs import apply_report
from server.calls.queries import Call
from server.calls.tables import CallLegRow
from server.db import Database
from server.notifications import Notifications
from server.providers.ports import ProviderRejected, ProviderUnavailable
from server.providers.voice_ports import CallGone, VoiceCalls
from server.storage import Storage

log = structlog.get_logger()

# Longer than a request to the provider may take, and the question after it.
LEASE = timedelta(minutes=1)

_BACKOFF = Backoff(timedelta(seconds=1), timedelta(minutes=1), longest_asked=timedelta(minutes=5))

# What one process changes at a time: several claims, so that one the provider is slow to answer holds up no other.
WORKERS = 4
_AT_ONCE = 4

_CLAIM = """
WITH due AS (
    SELECT id FROM call_legs WHERE control_at <= now() ORDER BY control_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE call_legs SET control_at = now() + %(lease)s, control_attempts = control_attempts + 1
    FROM due WHERE call_legs.id = due.id RETURNING call_legs.*
)
SELECT l.id, l.call_id, l.call_sid, l.muted, l.hold, l.hangup_at IS NOT NULL AS is_unwanted, l.control_at,
       l.control_attempts, f.conference_sid
FROM claimed l LEFT JOIN conference_calls f ON f.call_id = l.call_id
"""

# What is wanted since the claim, or is another worker's, stays due.
_AS_CLAIMED = "id = %(id)s AND control_at = %(control_at)s"

_POSTPONE = f"UPDATE call_legs SET control_at = now() + %(delay)s WHERE {_AS_CLAIMED}"

_DONE = f"UPDATE call_legs SET control_at = NULL, control_attempts = 0 WHERE {_AS_CLAIMED}"

# Of one that is due, or being seen to, nothing is to be said.
_ONCE_MORE = "UPDATE call_legs SET control_at = now() WHERE id = %(id)s AND control_at IS NULL AND ended_at IS NULL"


@dataclass(frozen=True)
class _Claim:
    """A leased leg, and how it is to be."""

    id: int
    call_id: int
    call_sid: str
    muted: bool
    hold: bool
    # It is to be hung up on.
    is_unwanted: bool
    # When the lease ends.
    control_at: datetime
    control_attempts: int
    # None until the provider has told of the conference.
    conference_sid: str | None


class ControlWorker:
    """Hangs up, mutes and holds."""

    def __init__(self, db: Database, notifications: Notifications, voice: VoiceCalls, storage: Storage) -> None:
        self._db = db
        self._notifications = notifications
        self._voice = voice
        self._storage = storage

    async def step(self) -> bool:
        """See to a few legs that are due, also where that is cancelled meanwhile; whether there was any."""
        claims = await self._db.fetch_all(_CLAIM, {"limit": _AT_ONCE, "lease": LEASE}, class_row(_Claim))
        # Who is to be hung up on would be a minute later, were it left in the middle.
        await seen_through(self._handle_all(claims))
        return bool(claims)

    async def _handle_all(self, claims: Sequence[_Claim]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for claim in claims:
                tasks.create_task(self._handle(claim))

    async def _handle(self, claim: _Claim) -> None:
        """See to one leg. What fails here leaves the lease to run out."""
        try:
            outcome = await self._control(claim)
        except Exception:
            log.exception("leg.control_failed", leg_id=claim.id, attempt=claim.control_attempts)
            return
        log.info("leg.control_attempted", leg_id=claim.id, attempt=claim.control_attempts, outcome=outcome)

    async def _control(self, claim: _Claim) -> str:
        try:
            if claim.is_unwanted:
                await self._voice.hang_up(claim.call_sid)
            elif claim.conference_sid is None:
                # They are not in it yet.
                return await self._later(claim, "no_conference")
            else:
                await self._voice.update_participant(
                    claim.conference_sid, claim.call_sid, muted=claim.muted, hold=claim.hold
                )
        except CallGone:
            return await self._look(claim)
        except ProviderUnavailable as failure:
            return await self._later(claim, "unavailable", failure.retry_after)
        except ProviderRejected as rejection:
            log.warning("leg.control_rejected", leg_id=claim.id, code=rejection.error.code)
            return await self._later(claim, "rejected")
        if await self._db.execute(_DONE, {"id": claim.id, "control_at": claim.control_at}):
            return "done"
        await self._db.execute(_ONCE_MORE, {"id": claim.id})
        return "wanted_otherwise_meanwhile"

    async def _look(self, claim: _Claim) -> str:
        """Somebody who is not in the conference is on the way into it or has left: the provider knows which."""
        try:
            report = await self._voice.fetch(claim.call_sid)
        except ProviderUnavailable as failure:
            return await self._later(claim, "unavailable", failure.retry_after)
        if report is not None:

            async def change(tx: AsyncSession, _call: Call) -> None:
                apply_report(await tx.get_one(CallLegRow, claim.id), report, now=datetime.now(UTC))

            await change_call(self._db, self._notifications, self._storage, call_id=claim.call_id, change=change)
        return await self._later(claim, "gone")

    async def _later(self, claim: _Claim, outcome: str, at_least: timedelta | None = None) -> str:
        """Try again, for as long as the leg lasts: when it is over, nothing is due any more."""
        delay = _BACKOFF.delay(claim.control_attempts, at_least)
        await self._db.execute(_POSTPONE, {"id": claim.id, "control_at": claim.control_at, "delay": delay})
        return outcome
