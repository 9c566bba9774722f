"""The carrier itself: what it owns, what it was asked for, what it took, and where each message is."""

import itertools
import secrets
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from server.providers.sandbox.journal import Journal
from server.providers.sandbox.media_files import MediaFiles
from server.providers.sandbox.misbehaviour import Callbacks, Misbehaviour
from server.providers.sandbox.records import (
    AskedFor,
    Direction,
    Handset,
    Medium,
    Message,
    MessagingService,
    PhoneNumber,
)
from server.providers.sandbox.settings import (
    MESSAGING_SERVICE_NAME,
    MESSAGING_SERVICE_SID,
    OWNED_NUMBERS,
    SandboxSettings,
)

# The service has no phone number available.
NO_SENDER = 21703

_REQUESTS_KEPT = 10_000


def phone_number_sid(number: str) -> str:
    """Sids of numbers are the same on every machine."""
    return "PN" + sha256(number.encode()).hexdigest()[:32]


class Carrier:
    """All state of one sandbox; every change goes to the journal before anybody is told of it."""

    def __init__(self, settings: SandboxSettings, journal: Journal, *, now: Callable[[], datetime]) -> None:
        self.account_sid = settings.account_sid
        self._inbound_url = settings.inbound_url
        self._voice_url = settings.voice_url
        self._voice_status_url = settings.voice_status_url
        self._media_files = MediaFiles(None if settings.data_dir is None else settings.data_dir / "media")
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
        direction: Direction = Direction.OUTBOUND,
        by_carrier: bool = False,
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
            direction=direction,
            by_carrier=by_carrier,
        )
        self.add(message)
        return message

    def add(self, message: Message) -> None:
        """Keep a new message."""
        self._index(message)
        self.save(message)

    def advance(self, message: Message, status: str) -> None:
        """Move a message on; a callback becomes due where the vendor sends one."""
        message.status = status
        message.updated = self.now()
        if status == "queued" and message.from_ is None:
            message.from_ = self._sender_for(message)
            if message.from_ is None:
                message.final_status, message.final_error = "failed", NO_SENDER
        if status == "sent":
            message.sent = message.updated
        if status == message.final_status:
            message.error_code = message.final_error
        is_told = message.is_told(status) and message.callbacks != Callbacks.MISSING
        if message.callback_url is not None and is_told:
            message.callbacks_due.append([status, secrets.token_hex(16)])
        self.save(message)

    def save(self, message: Message) -> None:
        """Write a message's present state down."""
        self._journal.put("messages", message.sid, vars(message))

    def delete(self, message: Message) -> None:
        """Forget one message and its media."""
        for sid in message.media_sids:
            if sid in self.media:
                self.delete_medium(self.media[sid])
        del self.messages[message.sid]
        self._by_receiver[message.to].pop(message.sid)
        self._journal.drop("messages", message.sid)

    def newest_first(self, *, to: str | None) -> Iterator[Message]:
        """Messages, of one receiver or of all."""
        return reversed((self.messages if to is None else self._by_receiver.get(to, {})).values())

    def add_medium(self, message_sid: str, content_type: str, data: bytes) -> Medium:
        """Keep a file that came with a message."""
        medium = Medium(
            sid=f"ME{secrets.token_hex(16)}",
            message_sid=message_sid,
            content_type=content_type,
            created=self.now(),
            key=secrets.token_hex(16),
        )
        self._media_files.put(medium.sid, data)
        self.media[medium.sid] = medium
        self._journal.put("media", medium.sid, asdict(medium))
        return medium

    def file_of(self, medium: Medium) -> bytes:
        """What is in a file."""
        return self._media_files.get(medium.sid)

    def delete_medium(self, medium: Medium) -> None:
        """Forget a file."""
        del self.media[medium.sid]
        self._journal.drop("media", medium.sid)
        self._media_files.drop(medium.sid)

    def owns(self, number: str) -> bool:
        """Whether the account may send from it."""
        return phone_number_sid(number) in self.phone_numbers

    def buy(self, number: str) -> PhoneNumber:
        """Make a number the account's; one that it has stays as it is."""
        sid = phone_number_sid(number)
        if sid not in self.phone_numbers:
            self._journal.drop("released", sid)
            self._save_number(PhoneNumber(sid, number, self.now()))
        return self.phone_numbers[sid]

    def release(self, number: PhoneNumber) -> None:
        """Give a number back; it leaves its service too."""
        service = self.service_of(number.sid)
        if service is not None:
            service.number_sids.remove(number.sid)
            self.save_service(service)
        del self.phone_numbers[number.sid]
        self._journal.drop("numbers", number.sid)
        self._journal.put("released", number.sid, True)

    def set_sms_url(self, number: PhoneNumber, url: str) -> PhoneNumber:
        """Have texts to a number posted elsewhere, or with an empty URL nowhere."""
        return self._save_number(replace(number, sms_url=url))

    def sms_url(self, number: PhoneNumber) -> str:
        """Where texts to a number are posted that is in no service, empty for nowhere."""
        return (self._inbound_url or "") if number.sms_url is None else number.sms_url

    def set_voice_url(self, number: PhoneNumber, url: str) -> PhoneNumber:
        """Have another URL asked of calls to a number, or with an empty one none."""
        return self._save_number(replace(number, voice_url=url))

    def voice_url(self, number: PhoneNumber) -> str:
        """What is asked of calls to a number, empty for nothing."""
        return (self._voice_url or "") if number.voice_url is None else number.voice_url

    def set_status_callback(self, number: PhoneNumber, url: str) -> PhoneNumber:
        """Have the end of calls to a number told elsewhere, or with an empty URL nowhere."""
        return self._save_number(replace(number, status_callback=url))

    def status_callback(self, number: PhoneNumber) -> str:
        """Where the end of calls to a number is told, empty for nowhere."""
        return (self._voice_status_url or "") if number.status_callback is None else number.status_callback

    def inbound_request_url(self, service: MessagingService) -> str:
        """Where texts to a service's numbers are posted, empty for nowhere."""
        return (self._inbound_url or "") if service.inbound_request_url is None else service.inbound_request_url

    def inbound_url(self, number: PhoneNumber) -> str | None:
        """Where a text to this number is posted: a service has its say before the number."""
        service = self.service_of(number.sid)
        if service is None or service.use_inbound_webhook_on_number:
            return self.sms_url(number) or None
        return self.inbound_request_url(service) or None

    def service_of(self, number_sid: str) -> MessagingService | None:
        """The service that a number is in."""
        return next((service for service in self.services.values() if number_sid in service.number_sids), None)

    def save_service(self, service: MessagingService) -> None:
        """Write down how a service is set up, and which numbers it has."""
        self._journal.put("services", service.sid, asdict(service))

    def set_opted_out(self, phone: str, number: PhoneNumber, opted_out: bool) -> None:
        """A phone's keyword to a number counts for all of the service that the number is in."""
        service = self.service_of(number.sid)
        key = f"{phone} {number.sid if service is None else service.sid}"
        if opted_out:
            self._opt_outs.add(key)
            self._journal.put("opt_outs", key, True)
        else:
            self._opt_outs.discard(key)
            self._journal.drop("opt_outs", key)

    def has_opted_out(self, phone: str, *, from_: str | None, service_sid: str | None) -> bool:
        """Whether a phone wants nothing of a sender, which is named by its number, its service or both."""
        if service_sid is None:
            assert from_ is not None, "a sender is a number or a service"
            number_sid = phone_number_sid(from_)
            service = self.service_of(number_sid)
            service_sid = number_sid if service is None else service.sid
        return f"{phone} {service_sid}" in self._opt_outs

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
        for medium in list(self.media.values()):
            self.delete_medium(medium)
        self._journal.clear()
        self._forget()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _forget(self) -> None:
        now = self.now()
        numbers = [PhoneNumber(phone_number_sid(number), number, now) for number in OWNED_NUMBERS]
        self.phone_numbers = {number.sid: number for number in numbers}
        self.media: dict[str, Medium] = {}
        self._opt_outs: set[str] = set()
        self.messages: dict[str, Message] = {}
        self._by_receiver: dict[str, dict[str, Message]] = {}
        self.handsets: dict[str, Handset] = {}
        local = MessagingService(MESSAGING_SERVICE_SID, MESSAGING_SERVICE_NAME, now, list(self.phone_numbers))
        self.services = {local.sid: local}
        self._requests: deque[tuple[str, AskedFor]] = deque()
        self._request_keys = itertools.count()
        self._attempts: dict[str, int] = {}
        self.misbehave(Misbehaviour(), requests=None)

    def _load(self, tables: dict[str, dict[str, Any]]) -> None:
        for value in tables.get("messages", {}).values():
            self._index(Message(**value))
        for key, value in tables.get("media", {}).items():
            self.media[key] = Medium(**value)
        for key in tables.get("released", {}):
            self.phone_numbers.pop(key, None)
        for key, value in tables.get("numbers", {}).items():
            self.phone_numbers[key] = PhoneNumber(**value)
        self._opt_outs = set(tables.get("opt_outs", {}))
        for key, value in tables.get("services", {}).items():
            self.services[key] = MessagingService(**value)
        for key, value in tables.get("handsets", {}).items():
            self.handsets[key] = Handset(**value)
        for key, value in tables.get("requests", {}).items():
            self._requests.append((key, AskedFor(**value)))
        if self._requests:
            self._request_keys = itertools.count(int(self._requests[-1][0]) + 1)
        self._attempts = tables.get("attempts", {})

    def _index(self, message: Message) -> None:
        self.messages[message.sid] = message
        self._by_receiver.setdefault(message.to, {})[message.sid] = message

    def _save_number(self, number: PhoneNumber) -> PhoneNumber:
        self.phone_numbers[number.sid] = number
        self._journal.put("numbers", number.sid, asdict(number))
        return number

    def _sender_for(self, message: Message) -> str | None:
        """A sticky sender: one receiver always hears from the same number of the service, while that has numbers."""
        assert message.messaging_service_sid is not None, "only a service chooses a sender"
        sids = self.services[message.messaging_service_sid].number_sids
        return self.phone_numbers[sids[zlib.crc32(message.to.encode()) % len(sids)]].number if sids else None
