"""What is told of a call: one event for each change of what the API shows of it.

The URLs of recordings are signed outside the transaction, for a bucket's signature may need the network. Where one is
found to be missing, which most calls have none of, the change is made anew with it.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from commonservices.v1 import call_pb2 as pb
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls import convert, queries
from server.calls.queries import Call
from server.calls.state import CONFERENCE
from server.calls.status import update_status
from server.calls.tables import CallRow
from server.db import Database, driver_connection
from server.errors import Unavailable
from server.events import outbox
from server.file_urls import file_urls
from server.notifications import Channel, Notifications
from server.storage import Storage

CONFERENCE_UPDATE = "conference_calls.conference_call.status_update"
DIRECT_UPDATE = "direct_calls.call.status_update"

# Changes facts of the call, whose row it is given locked; not what follows from them. It may be run again.
Change = Callable[[AsyncSession, CallRow], Awaitable[None]]

_APPEND = outbox.append_from("calls WHERE id = %(call_id)s")

# How often a change is made anew because recordings were stored between signing and locking.
_TRIES = 10


class _StoredMeanwhile(Exception):
    """Recordings have no URL yet, by their storage keys."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__("recordings without a URL")
        self.keys = keys


async def append_event(tx: AsyncSession, call: CallRow, *, urls: Mapping[str, str], now: datetime) -> pb.Call:
    """Tell of the call as it is now, and answer what is told. The transaction made the call or holds its row; whoever
    ends it wakes Channel.OUTBOX. `urls` has one for each recording that is stored."""
    whole = await queries.call_of(tx, call)
    return await _append(tx, whole, urls=urls, now=now)


async def _append(tx: AsyncSession, whole: Call, *, urls: Mapping[str, str], now: datetime) -> pb.Call:
    call = whole.row
    call.sequence += 1
    call.updated_at = now
    await tx.flush()
    resource = convert.call_to_proto(whole, urls=urls)
    event = outbox.new_event(
        event_type=CONFERENCE_UPDATE if call.kind == CONFERENCE else DIRECT_UPDATE,
        bearer_id=call.bearer_id,
        resource_uuid=call.uuid,
        sequence=call.sequence,
        occurred_at=resource.updated_at,
    )
    event.call.CopyFrom(resource)
    connection = await driver_connection(tx)
    parameters = {**outbox.parameters(event, callback_url=call.callback_url), "call_id": call.id}
    await connection.execute(_APPEND.encode(), parameters)
    return resource


async def change_call(
    db: Database,
    notifications: Notifications,
    storage: Storage,
    *,
    call_id: int,
    change: Change,
    new_keys: Iterable[str] = (),
) -> bool:
    """Change facts of a call in a transaction that holds it, set what follows from them, and tell of it if it is to be
    seen; whether it was.

    `new_keys` are storage keys that the change gives to recordings.
    """
    urls = await file_urls(storage, new_keys)
    for _ in range(_TRIES):
        try:
            async with db.begin() as tx:
                locked = select(CallRow).where(CallRow.id == call_id).with_for_update(key_share=True)
                call = (await tx.scalars(locked)).one()
                # Held until then: what the change asks for of its rows, the session has.
                known = await queries.call_of(tx, call, lock=True)
                before = _shown(known, urls)
                await change(tx, call)
                await tx.flush()
                whole = await update_status(tx, call, now=datetime.now(UTC))
                is_news = _shown(whole, urls) != before
                if is_news:
                    await _append(tx, whole, urls=urls, now=datetime.now(UTC))
        except _StoredMeanwhile as stored:
            urls |= await file_urls(storage, stored.keys)
            continue
        if any(leg.dial_at is not None or leg.control_at is not None for leg in whole.legs):
            notifications.notify(Channel.CALL_LEGS)
        if is_news:
            notifications.notify(Channel.OUTBOX)
        return is_news
    raise Unavailable("recordings keep being stored; try again")


def _shown(call: Call, urls: Mapping[str, str]) -> tuple[pb.Call, UUID | None]:
    """What the API shows of the call, to be compared: of what was said only that it is there, for it never changes."""
    keys = [each.row.storage_key for each in call.recordings if each.row.storage_key is not None]
    if missing := [key for key in keys if key not in urls]:
        raise _StoredMeanwhile(missing)
    words = call.recording.transcript if call.recording is not None else None
    said = words.uuid if words is not None and words.internal_status == "ready" else None
    return convert.call_without_words(call, urls=urls), said
