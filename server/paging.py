"""Page tokens: opaque, bound to the filter they were made for, so that a token cannot be carried to another list."""

import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from server.errors import FieldViolation, InvalidArgument

DEFAULT_PAGE_SIZE = 50

_FORMAT = struct.Struct(">q8s")


class HasId(Protocol):
    """A row with the key that its list is ordered by."""

    @property
    def id(self) -> int:
        """Unique, and ordered as the list is, or the other way round."""
        ...


Identified = TypeVar("Identified", bound=HasId)


class Page:
    """The page a list request asks for.

    `after_id` is the id of the last row of the page before, None on the first page. Fetch `limit` rows, which is
    one more than the page holds: `cut` tells whether there is a next page by it.
    """

    def __init__(self, request: Message) -> None:
        self.size: int = getattr(request, "page_size") or DEFAULT_PAGE_SIZE  # noqa: B009 every list request has it
        self.limit = self.size + 1
        self._filter = _filter_of(request)
        token: str = getattr(request, "page_token")  # noqa: B009 every list request has it
        self.after_id = self._read(token) if token else None

    def cut(self, rows: Sequence[Identified], *, at_most: int | None = None) -> tuple[Sequence[Identified], str]:
        """The rows of this page, of up to `limit` that were fetched, and the token of the next, "" on the last.

        `at_most`, of one or more, ends a page early whose rows have too much to show.
        """
        size = self.size if at_most is None else min(self.size, at_most)
        if len(rows) <= size:
            return rows, ""
        page = rows[:size]
        return page, self.token(page[-1].id)

    def token(self, after_id: int) -> str:
        """The token of the page after this id."""
        return base64.urlsafe_b64encode(_FORMAT.pack(after_id, self._filter)).decode().rstrip("=")

    def _read(self, token: str) -> int:
        try:
            after_id, made_for = _FORMAT.unpack(base64.urlsafe_b64decode(token.encode() + b"=="))
        except (binascii.Error, struct.error, UnicodeEncodeError) as error:
            raise InvalidArgument([FieldViolation("page_token", "is not one that this service gave out")]) from error
        if made_for != self._filter:
            raise InvalidArgument([FieldViolation("page_token", "belongs to a list with another filter")])
        return int(after_id)


def _filter_of(request: Message) -> bytes:
    only_filter = type(request)()
    only_filter.CopyFrom(request)
    only_filter.ClearField("page_token")
    only_filter.ClearField("page_size")
    described = request.DESCRIPTOR.full_name.encode() + only_filter.SerializeToString(deterministic=True)
    return hashlib.sha256(described).digest()[:8]
