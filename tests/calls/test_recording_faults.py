"""What nobody foresaw while a recording is stored or transcribed: tried again, and given up after a day of tries."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.calls.parts import CallParts
from server.calls.recordings.reports import update_recording
from server.calls.recordings.transcripts import TranscriptWorker
from server.calls.recordings.worker import RecordingWorker
from server.calls.tables import CallRow
from server.config import Settings
from server.db import Database
from server.leases import BACKOFF, LEAST_ATTEMPTS
from server.storage import Storage
from tests.calls.recorded import make_direct_call, recordings, report, shown, told, transcripts, wav
from tests.calls.transcribing import OneFile, Service, record
from tests.clients import Client
from tests.faults import DATABASE_AWAY, FaultyStorage
from tests.files.support import signer_of

AGES = ((23, 1000), (30, LEAST_ATTEMPTS - 2), (25, LEAST_ATTEMPTS))


@pytest.fixture
async def call(db: Database, client: Client) -> CallRow:
    """A browser's call that was answered and is over."""
    return await make_direct_call(db, client)


@pytest.fixture
def faulty(settings: Settings, tmp_path: Path) -> FaultyStorage:
    """A storage with a fault."""
    return FaultyStorage(tmp_path, signer_of(settings))


def storing(parts: CallParts, storage: Storage) -> RecordingWorker:
    """A worker that has the recording."""
    return RecordingWorker(parts.db, parts.notifications, OneFile(wav()), storage, delete_provider_copies=False)


async def test_recording_that_nobody_knows_how_to_store_fails_after_a_day_of_tries(
    parts: CallParts, call: CallRow, faulty: FaultyStorage, db: Database, storage: Storage
) -> None:
    await update_recording(parts, report(call))
    age = "UPDATE call_recordings SET due_at = now(), created_at = now() - %(age)s, attempts = %(attempts)s"
    found = []
    for hours, attempts in AGES:
        await db.execute(age, {"age": timedelta(hours=hours), "attempts": attempts})
        assert await storing(parts, faulty).step()
        found += [(row["internal_status"], row["due_at"]) for row in await recordings(db)]

    assert [status for status, _due_at in found] == ["pending", "pending", "failed"]
    # Not at the pace of the lease.
    assert found[0][1] - datetime.now(UTC) > BACKOFF.longest - timedelta(minutes=1)
    shows = await shown(db, storage, call)
    assert shows.error_description == "The recording could not be fetched within 24 hours."
    assert await told(db, call) == ["finished", "finished"]


@pytest.mark.parametrize("away", DATABASE_AWAY)
async def test_database_that_is_away_is_no_fault_of_the_recordings(
    parts: CallParts, call: CallRow, faulty: FaultyStorage, db: Database, storage: Storage, away: Exception
) -> None:
    await update_recording(parts, report(call))
    await db.execute("UPDATE call_recordings SET created_at = now() - interval '30 days', attempts = 1000")
    faulty.fault = away

    await storing(parts, faulty).step()
    waiting = await recordings(db)
    await db.execute("UPDATE call_recordings SET due_at = now()")
    await storing(parts, storage).step()

    assert [(row["internal_status"], row["due_at"] is None) for row in waiting] == [("pending", False)]
    assert [row["internal_status"] for row in await recordings(db)] == ["stored"]


async def test_recording_that_nobody_knows_how_to_transcribe_fails_after_a_day_of_tries(
    parts: CallParts, call: CallRow, db: Database, storage: Storage
) -> None:
    await record(parts, call)
    service = Service(answer=RuntimeError("nobody foresaw this"))
    worker = TranscriptWorker(db, parts.notifications, service, storage, callback_url="https://school.example/")
    age = "UPDATE transcripts SET due_at = now(), created_at = now() - %(age)s, attempts = %(attempts)s"
    found = []
    for hours, attempts in AGES:
        await db.execute(age, {"age": timedelta(hours=hours), "attempts": attempts})
        assert await worker.step()
        found += [row["internal_status"] for row in await transcripts(db)]

    assert found == ["pending", "pending", "failed"]
    shows = await shown(db, storage, call)
    assert shows.error_description == "The recording could not be transcribed within 24 hours."
    assert await told(db, call) == ["finished", "recorded", "recorded"]
