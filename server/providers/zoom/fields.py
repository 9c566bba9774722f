"""The fields of a JSON object of Zoom's, each as it should be or not at all."""

import re
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from server.providers.text import legible
from server.providers.zoom.times import iso_time

# Of an id or a name; longer ones are not Zoom's, and no index would take them.
LONGEST_WORD = 255

_LARGEST_FILE = 2**63 - 1

# As our tokens have it, and as it is written elsewhere.
_KEY = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)

# Of a bearer token in a header field.
_TOKEN = re.compile(r"[!-~]+", re.ASCII)


class Fields:
    """A JSON object; anything else has no fields."""

    def __init__(self, value: object) -> None:
        self._values: Mapping[str, object] = value if isinstance(value, dict) else {}

    def __getitem__(self, name: str) -> object:
        """The value as it is; None where there is none."""
        return self._values.get(name)

    def part(self, name: str) -> "Fields":
        """An object within."""
        return Fields(self[name])

    def parts(self, name: str) -> list["Fields"]:
        """The objects of a list within."""
        values = self[name]
        return [Fields(value) for value in values] if isinstance(values, list) else []

    def text(self, name: str) -> str | None:
        """A text that a row can hold."""
        value = self[name]
        return legible(value) if isinstance(value, str) and value else None

    def identifier(self, name: str) -> str | None:
        """An id, which examples have as a number too."""
        value = self[name]
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_FILE:
            return str(value)
        return self.word(name)

    def word(self, name: str) -> str | None:
        """A text that is as it is or not at all, and that an index takes."""
        said = self._unchanged(name)
        return said if said is not None and len(said) <= LONGEST_WORD else None

    def key(self, name: str) -> UUID | None:
        """A key of ours; others of the account's programs may have keys of another form."""
        value = self[name]
        return UUID(value) if isinstance(value, str) and _KEY.fullmatch(value) else None

    def time(self, name: str) -> datetime | None:
        """A time in ISO 8601."""
        return iso_time(self[name])

    def size(self, name: str) -> int | None:
        """A number of bytes, which the reference has as any number."""
        value = self[name]
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LARGEST_FILE:
            return None
        return int(value)

    def url(self, name: str) -> str | None:
        """A URL, or what stands in its place, as it is."""
        return self._unchanged(name)

    def token(self, name: str) -> str | None:
        """A token that a header field can hold."""
        value = self[name]
        return value if isinstance(value, str) and _TOKEN.fullmatch(value) else None

    def _unchanged(self, name: str) -> str | None:
        said = self.text(name)
        return said if said == self[name] else None
