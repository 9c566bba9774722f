"""Checks of a request's fields that end in one answer naming every bad field at once.

Shapes (lengths, words, counts) are stated in the .proto files; a use case adds what only it can know within
`with checking(request) as bad:`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import urlsplit
from uuid import UUID

import phonenumbers
import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from server.errors import FieldViolation, InvalidArgument

# More than these are not told: an answer's header block is limited.
_MOST_VIOLATIONS = 50

# The schema counts characters; an index over URLs, which makes endpoints unique, takes up to 2704 bytes.
_LONGEST_URL_BYTES = 2048

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# A URL with one of these as a segment is another URL.
_PATH_STEPS = (".", "..")

# Short codes, of 5 or 6 digits in the US, and the names that companies send as elsewhere.
_NO_PHONE = re.compile(r"[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}")

# Not a local number without its area code, which the library counts as possible too.
_POSSIBLE = phonenumbers.ValidationResult.IS_POSSIBLE

_validator = protovalidate.Validator()


class FieldChecks:
    """The violations found so far."""

    def __init__(self, violations: list[FieldViolation]) -> None:
        self.violations = violations

    def add(self, field: str, description: str) -> None:
        """Say that a field is bad; the first thing said of a field is kept."""
        if all(v.field != field for v in self.violations):
            self.violations.append(FieldViolation(field, description))

    def phone_number(self, field: str, value: str) -> str:
        """The number in E.164, without a country code read as a US number; a bad one is answered as given."""
        number = e164(value)
        if number is None:
            self.add(field, "is not a possible phone number; give E.164, such as +12065550100")
            return value
        return number

    def sender(self, field: str, value: str) -> str:
        """Whom a message came from: a phone number, or a short code or a name as it is."""
        return value if _NO_PHONE.fullmatch(value) else self.phone_number(field, value)

    def http_url(self, field: str, value: str) -> str:
        """An absolute http or https URL with a host and without credentials."""
        try:
            parts = urlsplit(value)
            port_is_number = parts.port is None or parts.port > 0
        except ValueError:
            self.add(field, "is not a URL")
            return value
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_number:
            self.add(field, "is not an absolute http or https URL")
        elif parts.username or parts.password:
            self.add(field, "must not carry credentials")
        elif any(c.isspace() or not c.isprintable() for c in value):
            self.add(field, "must not contain spaces or control characters")
        elif len(value.encode()) > _LONGEST_URL_BYTES:
            self.add(field, f"must be at most {_LONGEST_URL_BYTES} bytes")
        return value

    def identities(self, given: Message, *names: str, within: str = "") -> None:
        """Names and ids, as far as they are given, without what nobody sees who wonders why there is no such thing.

        `within` is where the request has the message, "" for the request itself.
        """
        for name in names:
            value: str = getattr(given, name)
            field = f"{within}.{name}" if within else name
            if value and not any(c.isprintable() and not c.isspace() for c in value):
                self.add(field, "must not be blank")
            elif value != value.strip():
                self.add(field, "must not begin or end with white space")
            elif _CONTROL_CHARACTER.search(value):
                self.add(field, "must not contain control characters")
            elif value in _PATH_STEPS:
                self.add(field, "must not be . or .., which no path can name")

    def time(self, field: str, value: Timestamp) -> datetime | None:
        """The time in UTC, None where it is out of range."""
        try:
            return value.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.add(field, "is out of range")
            return None

    def raise_if_any(self) -> None:
        """Raise InvalidArgument with what was found."""
        if self.violations:
            raise InvalidArgument(self.violations[:_MOST_VIOLATIONS])


@contextmanager
def checking(request: Message) -> Iterator[FieldChecks]:
    """Begin with the violations of the schema's rules; at the end of the block raise InvalidArgument if any came up."""
    checks = FieldChecks([_violation(v) for v in _validator.collect_violations(request)])
    if b"\x00" in request.SerializeToString():
        for path in _strings_with_nul(request):
            checks.add(path, "must not contain the NUL character")
    yield checks
    checks.raise_if_any()


def check(request: Message) -> None:
    """Raise InvalidArgument if the request breaks rules of the schema."""
    with checking(request):
        pass


def parse_uuid(value: str) -> UUID | None:
    """The UUID, or None where it is none: an id that cannot exist is not found rather than malformed."""
    try:
        return UUID(value)
    except ValueError:
        return None


# Few of our own numbers send most messages, and parsing one costs as much as a tenth of a create.
@lru_cache(maxsize=4096)
def e164(value: str) -> str | None:
    """The number in E.164, without a country code read as a US number; None where it is no possible number.

    None too where it has letters: a phone's keys have them, so that 206-555-XXXX, which hides a number, would be
    somebody's, and whatsapp:+1… a text.
    """
    if any(character.isalpha() for character in value.strip().removeprefix("tel:")):
        return None
    try:
        number = phonenumbers.parse(value, "US")
    except phonenumbers.NumberParseException:
        return None
    if number.extension or phonenumbers.is_possible_number_with_reason(number) != _POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _violation(violation: protovalidate.Violation) -> FieldViolation:
    proto = violation.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None and element.subscript.field == "index":
            path += f"[{element.subscript.value}]"
    return FieldViolation(path, _in_plain_words(proto.rule_id, proto.message))


def _in_plain_words(rule_id: str, message: str) -> str:
    """What the rule's own text says to somebody who sees a JSON body, not a schema."""
    if rule_id == "required" or (rule_id == "string.min_len" and message == "must be at least 1 characters"):
        return "is required"
    if rule_id.endswith(".in"):
        return message.replace("must be in list [", "must be one of ").removesuffix("]")
    if rule_id.endswith(".not_contains"):
        return message.replace("contains substring", "must not contain")
    return message


def _strings_with_nul(message: Message, prefix: str = "") -> Iterator[str]:
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        for index, item in enumerate(values):
            path = f"{prefix}{field.name}[{index}]" if field.is_repeated else f"{prefix}{field.name}"
            if field.type == FieldDescriptor.TYPE_STRING and "\x00" in item:
                yield path
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                yield from _strings_with_nul(item, f"{path}.")
