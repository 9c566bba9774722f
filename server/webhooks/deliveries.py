"""Deliveries as their bearer sees them: read, and try again what was dead-lettered."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row, scalar_row

from server.caller import Caller
from server.db import Database
from server.errors import FailedPrecondition, NotFound
from server.notifications import Channel, Notifications
from server.paging import Page
from server.webhooks import queries
from server.webhooks.delivery import Attempt, Delivery

# How many deliveries one page looks at for those that fit its filter.
_SCAN = 10_000

_RECOVERED_AT_ONCE = 1_000

_AFTER_ALL = 2**62


class WebhookDeliveryNotFound(NotFound):
    """No such delivery, or another bearer's."""

    reason = "WEBHOOK_DELIVERY_NOT_FOUND"

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"no webhook delivery {delivery_id}", webhook_delivery_id=delivery_id)


class WebhookDeliveryNotRetriable(FailedPrecondition):
    """The delivery is on its way or was delivered, or its bearer is no more."""

    reason = "WEBHOOK_DELIVERY_NOT_RETRIABLE"

    def __init__(self, delivery: Delivery) -> None:
        super().__init__(
            f"only a dead-lettered delivery of a bearer that was not deleted can be retried; this one is "
            f"{delivery.status}",
            webhook_delivery_id=str(delivery.uuid),
            status=delivery.status,
        )


async def get_delivery(db: Database, *, caller: Caller, delivery_uuid: UUID) -> tuple[Delivery, Sequence[Attempt]]:
    """A delivery and its attempts, oldest first."""
    delivery = await _find(db, caller=caller, delivery_uuid=delivery_uuid)
    return delivery, await db.fetch_all(queries.ATTEMPTS, {"id": delivery.id}, class_row(Attempt))


async def list_deliveries(
    db: Database,
    *,
    caller: Caller,
    status: str,
    event_type: str,
    resource_uuid: UUID | None,
    since: datetime | None,
    until: datetime | None,
    page: Page,
) -> tuple[Sequence[Delivery], str]:
    """A page, newest first, and the token of the next; a page may be short where the filter is narrow."""
    from_id, before_id = await _ids_of_period(db, since, until)
    filters = (
        (queries.OWNED, caller.owner_id is not None),
        (queries.OF_STATUS[status] if status else "", bool(status)),
        (queries.OF_RESOURCE, resource_uuid is not None),
    )
    parts = {"filters": " ".join(text for text, is_asked in filters if is_asked), "scan": _SCAN}
    parameters = {
        "owner_id": caller.owner_id,
        "event_type": event_type,
        "resource_uuid": resource_uuid,
        "from_id": from_id,
        "before_id": before_id if page.after_id is None else min(before_id, page.after_id),
        "limit": page.limit,
    }
    found, token = page.cut(await db.fetch_all(queries.LIST.format(**parts), parameters, class_row(Delivery)))
    if not token and event_type:
        end = await db.fetch_one(queries.LIST_END.format(**parts), parameters, scalar_row)
        token = "" if end is None else page.token(end)
    return found, token


async def retry_delivery(
    db: Database, notifications: Notifications, *, caller: Caller, delivery_uuid: UUID
) -> Delivery:
    """Give a dead-lettered delivery the whole schedule again, behind earlier ones of its lane; enables its endpoint."""
    delivery = await _find(db, caller=caller, delivery_uuid=delivery_uuid)
    parameters = {
        "id": delivery.id,
        "endpoint_id": delivery.endpoint_id,
        "resource_uuid": delivery.resource_uuid,
        "bearer_ids": [delivery.bearer_id],
    }
    async with db.connection() as connection, connection.transaction():
        await connection.execute(queries.NOT_WHILE_RELAYING.encode())
        live = await connection.execute(queries.LOCK_BEARERS.encode(), parameters)
        await connection.execute(queries.LOCK_LANE.encode(), parameters)
        retried = await connection.execute(queries.RETRY.encode(), parameters) if live.rowcount else live
        if retried.rowcount:
            await connection.execute(queries.ENABLE_ENDPOINT_BY_ID.encode(), parameters)
    delivery = await _find(db, caller=caller, delivery_uuid=delivery_uuid)
    if not retried.rowcount:
        raise WebhookDeliveryNotRetriable(delivery)
    notifications.notify(Channel.DELIVERIES)
    return delivery


async def recover_deliveries(
    db: Database, notifications: Notifications, *, caller: Caller, since: datetime, until: datetime | None
) -> int:
    """Retry all that is dead-lettered of the caller's bearer and was made in the period; answers how many."""
    from_id, before_id = await _ids_of_period(db, since, until)
    count = 0
    while True:
        recovered = await _recover_some(db, bearer_id=caller.bearer_id, from_id=from_id, before_id=before_id)
        if recovered:
            notifications.notify(Channel.DELIVERIES)
        count += len(recovered)
        if len(recovered) < _RECOVERED_AT_ONCE:
            return count
        # Not again from the beginning: what was recovered may be dead-lettered again already.
        from_id = max(recovered) + 1


async def _recover_some(db: Database, *, bearer_id: int, from_id: int, before_id: int) -> list[int]:
    """Retry the next dead-lettered deliveries, and answer their ids: so few that the relay does not wait for long."""
    parameters: dict[str, object] = {
        "bearer_id": bearer_id,
        "bearer_ids": [bearer_id],
        "from_id": from_id,
        "before_id": before_id,
        "limit": _RECOVERED_AT_ONCE,
    }
    async with db.connection() as connection, connection.transaction(), connection.cursor(row_factory=scalar_row) as c:
        await c.execute(queries.NOT_WHILE_RELAYING.encode())
        await c.execute(queries.LOCK_BEARERS.encode(), parameters)
        await c.execute(queries.LOCK_LANES_TO_RECOVER.encode(), parameters)
        parameters["ids"] = await c.fetchall()
        await c.execute(queries.RECOVER.encode(), parameters)
        recovered: list[int] = await c.fetchall()
    return recovered


async def release(connection: AsyncConnection[TupleRow], event_ids: Sequence[int]) -> Sequence[int]:
    """Delete the deliveries of those of these events that were delivered everywhere, and answer those events."""
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(queries.RELEASE.encode(), {"event_ids": list(event_ids)})
        return await cursor.fetchall()


async def _find(db: Database, *, caller: Caller, delivery_uuid: UUID) -> Delivery:
    parameters = {"uuid": delivery_uuid, "owner_id": caller.owner_id}
    delivery = await db.fetch_one(queries.GET, parameters, class_row(Delivery))
    if delivery is None:
        raise WebhookDeliveryNotFound(str(delivery_uuid))
    return delivery


async def _ids_of_period(db: Database, since: datetime | None, until: datetime | None) -> tuple[int, int]:
    """The first id of the period, and the first after it."""
    return (
        0 if since is None else await _first_at(db, since),
        _AFTER_ALL if until is None else await _first_at(db, until),
    )


async def _first_at(db: Database, time: datetime) -> int:
    first: int | None = await db.fetch_one(queries.FIRST_AT, {"time": time}, scalar_row)
    assert first is not None, "the search ends"
    return first
