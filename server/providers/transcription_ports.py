"""What the domain of calls may see of a transcriber: what it is handed, what it answers, and what it tells later."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from server.providers.ports import SignedRequest


@dataclass(frozen=True)
class Word:
    """A word, or part of one, with the punctuation that follows it: `Hello,`. Its times count from the recording's
    start."""

    text: str
    start_ms: int
    end_ms: int
    # From 0 to 1; None where the service says none.
    confidence: float | None


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording: its words in the order spoken, none where nothing was said."""

    words: tuple[Word, ...]


@dataclass(frozen=True)
class Submitted:
    """The service has the recording by that id, and answers later: by its callback, or when it is asked."""

    media_id: str


class TranscriptionFailed(Exception):
    """There will be no transcript of this recording. The text says why, and is shown to the API's users."""


class Transcriber(Protocol):
    """Makes transcripts with one service."""

    @property
    def name(self) -> str:
        """`offline` or `voicebase`."""
        ...

    async def transcribe(
        self, audio: bytes, *, content_type: str, reference: UUID, callback_url: str
    ) -> Transcript | Submitted:
        """The transcript, or that it comes later: then the callback to that URL names `reference`, our id of it.

        Raises TranscriptionFailed, for good; ports.ProviderUnavailable, where later may do; and
        ports.ProviderOutcomeUnknown where the recording may have been taken: a second submission does no harm, and
        costs money.
        """
        ...

    async def fetch(self, media_id: str) -> Transcript | None:
        """The transcript of what was submitted; None while it is being made. Raises TranscriptionFailed or
        ports.ProviderUnavailable."""
        ...

    async def aclose(self) -> None:
        """Release the connections."""
        ...


@dataclass(frozen=True)
class TranscriptReport:
    """A callback about one recording: the transcript, or else why there is none."""

    # Ours, as the callback's URL has it.
    reference: UUID | None
    media_id: str
    transcript: Transcript | None
    failure: str | None


class TranscriptReportReader(Protocol):
    """Proves and reads a service's callbacks."""

    def read(self, request: SignedRequest) -> TranscriptReport:
        """Verify that we gave the URL, then parse. Raises SignatureInvalid or CallbackMalformed."""
        ...
