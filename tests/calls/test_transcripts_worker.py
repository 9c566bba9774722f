"""Transcripts: of our copy of the recording, once, however long the service takes and whoever dies."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.calls.parts import CallParts
from server.calls.recordings.reports import update_recording
from server.calls.recordings.transcripts import CALLBACK_PATH, CHECK_AFTER, TranscriptWorker
from server.calls.tables import CallRow
from server.config import Settings
from server.db import Database
from server.leases import LEAST_ATTEMPTS
from server.providers.ports import ProviderOutcomeUnknown, ProviderUnavailable
from server.providers.transcription_ports import Submitted, Transcript, TranscriptionFailed
from server.storage import FolderStorage, Storage, StorageFailed, StoredFile
from tests.calls.recorded import (
    events_of,
    make_conference,
    make_direct_call,
    make_due,
    make_return_call,
    recordings,
    report,
    shown,
    told,
    transcripts,
    wav,
)
from tests.calls.transcribing import SAID, Outcome, Service, record
from tests.clients import Client
from tests.cut_off import ASKING, RECORDING, cut_off
from tests.files.support import signer_of
from tests.leases import LEASE, until_renewed
from tests.messages.support import until

MakeWorker = Callable[..., TranscriptWorker]

CALLBACK_URL = "https://school.example" + CALLBACK_PATH


@pytest.fixture
def service() -> Service:
    """The transcription service."""
    return Service()


@pytest.fixture
def make_worker(parts: CallParts, service: Service) -> MakeWorker:
    """Makes workers that are stepped."""

    def make(storage: Storage = parts.storage, **over: Any) -> TranscriptWorker:
        given = {"callback_url": CALLBACK_URL, **over}
        return TranscriptWorker(parts.db, parts.notifications, service, storage, **given)

    return make


@pytest.fixture
def worker(make_worker: MakeWorker) -> TranscriptWorker:
    """A worker that is stepped."""
    return make_worker()


@pytest.fixture
async def call(parts: CallParts, db: Database, client: Client) -> CallRow:
    """A browser's call whose recording is stored."""
    call = await make_direct_call(db, client)
    await record(parts, call)
    return call


async def test_recording_is_transcribed_and_told(
    call: CallRow, worker: TranscriptWorker, service: Service, db: Database, storage: Storage
) -> None:
    assert await worker.step()
    assert not await worker.step()

    [row] = await transcripts(db)
    found = await shown(db, storage, call)
    assert service.heard == [(wav(), "audio/vnd.wave", row["uuid"], CALLBACK_URL)]
    assert (row["internal_status"], row["due_at"], row["error_description"]) == ("ready", None, None)
    assert found.internal_status == "transcripted"
    assert found.transcription.text == "Hello, this is school."
    for rendered in (found.transcription.srt, found.transcription.webvtt, found.transcription.dfxp):
        assert "school." in rendered
    assert await told(db, call) == ["finished", "recorded", "transcripted"]
    last = (await events_of(db, call.uuid))[-1].call
    assert last.transcription == found.transcription
    assert last.recording_url


@pytest.mark.parametrize("make", [make_return_call, make_conference])
async def test_recording_of_any_call_is_transcribed(
    parts: CallParts,
    client: Client,
    worker: TranscriptWorker,
    db: Database,
    storage: Storage,
    make: Callable[..., Any],
) -> None:
    call = await make(db, client)
    await record(parts, call)

    await worker.step()

    found = await shown(db, storage, call)
    assert found.transcription.text == "Hello, this is school."
    if make is make_return_call:
        assert (found.internal_status, found.voicemail.internal_status) == ("transcripted", "transcripted")
    else:
        assert found.internal_status == "inviting"


async def test_silence_has_a_transcript_without_words(
    call: CallRow, worker: TranscriptWorker, service: Service, db: Database, storage: Storage
) -> None:
    service.answer = Transcript(())

    await worker.step()

    found = await shown(db, storage, call)
    assert (found.internal_status, found.transcription.text) == ("transcripted", "")
    assert found.HasField("transcription")


