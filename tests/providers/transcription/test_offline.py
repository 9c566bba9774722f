"""Transcripts made on this machine, of recordings as Twilio makes them, by the real recognizer."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from server.providers.ports import ProviderUnavailable
from server.providers.sandbox.voice_audio import Spoken, recording_wav
from server.providers.sandbox.voice_speech import speak
from server.providers.transcription.offline import OfflineTranscriber, longest
from server.providers.transcription_ports import Transcript, TranscriptionFailed
from tests.providers.transcription.recordings import (
    ABSENT,
    CALL_BACK,
    encoded,
    noise,
    one_channel,
    plain,
    silence,
    two_channels,
)

BOTH = "your child was absent today please call us back tomorrow morning"

WITHOUT_LIBRARIES = """
import asyncio, sys, uuid
sys.modules["faster_whisper"] = None
from server.providers.transcription.offline import OfflineTranscriber
from server.providers.transcription_ports import TranscriptionFailed

async def main():
    transcriber = OfflineTranscriber()
    try:
        await transcriber.transcribe(b"", content_type="audio/wav", reference=uuid.uuid4(), callback_url="")
    except TranscriptionFailed as error:
        print(error)

asyncio.run(main())
"""


async def transcribed(audio: bytes) -> Transcript:
    transcriber = OfflineTranscriber()
    made = await transcriber.transcribe(audio, content_type="audio/wav", reference=uuid4(), callback_url="https://x/")
    await transcriber.aclose()
    assert isinstance(made, Transcript)
    return made


def recognizers() -> set[int]:
    """The processes of ours that recognize speech now."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {pid for pid in map(int, children) if b"recognizer" in _command_of(pid)}


def _command_of(pid: int) -> bytes:
    """What it was started with; nothing where it has ended since it was listed."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


async def recognizer_started() -> int:
    """The one process that recognizes, once there is one."""
    for _ in range(2_000):
        for pid in recognizers():
            return pid
        await asyncio.sleep(0.01)
    raise AssertionError("none was started")


def variables_of(pid: int) -> set[bytes]:
    """The names of its environment."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {variable.partition(b"=")[0] for variable in variables if variable}


def is_running(pid: int) -> bool:
    """Whether the process is there, and not merely unburied."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
async def test_every_word_has_its_time(subtype: str) -> None:
    transcript = await transcribed(encoded(one_channel(), subtype=subtype))

    assert plain(transcript) == BOTH
    starts = [word.start_ms for word in transcript.words]
    assert starts == sorted(starts)
    assert all(word.start_ms <= word.end_ms <= 8_000 for word in transcript.words)
    assert all(word.confidence is not None and 0 <= word.confidence <= 1 for word in transcript.words)
    assert 300 <= starts[0] <= 900
    assert 3_800 <= transcript.words[5].start_ms <= 4_500
    assert transcript.words[4].text == "today."


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
async def test_channels_are_heard_apart_and_told_in_the_order_of_time(subtype: str) -> None:
    assert plain(await transcribed(encoded(two_channels(), subtype=subtype))) == BOTH


async def test_recording_in_other_rates_than_the_telephones_is_understood() -> None:
    wide = encoded(one_channel(), rate=8_000, subtype="PCM_24")

    assert plain(await transcribed(wide)) == BOTH


async def test_long_recording_is_heard_in_pieces_that_cut_no_word() -> None:
    late = recording_wav([Spoken(118.8, ABSENT), Spoken(240, CALL_BACK)], seconds=245, speak=speak)

    transcript = await transcribed(late)

    assert plain(transcript) == BOTH
    assert 118_500 <= transcript.words[0].start_ms <= 119_300
    assert 239_500 <= transcript.words[5].start_ms <= 240_600


async def test_long_recording_is_handed_over_to_its_end() -> None:
    """From Python 3.12 on, who reads the recognizer's answer must not close what it is still being told."""
    long = recording_wav([Spoken(264, ABSENT)], seconds=268, channels=2, speak=speak)

    transcript = await transcribed(long)

    assert len(long) > 8 * 1024 * 1024
    assert plain(transcript) == "your child was absent today"
    assert 263_500 <= transcript.words[0].start_ms <= 264_600


@pytest.mark.parametrize("audio", [silence(), silence(0), noise(4)])
async def test_silence_makes_an_empty_transcript(audio: bytes) -> None:
    assert await transcribed(audio) == Transcript(())


