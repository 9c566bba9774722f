"""The worker that ends sessions when their time has come: claim, end, record.

Whoever dies in between leaves a lease that runs out, and a second end, which Zoom takes for what it is.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from psycopg.rows import class_row
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.background import Backoff
from server.db import Database
from server.notifications import Notifications
from server.providers.ports import ProviderRejected, ProviderUnavailable
from server.providers.video_ports import SessionOver, VideoSessions
from server.storage import Storage
from server.video.events import change_call
from server.video.status import update_status
from server.video.tables import VideoCallRow, VideoSessionRow

log = structlog.get_logger()

# Longer than a call of Zoom's may take.
LEASE = timedelta(minutes=1)

# What Zoom asks for beyond this would let a call go on for too long.
LONGEST_RETRY_AFTER = timedelta(minutes=30)

_BACKOFF = Backoff(timedelta(seconds=2), timedelta(minutes=5), longest_asked=LONGEST_RETRY_AFTER)

_AT_ONCE = 8

_CLAIM = """
WITH due AS (
    SELECT id FROM video_sessions WHERE due_at <= now() ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE video_sessions SET due_at = now() + %(lease)s, attempts = attempts + 1
FROM due WHERE video_sessions.id = due.id
RETURNING video_sessions.id, video_call_id, session_id, attempts
"""

# One that has ended meanwhile, or is another worker's, stays as it is.
_AS_CLAIMED = "id = %(id)s AND attempts = %(attempts)s AND due_at IS NOT NULL"

_POSTPONE = f"UPDATE video_sessions SET due_at = now() + %(delay)s WHERE {_AS_CLAIMED}"

_LET_GO = f"UPDATE video_sessions SET due_at = NULL WHERE {_AS_CLAIMED}"


@dataclass(frozen=True)
class _Claim:
    """A leased session."""

    id: int
    video_call_id: int
    session_id: str
    attempts: int


class EndingWorker:
    """Ends sessions."""

    def __init__(self, db: Database, notifications: Notifications, sessions: VideoSessions, storage: Storage) -> None:
        self._db = db
        self._notifications = notifications
        self._sessions = sessions
        self._storage = storage

    async def step(self) -> bool:
        """End a few that are due; whether there was any."""
        claims = await self._db.fetch_all(_CLAIM, {"limit": _AT_ONCE, "lease": LEASE}, class_row(_Claim))
        async with asyncio.TaskGroup() as tasks:
            for claim in claims:
                tasks.create_task(self._handle(claim))
        return bool(claims)

    async def _handle(self, claim: _Claim) -> None:
        """End one session and record it. What fails here leaves the lease to run out."""
        try:
            outcome = await self._end(claim)
        except Exception:
            log.exception("video_session.end_failed", video_call_id=claim.video_call_id, attempt=claim.attempts)
            return
        log.info(
            "video_session.end_attempted",
            video_call_id=claim.video_call_id,
            attempt=claim.attempts,
            outcome=outcome,
        )

    async def _end(self, claim: _Claim) -> str:
        try:
            await self._sessions.end(claim.session_id)
        except SessionOver:
            await self._record(claim)
            return "over"
        except ProviderUnavailable as failure:
            await self._settle(_POSTPONE, claim, delay=_BACKOFF.delay(claim.attempts, failure.retry_after))
            return "unavailable"
        except ProviderRejected as rejection:
            # It lasts until Zoom tells of its end.
            log.warning("video_session.end_rejected", video_call_id=claim.video_call_id, code=rejection.error.code)
            await self._settle(_LET_GO, claim)
            return "rejected"
        await self._record(claim)
        return "ended"

    async def _settle(self, statement: str, claim: _Claim, **more: object) -> None:
        await self._db.execute(statement, {"id": claim.id, "attempts": claim.attempts, **more})

    async def _record(self, claim: _Claim) -> None:
        change = partial(_ended, session_id=claim.id, now=datetime.now(UTC))
        await change_call(
            self._db, self._notifications, self._storage, video_call_id=claim.video_call_id, change=change
        )


async def _ended(tx: AsyncSession, call: VideoCallRow, *, session_id: int, now: datetime) -> None:
    """The session is over, and where Zoom has not said since when, since now."""
    session = (await tx.scalars(select(VideoSessionRow).where(VideoSessionRow.id == session_id))).one()
    if session.end_time is None:
        session.end_time = now
        await update_status(tx, call, moved=None, now=now)
