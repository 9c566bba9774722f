"""The send worker: claim, call, record. No transaction is open while the provider is called.

A claim is a lease. Whatever ends it without a recorded outcome leaves the message in doubt: the next claim looks for
the provider's copy before it sends again (docs/decisions/0003-never-twice-never-lost.md).
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import structlog
from psycopg.rows import dict_row

from server.db import Database
from server.messages import queries
from server.messages.callbacks import apply_report, note_opt_out
from server.messages.media.limits import MediaLimits, MediaProblem
from server.messages.message import Message, given_up, not_to_be_sent, refused, unsendable
from server.messages.messages import LANES, save
from server.messages.retry import BACKOFF, GIVE_UP_AFTER, RESOLVE_AFTER
from server.notifications import Notifications
from server.providers.ports import (
    MessageReport,
    MessageSender,
    ProviderOutcomeUnknown,
    ProviderRejected,
    ProviderUnavailable,
)

log = structlog.get_logger()

# Longer than any provider call may take, its connection set-up and our recording included.
LEASE = timedelta(seconds=60)

# A provider is asked to send only while so much of the lease is left, more than a call takes: a process that stood
# still, or waited long for the answer to its claim, must not send beside the worker that has claimed the message since.
_CALL_AT_MOST = timedelta(seconds=30)

POLL_SECONDS = 1.0
_BACK_OFF_SECONDS = 1.0


@dataclass(frozen=True)
class Claim:
    """A leased message; in doubt when an earlier claim of it has no recorded outcome."""

    message: Message
    was_in_doubt: bool
    # Why it must not be sent any more, as an error_code: what came up since it was accepted.
    not_to_be_sent: str | None
    # The monotonic clock before the claim was asked for: the lease ends no sooner than LEASE after it.
    began: float


class SendWorker:
    """Sends the messages of one lane, up to `concurrency` at a time.

    `media_limits` are those of the providers that tell of media they do not take only after they took the message.
    """

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        senders: Mapping[str, MessageSender],
        *,
        priority: str,
        media_limits: Mapping[str, MediaLimits] | None = None,
        concurrency: int = 32,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._senders = senders
        self._media_limits = media_limits or {}
        self._priority = priority
        self._concurrency = concurrency
        self._clock = clock
        self._wake = notifications.wake(LANES[priority])
        self._in_flight: set[asyncio.Task[None]] = set()

    async def run_once(self) -> int:
        """Claim what is due, see it through, and answer how many messages that were."""
        claims = await self._claim(self._concurrency)
        async with asyncio.TaskGroup() as tasks:
            for claim in claims:
                tasks.create_task(self._handle(claim))
        return len(claims)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop, then see what is under way through."""
        async with asyncio.TaskGroup() as tasks:
            while not stop.is_set():
                self._wake.clear()
                try:
                    free = self._concurrency - len(self._in_flight)
                    claims = await self._claim(free) if free else []
                except Exception:
                    log.exception("send.claim_failed", priority=self._priority)
                    await asyncio.sleep(_BACK_OFF_SECONDS)
                    continue
                for claim in claims:
                    task = tasks.create_task(self._handle(claim))
                    self._in_flight.add(task)
                    task.add_done_callback(self._in_flight.discard)
                if not claims or len(self._in_flight) >= self._concurrency:
                    await self._pause(stop)

    async def _pause(self, stop: asyncio.Event) -> None:
        """Until there may be something to do: a wake-up, a free slot, the next poll, or the end."""
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait({*waits, *self._in_flight}, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _claim(self, limit: int) -> list[Claim]:
        parameters = {"priority": self._priority, "limit": limit, "lease": LEASE}
        began = self._clock()
        rows = await self._db.fetch_all(queries.CLAIM, parameters, dict_row)
        return [
            Claim(
                was_in_doubt=row.pop("was_in_doubt"),
                not_to_be_sent=row.pop("not_to_be_sent"),
                message=Message(**row),
                began=began,
            )
            for row in rows
        ]

    async def _handle(self, claim: Claim) -> None:
        """Send one message and record what came of it. What fails here leaves the lease to run out."""
        began = datetime.now(UTC)
        try:
            outcome = await self._send(claim)
        except Exception:
            log.exception("message.attempt_failed", message_uuid=str(claim.message.message_uuid))
            return
        log.info(
            "message.attempted",
            message_uuid=str(claim.message.message_uuid),
            bearer_id=claim.message.bearer_id,
            provider=claim.message.provider,
            priority=self._priority,
            attempt=claim.message.attempts,
            was_in_doubt=claim.was_in_doubt,
            outcome=outcome,
            duration_ms=round((datetime.now(UTC) - began).total_seconds() * 1000, 1),
        )

    async def _send(self, claim: Claim) -> str:
        message = claim.message
        sender = self._senders.get(message.provider)
        if sender is None:
            return await asyncio.shield(self._await_provider(claim))
        leased_at = claim.began
        if claim.was_in_doubt:
            try:
                if await self._adopt_copy(message, sender):
                    return "adopted"
            except ProviderUnavailable as failure:
                await self._postpone(message, failure.retry_after, in_doubt=True)
                return "still_in_doubt"
            if _is_too_late(message):
                return await asyncio.shield(self._give_up(message))
            # Looking took its time, in which a callback may have named the copy or the lease have run out.
            leased_at = self._clock()
            if not await self._renew(message):
                return "settled_meanwhile"
        if claim.not_to_be_sent is not None:
            return await asyncio.shield(self._drop(message, claim.not_to_be_sent))
        if (problem := await self._media_problem(message)) is not None:
            return await asyncio.shield(self._refuse_media(message, problem))
        if self._clock() - leased_at > (LEASE - _CALL_AT_MOST).total_seconds():
            return "too_late_in_lease"
        try:
            report = await sender.send(message.outbound())
        except ProviderRejected as failure:
            await asyncio.shield(self._record_refusal(message, failure))
            return f"rejected_{failure.error.code}"
        except ProviderUnavailable as failure:
            return await asyncio.shield(self._record_unavailable(message, failure))
        except ProviderOutcomeUnknown:
            await asyncio.shield(self._postpone(message, RESOLVE_AFTER, in_doubt=True))
            return "unknown"
        return await asyncio.shield(self._record_report(message, report))

    async def _adopt_copy(self, message: Message, sender: MessageSender) -> bool:
        """Record the provider's copy of a message in doubt; False where it has none that is not another message's."""
        assert message.first_claimed_at is not None, "a claim sets it"
        for copy in await sender.find_copies(message.outbound(), since=message.first_claimed_at):
            try:
                await apply_report(self._db, self._notifications, message=message, report=copy, now=datetime.now(UTC))
            except psycopg.errors.UniqueViolation:
                continue
            return True
        return False

    async def _record_report(self, message: Message, report: MessageReport) -> str:
        try:
            await apply_report(self._db, self._notifications, message=message, report=report, now=datetime.now(UTC))
        except psycopg.errors.UniqueViolation:
            # A twin of this message, with the same numbers and text, was in doubt and adopted this copy. So many copies
            # as messages are right, and this message has none yet.
            await self._postpone(message, timedelta(0), in_doubt=True)
            return "copy_taken"
        return "accepted"

    async def _await_provider(self, claim: Claim) -> str:
        """The provider was configured when the message was accepted, and may be again: as if it were down."""
        message = claim.message
        log.error("message.provider_not_configured", message_uuid=str(message.message_uuid), provider=message.provider)
        if claim.was_in_doubt:
            await self._postpone(message, None, in_doubt=True)
            return "still_in_doubt"
        return await self._record_unavailable(message, ProviderUnavailable("is not configured"))

    async def _drop(self, message: Message, error_code: str) -> str:
        failed = not_to_be_sent(message, error_code, now=datetime.now(UTC))
        await save(self._db, self._notifications, failed, seen=message)
        return error_code.lower()

    async def _media_problem(self, message: Message) -> MediaProblem | None:
        """What is wrong with the media, asked once: a file that its server described late is left to the provider."""
        limits = self._media_limits.get(message.provider)
        if limits is None or not message.media_urls or message.attempts > 1:
            return None
        return await limits.problem(message.media_urls)

    async def _refuse_media(self, message: Message, problem: MediaProblem) -> str:
        failed = unsendable(message, problem.error_code, problem.error_description, now=datetime.now(UTC))
        await save(self._db, self._notifications, failed, seen=message)
        return problem.error_code.lower()

    async def _record_refusal(self, message: Message, failure: ProviderRejected) -> None:
        await note_opt_out(self._db, message=message, error=failure.error)
        await save(self._db, self._notifications, refused(message, failure.error, now=datetime.now(UTC)), seen=message)

    async def _record_unavailable(self, message: Message, failure: ProviderUnavailable) -> str:
        if _is_too_late(message):
            return await self._give_up(message)
        await self._postpone(message, failure.retry_after, in_doubt=False)
        return "unavailable"

    async def _give_up(self, message: Message) -> str:
        await save(self._db, self._notifications, given_up(message, now=datetime.now(UTC)), seen=message)
        return "given_up"

    async def _renew(self, message: Message) -> bool:
        """Begin the lease anew; False if the message is settled or another worker's."""
        parameters = {"id": message.id, "attempts": message.attempts, "lease": LEASE}
        return await self._db.execute(queries.RENEW, parameters) == 1

    async def _postpone(self, message: Message, at_least: timedelta | None, *, in_doubt: bool) -> None:
        delay = BACKOFF.delay(message.attempts, at_least)
        await self._db.execute(
            queries.POSTPONE,
            {"id": message.id, "attempts": message.attempts, "delay": delay, "in_doubt": in_doubt},
        )


def _is_too_late(message: Message) -> bool:
    assert message.first_claimed_at is not None, "a claim sets it"
    return datetime.now(UTC) - message.first_claimed_at > GIVE_UP_AFTER
