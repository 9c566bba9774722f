"""Conferences at a sandbox on a socket, dialled by worker processes that are killed at the worst moments: nobody is
called twice, and nobody is forgotten."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from commonservices.v1 import call_pb2
from psycopg.rows import scalar_row

from server.calls.conferences.controls import ControlWorker
from server.calls.conferences.dial import DialWorker
from server.calls.tables import CallLegRow
from server.config import Settings
from server.db import Database
from tests.calls.conferences import CONTACTS, MODERATOR, cancel, create, events_of, get, legs_of, make_due, participants
from tests.calls.live.exchange import behave, calls_of, is_inviting, is_over, settled
from tests.clients import Client
from tests.messages.support import until
from tests.messages.wire import Wire
from tests.providers.servers import Sandbox
from tests.rest.front import Front

ROOT = Path(__file__).parents[3]

Kill = Callable[[], Awaitable[None]]
StartWorker = Callable[[], Awaitable[Kill]]


@pytest.fixture
async def start_worker(_live: tuple[Settings, Front, int], tmp_path: Path) -> AsyncIterator[StartWorker]:
    """Starts worker processes as they run in production; each answer kills its own."""
    live = _live[0]
    started: list[asyncio.subprocess.Process] = []
    environment = {
        **os.environ,
        "DATABASE_URL": live.database_url.get_secret_value(),
        "PUBLIC_BASE_URL": live.public_base_url,
        "ENCRYPTION_KEYS": ",".join(key.get_secret_value() for key in live.encryption_keys),
        "TWILIO_ACCOUNT_SID": live.twilio_account_sid,
        "TWILIO_AUTH_TOKEN": live.twilio_auth_token.get_secret_value(),
        "STORAGE_URL": live.storage_url,
        "TWILIO_API_BASE_URL": str(live.twilio_api_base_url),
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    }

    async def start() -> Kill:
        with (tmp_path / f"worker-{len(started)}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "server", "worker", cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        started.append(process)

        async def kill() -> None:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()

        return kill

    yield start
    for process in started:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def moderator_of(db: Database, call: call_pb2.Call) -> CallLegRow:
    return (await legs_of(db, call))[0]


async def is_in_doubt(db: Database, call: call_pb2.Call) -> bool:
    leg = await moderator_of(db, call)
    return leg.in_doubt and leg.call_sid is None and leg.dial_at is not None


async def assert_each_called_once(db: Database, exchange: Sandbox, calls: Sequence[call_pb2.Call]) -> None:
    """Every leg that has a call has one, and every call is of one leg."""
    sids = [leg.call_sid for call in calls for leg in await legs_of(db, call) if leg.call_sid is not None]
    assert sorted(sids) == sorted(made["sid"] for made in await calls_of(exchange))


async def test_conference_is_called_from_first_to_last(
    caller: Client, db: Database, exchange: Sandbox, start_worker: StartWorker
) -> None:
    await behave(exchange, MODERATOR, hangs_up_after_ms=400_000)
    await behave(exchange, CONTACTS[1], pickup="no-answer")

    call = await create(caller)
    await start_worker()
    await until(lambda: is_over(caller, call), seconds=40)
    await until(lambda: settled(db, call), seconds=40)

    told = await get(caller, call)
    assert (told.internal_status, told.provider_status) == ("finished", "conference-end")
    people = await participants(caller, call)
    assert [each.internal_status for each in people] == ["left", "left", people[2].internal_status]
    assert people[2].internal_status in ("no_answer", "canceled")
    assert (await exchange.control("GET", "problems"))["problems"] == []
    assert [event.call.internal_status for event in await events_of(db, call)][-1] == "finished"
    await assert_each_called_once(db, exchange, [call])


async def test_worker_killed_between_claim_and_call(
    caller: Client, db: Database, exchange: Sandbox, wire: Wire, start_worker: StartWorker, dialler: DialWorker
) -> None:
    call = await create(caller)
    wire.requests.hold(b"POST")

    kill = await start_worker()
    await until(lambda: wire.requests.held)
    await kill()
    wire.cut()
    left = await is_in_doubt(db, call), await calls_of(exchange), await dialler.step()
    await make_due(db)
    await dialler.step()

    assert left == (True, [], False)
    assert (await moderator_of(db, call)).dial_attempts == 2
    await assert_each_called_once(db, exchange, [call])


async def test_worker_killed_before_the_answer_arrives(
    caller: Client, db: Database, exchange: Sandbox, wire: Wire, start_worker: StartWorker, dialler: DialWorker
) -> None:
    await behave(exchange, MODERATOR, pickup="no-answer", callbacks="missing")
    call = await create(caller)
    wire.answers.hold(b"POST")

    kill = await start_worker()
    await until(lambda: wire.answers.held)
    await kill()
    wire.cut()
    left = await is_in_doubt(db, call), len(await calls_of(exchange)), await dialler.step()
    await make_due(db)
    await dialler.step()

    assert left == (True, 1, False)
    assert (await moderator_of(db, call)).call_sid is not None
    await assert_each_called_once(db, exchange, [call])


async def test_worker_killed_before_the_answer_arrives_but_the_callbacks_do(
    caller: Client, db: Database, exchange: Sandbox, wire: Wire, start_worker: StartWorker, dialler: DialWorker
) -> None:
    call = await create(caller)
    wire.answers.hold(b"POST")

    kill = await start_worker()
    await until(lambda: wire.answers.held)
    await kill()
    wire.cut()
    await until(lambda: is_inviting(caller, call))
    await make_due(db)
    await until(lambda: everybody_dialled(db, call, dialler))

    assert [leg.dial_attempts for leg in await legs_of(db, call)] == [1, 1, 1]
    await assert_each_called_once(db, exchange, [call])


async def everybody_dialled(db: Database, call: call_pb2.Call, dialler: DialWorker) -> bool:
    """Whether everybody was; a leg that a callback has in hand is not claimed at that moment."""
    await dialler.step()
    return all(leg.call_sid is not None for leg in await legs_of(db, call))


async def test_worker_killed_between_answer_and_record(
    caller: Client, db: Database, exchange: Sandbox, wire: Wire, start_worker: StartWorker, dialler: DialWorker
) -> None:
    await behave(exchange, MODERATOR, pickup="no-answer", callbacks="missing")
    call = await create(caller)
    wire.answers.hold(b"POST")

    kill = await start_worker()
    await until(lambda: wire.answers.held)
    async with db.connection() as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM calls FOR UPDATE")
        wire.answers.open()
        await until(lambda: recording(db))
        await kill()
        # A machine that dies takes its connection along; a process's statement would still be carried out.
        for pid in await recording(db):
            await db.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    left = await is_in_doubt(db, call), len(await calls_of(exchange))
    await make_due(db)
    await dialler.step()

    assert left == (True, 1)
    await assert_each_called_once(db, exchange, [call])


async def recording(db: Database) -> list[int]:
    """The connections that wait for a call's lock to record an outcome."""
    query = """
        SELECT pid FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE '%%FROM calls%%' AND pid <> pg_backend_pid()
    """
    return await db.fetch_all(query, {}, scalar_row)


