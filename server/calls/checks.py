"""The check worker: asks the provider about legs that it has told nothing new of, and fails calls that nobody knows
anything of any more. So what no callback told is known all the same."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from psycopg.rows import class_row, scalar_row
from sqlalchemy.ext.asyncio import AsyncSession

from server.background import Backoff
from server.calls import legs, queries
from server.calls.events import change_call
from server.calls.legs import CHECK_AFTER, NOT_COMPLETED
from server.calls.queries import Call
from server.calls.status import leg_of
from server.calls.tables import CallLegRow
from server.db import Database
from server.notifications import Notifications
from server.providers.ports import ProviderUnavailable
from server.providers.voice_ports import FINAL_STATUSES, LegReport, VoiceCalls
from server.storage import Storage

log = structlog.get_logger()

# Longer than a question to the provider may take, and what is recorded of its answer.
LEASE = timedelta(minutes=1)

_BACKOFF = Backoff(CHECK_AFTER, timedelta(minutes=15), longest_asked=timedelta(minutes=30))

# What is made is not found at once. One that so many questions did not find is no call.
_UNKNOWN_AFTER = 3

# How soon a call is looked at again that should be over, and of which there is more to hear.
_EXPIRE_AGAIN_AFTER = timedelta(minutes=15)

_AT_ONCE = 8

_NOT_KNOWN = "What became of the call is not known: the voice provider has no such call."

_CLAIM_LEGS = """
WITH due AS (
    SELECT id FROM call_legs WHERE check_at <= now() ORDER BY check_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE call_legs SET check_at = now() + %(lease)s, check_attempts = check_attempts + 1
FROM due WHERE call_legs.id = due.id
RETURNING call_legs.id, call_id, call_sid, check_at, check_attempts
"""

# A leg that was heard of since the claim, or is another worker's, stays as it is.
_POSTPONE = "UPDATE call_legs SET check_at = now() + %(delay)s WHERE id = %(id)s AND check_at = %(check_at)s"

_CLAIM_CALLS = """
WITH due AS (
    SELECT id FROM calls WHERE expires_at <= now() ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE calls SET expires_at = now() + %(again)s FROM due WHERE calls.id = due.id RETURNING calls.id
"""


@dataclass(frozen=True)
class _Claim:
    """A leased leg."""

    id: int
    call_id: int
    call_sid: str
    # When the lease ends.
    check_at: datetime
    check_attempts: int


class CheckWorker:
    """Asks about legs, and ends calls whose time has come."""

    def __init__(self, db: Database, notifications: Notifications, voice: VoiceCalls, storage: Storage) -> None:
        self._db = db
        self._notifications = notifications
        self._voice = voice
        self._storage = storage

    async def step(self) -> bool:
        """See to a few legs and calls that are due; whether there was any."""
        claims = await self._db.fetch_all(_CLAIM_LEGS, {"limit": _AT_ONCE, "lease": LEASE}, class_row(_Claim))
        expired: list[int] = await self._db.fetch_all(
            _CLAIM_CALLS, {"limit": _AT_ONCE, "again": _EXPIRE_AGAIN_AFTER}, scalar_row
        )
        async with asyncio.TaskGroup() as tasks:
            for claim in claims:
                tasks.create_task(self._handle(claim))
            for call_id in expired:
                tasks.create_task(self._expire(call_id))
        return bool(claims or expired)

    async def _handle(self, claim: _Claim) -> None:
        """Ask about one leg. What fails here leaves the lease to run out."""
        try:
            outcome = await self._check(claim)
        except Exception:
            log.exception("leg.check_failed", leg_id=claim.id, attempt=claim.check_attempts)
            return
        log.info("leg.checked", leg_id=claim.id, attempt=claim.check_attempts, outcome=outcome)

    async def _check(self, claim: _Claim) -> str:
        try:
            report = await self._voice.fetch(claim.call_sid)
        except ProviderUnavailable as failure:
            await self._postpone(claim, failure.retry_after)
            return "unavailable"
        if report is None and claim.check_attempts < _UNKNOWN_AFTER:
            await self._postpone(claim, None)
            return "not_found"
        await self._record(claim, report)
        return report.provider_status if report is not None else "unknown"

    async def _record(self, claim: _Claim, report: LegReport | None) -> None:
        """What the provider said of the leg; that it has none, where that is so."""

        async def change(tx: AsyncSession, _call: Call) -> None:
            now = datetime.now(UTC)
            leg = await tx.get_one(CallLegRow, claim.id)
            if leg.check_at != claim.check_at:
                # Something else was heard of it meanwhile.
                return
            if report is None:
                legs.give_up(leg, error_code=NOT_COMPLETED, error_description=_NOT_KNOWN, now=now)
                return
            is_news = (report.provider_status, report.answered_by) != (leg.provider_status, leg.answered_by)
            attempts = leg.check_attempts
            legs.apply_report(leg, report, now=now)
            if report.provider_status not in FINAL_STATUSES and not is_news:
                leg.check_at = now + _BACKOFF.delay(attempts)
                leg.check_attempts = attempts

        await change_call(self._db, self._notifications, self._storage, call_id=claim.call_id, change=change)

    async def _postpone(self, claim: _Claim, at_least: timedelta | None) -> None:
        delay = _BACKOFF.delay(claim.check_attempts, at_least)
        await self._db.execute(_POSTPONE, {"id": claim.id, "check_at": claim.check_at, "delay": delay})

    async def _expire(self, call_id: int) -> None:
        """Fail a call that nothing more will be heard of. What fails here is tried again."""
        try:
            outcome = await self._fail(call_id)
        except ProviderUnavailable:
            outcome = "unavailable"
        except Exception:
            log.exception("call.expiry_failed", call_id=call_id)
            return
        log.info("call.expired", call_id=call_id, outcome=outcome)

    async def _fail(self, call_id: int) -> str:
        async with self._db.begin() as tx:
            lasting = [leg for leg in await queries.legs_of(tx, call_id) if not leg_of(leg).is_over]
        reports = await self._ask(lasting)
        if any(report.provider_status not in FINAL_STATUSES for report in reports.values()):
            return "lasts"

        async def change(_tx: AsyncSession, call: Call) -> None:
            now = datetime.now(UTC)
            for leg in call.legs:
                if leg.id in reports:
                    legs.apply_report(leg, reports[leg.id], now=now)
                if not leg_of(leg).is_over:
                    legs.give_up(leg, error_code=NOT_COMPLETED, error_description=_NOT_KNOWN, now=now)

        await change_call(self._db, self._notifications, self._storage, call_id=call_id, change=change)
        return "settled"

    async def _ask(self, lasting: Sequence[CallLegRow]) -> dict[int, LegReport]:
        """What the provider says of the legs that it has, by their ids. Raises ProviderUnavailable."""
        asked = [(leg.id, await self._voice.fetch(leg.call_sid)) for leg in lasting if leg.call_sid is not None]
        return {leg_id: report for leg_id, report in asked if report is not None}
