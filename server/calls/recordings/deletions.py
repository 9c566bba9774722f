"""The deletions worker: a recording that we have stored is to be at the provider no more."""

from dataclasses import dataclass
from datetime import timedelta

import structlog
from psycopg.rows import class_row

from server.db import Database
from server.leases import BACKOFF
from server.providers.ports import ProviderRejected, ProviderUnavailable
from server.providers.voice_ports import VoiceCalls

log = structlog.get_logger()

# Longer than a deletion may take.
LEASE = timedelta(minutes=2)

# Only of what is stored: no row has a time to be deleted at before.
_CLAIM = """
WITH due AS (
    SELECT id FROM call_recordings WHERE delete_at <= now() AND storage_key IS NOT NULL
    ORDER BY delete_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE call_recordings SET delete_at = now() + %(lease)s, delete_attempts = delete_attempts + 1
FROM due WHERE call_recordings.id = due.id
RETURNING call_recordings.id, recording_sid, delete_attempts AS attempts
"""

_POSTPONE = """
UPDATE call_recordings SET delete_at = now() + %(delay)s
WHERE id = %(id)s AND delete_attempts = %(attempts)s AND delete_at IS NOT NULL
"""

_DONE = "UPDATE call_recordings SET delete_at = NULL WHERE id = %(id)s AND delete_attempts = %(attempts)s"


@dataclass(frozen=True)
class _Claim:
    """A leased recording."""

    id: int
    recording_sid: str
    attempts: int


class DeletionWorker:
    """Deletes the provider's copies, one after the other. One that is deleted twice is gone as well."""

    def __init__(self, db: Database, voice: VoiceCalls, *, lease: timedelta = LEASE) -> None:
        self._db = db
        self._voice = voice
        self._lease = lease

    async def step(self) -> bool:
        """Claim a copy that is due and have it deleted; whether there was one."""
        claim = await self._db.fetch_one(_CLAIM, {"lease": self._lease}, class_row(_Claim))
        if claim is None:
            return False
        outcome = await self._delete(claim)
        log.info("call_recording.deletion_attempted", recording_id=claim.id, attempt=claim.attempts, outcome=outcome)
        return True

    async def _delete(self, claim: _Claim) -> str:
        """A copy that cannot be deleted today is tried for as long as it takes, and one that never can is told to the
        log. An unexpected fault leaves the lease to run out."""
        mine = {"id": claim.id, "attempts": claim.attempts}
        try:
            await self._voice.delete_recording(claim.recording_sid)
        except ProviderUnavailable as failure:
            await self._db.execute(_POSTPONE, {**mine, "delay": BACKOFF.delay(claim.attempts, failure.retry_after)})
            return "unavailable"
        except ProviderRejected as refusal:
            log.warning("call_recording.not_deleted", recording_id=claim.id, error=str(refusal))
            await self._db.execute(_DONE, mine)
            return "rejected"
        await self._db.execute(_DONE, mine)
        return "deleted"
