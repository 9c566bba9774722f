"""Proves and reads Bandwidth's callbacks: an array of events, of our messages and of messages to our numbers."""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from hmac import compare_digest
from typing import Any
from uuid import UUID

import structlog

from server.providers.bandwidth import statuses
from server.providers.bandwidth.media_types import named_type, path_of
from server.providers.ports import (
    CallbackMalformed,
    CredentialsMissing,
    InboundMedia,
    InboundMessage,
    MessageCallback,
    MessageEvents,
    SignatureInvalid,
    SignedRequest,
)
from server.providers.text import legible

log = structlog.get_logger(__name__)

_RECEIVED = "message-received"

# The layout of an MMS's parts, not one of them.
_LAYOUTS = (".smil", "smil.xml")


class BandwidthEventsReader:
    """ports.MessageEventsReader for callbacks with the basic authentication that the messaging applications are set to.

    Bandwidth signs nothing, so what proves a callback is that password alone.
    """

    def __init__(self, *, username: str, password: str) -> None:
        self._expected = f"{username}:{password}".encode()

    def read(self, request: SignedRequest) -> MessageEvents:
        """Verify, then parse. Raises CredentialsMissing as Bandwidth's first try, which comes without, wants it."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        authorization = headers.get("authorization")
        if not authorization:
            raise CredentialsMissing("no Authorization")
        if not compare_digest(_credentials(authorization), self._expected):
            raise SignatureInvalid("the basic authentication is not ours")
        events: list[MessageCallback | InboundMessage] = []
        faults = []
        for place, fields in enumerate(_array(request.body)):
            try:
                event = _Event(place, fields).read()
            except CallbackMalformed as fault:
                faults.append(str(fault))
                continue
            if event is not None:
                events.append(event)
        return MessageEvents(events, faults)


class _Event:
    """One event; what is wrong with it is told by its place in the array."""

    def __init__(self, place: int, fields: object) -> None:
        self._name = f"event {place}"
        self._fields = self._object(fields, self._name)
        self._message: Mapping[str, Any] = {}

    def read(self) -> MessageCallback | InboundMessage | None:
        """What it says; None where that is nothing of messages as we know them."""
        event_type = self._text(self._fields, "type")
        if event_type == _RECEIVED:
            self._message = self._object(self._fields.get("message"), f"{self._name}: message")
            return self._inbound()
        message = self._fields.get("message")
        is_ours = isinstance(message, Mapping) and message.get("direction") == "out"
        if not is_ours and not statuses.is_known(event_type):
            log.info("bandwidth.event_skipped", type=event_type)
            return None
        self._message = self._object(message, f"{self._name}: message")
        return self._callback(event_type)

    def _callback(self, event_type: str) -> MessageCallback:
        code = self._fields.get("errorCode")
        if not isinstance(code, int | str | None):
            raise CallbackMalformed(f"{self._name}: errorCode is no number")
        report = statuses.report(
            message_sid=self._text(self._message, "id"),
            provider_status=event_type,
            error_code=self._printed(str(code), "errorCode") if code else None,
        )
        return MessageCallback(report=report, message_uuid=_uuid(self._message.get("tag")), body=self._json())

    def _inbound(self) -> InboundMessage:
        media = self._message.get("media") or []
        if not isinstance(media, list):
            raise CallbackMalformed(f"{self._name}: message.media is not an array")
        urls = [self._printed(url, "message.media") for url in media]
        return InboundMessage(
            message_sid=self._text(self._message, "id"),
            sender_number=self._text(self._message, "from"),
            receiver_number=self._text(self._fields, "to"),
            message_body=legible(self._string(self._message.get("text") or "", "message.text")),
            media=tuple(
                InboundMedia(url, named_type(url)) for url in urls if not path_of(url).lower().endswith(_LAYOUTS)
            ),
            keyword=None,
        )

    def _json(self) -> str:
        """The event alone, in ASCII: what no row can hold is escaped."""
        try:
            return json.dumps(self._fields, separators=(",", ":"))
        except RecursionError as error:
            raise CallbackMalformed(f"{self._name} is nested too deeply") from error

    def _text(self, fields: Mapping[str, Any], name: str) -> str:
        value = fields.get(name)
        path = name if fields is self._fields else f"message.{name}"
        if value is None or value == "":
            raise CallbackMalformed(f"{self._name}: missing: {path}")
        return self._printed(value, path)

    def _printed(self, value: object, path: str) -> str:
        """What a row can hold: an id or a number that it cannot is nobody's."""
        printed = self._string(value, path)
        if printed != legible(printed):
            raise CallbackMalformed(f"{self._name}: {path} has characters that are no text")
        return printed

    def _string(self, value: object, path: str) -> str:
        if not isinstance(value, str):
            raise CallbackMalformed(f"{self._name}: {path} is not text")
        return value

    def _object(self, value: object, name: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise CallbackMalformed(f"{name} is not a JSON object")
        return value


def _array(body: bytes) -> Sequence[object]:
    """The bare array that Bandwidth posts, or the same under `_json`, as Rails hands arrays on."""
    try:
        parsed = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise CallbackMalformed("the body is not JSON") from error
    events = parsed.get("_json") if isinstance(parsed, dict) else parsed
    if not isinstance(events, list):
        raise CallbackMalformed("the body is neither a JSON array nor an object with one as _json")
    return events


def _uuid(tag: object) -> UUID | None:
    """The uuid that we tag messages with; others of the account's programs may tag otherwise."""
    try:
        return UUID(tag) if isinstance(tag, str) else None
    except ValueError:
        return None


def _credentials(authorization: str) -> bytes:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return b64decode(encoded.strip(), validate=True)
    except ValueError:
        return b""
