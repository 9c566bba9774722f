"""Workers that are killed at the worst moments, and a database that goes away: nothing is lost, nothing sent twice."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc.aio
import pytest
from commonservices.v1 import message_pb2
from psycopg.rows import scalar_row
from pydantic import SecretStr

from server.api import running_api
from server.caller import BearerType
from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from server.messages.send import SendWorker
from server.migrations import migrate
from server.notifications import Notifications
from server.providers.ports import MessageSender
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID
from tests.clients import Client, make_client, refusal
from tests.conftest import MakeClient, make_postgres
from tests.factories import create_message, make_messaging_service
from tests.messages.support import (
    assert_each_sent_once,
    count,
    make_due,
    row_of,
    rows,
    until,
    until_settled,
)
from tests.messages.wire import Wire
from tests.providers.servers import Sandbox

ROOT = Path(__file__).parents[2]
SILENT = "[sandbox:callbacks=missing]"
# Refuses at once: what webhooks do is not the matter here.
NOBODY = "http://127.0.0.1:9/"


@dataclass(frozen=True)
class WorkerProcess:
    """A worker as it runs in production."""

    process: asyncio.subprocess.Process
    log: Path

    def is_working(self) -> bool:
        """Whether it has begun, and would see what it has claimed through when asked to stop."""
        return b"worker.working" in self.log.read_bytes()

    async def stop(self) -> int:
        """Ask it to stop, and answer its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    async def kill(self) -> None:
        """End it in the middle of what it does."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


StartWorker = Callable[[], Awaitable[WorkerProcess]]


@pytest.fixture
async def start_worker(live: Settings, tmp_path: Path) -> AsyncIterator[StartWorker]:
    """Starts worker processes."""
    started: list[WorkerProcess] = []
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

    async def start() -> WorkerProcess:
        path = tmp_path / f"worker-{len(started)}.log"
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "server", "worker", cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        started.append(WorkerProcess(process, path))
        return started[-1]

    yield start
    for process in started:
        await process.kill()


@pytest.fixture
async def caller(client_of: MakeClient) -> Client:
    """An Application whose events nobody takes."""
    return await client_of(callback_url=NOBODY)


async def in_doubt(db: Database, message: message_pb2.Message) -> bool:
    row = await row_of(db, message)
    return row.in_doubt and row.message_sid is None and row.due_at is not None


async def test_worker_killed_between_claim_and_call(
    caller: Client, db: Database, carrier: Sandbox, wire: Wire, start_worker: StartWorker, worker: SendWorker
) -> None:
    message = await create_message(caller, message_body=SILENT)
    wire.requests.hold(b"POST")

    process = await start_worker()
    await until(lambda: wire.requests.held)
    await process.kill()
    wire.cut()
    left = await in_doubt(db, message), await carrier.taken(), await worker.run_once()
    await make_due(db)
    await worker.run_once()

    assert left == (True, [], 0)
    assert (await row_of(db, message)).attempts == 2
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_worker_killed_before_the_answer_arrives(
    caller: Client, db: Database, carrier: Sandbox, wire: Wire, start_worker: StartWorker, worker: SendWorker
) -> None:
    message = await create_message(caller, message_body=SILENT)
    wire.answers.hold(b"POST")

    process = await start_worker()
    await until(lambda: wire.answers.held)
    await process.kill()
    wire.cut()
    left = await in_doubt(db, message), len(await carrier.taken()), await worker.run_once()
    await make_due(db)
    await worker.run_once()

    assert left == (True, 1, 0)
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_worker_killed_before_the_answer_arrives_but_the_callbacks_do(
    caller: Client, db: Database, carrier: Sandbox, wire: Wire, start_worker: StartWorker, worker: SendWorker
) -> None:
    message = await create_message(caller)
    wire.answers.hold(b"POST")

    process = await start_worker()
    await until(lambda: wire.answers.held)
    await process.kill()
    await until_settled(db)

    assert (await row_of(db, message)).internal_status == "delivered"
    assert await worker.run_once() == 0
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_worker_killed_between_answer_and_record(
    caller: Client, db: Database, carrier: Sandbox, wire: Wire, start_worker: StartWorker, worker: SendWorker
) -> None:
    message = await create_message(caller, message_body=SILENT)
    wire.answers.hold(b"POST")

    process = await start_worker()
    await until(lambda: wire.answers.held)
    async with db.connection() as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM messages FOR UPDATE")
        wire.answers.open()
        await until(lambda: recording(db))
        await process.kill()
        # A machine that dies takes its connection along; a process's statement would still be carried out.
        for pid in await recording(db):
            await db.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    left = await in_doubt(db, message), len(await carrier.taken())
    await make_due(db)
    await worker.run_once()

    assert left == (True, 1)
    assert_each_sent_once(await rows(db), await carrier.taken())


async def recording(db: Database) -> list[int]:
    """The connections that wait for a message's lock to record an outcome."""
    query = """
        SELECT pid FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE '%%saved AS%%' AND pid <> pg_backend_pid()
    """
    return await db.fetch_all(query, {}, scalar_row)


