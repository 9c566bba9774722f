"""Calls with recordings and voicemails through Envoy, as documented: the golden files are the documented keys."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from server.calls.parts import CallParts
from server.calls.recordings.reports import update_recording
from server.calls.recordings.transcripts import TranscriptWorker
from server.calls.state import CONFERENCE, RETURN
from server.config import Settings
from server.db import Database
from server.notifications import Notifications
from server.providers.transcription_ports import Transcript, Word
from server.providers.twilio.twiml import TwilioCallScripts
from server.storage import open_storage
from tests.calls.recorded import make_conference, make_direct_call, make_return_call, report, sid, voicemails, wav
from tests.calls.transcribing import Service, record
from tests.clients import Client
from tests.files.support import path_of, signer_of
from tests.rest.case import with_patterns
from tests.rest.front import Front

GOLDEN = Path(__file__).parent.parent / "golden" / "rest"

_URL = re.compile(r"http://shunkan_ido/api/v1/files/recordings/[\w-]+\.wav\?expires=\d+&signature=[\w-]+")
_SID = re.compile(r"CA\d{32}")


@pytest.fixture
async def parts(db: Database, notifications: Notifications, settings: Settings) -> Any:
    """What callbacks are answered with, as the API under test has it."""
    storage = open_storage(settings.storage_url, signer_of(settings))
    yield CallParts(
        db=db,
        notifications=notifications,
        storage=storage,
        scripts=TwilioCallScripts(public_base_url=settings.public_base_url),
        unknown_caller_answer="Who?",
        time_limit=timedelta(hours=2),
    )
    await storage.aclose()


async def get(front: Front, client: Client, path: str) -> Any:
    """The JSON of a good answer."""
    headers = {"Authorization": f"Bearer {client.token}"}
    async with aiohttp.ClientSession(front.url, headers=headers) as session, session.get(path) as answer:
        assert answer.status == 200
        return await answer.json()


def assert_golden(name: str, body: Any) -> None:
    """The answer is the file's, but for what differs from run to run."""
    written = _SID.sub("<sid>", _URL.sub("<file_url>", json.dumps(body)))
    assert with_patterns(json.loads(written)) == json.loads((GOLDEN / f"{name}.json").read_text())


async def transcribe(parts: CallParts) -> None:
    """Have what is stored transcribed."""
    worker = TranscriptWorker(
        parts.db, parts.notifications, Service(), parts.storage, callback_url="https://service.example"
    )
    assert await worker.step()


@pytest.mark.parametrize(
    ("make", "golden"),
    [
        (make_direct_call, "call_direct_transcripted"),
        (make_return_call, "call_voicemail_transcripted"),
        (make_conference, "call_conference_transcribed"),
    ],
    ids=["direct", RETURN, CONFERENCE],
)
async def test_call_is_shown_with_what_was_recorded_and_said(
    front: Front, client: Client, db: Database, parts: CallParts, make: Any, golden: str
) -> None:
    call = await make(db, client)
    await record(parts, call)
    await transcribe(parts)

    assert_golden(golden, await get(front, client, f"/api/v1/calls/{call.uuid}"))


async def test_call_shows_why_there_is_no_recording(
    front: Front, client: Client, db: Database, parts: CallParts
) -> None:
    call = await make_direct_call(db, client)
    await update_recording(parts, report(call, "absent", url=None, duration=None, recording_sid=sid("RE")))

    assert_golden("call_without_recording", await get(front, client, f"/api/v1/calls/{call.uuid}"))


async def test_voicemail_is_shown_with_its_recording(
    front: Front, client: Client, db: Database, parts: CallParts
) -> None:
    await record(parts, await make_return_call(db, client))
    await transcribe(parts)
    [row] = await voicemails(db)

    assert_golden("voicemail", await get(front, client, f"/api/v1/voicemails/{row['id']}"))


async def test_recording_is_had_at_its_url_and_only_there(
    front: Front, client: Client, db: Database, parts: CallParts
) -> None:
    call = await make_direct_call(db, client)
    before = await get(front, client, f"/api/v1/calls/{call.uuid}/recording_url")
    await record(parts, call)

    found = await get(front, client, f"/api/v1/calls/{call.uuid}/recording_url")

    assert before == {"recording_url": ""}
    path = path_of(found["recording_url"])
    async with aiohttp.ClientSession(front.url) as session:
        async with session.get(path) as answer:
            assert (answer.status, answer.content_type) == (200, "audio/vnd.wave")
            assert await answer.read() == wav()
        async with session.get(path.replace("signature=", "signature=a")) as answer:
            assert answer.status == 403


async def test_long_call_is_shown_whole(front: Front, client: Client, db: Database, parts: CallParts) -> None:
    """Two hours of two people who speak all the time."""
    call = await make_direct_call(db, client)
    await record(parts, call)
    words = tuple(Word("conversation,", 400 * n, 400 * n + 390, 0.9) for n in range(18_000))
    worker = TranscriptWorker(
        parts.db, parts.notifications, Service(Transcript(words)), parts.storage, callback_url="https://service.example"
    )
    assert await worker.step()

    found = await get(front, client, f"/api/v1/calls/{call.uuid}")

    assert found["transcription"]["text"].count("conversation") == 18_000
