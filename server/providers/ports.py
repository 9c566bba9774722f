"""What the domains may see of a provider: protocols, values and three kinds of failure, in our words."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID


class MessageStatus(StrEnum):
    """`internal_status` of a message, as documented."""

    PENDING = "pending"
    PROCESSING = "processing"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class OutboundMessage:
    """A message as a provider is asked to send it."""

    message_uuid: UUID
    sender_number: str
    receiver_number: str
    message_body: str
    media_urls: tuple[str, ...]
    message_type: str
    messaging_service_sid: str | None


@dataclass(frozen=True)
class ProviderError:
    """The provider's code of what went wrong, and the page that explains it."""

    code: str
    url: str


@dataclass(frozen=True)
class MessageReport:
    """What a provider says of a message at one time.

    `rank` orders a provider's statuses: a report is applied only if its rank is above the one already applied.
    """

    message_sid: str
    provider_status: str
    internal_status: MessageStatus
    rank: int
    error: ProviderError | None = None


class MessageSender(Protocol):
    """Sends messages through one provider account."""

    async def send(self, message: OutboundMessage) -> MessageReport:
        """Hand the message over. Raises ProviderRejected, ProviderUnavailable or ProviderOutcomeUnknown."""
        ...

    async def find_copies(self, message: OutboundMessage, *, since: datetime) -> list[MessageReport]:
        """The provider's messages with the same numbers, text and media made since then, oldest first.

        Providers do not know our uuids, so a copy may belong to a twin of this message: whoever records its sid first
        has it. Raises ProviderUnavailable.
        """
        ...

    async def aclose(self) -> None:
        """Release the connections."""
        ...


@dataclass(frozen=True)
class SignedRequest:
    """A provider's callback as it came: the URL as the provider called it, the raw body and the header fields."""

    url: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class MessageCallback:
    """A verified callback about one message; `message_uuid` is ours, when the URL named it."""

    report: MessageReport
    message_uuid: UUID | None


class MessageCallbackReader(Protocol):
    """Proves and reads a provider's status callbacks."""

    def read(self, request: SignedRequest) -> MessageCallback:
        """Verify the signature on the raw request, then parse. Raises SignatureInvalid or CallbackMalformed."""
        ...


class ProviderFailure(Exception):
    """Why a call to a provider did not succeed; the type alone decides what happens next."""


class ProviderRejected(ProviderFailure):
    """The provider refused for good: never tried again."""

    def __init__(self, error: ProviderError) -> None:
        super().__init__(f"rejected with code {error.code}")
        self.error = error


class ProviderUnavailable(ProviderFailure):
    """The provider took nothing and may take it later, no sooner than `retry_after` where it said so."""

    def __init__(self, why: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class ProviderOutcomeUnknown(ProviderFailure):
    """The provider may or may not have taken it: look first, then maybe again."""


class SignatureInvalid(Exception):
    """The callback was not signed by the provider's account."""


class CallbackMalformed(Exception):
    """The callback is signed, but lacks what it must say; the text names it."""
