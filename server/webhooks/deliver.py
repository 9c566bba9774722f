"""The delivery worker: claim, call, decide, record. No transaction is open while an endpoint is called.

A claim is a lease: a dead worker's runs out, and the delivery is attempted again with the same webhook-id. What ends is
recorded in groups: while one group is written, the next gathers, so a busy worker needs a few statements for many
attempts and an idle one waits for nothing.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson
import structlog
from psycopg.rows import class_row

from server.accounts.callbacks import CallbackCredentials, callback_credentials
from server.config import Network
from server.db import DATABASE_DOWN, Database, Parameters
from server.encryption import Cipher
from server.notifications import Channel, Notifications
from server.webhooks import convert, endpoints, post, queries
from server.webhooks.delivery import DeliveryStatus
from server.webhooks.post import Answer
from server.webhooks.retry import Delivered, GiveUp, Outcome, RetryIn, decide

log = structlog.get_logger()

# Longer than an attempt with its recording may take.
LEASE = timedelta(seconds=60)

POLL_SECONDS = 1.0
_BACK_OFF_SECONDS = 1.0
# A busy worker lets so much time pass between claims, and between groups that it records: a statement for many costs
# little more than one for one. An idle one waits for nothing.
_GATHER_SECONDS = 0.005
_RECORD_TRIES = 5

# No endpoint gets more than this part of what is free, so that many slow ones leave room for others.
_SHARE = 8


@dataclass(frozen=True, slots=True)
class Claim:
    """A leased delivery: what its attempt needs."""

    id: int
    uuid: UUID
    endpoint_id: int
    bearer_id: int
    event_type: str
    resource_uuid: UUID
    attempts: int
    attempts_in_run: int
    url: str
    is_disabled: bool
    is_failing: bool
    event_id: UUID
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Ended:
    """An attempt to be recorded."""

    claim: Claim
    answer: Answer
    outcome: Outcome


class Deliverer:
    """Attempts what is due: at one endpoint up to `endpoint_slots` at a time, one while it fails, `slots` in all; and
    no other while the payloads of those under way have `max_bytes`."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        cipher: Cipher,
        *,
        allowed_networks: Sequence[Network],
        endpoint_slots: int = 32,
        slots: int = 512,
        max_bytes: int = 64 << 20,
        timeout: timedelta = post.TIMEOUT,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._cipher = cipher
        self._endpoint_slots = endpoint_slots
        self._slots = slots
        self._max_bytes = max_bytes
        self._session = post.open_session(allowed_networks, timeout=timeout)
        self._wake = notifications.wake(Channel.DELIVERIES)
        # Attempts under way at each endpoint, and the bytes of payloads that are held for it until they are recorded.
        self._busy: Counter[int] = Counter()
        self._held: Counter[int] = Counter()
        self._under_way = 0
        self._after = 0
        # Disabled endpoints whose backlog is being dead-lettered.
        self._emptying: set[int] = set()
        # The group that gathers, and its one outcome for all who are in it.
        self._ended: list[_Ended] = []
        self._gathering: asyncio.Task[None] | None = None
        self._recording = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connections to endpoints."""
        await self._session.close()

    async def run_once(self) -> int:
        """Claim what is due, see it through, and answer how many deliveries that were."""
        async with asyncio.TaskGroup() as tasks:
            return await self._start(tasks)

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until told to stop, then see what is under way through."""
        async with asyncio.TaskGroup() as tasks:
            while not stop.is_set():
                self._wake.clear()
                try:
                    await self._start(tasks)
                except Exception:
                    log.exception("deliver.claim_failed")
                    await asyncio.sleep(_BACK_OFF_SECONDS)
                    continue
                if self._under_way:
                    await asyncio.sleep(_GATHER_SECONDS)
                await self._pause(stop)

    async def _pause(self, stop: asyncio.Event) -> None:
        """Until there may be something to do: a wake-up, a slot that something may wait for, the next poll, the end."""
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait(waits, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _start(self, tasks: asyncio.TaskGroup) -> int:
        """Claim what there is room for, begin an attempt of each delivery, and answer how many were claimed."""
        claims = await self._claim()
        disabled = {claim.endpoint_id for claim in claims if claim.is_disabled}
        if disabled - self._emptying:
            # Not here: the backlog may be long, and the others are not to wait for it.
            tasks.create_task(self._dead_letter(disabled - self._emptying))
        live = [claim for claim in claims if not claim.is_disabled]
        bearer_ids = sorted({claim.bearer_id for claim in live})
        credentials = await callback_credentials(self._db, self._cipher, bearer_ids) if live else {}
        for claim in live:
            # A bearer that was deleted since the claim has taken its deliveries with it.
            if claim.bearer_id in credentials:
                self._begin(tasks, claim, credentials[claim.bearer_id])
        return len(claims)

    async def _claim(self) -> list[Claim]:
        """Go on with the endpoints after those of the last claim, so that none is served first for ever."""
        claims: list[Claim] = []
        if not self._has_room(claims):
            return claims
        for after in sorted({self._after, 0}, reverse=True):
            if self._has_room(claims):
                claims += await self._claim_after(after, claimed=claims)
        self._after = claims[-1].endpoint_id if claims and not self._has_room(claims) else 0
        return claims

    def _has_room(self, claimed: Sequence[Claim]) -> bool:
        has_slots = self._under_way + len(claimed) < self._slots
        return has_slots and self._held.total() + _bytes(claimed).total() < self._max_bytes

    async def _claim_after(self, endpoint_id: int, *, claimed: Sequence[Claim]) -> list[Claim]:
        free, free_bytes = self._slots - self._under_way, self._max_bytes - self._held.total()
        claimed_bytes = _bytes(claimed)
        parameters = {
            "after": endpoint_id,
            "busy": _by_endpoint(self._busy + Counter(claim.endpoint_id for claim in claimed)),
            "slots": max(1, min(self._endpoint_slots, free // _SHARE)),
            "limit": free - len(claimed),
            "busy_bytes": _by_endpoint(self._held + claimed_bytes),
            "endpoint_bytes": max(1, free_bytes // _SHARE),
            "bytes": free_bytes - claimed_bytes.total(),
            "lease": LEASE,
        }
        return await self._db.fetch_all(queries.CLAIM, parameters, class_row(Claim))

    async def _dead_letter(self, endpoint_ids: set[int]) -> None:
        """Dead-letter what waits for disabled endpoints. What fails here leaves the leases to run out."""
        self._emptying |= endpoint_ids
        try:
            await endpoints.dead_letter_pending(self._db, sorted(endpoint_ids))
        except Exception:
            log.exception("deliver.dead_letter_failed", endpoint_ids=sorted(endpoint_ids))
        finally:
            self._emptying -= endpoint_ids

    def _begin(self, tasks: asyncio.TaskGroup, claim: Claim, credentials: CallbackCredentials) -> None:
        self._under_way += 1
        self._busy[claim.endpoint_id] += 1
        self._held[claim.endpoint_id] += len(claim.payload)
        tasks.create_task(self._attempt(claim, credentials))

    def _free_slot(self, endpoint_id: int) -> None:
        _take(self._busy, endpoint_id, 1)
        self._wake.set()

    async def _attempt(self, claim: Claim, credentials: CallbackCredentials) -> None:
        """Attempt one delivery and record what came of it. What fails here leaves the lease to run out."""
        try:
            answer = await self._call(claim, credentials)
            roll = random.random()  # noqa: S311 spreads retries, guards nothing
            outcome = decide(
                attempt=claim.attempts_in_run, status=answer.status, retry_after=answer.retry_after, roll=roll
            )
            await asyncio.shield(self._record(_Ended(claim, answer, outcome)))
            _log_attempt(claim, answer, outcome)
            if isinstance(outcome, GiveUp) and outcome.endpoint_gone:
                await asyncio.shield(endpoints.dead_letter_pending(self._db, [claim.endpoint_id]))
        except Exception:
            log.exception("delivery.attempt_failed", webhook_delivery_id=str(claim.uuid))
        finally:
            self._under_way -= 1
            _take(self._held, claim.endpoint_id, len(claim.payload))
            self._wake.set()

    async def _call(self, claim: Claim, credentials: CallbackCredentials) -> Answer:
        try:
            return await post.post(
                self._session,
                url=claim.url,
                event_id=str(claim.event_id),
                body=convert.webhook_body(claim.payload),
                credentials=credentials,
            )
        finally:
            self._free_slot(claim.endpoint_id)

    def _record(self, ended: _Ended) -> asyncio.Task[None]:
        """Have it written with what else has ended: a task that has its group's outcome."""
        self._ended.append(ended)
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._write_gathered())
        return self._gathering

    async def _write_gathered(self) -> None:
        async with self._recording:
            if self._under_way > len(self._ended):
                await asyncio.sleep(_GATHER_SECONDS)
            group, self._ended, self._gathering = self._ended, [], None
            await self._write(group)

    async def _write(self, group: Sequence[_Ended]) -> None:
        """Record a group, in one transaction and one round trip."""
        parameters = _parameters(group)
        for _ in range(_RECORD_TRIES):
            try:
                return await self._write_once(parameters)
            except DATABASE_DOWN as error:
                log.warning("deliver.record_failed", attempts=len(group), error=str(error))
                await asyncio.sleep(_BACK_OFF_SECONDS)
        await self._write_once(parameters)

    async def _write_once(self, parameters: Parameters) -> None:
        has_news = parameters["working"] or parameters["failing"] or parameters["gone"]
        async with self._db.connection() as connection, connection.pipeline(), connection.transaction():
            await connection.execute(queries.LOCK_LANES_OF_ATTEMPTS.encode(), parameters)
            await connection.execute(queries.RECORD.encode(), parameters)
            await connection.execute(queries.PROMOTE.encode(), parameters)
            if has_news:
                await connection.execute(queries.MARK_ENDPOINTS.encode(), parameters)


def _bytes(claims: Sequence[Claim]) -> Counter[int]:
    """The payloads' bytes for each endpoint."""
    held: Counter[int] = Counter()
    for claim in claims:
        held[claim.endpoint_id] += len(claim.payload)
    return held


def _take(counted: Counter[int], endpoint_id: int, count: int) -> None:
    counted[endpoint_id] -= count
    if not counted[endpoint_id]:
        del counted[endpoint_id]


def _by_endpoint(counted: Counter[int]) -> str:
    return orjson.dumps({str(endpoint_id): count for endpoint_id, count in counted.items()}).decode()


def _parameters(group: Sequence[_Ended]) -> Parameters:
    working = {e.claim.endpoint_id for e in group if isinstance(e.outcome, Delivered)}
    failing = {e.claim.endpoint_id for e in group if not e.claim.is_failing} - working
    return {
        "ids": [e.claim.id for e in group],
        "numbers": [e.claim.attempts for e in group],
        "statuses": [_status(e.outcome) for e in group],
        "delays": [e.outcome.delay if isinstance(e.outcome, RetryIn) else None for e in group],
        "attempted_ats": [e.answer.attempted_at for e in group],
        "durations": [e.answer.duration_ms for e in group],
        "response_statuses": [e.answer.status for e in group],
        "response_bodies": [e.answer.body for e in group],
        "errors": [e.answer.error for e in group],
        # Only what is news to the endpoint.
        "working": sorted({e.claim.endpoint_id for e in group if e.claim.is_failing} & working),
        "failing": sorted(failing),
        "gone": sorted({e.claim.endpoint_id for e in group if e.outcome == GiveUp(endpoint_gone=True)}),
    }


def _status(outcome: Outcome) -> str:
    match outcome:
        case Delivered():
            return DeliveryStatus.DELIVERED
        case RetryIn():
            return DeliveryStatus.PENDING
        case GiveUp():
            return DeliveryStatus.DEAD_LETTERED


def _log_attempt(claim: Claim, answer: Answer, outcome: Outcome) -> None:
    log.info(
        "delivery.attempted",
        webhook_delivery_id=str(claim.uuid),
        event_id=str(claim.event_id),
        event_type=claim.event_type,
        resource_uuid=str(claim.resource_uuid),
        bearer_id=claim.bearer_id,
        endpoint_id=claim.endpoint_id,
        attempt=claim.attempts,
        response_status=answer.status,
        error=answer.error,
        outcome=_status(outcome),
        retry_in_s=round(outcome.delay.total_seconds(), 1) if isinstance(outcome, RetryIn) else None,
        duration_ms=answer.duration_ms,
    )
