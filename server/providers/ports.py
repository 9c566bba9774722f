"""What the domains may see of a provider: protocols, values and three kinds of failure, in our words."""

from collections.abc import Mapping, Sequence
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
    # `default` or `high`, for a provider that has lanes of its own.
    priority: str = "default"


@dataclass(frozen=True)
class ProviderError:
    """The provider's code of what went wrong, and the page that explains it."""

    code: str
    url: str
    # The provider sends nothing to this receiver, who asked it not to.
    recipient_opted_out: bool = False


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

    async def fetch(self, message_sid: str) -> MessageReport | None:
        """What the provider says of its message now; None where it has no such message. Raises ProviderUnavailable."""
        ...

    async def aclose(self) -> None:
        """Release the connections."""
        ...


class Keyword(StrEnum):
    """What a contact's text asks of the carrier, as the carrier understood it."""

    STOP = "STOP"
    START = "START"
    HELP = "HELP"


@dataclass(frozen=True)
class InboundMedia:
    """Where the provider has one of an inbound message's media, and what it says that is."""

    url: str
    content_type: str


@dataclass(frozen=True)
class InboundMessage:
    """A message that somebody sent to one of our numbers."""

    message_sid: str
    # As the provider spells them: E.164, or of a sender also a short code or a name.
    sender_number: str
    receiver_number: str
    message_body: str
    media: tuple[InboundMedia, ...]
    # What the carrier answered by itself; None where it leaves keywords to us.
    keyword: Keyword | None


@dataclass(frozen=True)
class Media:
    """A file as the provider has it."""

    content_type: str
    data: bytes


class MediaFetcher(Protocol):
    """Fetches inbound messages' media with the provider's credentials."""

    async def fetch(self, url: str, *, max_bytes: int) -> Media:
        """The file. Raises MediaRefused where it will never be had, ProviderUnavailable where later may do."""
        ...

    async def aclose(self) -> None:
        """Release the connections."""
        ...


class LineTypeLookup(Protocol):
    """Asks what kind of line a number is."""

    async def line_type(self, phone_number: str) -> str | None:
        """`mobile`, `landline`, …; None where the provider knows none. Raises ProviderUnavailable."""
        ...

    async def aclose(self) -> None:
        """Release the connections."""
        ...


@dataclass(frozen=True)
class ProviderNumber:
    """A number of the provider's account; the sid of the messaging service it is in, if it is in one we asked for."""

    phone_number_sid: str
    phone_number: str
    messaging_service_sid: str | None


class NumberDirectory(Protocol):
    """Lists the numbers of the provider's account."""

    async def list_numbers(self, messaging_service_sids: Sequence[str]) -> list[ProviderNumber]:
        """Every number of the account, each once. A service that the provider does not know has none. Raises
        ProviderUnavailable where any part of the list could not be had."""
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
    """A verified callback about one message; `message_uuid` is ours, when it named it, `body` what is kept of it."""

    report: MessageReport
    message_uuid: UUID | None
    body: str


class MessageCallbackReader(Protocol):
    """Proves and reads a provider's status callbacks."""

    def read(self, request: SignedRequest) -> MessageCallback:
        """Verify the signature on the raw request, then parse. Raises SignatureInvalid or CallbackMalformed."""
        ...


class InboundMessageReader(Protocol):
    """Proves and reads a provider's callbacks of messages to our numbers."""

    def read(self, request: SignedRequest) -> InboundMessage:
        """Verify the signature on the raw request, then parse. Raises SignatureInvalid or CallbackMalformed."""
        ...


@dataclass(frozen=True)
class MessageEvents:
    """What a callback tells, in its order, and what is wrong with those events that are not to be read."""

    events: Sequence[MessageCallback | InboundMessage]
    faults: Sequence[str]


class MessageEventsReader(Protocol):
    """Proves and reads callbacks of a provider that tells several things in one."""

    def read(self, request: SignedRequest) -> MessageEvents:
        """Verify the request, then parse. Raises CredentialsMissing, SignatureInvalid, or CallbackMalformed where there
        are no events in it at all."""
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


class MediaRefused(ProviderFailure):
    """A file that will never be had: gone, too large, or of a type that is not taken. The text says which."""


class SignatureInvalid(Exception):
    """The callback was not signed by the provider's account."""


class CredentialsMissing(SignatureInvalid):
    """The callback says nothing of who sent it, as a provider's first try does that gives credentials when asked."""


class CallbackMalformed(Exception):
    """The callback is signed, but lacks what it must say; the text names it."""