async def test_submitted_recording_is_asked_about_after_a_while(
    call: CallRow, worker: TranscriptWorker, service: Service, db: Database, storage: Storage
) -> None:
    service.answer = Submitted("media-1")

    await worker.step()
    [submitted] = await transcripts(db)
    assert not await worker.step()
    await make_due(db)
    await worker.step()
    [asked] = await transcripts(db)
    service.later = SAID
    await make_due(db)
    await worker.step()

    for row in (submitted, asked):
        assert (row["internal_status"], row["media_id"]) == ("submitted", "media-1")
        assert CHECK_AFTER - timedelta(seconds=20) < row["due_at"] - datetime.now(UTC) <= CHECK_AFTER * 1.2
    assert (len(service.heard), service.asked) == (1, ["media-1"] * 2)
    assert (await shown(db, storage, call)).internal_status == "transcripted"
    assert await told(db, call) == ["finished", "recorded", "transcripted"]


@pytest.mark.parametrize("submitted", [False, True])
async def test_failure_is_told(
    call: CallRow, worker: TranscriptWorker, service: Service, db: Database, storage: Storage, submitted: bool
) -> None:
    failure = TranscriptionFailed("the language is not understood")
    service.answer, service.later = (Submitted("media-1"), failure) if submitted else (failure, None)

    await worker.step()
    if submitted:
        await make_due(db)
        await worker.step()

    [row] = await transcripts(db)
    assert (row["internal_status"], row["due_at"]) == ("failed", None)
    for found in (await shown(db, storage, call), (await events_of(db, call.uuid))[-1].call):
        assert (found.internal_status, found.error_code, found.error_description) == (
            "recorded",
            "TRANSCRIPTION_FAILED",
            "The recording was not transcribed: the language is not understood.",
        )
        assert found.recording_url
    assert await told(db, call) == ["finished", "recorded", "recorded"]


async def test_recording_that_is_too_large_is_not_transcribed(
    call: CallRow, make_worker: MakeWorker, service: Service, db: Database, storage: Storage
) -> None:
    await make_worker(max_audio_bytes=len(wav()) - 1).step()

    assert service.heard == []
    description = (await shown(db, storage, call)).error_description
    assert description == f"The recording is larger than {len(wav()) - 1} bytes, and was not transcribed."


async def test_recording_may_be_as_large_as_the_limit(
    call: CallRow, make_worker: MakeWorker, service: Service, db: Database, storage: Storage
) -> None:
    await make_worker(max_audio_bytes=len(wav())).step()

    assert (await shown(db, storage, call)).internal_status == "transcripted"


async def test_recording_that_is_in_our_storage_no_more_fails(
    call: CallRow, worker: TranscriptWorker, service: Service, db: Database, storage: Storage
) -> None:
    await db.execute("UPDATE call_recordings SET storage_key = 'recordings/gone.wav'")

    await worker.step()

    assert service.heard == []
    description = (await shown(db, storage, call)).error_description
    assert description == "The recording is not in our storage any more."


@pytest.mark.parametrize(
    ("answer", "least"),
    [
        (ProviderUnavailable("status 503"), 10),
        (ProviderUnavailable("status 429", retry_after=timedelta(seconds=90)), 90),
        (ProviderOutcomeUnknown("no answer"), CHECK_AFTER.total_seconds()),
    ],
)
async def test_service_that_is_away_is_asked_again(
    call: CallRow, worker: TranscriptWorker, service: Service, db: Database, answer: Outcome, least: float
) -> None:
    service.answer = answer

    assert await worker.step()
    assert not await worker.step()
    [waiting] = await transcripts(db)
    service.answer = SAID
    await make_due(db)
    await worker.step()

    assert (waiting["internal_status"], waiting["attempts"]) == ("pending", 1)
    wait = waiting["due_at"] - datetime.now(UTC)
    assert timedelta(seconds=least - 5) < wait <= timedelta(seconds=least * 1.2)
    assert [row["internal_status"] for row in await transcripts(db)] == ["ready"]
    assert await told(db, call) == ["finished", "recorded", "transcripted"]


