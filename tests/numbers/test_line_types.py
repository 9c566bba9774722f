"""Line types: asked once per number at the sandbox's Lookups over sockets, kept for a while, never waited for."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from commonservices.v1 import message_pb2, message_service_pb2
from psycopg.rows import dict_row, scalar_row
from pydantic import SecretStr

from server.background import Pace, repeat
from server.config import Settings
from server.db import Database
from server.notifications import Channel, Notifications
from server.numbers.line_types import (
    ATTEMPTS,
    BACKOFF,
    ENQUEUE,
    LEASE,
    LOOKUPS_PER_SECOND,
    LineTypeWorker,
)
from server.providers import registry
from server.providers.ports import LineTypeLookup, ProviderUnavailable
from tests.clients import Client
from tests.factories import RECEIVER, create_message, make_messaging_service
from tests.messages.support import until
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, Sandbox, closed_port_url, running_sandbox

NEVER = timedelta(hours=1)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with running_sandbox() as running:
        yield running


@pytest.fixture
async def lookup(settings: Settings, sandbox: Sandbox) -> AsyncIterator[LineTypeLookup]:
    """The real adapter to the sandbox."""
    lookup = registry.line_type_lookup(at_sandbox(settings, sandbox.base_url))
    yield lookup
    await lookup.aclose()


@pytest.fixture
async def unreachable(settings: Settings) -> AsyncIterator[LineTypeLookup]:
    """The real adapter, to nobody."""
    lookup = registry.line_type_lookup(at_sandbox(settings, closed_port_url()))
    yield lookup
    await lookup.aclose()


def at_sandbox(settings: Settings, base_url: str) -> Settings:
    account = {"twilio_account_sid": ACCOUNT_SID, "twilio_auth_token": SecretStr(AUTH_TOKEN)}
    return settings.model_copy(update={**account, "twilio_api_base_url": base_url})


def a_worker(db: Database, lookup: LineTypeLookup) -> LineTypeWorker:
    return LineTypeWorker(db, lookup, pace=Pace(1_000_000))


async def enqueue(db: Database, number: str = RECEIVER) -> int:
    """Ask for a number as a create does; how many rows that touched."""
    return await db.execute(ENQUEUE, {"receiver_number": number})


async def row_of(db: Database, number: str = RECEIVER) -> dict[str, Any]:
    row = await db.fetch_one("SELECT * FROM line_types WHERE phone_number = %(n)s", {"n": number}, dict_row)
    assert row is not None
    return row


async def pass_time(db: Database, by: timedelta) -> None:
    """As if everything had been so much earlier."""
    await db.execute("UPDATE line_types SET due_at = due_at - %(by)s, looked_up_at = looked_up_at - %(by)s", {"by": by})


async def asked(sandbox: Sandbox) -> list[str]:
    """The numbers that were looked up, one by one."""
    requests = (await sandbox.control("GET", "requests", params={"path": "PhoneNumbers"}))["requests"]
    return [request["path"].rpartition("/")[2] for request in requests]


async def read(client: Client, message: message_pb2.Message) -> message_pb2.Message:
    request = message_service_pb2.GetMessageRequest(uuid=message.message_uuid)
    return await client.messages.GetMessage(request, metadata=client.metadata)


async def test_reads_and_creates_show_the_line_type_once_it_is_known(
    client: Client, db: Database, sandbox: Sandbox, lookup: LineTypeLookup
) -> None:
    await make_messaging_service(db)
    await sandbox.control("PUT", f"handsets/{RECEIVER}", json={"line_type": "landline"})
    first = await create_message(client)

    assert await a_worker(db, lookup).step()
    second = await create_message(client)

    assert not first.HasField("phone_number_type")
    assert (await read(client, first)).phone_number_type == second.phone_number_type == "landline"
    assert await asked(sandbox) == [RECEIVER]


async def test_create_wakes_the_worker(
    client: Client, db: Database, notifications: Notifications, lookup: LineTypeLookup
) -> None:
    await make_messaging_service(db)
    worker = a_worker(db, lookup)
    wake = notifications.wake(Channel.LINE_TYPES)
    listening = asyncio.Event()
    notifications.on_connect(listening.set)
    tasks = [
        asyncio.create_task(notifications.run()),
        asyncio.create_task(repeat(worker.step, name="line types", every=NEVER, wake=wake)),
    ]
    try:
        await listening.wait()
        await until(lambda: not wake.is_set())
        message = await create_message(client)

        async def known() -> bool:
            return (await read(client, message)).phone_number_type == "mobile"

        await until(known)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_number_is_asked_about_once_while_its_line_type_is_fresh(
    db: Database, sandbox: Sandbox, lookup: LineTypeLookup
) -> None:
    worker = a_worker(db, lookup)

    assert await enqueue(db) == 1
    assert await enqueue(db) == 0
    assert await worker.step()
    assert await enqueue(db) == 0
    assert not await worker.step()

    row = await row_of(db)
    assert (row["line_type"], row["due_at"], row["attempts"]) == ("mobile", None, 0)
    assert await asked(sandbox) == [RECEIVER]


async def test_number_without_a_line_type_is_not_asked_about_again_and_again(
    db: Database, sandbox: Sandbox, lookup: LineTypeLookup
) -> None:
    worker = a_worker(db, lookup)
    await enqueue(db, "+1")

    assert await worker.step()
    assert await enqueue(db, "+1") == 0

    row = await row_of(db, "+1")
    assert (row["line_type"], row["due_at"]) == (None, None)
    assert row["looked_up_at"] is not None
    assert len(await asked(sandbox)) == 1


@pytest.mark.parametrize(("age", "asks"), [(timedelta(days=89), False), (timedelta(days=91), True)])
async def test_old_line_type_is_asked_for_again(
    db: Database, sandbox: Sandbox, lookup: LineTypeLookup, age: timedelta, asks: bool
) -> None:
    worker = a_worker(db, lookup)
    await enqueue(db)
    await worker.step()
    await sandbox.control("PUT", f"handsets/{RECEIVER}", json={"line_type": "nonFixedVoip"})
    await pass_time(db, age)

    assert await enqueue(db) == asks
    assert (await row_of(db))["line_type"] == "mobile"
    assert await worker.step() is asks

    assert (await row_of(db))["line_type"] == ("nonFixedVoip" if asks else "mobile")


async def test_provider_that_is_down_is_asked_less_and_less_often_then_let_go(
    db: Database, lookup: LineTypeLookup, unreachable: LineTypeLookup
) -> None:
    down = a_worker(db, unreachable)
    await enqueue(db)

    delays = []
    for _ in range(ATTEMPTS - 1):
        assert await down.step()
        assert not await down.step()
        delays.append((await row_of(db))["due_at"] - datetime.now(UTC))
        await pass_time(db, BACKOFF.longest * 1.2)
    assert await down.step()

    row = await row_of(db)
    for delay, minutes in zip(delays, (5, 10, 20, 40), strict=True):
        assert minutes - 1 < delay / timedelta(minutes=1) <= minutes * 1.2
    assert (row["line_type"], row["looked_up_at"], row["due_at"], row["attempts"]) == (None, None, None, 0)

    assert await enqueue(db) == 1
    assert await a_worker(db, lookup).step()
    assert (await row_of(db))["line_type"] == "mobile"


async def test_known_line_type_outlives_a_provider_that_is_down(
    db: Database, lookup: LineTypeLookup, unreachable: LineTypeLookup
) -> None:
    await enqueue(db)
    await a_worker(db, lookup).step()
    await pass_time(db, timedelta(days=91))
    await enqueue(db)

    for _ in range(ATTEMPTS):
        assert await a_worker(db, unreachable).step()
        await pass_time(db, BACKOFF.longest * 1.2)

    row = await row_of(db)
    assert (row["line_type"], row["due_at"]) == ("mobile", None)
    assert await enqueue(db) == 1


class Busy:
    """A LineTypeLookup that is to be asked later."""

    async def line_type(self, phone_number: str) -> str | None:
        raise ProviderUnavailable("busy", retry_after=timedelta(minutes=30))

    async def aclose(self) -> None:
        """Nothing to close."""


async def test_retry_after_is_honoured(db: Database) -> None:
    await enqueue(db)

    await a_worker(db, Busy()).step()

    delay = (await row_of(db))["due_at"] - datetime.now(UTC)
    assert 29 < delay / timedelta(minutes=1) <= 36


class Broken:
    """A LineTypeLookup with a fault; counts what is paid for."""

    def __init__(self) -> None:
        self.asked = 0

    async def line_type(self, phone_number: str) -> str | None:
        self.asked += 1
        raise TypeError("a fault")

    async def aclose(self) -> None:
        """Nothing to close."""


async def test_number_whose_lookups_fail_unexpectedly_is_let_go_too(db: Database, lookup: LineTypeLookup) -> None:
    broken = Broken()
    worker = a_worker(db, broken)
    await enqueue(db)

    for _ in range(ATTEMPTS + 1):
        assert (await row_of(db))["due_at"] is not None
        assert await worker.step()
        assert not await worker.step()
        await pass_time(db, LEASE)

    row = await row_of(db)
    assert (row["line_type"], row["due_at"], row["attempts"], broken.asked) == (None, None, 0, ATTEMPTS)
    assert await enqueue(db) == 1
    assert await a_worker(db, lookup).step()
    assert (await row_of(db))["line_type"] == "mobile"


async def test_workers_beside_each_other_ask_once_about_each_number(
    db: Database, sandbox: Sandbox, lookup: LineTypeLookup
) -> None:
    numbers = [f"+120655502{index:02}" for index in range(20)]
    touched = await asyncio.gather(*(enqueue(db, number) for number in numbers * 3))
    workers = [a_worker(db, lookup) for _ in range(4)]

    async def work(worker: LineTypeWorker) -> None:
        while await worker.step():
            pass

    await asyncio.gather(*(work(worker) for worker in workers))

    known = await db.fetch_all("SELECT line_type FROM line_types", {}, scalar_row)
    assert sum(touched) == len(numbers)
    assert sorted(await asked(sandbox)) == numbers
    assert known == ["mobile"] * len(numbers)


async def test_claim_passes_over_what_another_worker_is_claiming(
    db: Database, sandbox: Sandbox, lookup: LineTypeLookup
) -> None:
    await enqueue(db)
    async with db.connection() as connection, connection.transaction():
        await connection.execute("UPDATE line_types SET attempts = attempts")

        async with asyncio.timeout(30):
            assert not await a_worker(db, lookup).step()

    assert await asked(sandbox) == []


class Held:
    """A LineTypeLookup whose answer waits for the test."""

    def __init__(self, answer: str) -> None:
        self.asked = asyncio.Event()
        self.release = asyncio.Event()
        self._answer = answer

    async def line_type(self, phone_number: str) -> str | None:
        self.asked.set()
        await self.release.wait()
        return self._answer

    async def aclose(self) -> None:
        """Nothing to close."""


async def test_number_of_a_dead_worker_is_looked_up_after_its_lease(db: Database, lookup: LineTypeLookup) -> None:
    await enqueue(db)
    held = Held("landline")
    dying = asyncio.create_task(a_worker(db, held).step())
    await held.asked.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)

    assert not await a_worker(db, lookup).step()
    await pass_time(db, LEASE)
    assert await a_worker(db, lookup).step()

    assert (await row_of(db))["line_type"] == "mobile"


async def test_answer_that_outlived_its_lease_changes_nothing(db: Database, lookup: LineTypeLookup) -> None:
    await enqueue(db)
    held = Held("landline")
    slow = asyncio.create_task(a_worker(db, held).step())
    await held.asked.wait()
    await pass_time(db, LEASE)
    await a_worker(db, lookup).step()

    held.release.set()
    await slow

    assert (await row_of(db))["line_type"] == "mobile"


async def test_lookups_keep_their_pace(db: Database, sandbox: Sandbox, lookup: LineTypeLookup) -> None:
    clock = [0.0]
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    pace = Pace(LOOKUPS_PER_SECOND, clock=lambda: clock[0], sleep=sleep)
    worker = LineTypeWorker(db, lookup, pace=pace)
    for index in range(12):
        await enqueue(db, f"+120655502{index:02}")

    while await worker.step():
        pass

    assert waits == pytest.approx([index / LOOKUPS_PER_SECOND for index in range(12)])
