"""What the domain of video calls may see of a provider."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from server.providers.ports import SignedRequest


@dataclass(frozen=True)
class VideoAdmission:
    """Who may join which session as what, and for how long."""

    session_name: str
    session_key: UUID
    user_key: UUID
    is_host: bool
    issued_at: datetime
    expires_at: datetime


class VideoTokens(Protocol):
    """Signs tokens that clients join sessions with."""

    def sign(self, admission: VideoAdmission) -> str:
        """The token; its expiry is moved into the provider's bounds."""
        ...


class SessionOver(Exception):
    """The session has ended already, or never was: there is nothing to end."""


class VideoSessions(Protocol):
    """Ends sessions at the provider."""

    async def end(self, session_id: str) -> None:
        """End a live session. Raises SessionOver, ProviderRejected or ProviderUnavailable."""
        ...

    async def aclose(self) -> None:
        """Release the connections."""
        ...


@dataclass(frozen=True)
class VideoUser:
    """Somebody in a session, as the provider tells it. `user_key` is ours, where a token of ours named it."""

    user_id: str
    user_key: UUID | None
    name: str
    join_time: datetime | None
    leave_time: datetime | None
    leave_reason: str | None


@dataclass(frozen=True)
class RecordingFile:
    """A file of a recording, where the provider has it."""

    file_id: str
    file_type: str
    file_extension: str | None
    recording_type: str | None
    file_size: int | None
    recording_start: datetime | None
    recording_end: datetime | None
    url: str | None


@dataclass(frozen=True)
class VideoEvent:
    """One event of a session. Everything that the provider may leave out is optional."""

    # The provider's own name of it, such as `session.user_joined`.
    name: str
    # When the provider says it was.
    occurred_at: datetime
    session_id: str | None
    session_key: UUID | None
    session_name: str | None
    start_time: datetime | None
    end_time: datetime | None
    user: VideoUser | None
    files: tuple[RecordingFile, ...]
    # Lets its bearer fetch the files.
    download_token: str | None


@dataclass(frozen=True)
class UrlValidation:
    """The provider asks whether the endpoint is ours: the answer is both tokens."""

    plain_token: str
    encrypted_token: str


class VideoEventReader(Protocol):
    """Proves and reads a provider's webhooks."""

    def read(self, request: SignedRequest, *, now: datetime) -> VideoEvent | UrlValidation:
        """Verify the raw request and its age, then parse. Raises SignatureInvalid or CallbackMalformed."""
        ...


class RecordingFetcher(Protocol):
    """Fetches recordings from the provider."""

    def open(self, url: str, *, download_token: str | None) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The file, as it arrives. Raises MediaRefused where it will never be had, ProviderUnavailable where later
        may do, also while it arrives."""
        ...

    async def aclose(self) -> None:
        """Release the connections."""
        ...