@pytest.mark.parametrize("answer", [ProviderUnavailable("down"), ProviderOutcomeUnknown("down"), Submitted("media-1")])
async def test_recording_is_given_up_after_a_day_of_tries(
    call: CallRow, worker: TranscriptWorker, service: Service, db: Database, storage: Storage, answer: Outcome
) -> None:
    service.answer = answer
    await worker.step()
    age = "UPDATE transcripts SET due_at = now(), created_at = now() - %(age)s, attempts = %(attempts)s"
    found = []
    for hours, attempts in ((23, 1000), (30, LEAST_ATTEMPTS - 2), (25, LEAST_ATTEMPTS)):
        await db.execute(age, {"age": timedelta(hours=hours), "attempts": attempts})
        await worker.step()
        found += [(row["internal_status"], row["due_at"] is None) for row in await transcripts(db)]

    waiting = "submitted" if isinstance(answer, Submitted) else "pending"
    assert found == [(waiting, False), (waiting, False), ("failed", True)]
    description = (await shown(db, storage, call)).error_description
    assert description == "The recording could not be transcribed within 24 hours."


class Away(FolderStorage):
    """A storage that cannot be reached."""

    async def open(self, key: str) -> StoredFile:
        raise StorageFailed("away")


class Unsigned(FolderStorage):
    """A storage whose URLs cannot be signed."""

    async def url(self, key: str, *, expires_in: timedelta) -> str:
        raise StorageFailed("no credentials")


@pytest.fixture(params=[Away, Unsigned])
async def away(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[FolderStorage]:
    """Our storage, while it cannot do what it is for."""
    storage = request.param(Path(settings.storage_url.removeprefix("file://")), signer_of(settings))
    yield storage
    await storage.aclose()


async def test_storage_that_is_away_is_tried_for_as_long_as_it_takes(
    call: CallRow, make_worker: MakeWorker, away: FolderStorage, db: Database
) -> None:
    await db.execute("UPDATE transcripts SET created_at = now() - interval '30 days', attempts = 1000")

    await make_worker(away).step()
    waiting = await transcripts(db)
    await make_due(db)
    await make_worker().step()

    assert [(row["internal_status"], row["due_at"] is None) for row in waiting] == [("pending", False)]
    assert [row["internal_status"] for row in await transcripts(db)] == ["ready"]


async def test_workers_at_once_have_each_recording_transcribed_once(
    parts: CallParts, client: Client, make_worker: MakeWorker, service: Service, db: Database
) -> None:
    calls = [await make_direct_call(db, client) for _ in range(6)]
    for call in calls:
        await record(parts, call)
    service.gate.clear()

    async def work(worker: TranscriptWorker) -> None:
        while await worker.step():
            pass

    steps = asyncio.gather(*(work(make_worker()) for _ in range(6)))
    await until(lambda: len(service.heard) == 6)
    service.gate.set()
    await steps

    assert {row["internal_status"] for row in await transcripts(db)} == {"ready"}
    assert len({reference for _audio, _type, reference, _url in service.heard}) == len(service.heard) == 6
    for call in calls:
        assert await told(db, call) == ["finished", "recorded", "transcripted"]


@pytest.mark.parametrize("late_answer", [Transcript(()), Submitted("late"), TranscriptionFailed("late")])
async def test_worker_whose_lease_ran_out_changes_nothing(
    parts: CallParts,
    call: CallRow,
    make_worker: MakeWorker,
    service: Service,
    db: Database,
    storage: Storage,
    late_answer: Outcome,
) -> None:
    service.gate.clear()
    late = asyncio.create_task(make_worker().step())
    await until(lambda: len(service.heard) == 1)
    other = Service()
    await make_due(db)
    prompt = TranscriptWorker(db, parts.notifications, other, storage, callback_url=CALLBACK_URL)
    await prompt.step()

    service.answer = late_answer
    service.gate.set()
    await late

    found = await shown(db, storage, call)
    assert (found.internal_status, found.transcription.text) == ("transcripted", "Hello, this is school.")
    assert await told(db, call) == ["finished", "recorded", "transcripted"]


@pytest.mark.parametrize(
    "late_answer",
    [
        Transcript(()),
        Submitted("late"),
        TranscriptionFailed("late"),
        ProviderUnavailable("late"),
        ProviderOutcomeUnknown("late"),
    ],
)
async def test_worker_whose_lease_ran_out_changes_nothing_of_who_has_it_now(
    parts: CallParts,
    call: CallRow,
    make_worker: MakeWorker,
    service: Service,
    db: Database,
    storage: Storage,
    late_answer: Outcome,
) -> None:
    service.gate.clear()
    late = asyncio.create_task(make_worker().step())
    await until(lambda: len(service.heard) == 1)
    other = Service()
    other.gate.clear()
    await make_due(db)
    worker = TranscriptWorker(db, parts.notifications, other, storage, callback_url=CALLBACK_URL)
    prompt = asyncio.create_task(worker.step())
    await until(lambda: len(other.heard) == 1)
    claimed = await transcripts(db)

    service.answer = late_answer
    service.gate.set()
    await late
    meanwhile = await transcripts(db)
    other.gate.set()
    await prompt

    assert meanwhile == claimed
    assert (await shown(db, storage, call)).transcription.text == "Hello, this is school."
    assert await told(db, call) == ["finished", "recorded", "transcripted"]


async def test_lease_lasts_for_as_long_as_it_takes(
    call: CallRow, make_worker: MakeWorker, service: Service, db: Database
) -> None:
    service.gate.clear()
    slow = asyncio.create_task(make_worker(lease=LEASE).step())
    await until(lambda: len(service.heard) == 1)
    for _ in range(2):
        await until_renewed(lambda: transcripts(db))
        assert not await make_worker().step()
    service.gate.set()
    await slow

    [row] = await transcripts(db)
    assert (row["internal_status"], row["attempts"], len(service.heard)) == ("ready", 1, 1)


_WORKER_THAT_DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from server.calls.recordings.transcripts import TranscriptWorker
from server.db import Database
from server.notifications import Notifications
from server.storage import FolderStorage, UrlSigner

class Deadly:
    name = "deadly"

    async def transcribe(self, audio, *, content_type, reference, callback_url):
        assert audio.startswith(b"RIFF")
        os.kill(os.getpid(), signal.SIGKILL)

async def main(url, folder):
    db = Database(url, max_size=2)
    await db.open()
    storage = FolderStorage(Path(folder), UrlSigner("https://a", ["a" * 44]))
    await TranscriptWorker(db, Notifications(url, db), Deadly(), storage, callback_url="https://a").step()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_killed_process_costs_one_more_transcription(
    call: CallRow, make_worker: MakeWorker, db: Database, database_url: str, settings: Settings
) -> None:
    folder = settings.storage_url.removeprefix("file://")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _WORKER_THAT_DIES, database_url, folder),
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
    )
    assert await asyncio.wait_for(process.wait(), 30) == -9
    [claimed] = await transcripts(db)
    assert not await make_worker().step()

    await make_due(db)
    await make_worker().step()

    [row] = await transcripts(db)
    assert (claimed["internal_status"], claimed["attempts"]) == ("pending", 1)
    assert (row["internal_status"], row["attempts"]) == ("ready", 2)
    assert await told(db, call) == ["finished", "recorded", "transcripted"]


