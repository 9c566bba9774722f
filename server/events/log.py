"""Reading the event log. Readers follow positions, which the relay gives in commit order and without a gap."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from uuid import UUID

from commonservices.v1 import event_pb2 as pb
from psycopg.rows import TupleRow, class_row, tuple_row

from server.db import Database
from server.errors import NotFound, OutOfRange
from server.events import convert, cursor
from server.paging import Page
from server.validation import parse_uuid

# A response to a subscriber holds no more than this: clients refuse messages over 4 MiB.
MAX_BATCH_EVENTS = 100
MAX_BATCH_BYTES = 1 << 20

# Nor, with its last event, which begins below this, does a page of a list.
_MAX_LISTED_BYTES = 3 << 19

# How many rows one statement looks at for those that its filter lets through: no statement grows with the table.
_SCAN_STREAMED = 1_000
_SCAN_LISTED = 10_000

# Two events this far apart in the log occurred in its order: no transaction is open for so many others.
_MOST_OUT_OF_ORDER = 10_000


class EventNotFound(NotFound):
    """No such event, or another bearer's."""

    reason = "EVENT_NOT_FOUND"

    def __init__(self, event_id: str) -> None:
        super().__init__("no such event", event_id=event_id)


class CursorExpired(OutOfRange):
    """Events after the cursor have been removed."""

    reason = "CURSOR_EXPIRED"

    def __init__(self, oldest_position: int) -> None:
        super().__init__(
            "events after this cursor are no longer kept; the log is complete after oldest_cursor",
            oldest_cursor=cursor.encode(oldest_position),
        )


@dataclass(frozen=True, slots=True)
class RelayedEvent:
    """What an event's fan-out needs of it."""

    id: int
    position: int
    bearer_id: int
    type: str
    resource_uuid: UUID
    callback_url: str | None


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event and its place."""

    position: int
    event: pb.Event
    size: int

    @property
    def id(self) -> int:
        """What pages of events are ordered by."""
        return self.position


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in the order of the log, and how far the log has been read: past what a filter left out, too."""

    events: Sequence[pb.Event]
    position: int


@dataclass(frozen=True, slots=True)
class Ends:
    """The log's two ends: every event after `oldest_position` is kept, `last_position` is the newest's."""

    last_position: int
    oldest_position: int


_NO_END = 2**62

_ENDS = "SELECT last_position, oldest_position FROM event_log"

_NEWER = "SELECT position, payload FROM events WHERE position > %(after)s ORDER BY position LIMIT %(limit)s"

# What follows a position up to another, with how far the scan came and where the log begins, all of one moment.
_READ = """
WITH scanned AS MATERIALIZED (
    SELECT position, type, payload FROM events
    WHERE position > %(after)s AND position <= %(until)s {owned}
    ORDER BY position LIMIT {scan}
), found AS (
    SELECT position, payload FROM scanned {typed} ORDER BY position LIMIT {limit}
), reached AS (
    SELECT CASE WHEN count(*) < {scan} THEN %(until)s ELSE max(position) END AS position FROM scanned
)
SELECT event_log.oldest_position, reached.position, found.position, found.payload
FROM event_log CROSS JOIN reached LEFT JOIN found ON true ORDER BY found.position
"""

# Halves the log until one position is left: in a log ordered by time the first that is not before the time. The log is
# ordered by commits, so `{corrected}` looks for events on the wrong side of it.
_AT = """
WITH RECURSIVE search (low, high) AS (
    SELECT 1::bigint, last_position + 1 FROM event_log
    UNION ALL
    SELECT CASE WHEN reached THEN low ELSE middle + 1 END, CASE WHEN reached THEN middle ELSE high END
    FROM search
    CROSS JOIN LATERAL (SELECT (low + high) / 2 AS middle) AS halved
    CROSS JOIN LATERAL (SELECT coalesce(
        (SELECT occurred_at >= %(time)s FROM events WHERE position >= middle ORDER BY position LIMIT 1), true
    ) AS reached) AS probed
    WHERE low < high
)
SELECT coalesce(({corrected}), low) FROM search WHERE low = high
"""

_FIRST_AT = _AT.format(
    corrected=f"""
    SELECT position FROM events
    WHERE position >= low - {_MOST_OUT_OF_ORDER} AND position < low AND occurred_at >= %(time)s
    ORDER BY position LIMIT 1
"""
)

_END_BEFORE = _AT.format(
    corrected=f"""
    SELECT position + 1 FROM events
    WHERE position >= low AND position < low + {_MOST_OUT_OF_ORDER} AND occurred_at < %(time)s
    ORDER BY position DESC LIMIT 1
"""
)

# With each event how many were found: those are left out that no longer fit into a page's bytes. Sums and counts do not
# read what they leave out, which may be a thousand transcripts.
_LIST = """
WITH found AS MATERIALIZED (
    SELECT id, position, octet_length(payload) AS size FROM (
        SELECT id, position, type, occurred_at, payload FROM events
        WHERE position > %(after)s AND position < %(before)s {owned} {of_resource}
        ORDER BY position DESC LIMIT {scan}
    ) AS scanned
    WHERE (%(types)s::text[] IS NULL OR type = ANY(%(types)s))
      AND (%(since)s::timestamptz IS NULL OR occurred_at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR occurred_at < %(until)s)
    ORDER BY position DESC LIMIT %(limit)s
), fitting AS (
    SELECT id, sum(size) OVER (ORDER BY position DESC) - size AS before, count(*) OVER () AS found FROM found
)
SELECT events.position, events.payload, fitting.found
FROM fitting JOIN events ON events.id = fitting.id
WHERE fitting.before < {bytes} ORDER BY events.position DESC
"""

