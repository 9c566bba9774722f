"""Transcripts that come later: whichever tells first is kept, and what there is goes before that there is none."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from server.calls.parts import CallParts
from server.calls.recordings.transcripts import TranscriptWorker, receive_transcript
from server.calls.tables import CallRow
from server.db import Database
from server.providers.transcription.voicebase_media import parse_media
from server.providers.transcription_ports import Submitted, Transcript, TranscriptionFailed, TranscriptReport, Word
from server.storage import Storage
from tests.calls.recorded import make_direct_call, make_due, shown, told, transcripts
from tests.calls.transcribing import SAID, Service, record
from tests.clients import Client
from tests.messages.support import until

OTHERS = Transcript((Word("Other", 0, 10, None),))


@pytest.fixture
def service() -> Service:
    """A service that takes its time."""
    return Service(answer=Submitted("media-1"))


@pytest.fixture
def worker(parts: CallParts, service: Service) -> TranscriptWorker:
    """A worker that is stepped."""
    return TranscriptWorker(parts.db, parts.notifications, service, parts.storage, callback_url="https://a.example")


@pytest.fixture
async def call(parts: CallParts, db: Database, client: Client) -> CallRow:
    """A browser's call whose recording is stored."""
    call = await make_direct_call(db, client)
    await record(parts, call)
    return call


async def reference_of(db: Database) -> UUID:
    """What the service is told of the one transcript that there is."""
    [row] = await transcripts(db)
    found = row["uuid"]
    assert isinstance(found, UUID)
    return found


async def receive(
    parts: CallParts,
    reference: UUID | None,
    *,
    media_id: str = "media-1",
    transcript: Transcript | None = None,
    failure: str | None = None,
) -> None:
    """The service's callback."""
    report = TranscriptReport(reference, media_id, transcript, failure)
    await receive_transcript(parts.db, parts.notifications, parts.storage, report=report)


async def test_transcript_comes_by_callback(
    parts: CallParts, call: CallRow, worker: TranscriptWorker, service: Service, db: Database, storage: Storage
) -> None:
    await worker.step()

    await receive(parts, await reference_of(db), transcript=SAID)
    await make_due(db)

    assert not await worker.step()
    assert service.asked == []
    found = await shown(db, storage, call)
    assert (found.internal_status, found.transcription.text) == ("transcripted", "Hello, this is school.")
    assert await told(db, call) == ["finished", "recorded", "transcripted"]


async def test_callback_may_name_the_services_id_alone(
    parts: CallParts, call: CallRow, worker: TranscriptWorker, db: Database, storage: Storage
) -> None:
    await worker.step()

    await receive(parts, None, media_id="media-2", transcript=OTHERS)
    await receive(parts, None, transcript=SAID)

    assert (await shown(db, storage, call)).transcription.text == "Hello, this is school."


async def test_callback_may_come_before_the_submission_is_answered(
    parts: CallParts, call: CallRow, worker: TranscriptWorker, service: Service, db: Database, storage: Storage
) -> None:
    service.gate.clear()
    submitting = asyncio.create_task(worker.step())
    await until(lambda: len(service.heard) == 1)

    await receive(parts, service.heard[0][2], transcript=SAID)
    service.gate.set()
    await submitting

    [row] = await transcripts(db)
    assert (row["internal_status"], row["due_at"]) == ("ready", None)
    assert (await shown(db, storage, call)).internal_status == "transcripted"
    assert await told(db, call) == ["finished", "recorded", "transcripted"]


@pytest.mark.parametrize("status", ["finished", "failed"])
async def test_texts_that_no_row_can_hold_are_no_fault_of_ours(
    parts: CallParts, call: CallRow, worker: TranscriptWorker, db: Database, status: str
) -> None:
    await worker.step()
    said = {"transcript": {"words": [{"w": "Hello\0\ud800", "s": 0, "e": 1}]}, "errors": [{"error": "no\0 sound"}]}
    media = parse_media(json.dumps({"mediaId": "media-1", "status": status, **said}))

    await receive(parts, await reference_of(db), transcript=media.transcript, failure=media.failure)

    [row] = await transcripts(db)
    assert row["internal_status"] == ("ready" if status == "finished" else "failed")


async def test_failure_comes_by_callback(
    parts: CallParts, call: CallRow, worker: TranscriptWorker, db: Database, storage: Storage
) -> None:
    await worker.step()

    await receive(parts, await reference_of(db), failure="No speech was found.")

    found = await shown(db, storage, call)
    assert (found.internal_status, found.error_code) == ("recorded", "TRANSCRIPTION_FAILED")
    assert found.error_description == "The recording was not transcribed: No speech was found."


async def test_failure_of_another_submission_is_none_of_the_one_that_is_waited_for(
    parts: CallParts, call: CallRow, worker: TranscriptWorker, db: Database
) -> None:
    await worker.step()

    await receive(parts, await reference_of(db), media_id="media-0", failure="No.")

    [row] = await transcripts(db)
    assert (row["internal_status"], row["due_at"] is None) == ("submitted", False)


async def test_transcript_of_another_submission_is_one_all_the_same(
    parts: CallParts, call: CallRow, worker: TranscriptWorker, db: Database, storage: Storage
) -> None:
    await worker.step()

    await receive(parts, await reference_of(db), media_id="media-0", transcript=SAID)

    assert (await shown(db, storage, call)).internal_status == "transcripted"


async def test_transcript_that_comes_after_it_was_given_up_is_kept(
    parts: CallParts, call: CallRow, worker: TranscriptWorker, service: Service, db: Database, storage: Storage
) -> None:
    service.answer = TranscriptionFailed("No.")
    await worker.step()

    await receive(parts, await reference_of(db), transcript=SAID)

    found = await shown(db, storage, call)
    assert (found.internal_status, found.HasField("error_code")) == ("transcripted", False)
    assert await told(db, call) == ["finished", "recorded", "recorded", "transcripted"]


@pytest.mark.parametrize("order", sorted(set(itertools.permutations(["submitted", "failed", "finished", "finished"]))))
async def test_what_there_is_goes_before_that_there_is_none_in_whatever_order(
    parts: CallParts, call: CallRow, worker: TranscriptWorker, db: Database, storage: Storage, order: Sequence[str]
) -> None:
    reference = await reference_of(db)
    for step in order:
        if step == "submitted":
            await worker.step()
        else:
            await receive(
                parts,
                reference,
                transcript=SAID if step == "finished" else None,
                failure="No." if step == "failed" else None,
            )

    [row] = await transcripts(db)
    assert (row["internal_status"], row["due_at"], row["error_description"]) == ("ready", None, None)
    assert (await shown(db, storage, call)).transcription.text == "Hello, this is school."
    assert (await told(db, call))[-1] == "transcripted"


async def test_callbacks_and_the_worker_at_once_tell_once(
    parts: CallParts, call: CallRow, worker: TranscriptWorker, service: Service, db: Database
) -> None:
    await worker.step()
    service.later = SAID
    await make_due(db)
    reference = await reference_of(db)

    await asyncio.gather(*(receive(parts, reference, transcript=SAID) for _ in range(4)), worker.step())

    assert [row["internal_status"] for row in await transcripts(db)] == ["ready"]
    assert await told(db, call) == ["finished", "recorded", "transcripted"]


async def test_callback_about_nothing_of_ours_changes_nothing(
    parts: CallParts, call: CallRow, worker: TranscriptWorker, db: Database
) -> None:
    await worker.step()
    before = await transcripts(db)

    await receive(parts, uuid4(), transcript=OTHERS)
    await receive(parts, None, media_id="media-9", failure="No.")

    assert await transcripts(db) == before
