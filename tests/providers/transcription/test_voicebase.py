"""Transcripts of VoiceBase: what is asked, what its answers mean, and the whole way with the sandbox's."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from email import message_from_bytes
from email.policy import HTTP
from typing import Any
from uuid import uuid4

import pytest
import structlog.testing
from cryptography.fernet import Fernet

from server.providers.ports import ProviderOutcomeUnknown, ProviderUnavailable, SignedRequest
from server.providers.sandbox.voice_audio import Spoken, recording_wav
from server.providers.transcription.callback_url import CallbackUrls
from server.providers.transcription.voicebase import VoiceBaseTranscriber
from server.providers.transcription.voicebase_callback import VoiceBaseReportReader
from server.providers.transcription_ports import Submitted, Transcript, TranscriptionFailed, TranscriptReport, Word
from tests.providers.servers import Receiver, Sandbox, closed_port_url, running_sandbox, scripted_vendor
from tests.providers.transcription.recordings import silence

TOKEN = "a-token-of-voicebase"
URLS = CallbackUrls([Fernet.generate_key().decode()])
REFERENCE = uuid4()
PATH = "/api/v1/transcription_requests/webhook"
BASE = f"https://api.example{PATH}"

REFUSED = {"status": 400, "errors": [{"error": "The media is not supported."}]}


@asynccontextmanager
async def transcriber_at(api_base_url: str, *, token: str = TOKEN, **over: Any) -> AsyncIterator[VoiceBaseTranscriber]:
    made = VoiceBaseTranscriber(token=token, urls=URLS, api_base_url=api_base_url, **over)
    try:
        yield made
    finally:
        await made.aclose()


async def submit(api_base_url: str, audio: bytes = b"RIFF", *, base: str = BASE, **over: Any) -> str:
    """Submit a recording; its media id."""
    async with transcriber_at(api_base_url, **over) as transcriber:
        submitted = await transcriber.transcribe(
            audio, content_type="audio/vnd.wave", reference=REFERENCE, callback_url=base
        )
    assert isinstance(submitted, Submitted)
    return submitted.media_id


async def submitted_to(status: int, body: object, headers: dict[str, str] | None = None, **over: Any) -> str:
    """Submit a recording to a server that answers so."""
    async with scripted_vendor(status, body if isinstance(body, str) else json.dumps(body), headers) as base_url:
        return await submit(base_url, **over)


async def fetched_from(status: int, body: object, headers: dict[str, str] | None = None) -> Transcript | None:
    """Fetch a transcript from a server that answers so."""
    text = body if isinstance(body, str) else json.dumps(body)
    async with scripted_vendor(status, text, headers) as base_url, transcriber_at(base_url) as transcriber:
        return await transcriber.fetch("media-1")


async def test_recording_is_uploaded_with_what_is_wanted_of_it(receiver: Receiver) -> None:
    receiver.answer = ("application/json", json.dumps({"mediaId": "media-1", "status": "accepted"}))

    media_id = await submit(receiver.base_url, b"RIFF" + bytes(1_000_000))

    assert media_id == "media-1"
    asked = await receiver.next()
    assert asked.url == f"{receiver.base_url}/v3/media"
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    head = f"Content-Type: {asked.headers['Content-Type']}\r\n\r\n".encode()
    parts = {
        part.get_param("name", header="Content-Disposition"): part
        for part in message_from_bytes(head + asked.body, policy=HTTP).iter_parts()
    }
    assert set(parts) == {"media", "configuration", "metadata"}
    assert parts["media"].get_content_type() == "audio/vnd.wave"
    assert parts["media"].get_filename() == "recording.wav"
    assert parts["media"].get_payload(decode=True) == b"RIFF" + bytes(1_000_000)
    [callback] = json.loads(parts["configuration"].get_content())["publish"]["callbacks"]
    url = callback.pop("url")
    assert url.startswith(f"{BASE}?")
    assert URLS.reference(url) == REFERENCE
    assert callback == {"method": "POST", "type": "analytics", "include": ["transcript", "metadata"]}
    assert json.loads(parts["metadata"].get_content()) == {"externalId": str(REFERENCE)}


async def test_recording_that_is_refused_has_no_transcript() -> None:
    with pytest.raises(TranscriptionFailed, match="The media is not supported"):
        await submitted_to(400, REFUSED)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, REFUSED),
        (402, REFUSED),
        (403, REFUSED),
        (404, REFUSED),
        (405, REFUSED),
        (400, ""),
        (400, "[]"),
        (400, "[" * 100_000),
        (400, {"errors": "none"}),
        (413, "<h1>too large</h1>"),
        (302, ""),
    ],
)
async def test_what_the_operator_has_to_put_right_is_logged_and_may_pass(status: int, body: object) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(ProviderUnavailable, match=f"status {status}"):
        await submitted_to(status, body)

    assert [(line["log_level"], line["event"], line["status"]) for line in logs] == [
        ("error", "voicebase.refused_us", status)
    ]
    assert TOKEN not in str(logs)


async def test_redirect_takes_the_token_nowhere(receiver: Receiver) -> None:
    with pytest.raises(ProviderUnavailable):
        await submitted_to(302, "", {"Location": f"{receiver.base_url}/elsewhere"})

    assert receiver.requests.empty()


@pytest.mark.parametrize("status", [408, 429, 503])
async def test_busy_service_is_asked_again_when_it_says(status: int) -> None:
    with pytest.raises(ProviderUnavailable) as unavailable:
        await submitted_to(status, REFUSED, {"Retry-After": "7"})

    assert unavailable.value.retry_after == timedelta(seconds=7)


@pytest.mark.parametrize(
    ("status", "body"), [(500, ""), (502, REFUSED), (504, ""), (200, ""), (200, "[]"), (200, {"status": "accepted"})]
)
async def test_answer_that_leaves_it_open_whether_the_recording_was_taken(status: int, body: object) -> None:
    with pytest.raises(ProviderOutcomeUnknown):
        await submitted_to(status, body)


async def test_service_that_is_not_reached_took_nothing() -> None:
    with pytest.raises(ProviderUnavailable):
        await submit(closed_port_url())


@pytest.mark.parametrize("status", ["accepted", "running"])
async def test_transcript_that_is_being_made_is_none_yet(status: str) -> None:
    assert await fetched_from(200, {"mediaId": "media-1", "status": status}) is None


async def test_transcript_is_fetched() -> None:
    words = [{"w": "Hi", "s": 1, "e": 2, "c": 0.5}, {"w": "!", "s": 2, "e": 2, "c": 1, "m": "punc"}]
    body = {"mediaId": "media-1", "status": "finished", "transcript": {"words": words}}

    assert await fetched_from(200, body) == Transcript((Word("Hi!", 1, 2, 0.5),))


async def test_fetch_names_the_recording_whatever_its_id(receiver: Receiver) -> None:
    async with transcriber_at(receiver.base_url) as transcriber:
        with pytest.raises(ProviderUnavailable):
            await transcriber.fetch("../a?b#c%d é")

    assert (await receiver.next()).url == f"{receiver.base_url}/v3/media/..%2Fa%3Fb%23c%25d%20%C3%A9"


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, {"mediaId": "media-1", "status": "failed", "errors": [{"error": "No sound."}]}, "No sound."),
        (404, REFUSED, "no more"),
    ],
)
async def test_recording_that_failed_has_no_transcript(status: int, body: object, why: str) -> None:
    with pytest.raises(TranscriptionFailed, match=why):
        await fetched_from(status, body)


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, ""), (200, {"mediaId": "x", "status": "finished"}), (400, REFUSED), (401, ""), (404, "no"), (500, "")],
)
async def test_answer_that_says_nothing_of_the_recording_is_asked_for_again(status: int, body: object) -> None:
    with pytest.raises(ProviderUnavailable):
        await fetched_from(status, body)


@pytest.fixture
async def voicebase() -> AsyncIterator[Sandbox]:
    """A sandbox that plays VoiceBase too."""
    async with running_sandbox(voicebase_token=TOKEN) as running:
        yield running


async def report_at(receiver: Receiver) -> TranscriptReport:
    """The next callback, proved and read."""
    told = await receiver.next()
    return VoiceBaseReportReader(URLS).read(SignedRequest(url=told.url, body=told.body, headers=told.headers))


async def test_sandbox_tells_what_was_said_and_is_asked_for_the_same(voicebase: Sandbox, receiver: Receiver) -> None:
    hello = recording_wav([Spoken(0.5, "Hello, who is this?")], seconds=600)
    media_id = await submit(voicebase.base_url, hello, base=receiver.base_url + PATH)

    report = await report_at(receiver)
    async with transcriber_at(voicebase.base_url) as transcriber:
        fetched = await transcriber.fetch(media_id)

    assert (report.reference, report.media_id, report.failure) == (REFERENCE, media_id, None)
    assert report.transcript is not None
    assert report.transcript == fetched
    assert [word.text for word in report.transcript.words] == ["Hello,", "who", "is", "this?"]
    assert report.transcript.words[0].start_ms == 500


async def test_silence_makes_an_empty_transcript(voicebase: Sandbox, receiver: Receiver) -> None:
    await submit(voicebase.base_url, silence(1), base=receiver.base_url + PATH)

    assert (await report_at(receiver)).transcript == Transcript(())


async def test_sandbox_tells_of_a_failure(voicebase: Sandbox, receiver: Receiver) -> None:
    media_id = await submit(voicebase.base_url, b"no sound at all", base=receiver.base_url + PATH)

    report = await report_at(receiver)

    assert report.transcript is None
    assert report.failure is not None
    assert "could not be decoded" in report.failure
    async with transcriber_at(voicebase.base_url) as transcriber:
        with pytest.raises(TranscriptionFailed, match="could not be decoded"):
            await transcriber.fetch(media_id)
        with pytest.raises(TranscriptionFailed, match="no more"):
            await transcriber.fetch("another")


async def test_sandbox_that_is_not_done_has_none_yet(voicebase: Sandbox) -> None:
    await voicebase.control("PUT", "voicebase", json={"delay_ms": 86_400_000})
    media_id = await submit(voicebase.base_url, silence(1))

    async with transcriber_at(voicebase.base_url) as transcriber:
        assert await transcriber.fetch(media_id) is None


async def test_sandbox_knows_its_token(voicebase: Sandbox) -> None:
    with pytest.raises(ProviderUnavailable, match="status 401"):
        await submit(voicebase.base_url, token="another")


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ("429", ProviderUnavailable),
        ("503", ProviderUnavailable),
        ("500", ProviderOutcomeUnknown),
        ("502-taken", ProviderOutcomeUnknown),
        ("lost-response", ProviderOutcomeUnknown),
        ("garbled", ProviderOutcomeUnknown),
    ],
)
async def test_sandbox_that_misbehaves_is_believed_as_far_as_it_goes(
    voicebase: Sandbox, answer: str, failure: type[Exception]
) -> None:
    await voicebase.misbehave(answer=answer)

    with pytest.raises(failure):
        await submit(voicebase.base_url, silence(1))


async def test_second_submission_of_what_may_have_been_taken_does_no_harm(
    voicebase: Sandbox, receiver: Receiver
) -> None:
    await voicebase.misbehave(answer="lost-response", next_requests=1)
    with pytest.raises(ProviderOutcomeUnknown):
        await submit(voicebase.base_url, silence(1), base=receiver.base_url + PATH)
    media_id = await submit(voicebase.base_url, silence(1), base=receiver.base_url + PATH)

    first, second = await report_at(receiver), await report_at(receiver)

    assert first.reference == second.reference == REFERENCE
    assert first.transcript == second.transcript == Transcript(())
    assert media_id in {first.media_id, second.media_id}