# Where the scan of _LIST ended, if there may be more.
_LIST_END = """
SELECT position FROM events WHERE position > %(after)s AND position < %(before)s {owned} {of_resource}
ORDER BY position DESC OFFSET {scan} - 1 LIMIT 1
"""

_GET = """
SELECT position, payload FROM events
WHERE event_id = %(event_id)s AND position IS NOT NULL
  AND (%(owner_id)s::bigint IS NULL OR bearer_id = %(owner_id)s)
"""

_OWNED = "AND bearer_id = %(owner_id)s"
_OF_RESOURCE = "AND resource_uuid = %(resource_uuid)s"
_TYPED = "WHERE type = ANY(%(types)s)"


async def ends(db: Database) -> Ends:
    """Where the log begins and ends now."""
    found = await db.fetch_one(_ENDS, {}, class_row(Ends))
    assert found is not None, "event_log has its row from the first migration"
    return found


async def newer(db: Database, *, after: int, limit: int) -> list[LoggedEvent]:
    """The next events of all bearers."""
    rows: list[TupleRow] = await db.fetch_all(_NEWER, {"after": after, "limit": limit}, tuple_row)
    return [_logged(position, payload) for position, payload in rows]


async def read(db: Database, *, after: int, until: int, owner_id: int | None, types: frozenset[str]) -> Batch:
    """The next events up to the position `until`; no owner and no types mean any."""
    query = _READ.format(
        owned="" if owner_id is None else _OWNED,
        typed=_TYPED if types else "",
        scan=_SCAN_STREAMED if types else MAX_BATCH_EVENTS,
        limit=MAX_BATCH_EVENTS,
    )
    parameters = {"after": after, "until": until, "owner_id": owner_id, "types": sorted(types)}
    rows: list[TupleRow] = await db.fetch_all(query, parameters, tuple_row)
    oldest, reached, first, _ = rows[0]
    if oldest > after:
        raise CursorExpired(oldest)
    if first is None:
        return Batch((), reached)
    sizes = accumulate(len(payload) for _, _, _, payload in rows)
    fitting = max(1, sum(size <= MAX_BATCH_BYTES for size in sizes))
    events = [convert.event_to_proto(position, payload) for _, _, position, payload in rows[:fitting]]
    return Batch(events, rows[fitting - 1][2] if fitting < len(rows) or fitting == MAX_BATCH_EVENTS else reached)


async def first_at(db: Database, time: datetime) -> int:
    """The first position whose event occurred at or after the time; one past the end if there is none yet."""
    return await _position(db, _FIRST_AT, time)


async def end_before(db: Database, time: datetime) -> int:
    """One past the last position whose event occurred before the time."""
    return await _position(db, _END_BEFORE, time)


async def _position(db: Database, query: str, time: datetime) -> int:
    row: TupleRow | None = await db.fetch_one(query, {"time": time}, tuple_row)
    assert row is not None, "the search ends"
    position: int = row[0]
    return position


async def list_events(
    db: Database,
    *,
    owner_id: int | None,
    types: frozenset[str],
    resource_uuid: UUID | None,
    since: datetime | None,
    until: datetime | None,
    page: Page,
) -> tuple[Sequence[LoggedEvent], str]:
    """A page of events, newest first, and the token of the next; a page may be short where the filter is narrow, or the
    events are large."""
    after = 0 if since is None else await first_at(db, since) - 1
    before = _NO_END if until is None else await end_before(db, until)
    parameters = {
        "after": after,
        "before": before if page.after_id is None else min(before, page.after_id),
        "owner_id": owner_id,
        "resource_uuid": resource_uuid,
        "types": sorted(types) or None,
        "since": since,
        "until": until,
        "limit": page.limit,
    }
    parts = {
        "owned": "" if owner_id is None else _OWNED,
        "of_resource": "" if resource_uuid is None else _OF_RESOURCE,
        "scan": _SCAN_LISTED,
    }
    query = _LIST.format(**parts, bytes=_MAX_LISTED_BYTES)
    rows: list[TupleRow] = await db.fetch_all(query, parameters, tuple_row)
    events, token = page.cut([_logged(position, payload) for position, payload, _found in rows])
    if not token and rows and len(rows) < rows[0][2]:
        token = page.token(events[-1].id)
    if not token:
        end: TupleRow | None = await db.fetch_one(_LIST_END.format(**parts), parameters, tuple_row)
        token = page.token(end[0]) if end else ""
    return events, token


async def get_event(db: Database, *, event_id: str, owner_id: int | None) -> pb.Event:
    """One event of the owner's, of anybody's where there is no owner."""
    uuid = parse_uuid(event_id)
    if uuid is None:
        raise EventNotFound(event_id)
    row: TupleRow | None = await db.fetch_one(_GET, {"event_id": uuid, "owner_id": owner_id}, tuple_row)
    if row is None:
        raise EventNotFound(event_id)
    return convert.event_to_proto(*row)


def _logged(position: int, payload: bytes) -> LoggedEvent:
    return LoggedEvent(position, convert.event_to_proto(position, payload), len(payload))
