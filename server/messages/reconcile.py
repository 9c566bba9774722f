"""The reconciler: asks the provider about messages whose callbacks stopped, and settles them with what it answers.

`check_at` of a message says when it is asked about. A claim plans the next time at once, so that no two workers ask
about the same message, and a check that died with its worker is made up for by the next.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import structlog
from psycopg.rows import class_row, namedtuple_row

from server.background import Pace
from server.db import Database
from server.messages import reconcile_queries
from server.messages.callbacks import apply_report
from server.messages.message import FINAL, Message
from server.notifications import Notifications
from server.providers.ports import MessageSender, ProviderUnavailable

log = structlog.get_logger()

# Of one process, whatever the backlog: a provider's limits are for the messages that are to be sent.
CHECKS_PER_SECOND = 10
_AT_ONCE = 5

# After each check without news. The first is ten minutes after the news (see message.py), the last some three days.
_DELAYS = [timedelta(hours=hours) for hours in (0.5, 2, 6, 12, 24, 24)]

# Some providers list a message only a while after they have it: before, one that is not there is no fact.
_LISTED_AFTER = timedelta(minutes=30)

# After a check that came to no answer, which is not counted.
_UNAVAILABLE_DELAY = timedelta(minutes=5)
_LONGEST_RETRY_AFTER = timedelta(hours=1)
_NOT_CONFIGURED_DELAY = timedelta(hours=1)


class Outcome(StrEnum):
    """What a check came to."""

    NEWS = "news"
    NO_NEWS = "no_news"
    UNSETTLED = "unsettled"  # no news, and it was the last check
    UNKNOWN = "unknown"  # the provider has no such message, and is not asked again
    UNAVAILABLE = "unavailable"
    NOT_CONFIGURED = "not_configured"
    FAILED = "failed"  # the log has the traceback


@dataclass(frozen=True)
class Check:
    """What came of asking about one message; its status is the one after it."""

    provider: str
    internal_status: str
    outcome: Outcome


class Reconciler:
    """Asks about what is due, at a pace."""

    def __init__(
        self, db: Database, notifications: Notifications, senders: Mapping[str, MessageSender], *, pace: Pace
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._senders = senders
        self._pace = pace

    async def step(self) -> bool:
        """Check a few messages, if any is due, and tell the log what came of it; False if none was."""
        checks = await self.run_once()
        if checks:
            outcomes = Counter(check.outcome for check in checks)
            news = Counter(check.internal_status for check in checks if check.outcome is Outcome.NEWS)
            log.info(
                "messages.reconciled",
                asked=len(checks),
                settled=sum(count for status, count in news.items() if status in FINAL),
                statuses=dict(news),
                **{outcome.value: outcomes[outcome] for outcome in Outcome},
            )
        return bool(checks)

    async def run_once(self) -> list[Check]:
        """Claim a few messages that are due, and ask about each."""
        parameters = {"limit": _AT_ONCE, "delays": _DELAYS}
        claimed = await self._db.fetch_all(reconcile_queries.CLAIM, parameters, class_row(Message))
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._check(message)) for message in claimed]
        return [Check(message.provider, *task.result()) for message, task in zip(claimed, asked, strict=True)]

    async def _check(self, message: Message) -> tuple[str, Outcome]:
        """The message's status now, and how it came to be known."""
        try:
            return await self._ask(message)
        except Exception:
            log.exception("message.check_failed", message_uuid=str(message.message_uuid))
            return message.internal_status, Outcome.FAILED

    async def _ask(self, message: Message) -> tuple[str, Outcome]:
        assert message.message_sid is not None, "what has no sid is not to be checked"
        facts = {
            "message_uuid": str(message.message_uuid),
            "provider": message.provider,
            "message_sid": message.message_sid,
            "internal_status": message.internal_status,
        }
        sender = self._senders.get(message.provider)
        if sender is None:
            log.warning("message.provider_not_configured", **facts)
            await self._postpone(message, _NOT_CONFIGURED_DELAY)
            return message.internal_status, Outcome.NOT_CONFIGURED
        await self._pace.turn()
        try:
            report = await sender.fetch(message.message_sid)
        except ProviderUnavailable as failure:
            asked_for = min(failure.retry_after or timedelta(0), _LONGEST_RETRY_AFTER)
            await self._postpone(message, max(_UNAVAILABLE_DELAY, asked_for))
            return message.internal_status, Outcome.UNAVAILABLE
        now = datetime.now(UTC)
        if report is None:
            if now - message.updated_at < _LISTED_AFTER:
                return message.internal_status, Outcome.NO_NEWS
            log.warning("message.unknown_to_provider", **facts)
            await self._record(reconcile_queries.STOP_ASKING, message)
            return message.internal_status, Outcome.UNKNOWN
        if await apply_report(self._db, self._notifications, message=message, report=report, now=now):
            return report.internal_status, Outcome.NEWS
        if message.checks <= len(_DELAYS):
            return message.internal_status, Outcome.NO_NEWS
        log.warning("message.unsettled", **facts)
        await self._record(reconcile_queries.STOP_ASKING, message)
        return message.internal_status, Outcome.UNSETTLED

    async def _postpone(self, message: Message, delay: timedelta) -> None:
        await self._record(reconcile_queries.POSTPONE, message, delay=delay)

    async def _record(self, statement: str, message: Message, **more: object) -> None:
        """Plan otherwise than the claim did, unless there was news of the message meanwhile."""
        claimed = {"id": message.id, "sequence": message.sequence, "checks": message.checks}
        await self._db.execute(statement, {**claimed, **more})


@dataclass(frozen=True)
class Reconciliation:
    """What checking everything that was due came to, and the messages that have no final status after it."""

    checks: Counter[Check]
    still_open: Sequence[Any]

    @property
    def all_reached(self) -> bool:
        """Whether every provider answered."""
        return not any(check.outcome in (Outcome.UNAVAILABLE, Outcome.NOT_CONFIGURED) for check in self.checks)

    def lines(self) -> list[str]:
        """Both as tables."""
        checked = sorted((c.provider, c.internal_status, c.outcome, n) for c, n in self.checks.items())
        return [
            *_table(("checked", "status", "outcome", "messages"), checked),
            "",
            *_table(("still open", "status", "messages"), self.still_open),
        ]


async def reconcile_all(reconciler: Reconciler, db: Database, *, older_than: timedelta | None) -> Reconciliation:
    """Check until nothing is due. With `older_than`, everything without a final status that had no news for so long is
    due."""
    if older_than is not None:
        await db.execute(reconcile_queries.MAKE_DUE, {"older_than": older_than})
    checks: Counter[Check] = Counter()
    while batch := await reconciler.run_once():
        checks.update(batch)
    return Reconciliation(checks, await db.fetch_all(reconcile_queries.COUNT_OPEN, {}, namedtuple_row))


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
