"""The dial worker: claim, call, record. No transaction is open while the provider is called.

A claim is a lease. Whatever ends it without a recorded outcome leaves the leg in doubt: the next claim looks for the
call at the provider before it dials again (docs/decisions/0003-never-twice-never-lost.md). Calls between the same two
numbers cannot be told apart there, so one leg at a time is claimed of those between the same two: a call that is no
other leg's is then this one's.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from psycopg.rows import class_row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.background import Backoff, seen_through
from server.calls import legs
from server.calls.events import change_call
from server.calls.opt_outs import RecipientOptedOutOfCalls, is_opted_out
from server.calls.queries import Call
from server.calls.reasons import describe
from server.calls.tables import CallLegRow
from server.db import Database, violated_constraint
from server.notifications import Notifications
from server.providers.ports import ProviderOutcomeUnknown, ProviderRejected, ProviderUnavailable
from server.providers.voice_ports import LegReport, OutboundCall, VoiceCalls
from server.storage import Storage

log = structlog.get_logger()

# Longer than any call to a provider may take, its connection set-up and our recording included.
LEASE = timedelta(seconds=60)

# A provider is asked to dial only while so much of the lease is left, more than that takes: a process that stood still,
# or waited long for the answer to its claim, must not dial beside the worker that has claimed the leg since.
_CALL_AT_MOST = timedelta(seconds=30)

# A call is no message: nobody wants it later than that.
GIVE_UP_AFTER = timedelta(minutes=5)

# An outcome is looked for no sooner than any call to the provider that is still under way could end.
RESOLVE_AFTER = timedelta(seconds=30)

_BACKOFF = Backoff(timedelta(seconds=1), timedelta(seconds=30), longest_asked=GIVE_UP_AFTER)

_RING_FOR = timedelta(seconds=30)

# What one process dials at a time: several claims, so that one the provider is slow to answer holds up no other.
WORKERS = 4
_AT_ONCE = 8

_GAVE_UP = "PROVIDER_UNAVAILABLE"
_NOT_TAKEN = "The voice provider did not take the call within 5 minutes."
_NEVER_HEARD_OF = "The voice provider never told whether it took the call."
_OPTED_OUT = "The participant asked not to be called from this messaging service's numbers before they were called."

# Two workers must not both find that nobody has claimed a leg between two numbers. The lock is had before the claim
# begins to look.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('dial', 0))"

# Leases legs that are due, of those between the same two numbers the first, and none while another is in doubt.
# `was_in_doubt` tells that an earlier claim has no recorded outcome; `due_since` when the leg came due at first.
_CLAIM = """
WITH waiting AS (
    SELECT l.id, l.dial_at, row_number() OVER (
               PARTITION BY c.provider_number, l.address ORDER BY l.in_doubt DESC, l.dial_at, l.id) AS place
    FROM call_legs l JOIN calls c ON c.id = l.call_id
    WHERE l.dial_at <= now() AND (l.in_doubt OR NOT EXISTS (
        SELECT FROM call_legs o JOIN calls oc ON oc.id = o.call_id
        WHERE o.in_doubt AND o.dial_at IS NOT NULL AND o.address = l.address
          AND oc.provider_number = c.provider_number))
),
due AS (
    SELECT l.id FROM call_legs l JOIN waiting w ON w.id = l.id
    WHERE w.place = 1 AND l.dial_at <= now()
    ORDER BY l.dial_at LIMIT %(limit)s FOR UPDATE OF l SKIP LOCKED
),
claimed AS (
    UPDATE call_legs SET dial_at = now() + %(lease)s, dial_attempts = call_legs.dial_attempts + 1, in_doubt = true,
        first_claimed_at = coalesce(call_legs.first_claimed_at, now())
    FROM due WHERE call_legs.id = due.id
    RETURNING call_legs.*, old.in_doubt AS was_in_doubt,
        CASE old.dial_attempts WHEN 0 THEN old.dial_at ELSE old.first_claimed_at END AS due_since
)
SELECT l.id, l.uuid, l.call_id, l.kind, l.address, l.dial_attempts, l.first_claimed_at,
       l.hangup_at IS NOT NULL AS is_unwanted, l.was_in_doubt, l.due_since,
       c.uuid AS call_uuid, c.provider_number, f.uuid AS conference_uuid
