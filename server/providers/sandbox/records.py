"""What the carrier keeps, as its journal holds it: times are Unix seconds, and every value is one that JSON holds.

A field that was added later has a default, so that an older journal can still be read.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Direction(StrEnum):
    """Twilio's words for who sent a message to whom; a reply is what the answer to an inbound message asked for."""

    OUTBOUND = "outbound-api"
    REPLY = "outbound-reply"
    INBOUND = "inbound"


class Vendor(StrEnum):
    """Whose protocol a message came with, and is told of with."""

    TWILIO = "twilio"
    BANDWIDTH = "bandwidth"


@dataclass
class Message:
    """A message the carrier has taken, of the account to a phone or of a phone to the account."""

    sid: str
    to: str
    from_: str | None
    body: str
    media_urls: list[str]
    messaging_service_sid: str | None
    status_callback: str | None
    status: str
    created: float
    updated: float
    send_at: float | None
    callbacks: str
    final_status: str
    final_error: int | None
    sent: float | None = None
    error_code: int | None = None
    # Status and idempotency token of each callback that is due and not done.
    callbacks_due: list[list[str]] = field(default_factory=list)
    direction: str = Direction.OUTBOUND
    # The carrier's own answer to a keyword: the phone gets it, the account does not see it.
    by_carrier: bool = False
    # Of an inbound message: where the account is told of it, and the form that tells it.
    inbound_url: str | None = None
    inbound_form: dict[str, str] = field(default_factory=dict)
    media_sids: list[str] = field(default_factory=list)
    vendor: str = Vendor.TWILIO
    # What Bandwidth is to repeat in every callback.
    tag: str = ""

    @property
    def is_twilios(self) -> bool:
        """Whether the Twilio account sees it."""
        return self.vendor == Vendor.TWILIO and not self.by_carrier

    def is_told(self, status: str) -> bool:
        """Whether the vendor makes a callback of this status: of `sending` Bandwidth does for an MMS, else nobody."""
        return status != "sending" or (self.vendor == Vendor.BANDWIDTH and bool(self.media_urls))

    @property
    def callback_url(self) -> str | None:
        """Where its callbacks go."""
        return self.inbound_url if self.direction == Direction.INBOUND else self.status_callback

    def next_status(self) -> str | None:
        """What comes after the present status, None when that is final."""
        if self.status == "sending" and self.final_status == "failed":
            return "failed"
        return {
            "scheduled": "queued",
            "accepted": "queued",
            "queued": "sending",
            "sending": "sent",
            "sent": self.final_status,
        }.get(self.status)


@dataclass(frozen=True)
class Medium:
    """A file of an inbound message; `key` is the secret in the address that needs no credentials."""

    sid: str
    message_sid: str
    content_type: str
    created: float
    key: str


@dataclass
class MessagingService:
    """A pool of the account's numbers. An `inbound_request_url` of None is the sandbox's own, an empty one is none."""

    sid: str
    friendly_name: str
    created: float
    number_sids: list[str]
    inbound_request_url: str | None = None
    use_inbound_webhook_on_number: bool = False
    advanced_opt_out: bool = False


@dataclass(frozen=True)
class PhoneNumber:
    """One of the account's numbers. A URL of None is the sandbox's own, an empty one is none."""

    sid: str
    number: str
    created: float
    sms_url: str | None = None
    voice_url: str | None = None
    status_callback: str | None = None


@dataclass(frozen=True)
class Handset:
    """What is special about somebody's phone: opted out of our texts, cannot be reached, is no mobile."""

    opted_out: bool = False
    delivery_error: int | None = None
    line_type: str | None = None


@dataclass(frozen=True)
class AskedFor:
    """A request as it came, and the status it was answered with; None when it was left without an answer."""

    at: float
    method: str
    path: str
    query: list[list[str]]
    form: list[list[str]]
    status: int | None
