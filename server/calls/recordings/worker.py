"""The recordings worker: claim, stream from the provider to our storage, record; then it is to be transcribed.

A file is stored before it is recorded: a crash between the two leaves a file that nobody knows, and one more fetch. The
provider's copy is deleted only once ours is recorded, so what fails here is lost to nobody who asks the provider.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls import queries
from server.calls.events import change_call
from server.calls.queries import Call
from server.calls.recordings.wav import MAX_BYTES, NotKept, Truncated, WavCheck, checked
from server.calls.tables import CallRecordingRow, TranscriptRow
from server.db import Database
from server.leases import LEASE, Later, Queue, see_to_next
from server.notifications import Channel, Notifications
from server.providers.ports import MediaRefused, ProviderUnavailable
from server.providers.voice_ports import CallRecordingFetcher
from server.storage import Storage, new_key

# Files that one process fetches at a time: each has a worker of its own, so that a large one holds up no other. None is
# in memory as a whole.
WORKERS = 4

CONTENT_TYPE = "audio/vnd.wave"

_CLAIM = """
WITH due AS (
    SELECT id FROM call_recordings WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE call_recordings SET due_at = now() + %(lease)s, attempts = attempts + 1
FROM due WHERE call_recordings.id = due.id
RETURNING call_recordings.id, call_id, url, attempts, created_at AS since
"""


@dataclass(frozen=True)
class _Claim:
    """A leased recording."""

    id: int
    call_id: int
    url: str
    attempts: int
    since: datetime


_QUEUE = Queue("call_recording", "call_recordings", _CLAIM, _Claim)


@dataclass(frozen=True)
class _Stored:
    """Where its file is, and what its header says."""

    key: str
    duration: int | None
    channels: int | None


class RecordingWorker:
    """Stores recordings of calls, one after the other. Where `delete_provider_copies`, a stored one's copy at the
    provider is to be deleted."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        fetcher: CallRecordingFetcher,
        storage: Storage,
        *,
        delete_provider_copies: bool,
        lease: timedelta = LEASE,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._fetcher = fetcher
        self._storage = storage
        self._delete_provider_copies = delete_provider_copies
        self._lease = lease
        self._max_bytes = max_bytes

    async def step(self) -> bool:
        """Claim a recording that is due and see it through; whether there was one."""
        return await see_to_next(self._db, _QUEUE, lease=self._lease, attempt=self._store, give_up=self._give_up)

    async def _store(self, claim: _Claim) -> str | Later:
        key = new_key("recordings", CONTENT_TYPE)
        check = WavCheck(max_bytes=self._max_bytes)
        try:
            async with self._fetcher.open(claim.url) as chunks:
                await self._storage.put_stream(key, checked(chunks, check))
        except (MediaRefused, NotKept) as refusal:
            return await self._fail(claim, f"The recording {refusal}.")
        except ProviderUnavailable as failure:
            return Later("unavailable", failure.retry_after)
        except Truncated:
            # What the provider takes for all of it: it may still be writing.
            return Later("truncated")
        stored = _Stored(key, check.duration, check.channels)
        change = partial(_record_stored, claim=claim, stored=stored, delete=self._delete_provider_copies)
        await change_call(
            self._db, self._notifications, self._storage, call_id=claim.call_id, change=change, new_keys=(key,)
        )
        self._notifications.notify(Channel.TRANSCRIPTS)
        return "stored"

    async def _give_up(self, claim: _Claim) -> str:
        return await self._fail(claim, "The recording could not be fetched within 24 hours.")

    async def _fail(self, claim: _Claim, error_description: str) -> str:
        change = partial(_record_failure, claim=claim, error_description=error_description)
        await change_call(self._db, self._notifications, self._storage, call_id=claim.call_id, change=change)
        return "failed"


async def _record_stored(tx: AsyncSession, call: Call, *, claim: _Claim, stored: _Stored, delete: bool) -> Call:
    """The recording is stored, and to be transcribed."""
    row = await _claimed(tx, claim)
    if row is None:
        return call
    now = datetime.now(UTC)
    row.internal_status = "stored"
    # Also where that was never told.
    row.provider_status = "completed"
    row.storage_key = stored.key
    row.due_at = None
    # Where the provider has not said so.
    row.duration = row.duration if row.duration is not None else stored.duration
    row.channels = row.channels or stored.channels
    if delete:
        row.delete_at = now
    tx.add(TranscriptRow(uuid=uuid4(), recording_id=row.id, internal_status="pending", due_at=now))
    return await queries.call_of(tx, call.row)


async def _record_failure(tx: AsyncSession, _call: Call, *, claim: _Claim, error_description: str) -> None:
    """The recording cannot be had."""
    row = await _claimed(tx, claim)
    if row is None:
        return
    row.internal_status = "failed"
    row.error_description = error_description
    row.due_at = None


async def _claimed(tx: AsyncSession, claim: _Claim) -> CallRecordingRow | None:
    """The recording, held; None where it is settled, or another worker's."""
    query = (
        select(CallRecordingRow)
        .where(CallRecordingRow.id == claim.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    row = (await tx.scalars(query)).one()
    return row if row.due_at is not None and row.attempts == claim.attempts else None
