"""The transcripts worker: claim, read our copy of the recording, have it transcribed, store the words.

A service that takes its time has submitted recordings: their transcripts come by its callback, and are asked for now
and then where that never came. Whichever tells first is kept.

A transcriber is handed the whole recording. One process has one in memory, of MAX_AUDIO_BYTES at most; a recording that
is larger has no transcript, and its call says so.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from io import BytesIO
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls import transcript_formats
from server.calls.events import change_call
from server.calls.queries import Call
from server.calls.recordings.worker import CONTENT_TYPE
from server.calls.tables import CallRecordingRow, TranscriptRow
from server.db import Database
from server.leases import LEASE, Later, Queue, see_to_next
from server.notifications import Notifications
from server.providers.ports import ProviderOutcomeUnknown, ProviderUnavailable
from server.providers.transcription_ports import (
    Submitted,
    Transcriber,
    Transcript,
    TranscriptionFailed,
    TranscriptReport,
)
from server.storage import FileMissing, Storage

log = structlog.get_logger()

# Where the service is to post what comes later.
CALLBACK_PATH = "/api/v1/transcription_requests/webhook"

# Two hours, the longest that a call may last where nothing else is configured, of two channels of 16 bits at 8 kHz are
# 230 MB.
MAX_AUDIO_BYTES = 256 * 1024 * 1024

# How long the callback of a submitted recording, or of one that may have been submitted, is waited for.
CHECK_AFTER = timedelta(minutes=15)

_CLAIM = """
WITH due AS (
    SELECT id FROM transcripts WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE transcripts SET due_at = now() + %(lease)s, attempts = transcripts.attempts + 1
FROM due, call_recordings WHERE transcripts.id = due.id AND call_recordings.id = transcripts.recording_id
RETURNING transcripts.id, transcripts.uuid, call_recordings.call_id, call_recordings.storage_key, media_id,
    transcripts.attempts, transcripts.created_at AS since
"""

# Its callback may have come before.
_SUBMITTED = """
UPDATE transcripts SET internal_status = 'submitted', media_id = %(media_id)s, due_at = now() + %(delay)s
WHERE id = %(id)s AND attempts = %(attempts)s AND due_at IS NOT NULL
"""


@dataclass(frozen=True)
class _Claim:
    """A leased transcript of a stored recording."""

    id: int
    uuid: UUID
    call_id: int
    storage_key: str
    media_id: str | None
    attempts: int
    since: datetime


_QUEUE = Queue("transcript", "transcripts", _CLAIM, _Claim)


class _TooLarge(Exception):
    """The recording is larger than what is handed over."""


class TranscriptWorker:
    """Has recordings transcribed, one after the other."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        transcriber: Transcriber,
        storage: Storage,
        *,
        callback_url: str,
        lease: timedelta = LEASE,
        max_audio_bytes: int = MAX_AUDIO_BYTES,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._transcriber = transcriber
        self._storage = storage
        self._callback_url = callback_url
        self._lease = lease
        self._max_audio_bytes = max_audio_bytes

    async def step(self) -> bool:
        """Claim a transcript that is due and see it through; whether there was one."""
        return await see_to_next(self._db, _QUEUE, lease=self._lease, attempt=self._attempt, give_up=self._give_up)

    async def _attempt(self, claim: _Claim) -> str | Later:
        try:
            answer = await self._ask(claim)
        except TranscriptionFailed as failure:
            return await self._fail(claim, _described(str(failure)))
        except _TooLarge:
            return await self._fail(
                claim, f"The recording is larger than {self._max_audio_bytes} bytes, and was not transcribed."
            )
        except FileMissing:
            return await self._fail(claim, "The recording is not in our storage any more.")
        except ProviderUnavailable as failure:
            return Later("unavailable", failure.retry_after)
        except ProviderOutcomeUnknown:
            # Each submission is paid for: the callback of one that was taken is waited for.
            return Later("outcome_unknown", CHECK_AFTER)
        if answer is None:
            return Later("not_ready", CHECK_AFTER)
        if isinstance(answer, Submitted):
            mine = {"id": claim.id, "attempts": claim.attempts}
            await self._db.execute(_SUBMITTED, {**mine, "media_id": answer.media_id, "delay": CHECK_AFTER})
            return "submitted"
        change = partial(_settle, transcript_id=claim.id, attempts=claim.attempts, transcript=answer, failure=None)
        await change_call(self._db, self._notifications, self._storage, call_id=claim.call_id, change=change)
        return "ready"

    async def _ask(self, claim: _Claim) -> Transcript | Submitted | None:
        """The transcript, or that it comes later; None where it is being made still."""
        if claim.media_id is not None:
            return await self._transcriber.fetch(claim.media_id)
        return await self._transcriber.transcribe(
            await self._read(claim.storage_key),
            content_type=CONTENT_TYPE,
            reference=claim.uuid,
            callback_url=self._callback_url,
        )

    async def _read(self, storage_key: str) -> bytes:
        """All of a file. A buffer that grows gives it out without a second copy of it."""
        audio = BytesIO()
        async for chunk in (await self._storage.open(storage_key)).chunks:
            if audio.tell() + len(chunk) > self._max_audio_bytes:
                raise _TooLarge
            audio.write(chunk)
        return audio.getvalue()

    async def _give_up(self, claim: _Claim) -> str:
        return await self._fail(claim, "The recording could not be transcribed within 24 hours.")

    async def _fail(self, claim: _Claim, failure: str) -> str:
        change = partial(_settle, transcript_id=claim.id, attempts=claim.attempts, transcript=None, failure=failure)
        await change_call(self._db, self._notifications, self._storage, call_id=claim.call_id, change=change)
        return "failed"


async def receive_transcript(
    db: Database, notifications: Notifications, storage: Storage, *, report: TranscriptReport
) -> None:
    """What the service tells of a recording. A transcript is kept also where it was given up; that there is none is
    taken where nothing else is known, and where it is said of the submission that is waited for."""
    async with db.begin() as tx:
        query = select(TranscriptRow.id, CallRecordingRow.call_id, TranscriptRow.media_id).join(
            CallRecordingRow, CallRecordingRow.id == TranscriptRow.recording_id
        )
        if report.reference is not None:
            query = query.where(TranscriptRow.uuid == report.reference)
        else:
            query = query.where(TranscriptRow.media_id == report.media_id)
        found = (await tx.execute(query.order_by(TranscriptRow.id).limit(1))).one_or_none()
    if found is None:
        log.warning("transcript.of_no_recording", media_id=report.media_id)
        return
    if report.transcript is None and found.media_id not in (None, report.media_id):
        log.warning("transcript.of_another_submission", transcript_id=found.id, media_id=report.media_id)
        return
    failure = _described(report.failure or "the service does not say why")
    change = partial(_settle, transcript_id=found.id, attempts=None, transcript=report.transcript, failure=failure)
    await change_call(db, notifications, storage, call_id=found.call_id, change=change)


async def _settle(
    tx: AsyncSession,
    _call: Call,
    *,
    transcript_id: int,
    attempts: int | None,
    transcript: Transcript | None,
    failure: str | None,
) -> None:
    """Record the words, else why there are none; nothing of a worker whose attempt was not the last."""
    query = select(TranscriptRow).where(TranscriptRow.id == transcript_id).with_for_update()
    row = (await tx.scalars(query, execution_options={"populate_existing": True})).one()
    is_settled = row.due_at is None
    if attempts is not None and (is_settled or row.attempts != attempts):
        return
    if transcript is not None and row.internal_status != "ready":
        row.internal_status = "ready"
        row.words = transcript_formats.to_json(transcript)
        row.error_description = None
    elif transcript is None and not is_settled:
        row.internal_status = "failed"
        row.error_description = failure
    row.due_at = None


def _described(why: str) -> str:
    """What a service says of a failure, as the call shows it."""
    return f"The recording was not transcribed: {why.rstrip('.')}."