@pytest.mark.parametrize(
    ("audio", "why"),
    [
        (b"", "not a WAV file"),
        (b"RIFF", "not a WAV file"),
        (b"ID3" + bytes(1_000), "not a WAV file"),
        (encoded(silence(1), format="FLAC", subtype="PCM_16"), "not a WAV file but FLAC"),
        (encoded(silence(1), rate=100), "1 channels at 100 Hz"),
    ],
)
async def test_what_is_no_recording_has_no_transcript(audio: bytes, why: str) -> None:
    with pytest.raises(TranscriptionFailed, match=why):
        await transcribed(audio)


async def test_recording_that_was_cut_off_is_heard_to_where_it_ends() -> None:
    whole = one_channel()

    assert plain(await transcribed(whole[: len(whole) // 2])).startswith("your child was absent today")


async def test_process_that_crashes_leaves_the_recording_for_later() -> None:
    waiting = asyncio.create_task(transcribed(one_channel()))
    os.kill(await recognizer_started(), signal.SIGSEGV)

    with pytest.raises(ProviderUnavailable, match="-11"):
        await waiting


def test_process_has_no_more_processor_time_than_it_is_granted() -> None:
    program = [sys.executable, "-m", "server.providers.transcription.recognizer", "1"]

    ended = subprocess.run(program, input=one_channel(seconds=200), capture_output=True, check=False, timeout=60)

    assert ended.returncode == -signal.SIGXCPU


async def test_recording_that_takes_too_long_has_no_transcript() -> None:
    waiting = asyncio.create_task(transcribed(one_channel()))
    os.kill(await recognizer_started(), signal.SIGXCPU)

    with pytest.raises(TranscriptionFailed, match="too long"):
        await waiting


async def test_cancellation_leaves_no_process() -> None:
    waiting = asyncio.create_task(transcribed(one_channel()))
    pid = await recognizer_started()

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert not is_running(pid)


async def test_one_process_at_a_time() -> None:
    transcriber = OfflineTranscriber()

    async def plain_words() -> str:
        made = await transcriber.transcribe(
            one_channel(), content_type="audio/wav", reference=uuid4(), callback_url="https://x/"
        )
        assert isinstance(made, Transcript)
        return plain(made)

    recordings = [asyncio.create_task(plain_words()) for _ in range(2)]
    most = 0
    while not all(recording.done() for recording in recordings):
        most = max(most, len(recognizers()))
        await asyncio.sleep(0.01)

    assert [recording.result() for recording in recordings] == [BOTH, BOTH]
    assert most == 1


async def test_process_has_none_of_our_secrets() -> None:
    waiting = asyncio.create_task(transcribed(one_channel()))
    pid = await recognizer_started()

    names = variables_of(pid)

    await waiting
    # Python's own, where it finds no locale.
    assert names <= {b"LC_CTYPE"}


def test_recognizer_keeps_no_mark_to_be_known_by(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "server.providers.transcription.recognizer", "60"]

    ended = subprocess.run(
        program, input=one_channel(), env={"HOME": str(tmp_path)}, capture_output=True, check=True, timeout=60
    )

    assert b"absent" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_process_ends_with_the_one_that_started_it() -> None:
    program = (
        "import asyncio, os, sys\n"
        "from uuid import uuid4\n"
        "from server.providers.transcription.offline import OfflineTranscriber\n"
        "async def main():\n"
        "    made = OfflineTranscriber().transcribe(sys.stdin.buffer.read(), content_type='audio/wav',"
        " reference=uuid4(), callback_url='')\n"
        "    task = asyncio.create_task(made)\n"
        "    while not (children := open(f'/proc/self/task/{os.getpid()}/children').read().split()):\n"
        "        await asyncio.sleep(0.01)\n"
        "    await asyncio.sleep(1)\n"
        "    print(*children, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )

    parent = subprocess.run(
        [sys.executable, "-c", program], input=one_channel(seconds=200), capture_output=True, check=False, timeout=60
    )

    [pid] = parent.stdout.split()
    assert parent.returncode == -9
    deadline = time.monotonic() + 30
    while is_running(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(int(pid))


def test_time_is_granted_by_the_length() -> None:
    assert longest(b"") == timedelta(minutes=1)
    assert longest(bytes(16_000 * 600)) == timedelta(minutes=11)


async def test_nothing_is_asked_for_later() -> None:
    with pytest.raises(TranscriptionFailed):
        await OfflineTranscriber().fetch("a-media-id")


def test_missing_libraries_are_told_at_the_start_and_to_whoever_asks() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARIES], check=True, capture_output=True, text=True, timeout=60
    )

    assert ended.stdout.count("transcription.not_installed") == 1
    assert "VOICEBASE_TOKEN" in ended.stdout
    assert ended.stdout.endswith("no transcriber is installed\n")
