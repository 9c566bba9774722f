import asyncio
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, tuple_row

from server.db import Database
from server.events.log import RelayedEvent
from server.events.relay import Relay
from server.notifications import Notifications
from tests.events.support import an_event, append, relay_for

_ALL = "SELECT position, resource_uuid, sequence FROM events ORDER BY position NULLS LAST"


async def _rows(db: Database) -> list[TupleRow]:
    return await db.fetch_all(_ALL, {}, tuple_row)


async def _last_position(db: Database) -> int:
    row = await db.fetch_one("SELECT last_position FROM event_log", {}, tuple_row)
    assert row is not None
    position: int = row[0]
    return position


async def test_positions_follow_commit_not_insert(database_url: str, db: Database, bearer_id: int) -> None:
    relay = relay_for(database_url, db)
    early, late = an_event(bearer_id), an_event(bearer_id)

    async with db.connection() as one, db.connection() as other:
        async with one.transaction():
            await append(one, early)
            async with other.transaction():
                await append(other, late)
            assert await relay.run_once() == 1
        assert await relay.run_once() == 1

    rows = await _rows(db)
    assert [(row[0], str(row[1])) for row in rows] == [(1, late.resource_uuid), (2, early.resource_uuid)]


async def test_rolled_back_event_takes_no_position(database_url: str, db: Database, bearer_id: int) -> None:
    relay = relay_for(database_url, db)

    async with db.connection() as connection:
        with suppress(ZeroDivisionError):
            async with connection.transaction():
                await append(connection, an_event(bearer_id))
                raise ZeroDivisionError
        await append(connection, an_event(bearer_id))
    await relay.run_once()

    assert [row[0] for row in await _rows(db)] == [1]


async def test_fan_out_sees_what_is_needed_in_order(database_url: str, db: Database, bearer_id: int) -> None:
    seen: list[RelayedEvent] = []

    async def fan_out(connection: AsyncConnection[TupleRow], events: Sequence[RelayedEvent]) -> None:
        seen.extend(events)

    events = [an_event(bearer_id) for _ in range(3)]
    async with db.connection() as connection:
        for event in events:
            await append(connection, event)
    await relay_for(database_url, db, fan_out).run_once()

    assert [(e.position, e.bearer_id, e.type, str(e.resource_uuid), e.callback_url) for e in seen] == [
        (n + 1, bearer_id, event.type, event.resource_uuid, "http://127.0.0.1:1/") for n, event in enumerate(events)
    ]


async def test_failed_fan_out_leaves_everything_as_it_was(database_url: str, db: Database, bearer_id: int) -> None:
    async def fan_out(connection: AsyncConnection[TupleRow], events: Sequence[RelayedEvent]) -> None:
        await connection.execute("UPDATE bearers SET bearer_name = 'told'")
        raise ZeroDivisionError

    async with db.connection() as connection:
        await append(connection, an_event(bearer_id))
    with pytest.raises(ZeroDivisionError):
        await relay_for(database_url, db, fan_out).run_once()

    assert [row[0] for row in await _rows(db)] == [None]
    assert await _last_position(db) == 0
    assert await db.fetch_all("SELECT bearer_name FROM bearers", {}, tuple_row) == [("b",)]
    assert await relay_for(database_url, db).run_once() == 1


async def test_one_relay_works_at_a_time(database_url: str, db: Database, bearer_id: int) -> None:
    at_work, finish = asyncio.Event(), asyncio.Event()

    async def fan_out(connection: AsyncConnection[TupleRow], events: Sequence[RelayedEvent]) -> None:
        at_work.set()
        await finish.wait()

    async with db.connection() as connection:
        await append(connection, an_event(bearer_id))
    first = asyncio.create_task(relay_for(database_url, db, fan_out).run_once())
    await asyncio.wait_for(at_work.wait(), 30)

    assert await relay_for(database_url, db).run_once() == 0

    finish.set()
    assert await first == 1


async def test_many_writers_and_two_relays_leave_no_gap(database_url: str, db: Database, bearer_id: int) -> None:
    told: list[RelayedEvent] = []

    async def fan_out(connection: AsyncConnection[TupleRow], events: Sequence[RelayedEvent]) -> None:
        told.extend(events)

    pauses = cycle(n / 1000 for n in (0, 3, 1, 4, 1, 5, 0, 2, 6))

    async def change(resource_uuid: UUID, sequence: int) -> None:
        async with db.connection() as connection, connection.transaction():
            await append(connection, an_event(bearer_id, resource_uuid=resource_uuid, sequence=sequence))
            await connection.execute("SELECT pg_sleep(%s)", [next(pauses)])

    async def write() -> None:
        resource_uuid = uuid4()
        for sequence in range(1, 26):
            await change(resource_uuid, sequence)

    async def relay() -> None:
        notifications = Notifications(database_url, db)
        relay = Relay(db, notifications, fan_out)
        while len(told) < 8 * 25:
            await relay.run_once()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(write())
        for _ in range(2):
            tasks.create_task(relay())

    rows = await _rows(db)
    assert [row[0] for row in rows] == list(range(1, 201))
    assert sorted(event.position for event in told) == list(range(1, 201))
    by_resource: dict[UUID, list[int]] = {}
    for _, resource_uuid, sequence in rows:
        by_resource.setdefault(resource_uuid, []).append(sequence)
    assert list(by_resource.values()) == [list(range(1, 26))] * 8


# PostgreSQL frees it when it notices that the process is gone.
_WAIT_FOR_THE_LOCK = "SELECT pg_advisory_xact_lock(x'72656c6179'::bigint)"

_RELAY_THAT_STOPS = """
import asyncio, sys
from server.db import Database
from server.events.relay import Relay
from server.notifications import Notifications

async def fan_out(connection, events):
    await connection.execute("UPDATE bearers SET bearer_name = 'told'")
    print("at work", flush=True)
    await asyncio.Event().wait()

async def main():
    db = Database(sys.argv[1], max_size=2)
    await db.open()
    await Relay(db, Notifications(sys.argv[1], db), fan_out).run_once()

asyncio.run(main())
"""


async def test_killed_relay_leaves_no_gap_and_no_half_done_event(
    database_url: str, db: Database, bearer_id: int
) -> None:
    root = Path(__file__).parents[2]
    async with db.connection() as connection:
        for _ in range(10):
            await append(connection, an_event(bearer_id))

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _RELAY_THAT_STOPS, database_url, cwd=root, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"at work\n"
    process.kill()
    await process.wait()
    async with asyncio.timeout(30), db.connection() as connection:
        await connection.execute(_WAIT_FOR_THE_LOCK)
    await relay_for(database_url, db).run_once()

    assert [row[0] for row in await _rows(db)] == list(range(1, 11))
    assert await _last_position(db) == 10
    assert await db.fetch_all("SELECT bearer_name FROM bearers", {}, tuple_row) == [("b",)]


async def test_running_relay_is_woken_by_a_notification(database_url: str, db: Database, bearer_id: int) -> None:
    relayed = asyncio.Event()

    async def fan_out(connection: AsyncConnection[TupleRow], events: Sequence[RelayedEvent]) -> None:
        relayed.set()

    notifications = Notifications(database_url, db)
    relay = Relay(db, notifications, fan_out)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(notifications.run()), tasks.create_task(relay.run())]
        async with db.connection() as connection:
            await append(connection, an_event(bearer_id))
        await asyncio.wait_for(relayed.wait(), 30)
        for task in running:
            task.cancel()

    assert await _last_position(db) == 1
