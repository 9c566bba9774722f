"""The recordings worker: claim, stream from Zoom to our storage, record.

A file is stored before it is recorded: a crash between the two leaves a file that nobody knows, and one more fetch.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from psycopg.rows import class_row
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database
from server.encryption import Cipher
from server.leases import BACKOFF, GIVE_UP_AFTER, LEASE, renewed
from server.notifications import Notifications
from server.providers.ports import MediaRefused, ProviderUnavailable
from server.providers.video_ports import RecordingFetcher
from server.storage import Storage, StorageFailed, new_key
from server.video.events import change_call
from server.video.recording_files import FAILED, STORED
from server.video.recording_types import content_type_of
from server.video.tables import VideoCallRecordingRow, VideoCallRow

log = structlog.get_logger()

# Files that one process fetches at a time: each has a worker of its own, so that a large one holds up no other.
WORKERS = 4

_CLAIM = """
WITH due AS (
    SELECT id FROM video_call_recordings WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE video_call_recordings SET due_at = now() + %(lease)s, attempts = attempts + 1
FROM due WHERE video_call_recordings.id = due.id
RETURNING video_call_recordings.id, video_call_id, file_type, file_extension, url, download_token_encrypted,
    provider_status_at, attempts
"""

# A claim that outlived its lease changes nothing.
_POSTPONE = """
UPDATE video_call_recordings SET due_at = now() + %(delay)s
WHERE id = %(id)s AND attempts = %(attempts)s AND due_at IS NOT NULL
"""


@dataclass(frozen=True)
class _Claim:
    """A leased file."""

    id: int
    video_call_id: int
    file_type: str
    file_extension: str | None
    url: str
    download_token_encrypted: bytes | None
    # When Zoom last told of it, and gave the token.
    provider_status_at: datetime
    attempts: int


class RecordingWorker:
    """Stores recordings, one after the other."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        fetcher: RecordingFetcher,
        storage: Storage,
        cipher: Cipher,
        *,
        lease: timedelta = LEASE,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._fetcher = fetcher
        self._storage = storage
        self._cipher = cipher
        self._lease = lease

    async def step(self) -> bool:
        """Claim a file that is due and see it through; whether there was one."""
        claim = await self._db.fetch_one(_CLAIM, {"lease": self._lease}, class_row(_Claim))
        if claim is not None:
            await self._handle(claim)
        return claim is not None

    async def _handle(self, claim: _Claim) -> None:
        """Store the file and record it. What fails here leaves the lease to run out."""
        began = datetime.now(UTC)
        try:
            async with renewed(partial(self._postpone, claim, self._lease), self._lease):
                outcome = await self._store(claim)
        except Exception:
            log.exception("recording.attempt_failed", recording_id=claim.id, attempt=claim.attempts)
            return
        log.info(
            "recording.attempted",
            recording_id=claim.id,
            video_call_id=claim.video_call_id,
            attempt=claim.attempts,
            outcome=outcome,
            duration_ms=round((datetime.now(UTC) - began).total_seconds() * 1000, 1),
        )

    async def _store(self, claim: _Claim) -> str:
        content_type = content_type_of(file_type=claim.file_type, file_extension=claim.file_extension)
        key = new_key("recordings", content_type)
        try:
            async with self._fetcher.open(claim.url, download_token=self._token(claim)) as file:
                await self._storage.put_stream(key, file.chunks)
        except MediaRefused as refusal:
            return await self._fail(claim, f"The recording {refusal}.")
        except ProviderUnavailable as failure:
            # So long is a download token good for.
            if datetime.now(UTC) - claim.provider_status_at > GIVE_UP_AFTER:
                return await self._fail(claim, "The recording could not be fetched within 24 hours.")
            await self._postpone(claim, BACKOFF.delay(claim.attempts, failure.retry_after))
            return "unavailable"
        except StorageFailed as failure:
            # However long that takes: it is no fault of the file's.
            log.warning("recording.storage_failed", recording_id=claim.id, error=str(failure))
            await self._postpone(claim, BACKOFF.delay(claim.attempts))
            return "storage_failed"
        change = partial(_settle, claim=claim, internal_status=STORED, storage_key=key, error_description=None)
        await change_call(
            self._db,
            self._notifications,
            self._storage,
            video_call_id=claim.video_call_id,
            change=change,
            new_keys=(key,),
        )
        return "stored"

    def _token(self, claim: _Claim) -> str | None:
        encrypted = claim.download_token_encrypted
        return self._cipher.decrypt(encrypted).decode() if encrypted is not None else None

    async def _fail(self, claim: _Claim, error_description: str) -> str:
        change = partial(
            _settle, claim=claim, internal_status=FAILED, storage_key=None, error_description=error_description
        )
        await change_call(
            self._db, self._notifications, self._storage, video_call_id=claim.video_call_id, change=change
        )
        return "failed"

    async def _postpone(self, claim: _Claim, delay: timedelta) -> None:
        await self._db.execute(_POSTPONE, {"id": claim.id, "attempts": claim.attempts, "delay": delay})


async def _settle(
    tx: AsyncSession,
    _call: VideoCallRow,
    *,
    claim: _Claim,
    internal_status: str,
    storage_key: str | None,
    error_description: str | None,
) -> None:
    """Record what became of the file; nothing where it is settled, or another worker's."""
    query = (
        select(VideoCallRecordingRow)
        .where(VideoCallRecordingRow.id == claim.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    row = (await tx.scalars(query)).one()
    if row.due_at is None or row.attempts != claim.attempts:
        return
    row.internal_status = internal_status
    row.storage_key = storage_key
    row.error_description = error_description
    row.due_at = None
    row.download_token_encrypted = None
