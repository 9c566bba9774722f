"""The worker that asks the provider what it recorded of calls that are over. So a recording is had although nothing was
told of it, and what was never recorded is not waited for."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from psycopg.rows import class_row
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls import queries
from server.calls.events import change_call
from server.calls.queries import Call
from server.calls.recordings.reports import give_up, take_report
from server.calls.state import CONTACT, DIRECT, SDK
from server.calls.status import RECORDING_CHECKS
from server.calls.tables import CallRow
from server.db import Database
from server.notifications import Channel, Notifications
from server.providers.ports import ProviderUnavailable
from server.providers.voice_ports import RecordingReport, VoiceCalls
from server.storage import Storage

log = structlog.get_logger()

# Longer than the questions to the provider may take, and what is recorded of their answers.
LEASE = timedelta(minutes=2)

# A provider that is away is asked then, or when it says; it has not been asked in vain.
_ASK_AGAIN_AFTER = timedelta(minutes=5)
_LONGEST_RETRY_AFTER = timedelta(hours=1)

_AT_ONCE = 8

# What has a voicemail made.
_RECORD_VERB = "RecordVerb"

_CLAIM = """
WITH due AS (
    SELECT id FROM calls WHERE recordings_check_at <= now()
    ORDER BY recordings_check_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE calls SET recordings_check_at = now() + %(lease)s
FROM due WHERE calls.id = due.id
RETURNING calls.id, recordings_check_at AS check_at, recordings_check_attempts AS attempts
"""

# A call whose recording was told of since the claim, or that is another worker's, stays as it is.
_POSTPONE = """
UPDATE calls SET recordings_check_at = now() + %(delay)s WHERE id = %(id)s AND recordings_check_at = %(check_at)s
"""


@dataclass(frozen=True)
class _Claim:
    """A leased call."""

    id: int
    # When the lease ends.
    check_at: datetime
    # How often it was asked for before.
    attempts: int


class RecordingCheckWorker:
    """Asks for recordings; none lasts longer than `time_limit`."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        voice: VoiceCalls,
        storage: Storage,
        *,
        time_limit: timedelta,
        lease: timedelta = LEASE,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._voice = voice
        self._storage = storage
        self._time_limit = time_limit
        self._lease = lease

    async def step(self) -> bool:
        """See to a few calls that are due; whether there was any."""
        claims = await self._db.fetch_all(_CLAIM, {"limit": _AT_ONCE, "lease": self._lease}, class_row(_Claim))
        async with asyncio.TaskGroup() as tasks:
            for claim in claims:
                tasks.create_task(self._handle(claim))
        return bool(claims)

    async def _handle(self, claim: _Claim) -> None:
        """Ask about one call. What fails here leaves the lease to run out."""
        try:
            outcome = await self._check(claim)
        except Exception:
            log.exception("call_recording.check_failed", call_id=claim.id, attempt=claim.attempts + 1)
            return
        log.info("call_recording.checked", call_id=claim.id, attempt=claim.attempts + 1, outcome=outcome)

    async def _check(self, claim: _Claim) -> str:
        async with self._db.begin() as tx:
            call = await queries.call_of(tx, await tx.get_one(CallRow, claim.id))
        try:
            reports = await self._ask(call)
        except ProviderUnavailable as failure:
            delay = max(_ASK_AGAIN_AFTER, min(failure.retry_after or timedelta(0), _LONGEST_RETRY_AFTER))
            await self._db.execute(_POSTPONE, {"id": claim.id, "check_at": claim.check_at, "delay": delay})
            return "unavailable"
        await self._record(claim, reports)
        return ", ".join(sorted({report.provider_status for report in reports})) or "none"

    async def _ask(self, call: Call) -> list[RecordingReport]:
        """What the provider recorded: a conference, or what the call did that dialled or spoke."""
        conference = call.conference
        if conference is not None:
            return await self._voice.list_recordings(
                call_sids=[], conference_sid=conference.conference_sid, conference_uuid=conference.uuid
            )
        recorded = SDK if call.row.kind == DIRECT else CONTACT
        call_sids = [leg.call_sid for leg in call.legs if leg.call_sid is not None and leg.kind == recorded]
        return await self._voice.list_recordings(
            call_sids=call_sids or await self._parents(call), conference_sid=None, conference_uuid=None
        )

    async def _parents(self, call: Call) -> list[str]:
        """The calls that dialled its legs. A call that the API made may end before anybody tells which call that is."""
        reports = [await self._voice.fetch(leg.call_sid) for leg in call.legs if leg.call_sid is not None]
        return [report.parent_call_sid for report in reports if report is not None and report.parent_call_sid]

    async def _record(self, claim: _Claim, reports: list[RecordingReport]) -> None:
        """The same facts as callbacks tell; and that there is none, where that is so."""

        async def change(tx: AsyncSession, call: Call) -> Call:
            row = call.row
            if row.recordings_check_at != claim.check_at:
                # It was told of meanwhile.
                return call
            for report in reports:
                call = await take_report(
                    tx,
                    call,
                    report=report,
                    is_voicemail=report.source == _RECORD_VERB,
                    time_limit=self._time_limit,
                )
            row.recordings_check_attempts = claim.attempts + 1
            # When it is asked for again, if it is, follows.
            row.recordings_check_at = None
            if not call.expected_recordings:
                row.recording_absent_at = datetime.now(UTC)
            if row.recordings_check_attempts == len(RECORDING_CHECKS):
                for each in call.expected_recordings:
                    give_up(each.row)
            return call

        await change_call(self._db, self._notifications, self._storage, call_id=claim.id, change=change)
        if reports:
            self._notifications.notify(Channel.CALL_RECORDINGS)