async def test_worker_killed_while_it_hangs_up(
    caller: Client,
    db: Database,
    exchange: Sandbox,
    wire: Wire,
    start_worker: StartWorker,
    dialler: DialWorker,
    controller: ControlWorker,
) -> None:
    call = await create(caller)
    await dialler.step()
    await until(lambda: is_inviting(caller, call))
    await cancel(caller, call)
    wire.requests.hold(b"POST")

    kill = await start_worker()
    await until(lambda: wire.requests.held)
    await kill()
    wire.cut()
    before = [made["status"] for made in await calls_of(exchange)]
    await make_due(db)
    await controller.step()
    await until(lambda: settled(db, call))

    assert before == ["in-progress"]
    assert [made["status"] for made in await calls_of(exchange)] == ["completed"]
    assert (await get(caller, call)).internal_status == "canceled"


async def test_killed_workers_among_many_call_everybody_once(
    caller: Client, db: Database, exchange: Sandbox, wire: Wire, start_worker: StartWorker, dialler: DialWorker
) -> None:
    calls = []
    for n in range(24):
        moderator, contact = f"+1206557{n:04}", f"+1206558{n:04}"
        # Of every third nothing is ever heard.
        silent = {"pickup": "no-answer", "callbacks": "missing"} if n % 3 == 0 else {"hangs_up_after_ms": 60_000}
        await behave(exchange, moderator, **silent)
        calls.append(await create(caller, moderator_number=moderator, participant_numbers=[contact]))
    await exchange.misbehave(delay_ms=300)
    workers = [await start_worker() for _ in range(3)]

    for made in (3, 10, 18):
        await until(lambda made=made: at_least_made(exchange, made), seconds=40)  # type: ignore[misc]
        victim = random.choice(workers)  # noqa: S311 which one does not matter
        workers.remove(victim)
        await victim()
        workers.append(await start_worker())
    await until(lambda: nobody_waits(db), seconds=40)
    for kill in workers:
        await kill()
    await until(lambda: wire.unanswered == 0)
    await exchange.control("DELETE", "misbehaviour")
    left_in_doubt = await db.execute("SELECT 1 FROM call_legs WHERE in_doubt")
    for _ in range(4):
        await make_due(db)
        await dialler.step()

    assert left_in_doubt
    assert await db.execute("SELECT 1 FROM call_legs WHERE kind = 'moderator' AND call_sid IS NULL") == 0
    await assert_each_called_once(db, exchange, calls)


async def at_least_made(exchange: Sandbox, number: int) -> bool:
    return len(await calls_of(exchange)) >= number


async def nobody_waits(db: Database) -> bool:
    return await db.execute("SELECT 1 FROM call_legs WHERE dial_at <= now()") == 0
