"""What is told of a call: one event for each change of what the API shows of it."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from commonservices.v1 import call_pb2 as pb
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls import convert, queries
from server.calls.queries import Call
from server.calls.state import CONFERENCE
from server.calls.status import update_status
from server.db import Database
from server.events import outbox
from server.events.changes import Urls, change_and_tell
from server.notifications import Channel, Notifications
from server.storage import Storage

CONFERENCE_UPDATE = "conference_calls.conference_call.status_update"
DIRECT_UPDATE = "direct_calls.call.status_update"

# Changes facts of a call, which it is given held; not what follows from them. It may be run again. Where it adds rows
# it flushes them, and answers the call with them.
Change = Callable[[AsyncSession, Call], Awaitable[Call | None]]


async def append_created(tx: AsyncSession, call: Call, *, now: datetime) -> pb.Call:
    """Set what follows from the facts of a call that the transaction has made and flushed, tell of it, and answer what
    is told. Whoever ends the transaction wakes Channel.OUTBOX."""
    update_status(call, now=now)
    return await _append(tx, call, {}, now=now)


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

    async def make(tx: AsyncSession, held: Call) -> Call:
        call = await change(tx, held) or held
        update_status(call, now=datetime.now(UTC))
        return call

    async def tell(tx: AsyncSession, call: Call, urls: Urls) -> None:
        await _append(tx, call, urls, now=datetime.now(UTC))

    call, is_news = await change_and_tell(
        db,
        storage,
        hold=partial(queries.hold_call, call_id=call_id),
        change=make,
        show=_shown,
        tell=tell,
        new_keys=new_keys,
    )
    if any(leg.dial_at is not None or leg.control_at is not None for leg in call.legs):
        notifications.notify(Channel.CALL_LEGS)
    if is_news:
        notifications.notify(Channel.OUTBOX)
    return is_news


async def _append(tx: AsyncSession, call: Call, urls: Urls, *, now: datetime) -> pb.Call:
    row = call.row
    row.sequence += 1
    row.updated_at = now
    await tx.flush()
    await queries.load_words(tx, call.recording)
    resource = await convert.shown(call, partial(convert.call_to_proto, call, urls=urls))
    event = outbox.new_event(
        event_type=CONFERENCE_UPDATE if row.kind == CONFERENCE else DIRECT_UPDATE,
        bearer_id=row.bearer_id,
        resource_uuid=row.uuid,
        sequence=row.sequence,
        occurred_at=resource.updated_at,
    )
    event.call.CopyFrom(resource)
    await outbox.append(tx, event, callback_url=row.callback_url)
    return resource


def _shown(call: Call, urls: Urls) -> tuple[pb.Call, UUID | None]:
    """What the API shows of the call, to be compared: of what was said only that it is there, for it never changes."""
    words = call.recording.words if call.recording is not None else None
    return convert.call_without_words(call, urls=urls), words.uuid if words is not None else None
