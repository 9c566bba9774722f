"""The carrier itself: what it owns, what it was asked for, what it took, and where each message is."""

import itertools
import secrets
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from server.providers.sandbox.journal import Journal
from server.providers.sandbox.misbehaviour import Callbacks, Misbehaviour
from server.providers.sandbox.settings import (
    MESSAGING_SERVICE_NAME,
    MESSAGING_SERVICE_SID,
    OWNED_NUMBERS,
    SandboxSettings,
)

_REQUESTS_KEPT = 10_000


@dataclass
class Message:
    """A message the carrier has taken; times are Unix seconds, and every value is one that JSON holds."""

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


@dataclass
class MessagingService:
    """A pool of the account's numbers."""

    sid: str
    friendly_name: str
    created: float
    number_sids: list[str]


@dataclass(frozen=True)
class PhoneNumber:
    """One of the account's numbers."""

    sid: str
    number: str


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


def phone_number_sid(number: str) -> str:
    """Sids of numbers are the same on every machine."""
    return "PN" + sha256(number.encode()).hexdigest()[:32]


class Carrier:
    """All state of one sandbox; every change goes to the journal before anybody is told of it."""

    def __init__(self, settings: SandboxSettings, journal: Journal, *, now: Callable[[], datetime]) -> None:
        self.account_sid = settings.account_sid
        self.phone_numbers = {
            number.sid: number for number in (PhoneNumber(phone_number_sid(n), n) for n in OWNED_NUMBERS)
        }
        self._journal = journal
        self._now = now
        self._forget()
        self._load(journal.open())

    def now(self) -> float:
        """Unix seconds."""
        return self._now().astimezone(UTC).timestamp()

    def take(
        self,
        *,
        to: str,
        from_: str | None,
        service_sid: str | None,
        body: str,
        media_urls: list[str],
        is_mms: bool,
        status_callback: str | None,
        send_at: float | None,
        misbehaviour: Misbehaviour,
    ) -> Message:
        """Accept a message that was found valid; with `send_at` None it is sent at once."""
        failure = misbehaviour.delivery_failure
        delivery_error = self.handset(to).delivery_error
        if failure is None and delivery_error is not None:
            failure = ("undelivered", delivery_error)
        now = self.now()
        message = Message(
            sid=("MM" if is_mms else "SM") + secrets.token_hex(16),
            to=to,
            from_=from_,
            body=body,
            media_urls=media_urls,
            messaging_service_sid=service_sid,
            status_callback=status_callback,
            status="queued" if service_sid is None else "accepted" if send_at is None else "scheduled",
            created=now,
            updated=now,
            send_at=send_at,
            callbacks=misbehaviour.callbacks,
            final_status="delivered" if failure is None else failure[0],
            final_error=None if failure is None else failure[1],
        )
        self._add(message)
        self.save(message)
        return message

    def advance(self, message: Message, status: str) -> None:
        """Move a message on; a callback becomes due where the vendor sends one."""
        message.status = status
        message.updated = self.now()
        if status == "queued" and message.from_ is None:
            message.from_ = self._sender_for(message)
        if status == "sent":
            message.sent = message.updated
        if status == message.final_status:
            message.error_code = message.final_error
        silent = status == "sending" or message.callbacks == Callbacks.MISSING
        if message.status_callback is not None and not silent:
            message.callbacks_due.append([status, secrets.token_hex(16)])
        self.save(message)

    def save(self, message: Message) -> None:
        """Write a message's present state down."""
        self._journal.put("messages", message.sid, vars(message))

    def delete(self, message: Message) -> None:
        """Forget one message."""
        del self.messages[message.sid]
        self._by_receiver[message.to].pop(message.sid)
        self._journal.drop("messages", message.sid)

    def newest_first(self, *, to: str | None) -> Iterator[Message]:
        """Messages, of one receiver or of all."""
        return reversed((self.messages if to is None else self._by_receiver.get(to, {})).values())

    def owns(self, number: str) -> bool:
        """Whether the account may send from it."""
        return phone_number_sid(number) in self.phone_numbers

    def save_service(self, service: MessagingService) -> None:
        """Write down which numbers a service has."""
        self._journal.put("services", service.sid, asdict(service))

    def handset(self, number: str) -> Handset:
        """A phone nobody said anything about is an ordinary mobile."""
        return self.handsets.get(number, Handset())

    def set_handset(self, number: str, handset: Handset) -> None:
        """Make a phone special, or ordinary again."""
        if handset == Handset():
            self.handsets.pop(number, None)
            self._journal.drop("handsets", number)
        else:
            self.handsets[number] = handset
            self._journal.put("handsets", number, asdict(handset))

    def record(self, asked: AskedFor) -> None:
        """Keep a request; the oldest are forgotten."""
        key = str(next(self._request_keys))
        self._requests.append((key, asked))
        self._journal.put("requests", key, vars(asked))
        if len(self._requests) > _REQUESTS_KEPT:
            self._journal.drop("requests", self._requests.popleft()[0])

    def requests(self) -> list[AskedFor]:
        """The requests kept, oldest first."""
        return [asked for _, asked in self._requests]

    def count_attempt(self, *identity: str) -> int:
        """How often, with this time, the same create was asked for."""
        key = sha256("\0".join(identity).encode()).hexdigest()
        self._attempts[key] = self._attempts.get(key, 0) + 1
        self._journal.put("attempts", key, self._attempts[key])
        return self._attempts[key]

    def misbehave(self, misbehaviour: Misbehaviour, *, requests: int | None) -> None:
        """Behave so towards everybody, for so many requests or (None) until told otherwise."""
        self._misbehaviour, self._misbehaving_requests = misbehaviour, requests

    def misbehaviour(self) -> tuple[Misbehaviour, int | None]:
        """How everybody is treated, and for how many more requests."""
        return self._misbehaviour, self._misbehaving_requests

    def take_misbehaviour(self) -> Misbehaviour:
        """How the next request is treated."""
        taken = self._misbehaviour
        if self._misbehaving_requests is not None:
            self._misbehaving_requests -= 1
            if self._misbehaving_requests <= 0:
                self.misbehave(Misbehaviour(), requests=None)
        return taken

    def reset(self) -> None:
        """Be as on the first day."""
        self._journal.clear()
        self._forget()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _forget(self) -> None:
        self.messages: dict[str, Message] = {}
        self._by_receiver: dict[str, dict[str, Message]] = {}
        self.handsets: dict[str, Handset] = {}
        local = MessagingService(MESSAGING_SERVICE_SID, MESSAGING_SERVICE_NAME, self.now(), list(self.phone_numbers))
        self.services = {local.sid: local}
        self._requests: deque[tuple[str, AskedFor]] = deque()
        self._request_keys = itertools.count()
        self._attempts: dict[str, int] = {}
        self.misbehave(Misbehaviour(), requests=None)

    def _load(self, tables: dict[str, dict[str, Any]]) -> None:
        for value in tables.get("messages", {}).values():
            self._add(Message(**value))
        for key, value in tables.get("services", {}).items():
            self.services[key] = MessagingService(**value)
        for key, value in tables.get("handsets", {}).items():
            self.handsets[key] = Handset(**value)
        for key, value in tables.get("requests", {}).items():
            self._requests.append((key, AskedFor(**value)))
        if self._requests:
            self._request_keys = itertools.count(int(self._requests[-1][0]) + 1)
        self._attempts = tables.get("attempts", {})

    def _add(self, message: Message) -> None:
        self.messages[message.sid] = message
        self._by_receiver.setdefault(message.to, {})[message.sid] = message

    def _sender_for(self, message: Message) -> str:
        """A sticky sender: one receiver always hears from the same number of the service."""
        assert message.messaging_service_sid is not None, "only a service chooses a sender"
        sids = self.services[message.messaging_service_sid].number_sids
        return self.phone_numbers[sids[zlib.crc32(message.to.encode()) % len(sids)]].number
