"""The recordings worker: claim, stream from Zoom to our storage, record.

A file is stored before it is recorded: a crash between the two leaves a file that nobody knows, and one more fetch.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database
from server.encryption import Cipher
from server.leases import LEASE, Later, Queue, see_to_next
from server.notifications import Notifications
from server.providers.ports import MediaRefused, ProviderUnavailable
from server.providers.video_ports import RecordingFetcher
from server.storage import Storage, new_key
from server.video.events import change_call
from server.video.recording_files import FAILED, STORED
from server.video.recording_types import content_type_of
from server.video.tables import VideoCallRecordingRow, VideoCallRow

# Files that one process fetches at a time: each has a worker of its own, so that a large one holds up no other.
WORKERS = 4

_CLAIM = """
WITH due AS (
    SELECT id FROM video_call_recordings WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE video_call_recordings SET due_at = now() + %(lease)s, attempts = attempts + 1
FROM due WHERE video_call_recordings.id = due.id
RETURNING video_call_recordings.id, video_call_id AS call_id, file_type, file_extension, url, download_token_encrypted,
    provider_status_at AS since, attempts
"""


@dataclass(frozen=True)
class _Claim:
    """A leased file."""

    id: int
    call_id: int
    file_type: str
    file_extension: str | None
    url: str
    download_token_encrypted: bytes | None
    # When Zoom last told of it, and gave the token, which is good for a day.
    since: datetime
    attempts: int


_QUEUE = Queue("recording", "video_call_recordings", _CLAIM, _Claim)


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
        return await see_to_next(self._db, _QUEUE, lease=self._lease, attempt=self._store, give_up=self._give_up)

    async def _store(self, claim: _Claim) -> str | Later:
        content_type = content_type_of(file_type=claim.file_type, file_extension=claim.file_extension)
        key = new_key("recordings", content_type)
        try:
            async with self._fetcher.open(claim.url, download_token=self._token(claim)) as chunks:
                await self._storage.put_stream(key, chunks)
        except MediaRefused as refusal:
            return await self._fail(claim, f"The recording {refusal}.")
        except ProviderUnavailable as failure:
            return Later("unavailable", failure.retry_after)
        change = partial(_settle, claim=claim, internal_status=STORED, storage_key=key, error_description=None)
        await change_call(
            self._db,
            self._notifications,
            self._storage,
            video_call_id=claim.call_id,
            change=change,
            new_keys=(key,),
        )
        return "stored"

    def _token(self, claim: _Claim) -> str | None:
        encrypted = claim.download_token_encrypted
        return self._cipher.decrypt(encrypted).decode() if encrypted is not None else None

    async def _give_up(self, claim: _Claim) -> str:
        return await self._fail(claim, "The recording could not be fetched within 24 hours.")

    async def _fail(self, claim: _Claim, error_description: str) -> str:
        change = partial(
            _settle, claim=claim, internal_status=FAILED, storage_key=None, error_description=error_description
        )
        await change_call(self._db, self._notifications, self._storage, video_call_id=claim.call_id, change=change)
        return "failed"


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