async def test_killed_workers_among_many_send_each_message_once(
    caller: Client, db: Database, carrier: Sandbox, wire: Wire, start_worker: StartWorker, worker: SendWorker
) -> None:
    for n in range(300):
        await create_message(caller, message_body=f"{n % 100} {'' if n % 6 == 0 else SILENT}")
    await carrier.misbehave(delay_ms=400)
    processes = [await start_worker() for _ in range(4)]

    for taken in (20, 140, 220):
        await until(partial(at_least_taken, carrier, taken))
        victim = random.choice(processes)  # noqa: S311 which one does not matter
        processes.remove(victim)
        await victim.kill()
        processes.append(await start_worker())
    await until(lambda: nothing_unclaimed(db))
    await until(lambda: all(process.is_working() for process in processes))
    ended = await asyncio.gather(*(process.stop() for process in processes))
    await until(lambda: wire.unanswered == 0)
    await carrier.control("DELETE", "misbehaviour")
    left_in_doubt = await count(db, "messages WHERE in_doubt")
    await make_due(db)
    while await worker.run_once():
        pass

    assert ended == [0] * 4
    assert left_in_doubt
    assert len(await carrier.taken()) == 300
    assert_each_sent_once(await rows(db), await carrier.taken())


async def at_least_taken(carrier: Sandbox, number: int) -> bool:
    return len(await carrier.taken()) >= number


async def nothing_unclaimed(db: Database) -> bool:
    return await count(db, "messages WHERE due_at <= now()") == 0


@asynccontextmanager
async def running_worker(
    settings: Settings, db: Database, senders: dict[str, MessageSender]
) -> AsyncIterator[asyncio.Event]:
    """A worker of the default lane in this process; it has seen everything through when the block ends."""
    notifications = Notifications(settings.database_url.get_secret_value(), db)
    stop = asyncio.Event()
    listening = asyncio.create_task(notifications.run())
    working = asyncio.create_task(SendWorker(db, notifications, senders, priority="default").run(stop))
    try:
        yield stop
        stop.set()
        await asyncio.wait_for(working, 30)
    finally:
        for task in (listening, working):
            task.cancel()
        await asyncio.gather(listening, working, return_exceptions=True)


async def test_database_that_restarts_loses_nothing_and_is_found_again(
    live: Settings,
    carrier: Sandbox,
    cipher: Cipher,
    senders: dict[str, MessageSender],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    postgres = make_postgres(tmp_path_factory)
    with postgres as url:
        migrate(url)
        own = live.model_copy(update={"database_url": SecretStr(url)})
        async with (
            opened(url) as db,
            running_api(own, listen="127.0.0.1:0") as api,
            grpc.aio.insecure_channel(f"127.0.0.1:{api.port}") as channel,
        ):
            await make_messaging_service(db, twilio_messaging_sid=MESSAGING_SERVICE_SID)
            caller = await make_client(channel, db, cipher, bearer_type=BearerType.APPLICATION, callback_url=NOBODY)

            async with running_worker(own, db, senders):
                creating = asyncio.create_task(keep_creating(caller, 60))
                await until(lambda: at_least_taken(carrier, 10))
                postgres.stop()
                refused_while_down = await create_once(caller, "down")
                postgres.start()
                accepted = await creating
                await until(lambda: is_taken(carrier, "59"))

            # Nobody else is at work now: these are the leases of what could not be recorded.
            async with opened(url) as fresh:
                await make_due(fresh)
                again = SendWorker(fresh, Notifications(url, fresh), senders, priority="default")
                while await again.run_once():
                    pass
                stored = await rows(fresh)

    assert refused_while_down is None
    assert {str(m.message_uuid) for m in stored} == accepted
    assert len(stored) == 60
    assert_each_sent_once(stored, await carrier.taken())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A database of the test's own."""
    db = Database(url, max_size=5)
    await db.open()
    yield db
    await db.close()


async def keep_creating(caller: Client, number: int) -> set[str]:
    """Create so many messages one after the other, each repeated until it is accepted."""
    accepted = set()
    for n in range(number):
        message = None
        while message is None:
            message = await create_once(caller, f"{n}")
        accepted.add(message.message_uuid)
    return accepted


async def create_once(caller: Client, name: str) -> message_pb2.Message | None:
    """A message, or None where the service said to try again."""
    try:
        return await create_message(caller, request_id=name, message_body=f"{name} {SILENT}")
    except grpc.aio.AioRpcError as error:
        if refusal(error).reason != "UNAVAILABLE":
            raise
        return None


async def is_taken(carrier: Sandbox, name: str) -> bool:
    return any(copy["body"].startswith(f"{name} ") for copy in await carrier.taken())
