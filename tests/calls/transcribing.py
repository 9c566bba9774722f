"""A transcription service of the tests' own, recordings that are to be transcribed, and what was said in them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from server.calls.parts import CallParts
from server.calls.recordings.reports import receive_voicemail, update_recording
from server.calls.recordings.worker import RecordingWorker
from server.calls.state import RETURN
from server.calls.tables import CallRow
from server.providers.transcription_ports import Submitted, Transcript, Word
from tests.calls.recorded import report, sid, wav

SAID = Transcript(
    (
        Word("Hello,", 0, 400, 0.9),
        Word("this", 500, 700, None),
        Word("is", 700, 800, 0.5),
        Word("school.", 800, 1400, 1.0),
    )
)

Outcome = Transcript | Submitted | Exception | None


@dataclass
class Service:
    """A transcriber that answers what it is told; while its gate is closed it does not."""

    answer: Outcome = SAID
    # To who asks for what was submitted.
    later: Outcome = None
    name: str = "voicebase"
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    heard: list[tuple[bytes, str, UUID, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    async def transcribe(
        self, audio: bytes, *, content_type: str, reference: UUID, callback_url: str
    ) -> Transcript | Submitted:
        """Hear a recording."""
        self.heard.append((audio, content_type, reference, callback_url))
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        assert self.answer is not None
        return self.answer

    async def fetch(self, media_id: str) -> Transcript | None:
        """Say what became of one."""
        self.asked.append(media_id)
        await self.gate.wait()
        if isinstance(self.later, Exception):
            raise self.later
        assert not isinstance(self.later, Submitted)
        return self.later

    async def aclose(self) -> None:
        """Nothing is open."""


class OneFile:
    """Has the same recording under every URL."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The recording."""

        async def chunks() -> AsyncIterator[bytes]:
            yield self._data

        yield chunks()

    async def aclose(self) -> None:
        """Nothing is open."""


async def record(parts: CallParts, call: CallRow, *, data: bytes | None = None) -> None:
    """Have a recording of the call stored, which is to be transcribed then."""
    told = report(call, recording_sid=sid("RE"))
    if call.kind == RETURN:
        await receive_voicemail(parts, told)
    else:
        await update_recording(parts, told)
    fetcher = OneFile(wav() if data is None else data)
    worker = RecordingWorker(parts.db, parts.notifications, fetcher, parts.storage, delete_provider_copies=False)
    assert await worker.step()
