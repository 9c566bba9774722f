"""Who synchronises: one worker at a time, the next when it is due or the first has died, and a person."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from psycopg.rows import scalar_row

from server.config import Settings
from server.db import Database
from server.numbers.sync import Change, NumberSync
from server.providers.sandbox.settings import OWNED_NUMBERS
from tests.factories import make_messaging_service
from tests.messages.support import until
from tests.messages.wire import Wire
from tests.numbers.account import SEATTLE, Account, make_services, numbers_of, sync_row, synchronising
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, closed_port_url

ROOT = Path(__file__).parents[2]


async def test_step_synchronises_once_an_hour_and_writes_down_what_it_found(
    db: Database, account: Account, sync: NumberSync
) -> None:
    await make_services(db)

    first = await sync.step()
    asked = await account.questions()
    second = await sync.step()

    row = await sync_row(db)
    assert (first, second) == (True, False)
    assert await account.questions() == asked > 0
    assert (row["added"], row["moved"], row["released"], row["restored"], row["error"]) == (20, 0, 0, 0, None)
    assert row["finished_at"] is not None
    assert row["waits"] == pytest.approx(3600, abs=60)

    await db.execute("UPDATE number_syncs SET due_at = now()")
    assert await sync.step()


async def test_two_workers_never_synchronise_at_once(
    db: Database, account: Account, wire: Wire, sync: NumberSync
) -> None:
    await make_services(db)
    wire.answers.hold(b"GET")
    async with synchronising(db, wire.base_url) as slow:
        at_work = asyncio.create_task(slow.step())
        await until(lambda: wire.answers.held)

        others = await asyncio.gather(*(sync.step() for _ in range(5)))
        numbers_meanwhile = await numbers_of(db)
        wire.answers.open()

        assert await at_work
    assert others == [False] * 5
    assert numbers_meanwhile == {}
    assert len(await numbers_of(db)) == len(OWNED_NUMBERS)


async def test_synchronisations_that_begin_together_add_each_number_once(db: Database, account: Account) -> None:
    await make_services(db)
    async with synchronising(db, account.sandbox.base_url) as one, synchronising(db, account.sandbox.base_url) as two:
        outcomes = await asyncio.gather(one.step(), two.step(), one.step(), two.step())

    assert sum(outcomes) == 1
    assert len(await numbers_of(db)) == len(OWNED_NUMBERS)


async def test_synchronisation_by_hand_takes_the_place_of_one_under_way(
    db: Database, account: Account, wire: Wire, sync: NumberSync
) -> None:
    await make_services(db)
    wire.answers.hold(b"GET")
    async with synchronising(db, wire.base_url) as slow:
        at_work = asyncio.create_task(slow.step())
        await until(lambda: wire.answers.held)
        await account.release(SEATTLE)

        await sync.sync_now()
        wire.answers.open()
        await at_work

    row = await sync_row(db)
    assert SEATTLE not in await numbers_of(db)
    assert (row["added"], row["error"]) == (len(OWNED_NUMBERS) - 1, None)


async def test_lease_of_a_dead_worker_runs_out(db: Database, wire: Wire, sync: NumberSync) -> None:
    await make_services(db)
    wire.answers.hold(b"GET")
    async with synchronising(db, wire.base_url) as doomed:
        at_work = asyncio.create_task(doomed.step())
        await until(lambda: wire.answers.held)
        at_work.cancel()
        await asyncio.wait([at_work])

    while_leased = await sync.step()
    leased_for = (await sync_row(db))["waits"]
    await db.execute("UPDATE number_syncs SET due_at = now()")

    assert not while_leased
    assert leased_for == pytest.approx(900, abs=60)
    assert await sync.step()
    assert len(await numbers_of(db)) == len(OWNED_NUMBERS)


async def test_number_that_came_while_the_provider_was_asked_is_not_taken_for_gone(db: Database, wire: Wire) -> None:
    await make_services(db)
    wire.answers.hold(b"GET")
    async with synchronising(db, wire.base_url) as slow:
        at_work = asyncio.create_task(slow.sync_now())
        await until(lambda: wire.answers.held)
        await make_messaging_service(
            db, name="new", global_customer_id="new", twilio_messaging_sid="MG3", phone_numbers=["+12065550177"]
        )
        wire.answers.open()

        changes = await at_work

    assert changes[Change.RELEASED] == []
    assert not (await numbers_of(db))["+12065550177"].is_released


def environment(settings: Settings, base_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "PUBLIC_BASE_URL": settings.public_base_url,
        "ENCRYPTION_KEYS": ",".join(key.get_secret_value() for key in settings.encryption_keys),
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        "TWILIO_API_BASE_URL": base_url,
        "STORAGE_URL": settings.storage_url,
    }


@asynccontextmanager
async def running(
    command: str, settings: Settings, base_url: str, log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command of ours, ended with the block."""
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "server",
            command,
            cwd=ROOT,
            env=environment(settings, base_url),
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_command_prints_what_changed(db: Database, settings: Settings, account: Account, tmp_path: Path) -> None:
    await make_services(db)
    await make_messaging_service(
        db, name="gone", global_customer_id="gone", twilio_messaging_sid="MG3", phone_numbers=["+12065550177"]
    )
    log = tmp_path / "log"

    async with running("sync-numbers", settings, account.sandbox.base_url, log) as process:
        code = await process.wait()

    lines = log.read_text().splitlines()
    assert code == 0, lines
    assert lines[0] == f"added     {SEATTLE}"
    assert lines[-2:] == ["released  +12065550177", "20 added, 0 moved, 1 released, 0 restored"]


async def test_command_tells_why_it_could_not(db: Database, settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"

    async with running("sync-numbers", settings, closed_port_url(), log) as process:
        code = await process.wait()

    assert code == 1
    assert log.read_text() == "Error: the provider's numbers could not be listed: ClientConnectorError\n"


async def test_worker_synchronises(db: Database, settings: Settings, account: Account, tmp_path: Path) -> None:
    await make_services(db)

    async def finished() -> object:
        return await db.fetch_one("SELECT finished_at FROM number_syncs", {}, scalar_row)

    log = tmp_path / "log"
    async with running("worker", settings, account.sandbox.base_url, log) as worker:
        await until(finished)
        # Said after it is written down: a worker that is told to end in between says nothing.
        await until(lambda: "numbers.synchronised" in log.read_text())
        worker.terminate()
        code = await worker.wait()

    [told] = [line for line in map(orjson.loads, log.read_text().splitlines()) if "sync" in line["event"]]
    assert code == 0, log.read_text()
    assert len(await numbers_of(db)) == len(OWNED_NUMBERS)
    assert (told["event"], told["added"], told["released"]) == ("numbers.synchronised", len(OWNED_NUMBERS), 0)
    assert SEATTLE not in log.read_text()
