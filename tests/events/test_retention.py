import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from commonservices.v1 import event_pb2
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, tuple_row

from server.db import Database
from server.events import log as event_log
from server.events.log import Ends
from server.events.retention import Retention
from tests.events.support import EventLog, an_event

KEEP = timedelta(days=30)
OLD = datetime.now(UTC) - timedelta(days=31)

_RELEASE = """
WITH held AS (
    SELECT DISTINCT event_id FROM webhook_deliveries WHERE event_id = ANY(%(ids)s) AND status <> 'delivered'
), released AS (
    DELETE FROM webhook_deliveries
    WHERE event_id = ANY(%(ids)s) AND event_id NOT IN (SELECT event_id FROM held)
)
SELECT id FROM unnest(%(ids)s::bigint[]) AS id WHERE id NOT IN (SELECT event_id FROM held)
"""

_DELIVER = """
INSERT INTO webhook_deliveries (endpoint_id, event_id, bearer_id, event_type, resource_uuid, status, delivered_at)
SELECT %(endpoint_id)s, id, bearer_id, type, resource_uuid, %(status)s::text,
       CASE WHEN %(status)s::text = 'delivered' THEN now() END
FROM events WHERE event_id = %(event_id)s::uuid
"""


async def release(connection: AsyncConnection[TupleRow], event_ids: Sequence[int]) -> Sequence[int]:
    cursor = await connection.execute(_RELEASE, {"ids": list(event_ids)})
    return [row[0] for row in await cursor.fetchall()]


@pytest.fixture
def retention(db: Database) -> Retention:
    return Retention(db, release, keep=KEEP)


async def _endpoint(db: Database, bearer_id: int) -> int:
    row = await db.fetch_one(
        "INSERT INTO webhook_endpoints (bearer_id, url) VALUES (%(bearer_id)s, 'http://127.0.0.1:1/') RETURNING id",
        {"bearer_id": bearer_id},
        tuple_row,
    )
    assert row is not None
    endpoint_id: int = row[0]
    return endpoint_id


async def _deliver(db: Database, endpoint_id: int, event: event_pb2.Event, status: str) -> None:
    parameters = {"endpoint_id": endpoint_id, "event_id": event.event_id, "status": status}
    async with db.connection() as connection:
        await connection.execute(_DELIVER.encode(), parameters)


async def _kept(db: Database) -> list[str]:
    rows: list[TupleRow] = await db.fetch_all("SELECT event_id::text FROM events ORDER BY position", {}, tuple_row)
    return [row[0] for row in rows]


async def _deliveries(db: Database) -> int:
    rows: list[TupleRow] = await db.fetch_all("SELECT 1 FROM webhook_deliveries", {}, tuple_row)
    return len(rows)


async def test_old_events_go_with_their_finished_deliveries(
    db: Database, log: EventLog, bearer_id: int, retention: Retention
) -> None:
    old = await log.add(*(an_event(bearer_id, occurred_at=OLD) for _ in range(4)))
    young = await log.add(*(an_event(bearer_id) for _ in range(2)))
    endpoint_id = await _endpoint(db, bearer_id)
    for event in (*old, *young):
        await _deliver(db, endpoint_id, event, "delivered")

    assert await retention.run_once() == 4

    assert await _kept(db) == [event.event_id for event in young]
    assert await _deliveries(db) == 2
    assert await event_log.ends(db) == Ends(last_position=6, oldest_position=4)
    assert await retention.run_once() == 0


async def test_dead_lettered_and_pending_deliveries_keep_their_events(
    db: Database, log: EventLog, bearer_id: int, retention: Retention
) -> None:
    dead, gone, pending = await log.add(*(an_event(bearer_id, occurred_at=OLD) for _ in range(3)))
    endpoint_id = await _endpoint(db, bearer_id)
    await _deliver(db, endpoint_id, dead, "dead_lettered")
    await _deliver(db, endpoint_id, gone, "delivered")
    await _deliver(db, endpoint_id, pending, "pending")

    await retention.run_once()

    assert await _kept(db) == [dead.event_id, pending.event_id]
    assert await _deliveries(db) == 2
    assert (await event_log.ends(db)).oldest_position == 3


async def test_event_that_was_held_back_goes_once_it_is_delivered(
    db: Database, log: EventLog, bearer_id: int, retention: Retention
) -> None:
    (dead,) = await log.add(an_event(bearer_id, occurred_at=OLD))
    endpoint_id = await _endpoint(db, bearer_id)
    await _deliver(db, endpoint_id, dead, "dead_lettered")
    await retention.run_once()
    await db.execute("UPDATE webhook_deliveries SET status = 'delivered', delivered_at = now()")

    await retention.run_once()

    assert await _kept(db) == []
    assert await _deliveries(db) == 0


async def test_young_event_keeps_all_after_it(
    db: Database, log: EventLog, bearer_id: int, retention: Retention
) -> None:
    first, young, after = await log.add(
        an_event(bearer_id, occurred_at=OLD), an_event(bearer_id), an_event(bearer_id, occurred_at=OLD)
    )

    await retention.run_once()

    assert await _kept(db) == [young.event_id, after.event_id]
    assert (await event_log.ends(db)).oldest_position == 1
    assert first.event_id not in await _kept(db)


async def test_event_without_a_position_is_never_pruned(
    db: Database, log: EventLog, bearer_id: int, retention: Retention
) -> None:
    await log.add(an_event(bearer_id, occurred_at=OLD))
    await db.execute("UPDATE events SET position = NULL")
    await db.execute("UPDATE event_log SET last_position = 0")

    assert await retention.run_once() == 0

    assert len(await _kept(db)) == 1


async def test_failed_release_removes_nothing(db: Database, log: EventLog, bearer_id: int) -> None:
    async def failing(connection: AsyncConnection[TupleRow], event_ids: Sequence[int]) -> Sequence[int]:
        await release(connection, event_ids)
        raise ZeroDivisionError

    (old,) = await log.add(an_event(bearer_id, occurred_at=OLD))
    await _deliver(db, await _endpoint(db, bearer_id), old, "delivered")

    with pytest.raises(ZeroDivisionError):
        await Retention(db, failing, keep=KEEP).run_once()

    assert await _kept(db) == [old.event_id]
    assert await _deliveries(db) == 1
    assert (await event_log.ends(db)).oldest_position == 0


async def test_several_workers_and_a_relay_do_not_disturb_each_other(
    db: Database, log: EventLog, bearer_id: int
) -> None:
    await log.add(*(an_event(bearer_id, occurred_at=OLD) for _ in range(1200)))

    async def prune() -> None:
        retention = Retention(db, release, keep=KEEP)
        while (await event_log.ends(db)).oldest_position < 1200:
            await retention.run_once()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(prune())
        new = await log.add(*(an_event(bearer_id) for _ in range(20)))

    assert await _kept(db) == [event.event_id for event in new]
    assert await event_log.ends(db) == Ends(last_position=1220, oldest_position=1200)
