"""Cursors: a position of the log as text that clients keep and hand back, and need not understand."""

import base64
import binascii
import zlib

from server.errors import FieldViolation, InvalidArgument

_VERSION = b"\x01"
_POSITION_BYTES = 7
_CHECKSUM_BYTES = 4


class CursorInvalid(InvalidArgument):
    """The text is no cursor that this log gave out."""

    reason = "CURSOR_INVALID"

    def __init__(self) -> None:
        super().__init__([FieldViolation("after_cursor", "is not a cursor that this service gave out")])


def encode(position: int) -> str:
    """The cursor just after the event at this position, 16 URL-safe characters; of 0, before the first event."""
    body = _VERSION + position.to_bytes(_POSITION_BYTES)
    return base64.urlsafe_b64encode(body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES)).decode()


def decode(cursor: str) -> int:
    """The position of exactly what `encode` made."""
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise CursorInvalid from error
    position = int.from_bytes(raw[len(_VERSION) : -_CHECKSUM_BYTES])
    if len(raw) != len(_VERSION) + _POSITION_BYTES + _CHECKSUM_BYTES or encode(position) != cursor:
        raise CursorInvalid
    return position
