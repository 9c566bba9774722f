"""Voicemails end to end: a contact speaks at the sandbox's Twilio, and its recording is read from our storage."""

import wave
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from server.api import running_api
from server.calls.checks import CheckWorker
from server.calls.recordings.checks import RecordingCheckWorker
from server.calls.recordings.deletions import DeletionWorker
from server.calls.recordings.transcripts import CALLBACK_PATH, TranscriptWorker
from server.calls.recordings.worker import RecordingWorker
from server.config import Settings
from server.db import Database
from server.notifications import Notifications
from server.providers import registry
from server.providers.transcription.callback_url import CallbackUrls
from server.stack.ports import free_port
from server.storage import open_storage
from tests.calls.recorded import recordings, transcripts, voicemails
from tests.clients import Client
from tests.factories import RECEIVER, SENDER, create_message, make_messaging_service
from tests.files.support import path_of, signer_of
from tests.messages.support import until
from tests.providers.sandbox_voice.account import call_of
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, Sandbox, running_sandbox
from tests.rest.front import Front, running_envoy, until_healthy

VOICEBASE_TOKEN = "voicebase-token"


@dataclass
class System:
    """Twilio with its phones, the public door, the workers, and a caller of ours. What workers step over while a
    callback has it in hand is there a moment later."""

    twilio: Sandbox
    front: Front
    caller: Client
    storing: RecordingWorker
    transcribing: TranscriptWorker
    deleting: DeletionWorker
    checking: CheckWorker
    finding: RecordingCheckWorker
    db: Database

    async def rest(self, path: str) -> Any:
        """The JSON of a good answer."""
        headers = {"Authorization": f"Bearer {self.caller.token}"}
        async with self.twilio.http.get(f"{self.front.url}/api/v1/{path}", headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def until(self, holds: Callable[[list[dict[str, Any]]], object]) -> dict[str, Any]:
        """The recording, once it is so."""
        found: list[dict[str, Any]] = []

        async def is_so() -> object:
            found[:] = await recordings(self.db)
            return holds(found)

        await until(is_so)
        return found[0]

    async def until_transcribed(self) -> None:
        """Until the transcript is there."""

        async def is_ready() -> bool:
            return [row["internal_status"] for row in await transcripts(self.db)] == ["ready"]

        await until(is_ready)

    async def heard(self, sid: str, kind: str) -> None:
        """Until a phone has heard this."""

        async def has_heard() -> bool:
            call = await self.twilio.control("GET", f"calls/{sid}")
            return kind in [heard["kind"] for heard in call["heard"]]

        await until(has_heard)

    async def ask(self) -> None:
        """Ask Twilio about the caller's leg, and then what was recorded, as if it were time to."""
        await self.db.execute("UPDATE call_legs SET check_at = now() WHERE check_at IS NOT NULL")
        await until(self.checking.step)
        await self.db.execute("UPDATE calls SET recordings_check_at = now() WHERE recordings_check_at IS NOT NULL")
        await until(self.finding.step)

    async def go_to_voicemail(self) -> str:
        """The contact calls our number, and chooses to leave a message."""
        called = await self.twilio.control("POST", "calls", json={"from": RECEIVER, "to": SENDER})
        sid: str = called["sid"]
        await self.heard(sid, "gather")
        await self.twilio.control("POST", f"calls/{sid}/digits", json={"digits": "2"})
        await self.heard(sid, "record")
        return sid


@pytest.fixture(scope="module")
async def _doors(settings: Settings) -> AsyncIterator[tuple[Settings, Sandbox, Front]]:
    port = free_port()
    public = f"http://127.0.0.1:{port}"
    voice_url = f"{public}/api/v1/twilio_calls/incoming"
    async with running_sandbox(voice_url=voice_url, voicebase_token=VOICEBASE_TOKEN) as twilio:
        live = settings.model_copy(
            update={
                "public_base_url": public,
                "twilio_api_base_url": twilio.base_url,
                "twilio_account_sid": ACCOUNT_SID,
                "twilio_auth_token": SecretStr(AUTH_TOKEN),
                "voicebase_token": SecretStr(VOICEBASE_TOKEN),
                "voicebase_api_base_url": twilio.base_url,
            }
        )
        async with (
            running_api(live, listen="127.0.0.1:0") as api,
            running_envoy([f"127.0.0.1:{api.port}"], port=port) as front,
        ):
            await until_healthy(front, 1)
            yield live, twilio, front


@pytest.fixture
async def system(
    _doors: tuple[Settings, Sandbox, Front], client: Client, db: Database, notifications: Notifications
) -> AsyncIterator[System]:
    live, twilio, front = _doors
    storage = open_storage(live.storage_url, signer_of(live))
    fetcher, voice = registry.call_recording_fetcher(live), registry.voice_calls(live)
    transcriber = registry.transcriber(live)
    await make_messaging_service(db)
    # Which pairs the contact with the number.
    await create_message(client)
    yield System(
        twilio=twilio,
        front=front,
        caller=client,
        storing=RecordingWorker(db, notifications, fetcher, storage, delete_provider_copies=True),
        transcribing=TranscriptWorker(
            db, notifications, transcriber, storage, callback_url=live.public_base_url + CALLBACK_PATH
        ),
        deleting=DeletionWorker(db, voice),
        checking=CheckWorker(db, notifications, voice, storage),
        finding=RecordingCheckWorker(db, notifications, voice, storage, time_limit=live.maximum_call_length),
        db=db,
    )
    for resource in (fetcher, voice, transcriber):
        await resource.aclose()
    await storage.aclose()


async def test_voicemail_is_recorded_stored_transcribed_and_heard_from_our_storage(system: System) -> None:
    sid = await system.go_to_voicemail()
    await system.twilio.control("POST", f"calls/{sid}/speech", json={"text": "We will be late today."})
    told = await system.until(lambda rows: [row for row in rows if row["provider_status"] == "completed"])
    ended = await call_of(system.twilio, sid)
    [row] = await voicemails(system.db)
    before = await system.rest(f"voicemails/{row['id']}")

    await until(system.storing.step)
    await until(system.transcribing.step)
    await system.until_transcribed()

    found = await system.rest(f"voicemails/{row['id']}")
    call = await system.rest(f"calls/{found['call_uuid']}")
    assert ended["heard"][-1]["text"].startswith("Thank you.")
    assert (before["internal_status"], before["provider_status"]) == ("pending", "completed")
    assert "recording_url" not in before
    assert (found["internal_status"], found["recording_duration"]) == ("transcripted", told["duration"])
    assert (call["kind"], call["internal_status"], call["participant_number"]) == ("return", "transcripted", RECEIVER)
    assert call["transcription"] == found["transcription"]
    assert found["transcription"]["text"] == "We will be late today."
    async with aiohttp.ClientSession(system.front.url) as public, public.get(path_of(found["recording_url"])) as answer:
        assert answer.status == 200
        with wave.open(BytesIO(await answer.read())) as file:
            assert round(file.getnframes() / file.getframerate()) == told["duration"] > 0


async def test_providers_copy_is_gone_and_ours_is_not(system: System) -> None:
    sid = await system.go_to_voicemail()
    await system.twilio.control("POST", f"calls/{sid}/speech", json={"text": "Good morning."})
    told = await system.until(lambda rows: [row for row in rows if row["provider_status"] == "completed"])
    path = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/{told['recording_sid']}.json"
    there, _ = await system.twilio.rest("GET", path)
    assert not await system.deleting.step()

    await until(system.storing.step)
    await until(system.deleting.step)

    gone, _ = await system.twilio.rest("GET", path)
    [row] = await recordings(system.db)
    url = (await system.rest(f"voicemails/{(await voicemails(system.db))[0]['id']}"))["recording_url"]
    assert (there, gone, row["delete_at"]) == (200, 404, None)
    async with system.twilio.http.get(url) as answer:
        assert answer.status == 200


async def test_contact_who_says_nothing_leaves_no_recording(system: System) -> None:
    sid = await system.go_to_voicemail()
    ended = await call_of(system.twilio, sid)
    await system.until(lambda rows: [row for row in rows if row["provider_status"] == "absent"])

    [row] = await voicemails(system.db)
    found = await system.rest(f"voicemails/{row['id']}")
    call = await system.rest(f"calls/{found['call_uuid']}")
    assert ended["heard"][-1]["text"] == "We did not hear a message. Goodbye."
    assert (found["internal_status"], found["provider_status"]) == ("failed", "absent")
    assert (call["internal_status"], call["error_code"]) == ("voicemail", "RECORDING_ABSENT")
    assert not await system.storing.step()


async def test_voicemail_is_found_of_which_nothing_was_told(system: System) -> None:
    sid = await system.go_to_voicemail()
    await system.twilio.control("POST", f"calls/{sid}/speech", json={"text": "We will be late today."})
    told = await system.until(lambda rows: [row for row in rows if row["provider_status"] == "completed"])
    await call_of(system.twilio, sid)
    for lost in ("UPDATE voicemails SET recording_id = NULL", "DELETE FROM call_recordings"):
        await system.db.execute(lost)

    await system.ask()
    await until(system.storing.step)
    await until(system.transcribing.step)
    await system.until_transcribed()

    [found], [row] = await recordings(system.db), await voicemails(system.db)
    names = ("recording_sid", "provider_status", "url", "duration", "channels")
    assert [found[name] for name in names] == [told[name] for name in names]
    voicemail = await system.rest(f"voicemails/{row['id']}")
    assert (voicemail["internal_status"], voicemail["recording_duration"]) == ("transcripted", told["duration"])
    assert voicemail["transcription"]["text"] == "We will be late today."
    assert not await system.finding.step()


async def test_voicemail_that_was_never_spoken_is_not_waited_for(system: System) -> None:
    sid = await system.go_to_voicemail()
    told = await system.until(lambda rows: [row for row in rows if row["provider_status"] == "absent"])
    await call_of(system.twilio, sid)
    # As of who hangs up before the tone: there is no recording, and nothing is told.
    path = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/{told['recording_sid']}.json"
    await system.twilio.rest("DELETE", path)
    for lost in (
        "UPDATE voicemails SET recording_id = NULL, internal_status = 'pending'",
        "DELETE FROM call_recordings",
    ):
        await system.db.execute(lost)

    await system.ask()

    [row] = await voicemails(system.db)
    found = await system.rest(f"voicemails/{row['id']}")
    call = await system.rest(f"calls/{found['call_uuid']}")
    assert (found["internal_status"], "provider_status" in found) == ("failed", False)
    assert (call["internal_status"], call["error_code"]) == ("voicemail", "RECORDING_ABSENT")
    assert await recordings(system.db) == []
    assert not await system.finding.step()


@pytest.mark.parametrize("change", [lambda url: url + "a", lambda url: url.partition("&")[0], lambda url: url[:-43]])
async def test_only_who_knows_the_code_of_a_transcript_can_tell_of_it(
    system: System, settings: Settings, change: Callable[[str], str]
) -> None:
    sid = await system.go_to_voicemail()
    await system.twilio.control("POST", f"calls/{sid}/speech", json={"text": "Good morning."})
    await system.until(lambda rows: [row for row in rows if row["provider_status"] == "completed"])
    await until(system.storing.step)
    [row] = await transcripts(system.db)
    urls = CallbackUrls([key.get_secret_value() for key in settings.encryption_keys])
    url = urls.url(system.front.url + CALLBACK_PATH, row["uuid"])
    failed = {"mediaId": "media-1", "status": "failed", "formatVersion": "3.0.7"}

    async with system.twilio.http.post(change(url), json=failed) as answer:
        forged = answer.status, (await answer.json())["error"]["reason"]
    [untouched] = await transcripts(system.db)
    async with system.twilio.http.post(url, json=failed) as answer:
        genuine = answer.status, await answer.read()
    [told] = await transcripts(system.db)

    assert forged == (403, "SIGNATURE_INVALID")
    assert untouched == row
    assert genuine == (200, b"")
    assert told["internal_status"] == "failed"


async def test_transcript_whose_callback_was_lost_is_asked_for(system: System) -> None:
    sid = await system.go_to_voicemail()
    await system.twilio.control("POST", f"calls/{sid}/speech", json={"text": "Good morning."})
    await system.until(lambda rows: [row for row in rows if row["provider_status"] == "completed"])
    await until(system.storing.step)
    await until(system.transcribing.step)
    await system.until_transcribed()
    lost = "UPDATE transcripts SET internal_status = 'submitted', words = NULL, due_at = now()"
    await system.db.execute(lost)

    await until(system.transcribing.step)

    await system.until_transcribed()
    [row] = await voicemails(system.db)
    assert (await system.rest(f"voicemails/{row['id']}"))["transcription"]["text"] == "Good morning."