FROM claimed l JOIN calls c ON c.id = l.call_id JOIN conference_calls f ON f.call_id = l.call_id
"""

# A claim that outlived its lease, or whose leg is settled, changes nothing.
_AS_CLAIMED = "id = %(id)s AND dial_attempts = %(attempts)s AND dial_at IS NOT NULL"

# Begins the lease of a claim anew.
_RENEW = f"UPDATE call_legs SET dial_at = now() + %(lease)s WHERE {_AS_CLAIMED} AND hangup_at IS NULL"

# Gives a claim back for later. Without `in_doubt` it is certain that the provider has nothing of it.
_POSTPONE = f"UPDATE call_legs SET dial_at = now() + %(delay)s, in_doubt = %(in_doubt)s WHERE {_AS_CLAIMED}"


@dataclass(frozen=True)
class _Claim:
    """A leased leg; in doubt when an earlier claim of it has no recorded outcome."""

    id: int
    uuid: UUID
    call_id: int
    kind: str
    address: str
    dial_attempts: int
    first_claimed_at: datetime
    # Meanwhile: its call is over.
    is_unwanted: bool
    was_in_doubt: bool
    due_since: datetime
    call_uuid: UUID
    conference_uuid: UUID
    provider_number: str

    @property
    def is_too_late(self) -> bool:
        """Whether nobody wants it to be dialled any more."""
        return self.is_unwanted or datetime.now(UTC) - self.due_since > GIVE_UP_AFTER


class DialWorker:
    """Dials the legs of conferences, which last `time_limit` at most. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        voice: VoiceCalls,
        storage: Storage,
        *,
        time_limit: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._voice = voice
        self._storage = storage
        self._time_limit = time_limit
        self._clock = clock

    async def step(self) -> bool:
        """Claim what is due and see it through, also where that is cancelled meanwhile; whether there was any."""
        began = self._clock()
        async with self._db.connection() as connection, connection.transaction():
            await connection.execute(_ONE_AT_A_TIME)
            async with connection.cursor(row_factory=class_row(_Claim)) as cursor:
                await cursor.execute(_CLAIM.encode(), {"limit": _AT_ONCE, "lease": LEASE})
                claims = await cursor.fetchall()
        # A leg that is left in the middle of its dial would be looked for a minute later.
        await seen_through(self._handle_all(claims, began))
        return bool(claims)

    async def _handle_all(self, claims: Sequence[_Claim], began: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            for claim in claims:
                tasks.create_task(self._handle(claim, began))

    async def _handle(self, claim: _Claim, began: float) -> None:
        """Dial one leg and record what came of it. What fails here leaves the lease to run out."""
        try:
            outcome = await self._dial(claim, began)
        except Exception:
            log.exception("leg.dial_failed", leg_uuid=str(claim.uuid), attempt=claim.dial_attempts)
            return
        log.info(
            "leg.dial_attempted",
            leg_uuid=str(claim.uuid),
            call_uuid=str(claim.call_uuid),
            attempt=claim.dial_attempts,
            was_in_doubt=claim.was_in_doubt,
            outcome=outcome,
            duration_ms=round((self._clock() - began) * 1000, 1),
        )

    async def _dial(self, claim: _Claim, leased_at: float) -> str:
        call = self._outbound(claim)
        if claim.was_in_doubt:
            try:
                if await self._adopt(claim, await self._voice.find_copies(call, since=claim.first_claimed_at)):
                    return "adopted"
            except ProviderUnavailable as failure:
                return await self._still_in_doubt(claim, failure.retry_after)
            # Looking took its time, in which a callback may have named the call, or its conference have ended.
            leased_at = self._clock()
            if not claim.is_too_late and not await self._renew(claim):
                return "settled_meanwhile"
        if claim.is_too_late:
            return await self._let_be(claim, error_code=_GAVE_UP, error_description=_NOT_TAKEN)
        # They may have said so since the conference was created, in which the moderator alone is ours.
        if claim.kind == "contact" and await self._has_opted_out(claim):
            reason = RecipientOptedOutOfCalls.reason
            await self._let_be(claim, error_code=reason, error_description=_OPTED_OUT)
            return "opted_out"
        if self._clock() - leased_at > (LEASE - _CALL_AT_MOST).total_seconds():
            return "too_late_in_lease"
        try:
            report = await self._voice.dial(call)
        except ProviderRejected as failure:
            error = failure.error
            await self._let_be(claim, error_code=error.code, error_description=describe(error), is_certain=True)
            return f"rejected_{error.code}"
        except ProviderUnavailable as failure:
            await self._postpone(claim, failure.retry_after, in_doubt=False)
            return "unavailable"
        except ProviderOutcomeUnknown:
            await self._postpone(claim, RESOLVE_AFTER, in_doubt=True)
            return "unknown"
        return await self._record_answer(claim, report)

    async def _has_opted_out(self, claim: _Claim) -> bool:
        async with self._db.begin() as tx:
            return await is_opted_out(tx, provider_number=claim.provider_number, phone_number=claim.address)

    def _outbound(self, claim: _Claim) -> OutboundCall:
        return OutboundCall(
            call_uuid=claim.call_uuid,
            conference_uuid=claim.conference_uuid,
            leg_uuid=claim.uuid,
            from_number=claim.provider_number,
            to_number=claim.address,
            ring_for=_RING_FOR,
            time_limit=self._time_limit,
        )

    async def _adopt(self, claim: _Claim, copies: list[LegReport]) -> bool:
        """Record the call that an earlier claim made; False where there is none that is not another leg's."""
        for copy in copies:
            if await self._record(claim, copy):
                return True
        return False

    async def _record_answer(self, claim: _Claim, report: LegReport) -> str:
        if await self._record(claim, report):
            return "dialled"
        # Another leg has taken this call for its own, or this one has another: one of two calls is nobody's.
        log.error("leg.call_of_nobody", leg_uuid=str(claim.uuid), call_sid=report.call_sid)
        return "call_of_nobody"

    async def _record(self, claim: _Claim, report: LegReport) -> bool:
        """The leg is this call; False where the call is another leg's, or the leg has another call."""
        is_its_call = False

        async def change(tx: AsyncSession, _call: Call) -> None:
            nonlocal is_its_call
            now = datetime.now(UTC)
            leg = await tx.get_one(CallLegRow, claim.id)
            is_its_call = leg.call_sid in (None, report.call_sid)
            if is_its_call:
                legs.record_sid(leg, report.call_sid, now=now)
                legs.apply_report(leg, report, now=now)

        try:
            await change_call(self._db, self._notifications, self._storage, call_id=claim.call_id, change=change)
        except IntegrityError as error:
            if not legs.is_taken_sid(violated_constraint(error)):
                raise
            return False
        return is_its_call

    async def _still_in_doubt(self, claim: _Claim, retry_after: timedelta | None) -> str:
        """Not knowing whether there is a call, nobody dials; and not for ever."""
        if datetime.now(UTC) - claim.due_since > GIVE_UP_AFTER:
            return await self._let_be(claim, error_code=legs.NOT_COMPLETED, error_description=_NEVER_HEARD_OF)
        await self._postpone(claim, retry_after, in_doubt=True)
        return "still_in_doubt"

    async def _let_be(self, claim: _Claim, *, error_code: str, error_description: str, is_certain: bool = False) -> str:
        """Nothing more comes of the leg: it was refused, or nobody wants it any more. Only where that is certain it is
        no call at the provider for good; else a call that shows up all the same is hung up on."""
        outcome = "given_up"

        async def change(tx: AsyncSession, _call: Call) -> None:
            nonlocal outcome
            now = datetime.now(UTC)
            leg = await tx.get_one(CallLegRow, claim.id)
            if leg.call_sid is not None or leg.dial_attempts != claim.dial_attempts or leg.dial_at is None:
                outcome = "settled_meanwhile"
            elif leg.hangup_at is not None and not is_certain:
                legs.withdraw(leg, now=now)
                outcome = "withdrawn"
            else:
                legs.give_up(leg, error_code=error_code, error_description=error_description, now=now)

        await change_call(self._db, self._notifications, self._storage, call_id=claim.call_id, change=change)
        return outcome

    async def _renew(self, claim: _Claim) -> bool:
        """Begin the lease anew; False if the leg is settled, another worker's, or not wanted any more."""
        parameters = {"id": claim.id, "attempts": claim.dial_attempts, "lease": LEASE}
        return await self._db.execute(_RENEW, parameters) == 1

    async def _postpone(self, claim: _Claim, at_least: timedelta | None, *, in_doubt: bool) -> None:
        delay = _BACKOFF.delay(claim.dial_attempts, at_least)
        await self._db.execute(
            _POSTPONE, {"id": claim.id, "attempts": claim.dial_attempts, "delay": delay, "in_doubt": in_doubt}
        )
