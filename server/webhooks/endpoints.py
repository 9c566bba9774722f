"""Endpoints: callback URLs of bearers, and the deliveries that events bring to them."""

from collections.abc import Sequence

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database, Parameters, driver_connection
from server.events.log import RelayedEvent
from server.webhooks import queries

# The `last_error` of what is dead-lettered without an attempt.
DISABLED = "the endpoint is disabled: it answered 410, or its bearer was deleted"

_BATCH = 1000


async def fan_out(connection: AsyncConnection[TupleRow], events: Sequence[RelayedEvent]) -> None:
    """Make the deliveries of events, inside the relay's transaction.

    Events without a URL and those of deleted bearers have none. One to a disabled endpoint begins dead-lettered.
    """
    parameters = {
        "bearer_ids": [event.bearer_id for event in events],
        "event_ids": [event.id for event in events],
        "positions": [event.position for event in events],
        "types": [event.type for event in events],
        "resource_uuids": [event.resource_uuid for event in events],
        "urls": [event.callback_url for event in events],
        "disabled": DISABLED,
    }
    async with connection.pipeline():
        for statement in (
            queries.LOCK_BEARERS,
            queries.ADD_ENDPOINTS,
            queries.LOCK_LANES_OF_EVENTS,
            queries.ADD_DELIVERIES,
        ):
            await connection.execute(statement.encode(), parameters)


async def enable(tx: AsyncSession, bearer_id: int, url: str) -> None:
    """Let deliveries go to a bearer's URL again; those that are dead-lettered stay so until they are retried."""
    connection = await driver_connection(tx)
    await connection.execute(queries.ENABLE_ENDPOINT.encode(), {"bearer_id": bearer_id, "url": url})


async def disable_all(tx: AsyncSession, bearer_id: int) -> None:
    """End the deliveries of a bearer, whose row the transaction has locked; what is left of very many, workers end."""
    connection = await driver_connection(tx)
    parameters = {"bearer_id": bearer_id, "limit": _BATCH}
    if await _dead_letter(connection, queries.LOCK_LANES_OF_BEARER, parameters):
        await connection.execute(queries.HASTEN_OF_BEARER.encode(), parameters)
    await connection.execute(queries.DISABLE_ENDPOINTS_OF_BEARER.encode(), parameters)


async def dead_letter_pending(db: Database, endpoint_ids: Sequence[int]) -> None:
    """Dead-letter what waits for those of the endpoints that are disabled, a batch of whole lanes at a time."""
    parameters = {"endpoint_ids": list(endpoint_ids), "limit": _BATCH}
    ended = 1
    while ended:
        async with db.connection() as connection, connection.transaction():
            ended = await _dead_letter(connection, queries.LOCK_LANES_OF_DISABLED, parameters)


async def _dead_letter(connection: AsyncConnection[TupleRow], lock: str, parameters: Parameters) -> int:
    """Dead-letter the lanes that a statement locks and answers."""
    lanes = set(await (await connection.execute(lock.encode(), parameters)).fetchall())
    if not lanes:
        return 0
    endpoint_ids, resource_uuids = zip(*lanes, strict=True)
    lanes_and_error = {"endpoint_ids": list(endpoint_ids), "resource_uuids": list(resource_uuids), "error": DISABLED}
    return (await connection.execute(queries.DEAD_LETTER_LANES.encode(), lanes_and_error)).rowcount
