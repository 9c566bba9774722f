"""What the sandbox keeps of Zoom, as its journal holds it: times are Unix seconds, and every value is one JSON holds.

A field that was added later has a default, so that an older journal can still be read.
"""

import base64
import secrets
from dataclasses import dataclass, field
from enum import StrEnum


class Shelf(StrEnum):
    """Where a session's recordings are."""

    KEPT = "kept"
    TRASHED = "trashed"
    DELETED = "deleted"


@dataclass
class User:
    """Somebody in a session, once for each time of joining. Only who came by telephone has a number, and no key."""

    id: str
    name: str
    participant_uuid: str
    join_time: float
    is_host: bool = False
    user_key: str | None = None
    phone_number: str | None = None
    leave_time: float | None = None
    leave_reason: str | None = None


@dataclass
class Take:
    """What was recorded between a start and the stop after it."""

    start: float
    end: float | None = None


@dataclass(frozen=True)
class File:
    """A file of a recording; `key` is the secret in the address that a download leads to."""

    id: str
    file_type: str
    file_extension: str
    recording_type: str
    start: float
    end: float
    size: int
    key: str


@dataclass
class Session:
    """A session, from the first join to the last leave. Its files' URLs begin with `base_url`."""

    id: str
    name: str
    key: str | None
    start_time: float
    base_url: str
    end_time: float | None = None
    users: list[User] = field(default_factory=list)
    # `started` or `paused` while it is being recorded.
    recording: str | None = None
    takes: list[Take] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    shelf: str = Shelf.KEPT
    # The events of its recordings that are yet to come.
    due: list[str] = field(default_factory=list)

    @property
    def is_live(self) -> bool:
        """Whether somebody is in it."""
        return self.end_time is None

    @property
    def present(self) -> list[User]:
        """Who is in it."""
        return [user for user in self.users if user.leave_time is None]


@dataclass
class Webhook:
    """An event that is being told: the body as it is posted, and how often it was. One that is held waits for the end
    of its session."""

    id: str
    session_id: str
    event: str
    body: str
    times: int
    attempts: int = 0
    held: bool = False


def new_session_id() -> str:
    """Zoom's ids are 16 bytes in base64. Of those, 1 in 64 begins with a slash, and then counts in a path only when it
    is encoded twice; here each does, so that who forgets it learns so at once."""
    random = base64.b64encode(secrets.token_bytes(16)).decode()
    return f"/{random[1:5]}+{random[6:]}"