@pytest.mark.parametrize("moment", [ASKING, RECORDING])
async def test_worker_may_be_cancelled_at_any_moment(
    call: CallRow, make_worker: MakeWorker, service: Service, db: Database, moment: str
) -> None:
    step = make_worker().step()
    await cut_off(moment, step, db=db, table="transcripts", asked=lambda: len(service.heard) == 1, gate=service.gate)

    await make_due(db)
    await make_worker().step()

    assert [row["internal_status"] for row in await transcripts(db)] == ["ready"]
    assert await told(db, call) == ["finished", "recorded", "transcripted"]


async def test_unexpected_fault_leaves_the_lease_to_run_out(
    call: CallRow, worker: TranscriptWorker, service: Service, db: Database
) -> None:
    service.answer = ValueError("a fault")

    assert await worker.step()
    [row] = await transcripts(db)
    assert not await worker.step()
    service.answer = SAID
    await make_due(db)
    await worker.step()

    assert (row["internal_status"], row["attempts"], row["due_at"] > datetime.now(UTC)) == ("pending", 1, True)
    assert [each["internal_status"] for each in await transcripts(db)] == ["ready"]


async def test_recording_that_is_not_stored_is_not_transcribed(
    parts: CallParts, db: Database, client: Client, worker: TranscriptWorker
) -> None:
    await update_recording(parts, report(await make_direct_call(db, client)))

    assert not await worker.step()
    assert len(await recordings(db)) == 1
