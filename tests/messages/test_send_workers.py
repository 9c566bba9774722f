"""Send workers beside each other, and as they run: leases, limits, lanes and stops."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from server.db import Database
from server.messages.send import LEASE, SendWorker
from server.notifications import Notifications
from server.providers.ports import MessageReport, MessageStatus, OutboundMessage
from tests.clients import Client
from tests.factories import create_message
from tests.messages.conftest import MakeWorker
from tests.messages.support import (
    SILENT,
    assert_each_sent_once,
    count,
    make_due,
    row_of,
    rows,
    step,
    until,
)
from tests.messages.wire import Wire
from tests.providers.servers import Sandbox


async def test_worker_whose_claim_another_took_over_does_not_send(
    client: Client, db: Database, carrier: Sandbox, wire: Wire, make_worker: MakeWorker
) -> None:
    await create_message(client, message_body=f"[sandbox:500]{SILENT}")
    await make_worker().run_once()
    await make_due(db)
    wire.answers.hold(b"GET")
    slow = asyncio.create_task(make_worker().run_once())
    await until(lambda: wire.answers.held)
    await make_due(db)
    quick = asyncio.create_task(make_worker().run_once())
    await until(lambda: wire.answers.held == 2)
    wire.answers.open()
    await asyncio.gather(slow, quick)

    assert len(await carrier.taken()) == 1
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_lease_outlasts_every_call(client: Client, db: Database, wire: Wire, worker: SendWorker) -> None:
    message = await create_message(client)
    wire.requests.hold(b"POST")

    sending = asyncio.create_task(worker.run_once())
    await until(lambda: wire.requests.held or wire.answers.held)
    row = await row_of(db, message)
    wire.requests.open()
    await sending

    assert row.due_at is not None
    assert row.due_at - row.updated_at == LEASE >= timedelta(seconds=45)
    assert (row.internal_status, row.in_doubt, row.attempts) == ("processing", True, 1)


async def test_messages_sent_together_are_each_sent_once(
    client: Client, db: Database, carrier: Sandbox, make_worker: MakeWorker
) -> None:
    for n in range(60):
        await create_message(client, message_body=f"{n % 20} {SILENT}")

    async def work(worker: SendWorker) -> int:
        done = 0
        while worked := await worker.run_once():
            done += worked
        return done

    done = await asyncio.gather(*(work(make_worker(concurrency=7)) for _ in range(4)))

    assert sum(done) == 60
    assert_each_sent_once(await rows(db), await carrier.taken())


class Slow:
    """A carrier in memory that takes a message only when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Event] = []
        self.most_at_once = 0
        self.taken: list[OutboundMessage] = []
        self._at_once = 0

    async def send(self, message: OutboundMessage) -> MessageReport:
        let_go = asyncio.Event()
        self.waiting.append(let_go)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await let_go.wait()
        self._at_once -= 1
        self.taken.append(message)
        return MessageReport(f"SM{message.message_uuid.hex}", "queued", MessageStatus.PROCESSING, 2)

    async def find_copies(self, message: OutboundMessage, *, since: datetime) -> list[MessageReport]:
        return []

    async def fetch(self, message_sid: str) -> MessageReport | None:
        raise AssertionError("a send worker does not ask")

    async def aclose(self) -> None: ...

    def has_waiting(self, number: int) -> bool:
        return len(self.waiting) >= number

    def let_one_go(self) -> None:
        self.waiting.pop(0).set()


@pytest.fixture
async def listening(db: Database, database_url: str) -> AsyncIterator[tuple[SendWorker, Slow]]:
    """A worker of three messages at a time, listening, and its carrier."""
    notifications = Notifications(database_url, db)
    connected = asyncio.Event()
    notifications.on_connect(connected.set)
    slow = Slow()
    worker = SendWorker(db, notifications, {"twilio": slow}, priority="default", concurrency=3)
    task = asyncio.create_task(notifications.run())
    await connected.wait()
    yield worker, slow
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_running_worker_keeps_its_limit_and_stops_cleanly(
    client: Client, db: Database, carrier: Sandbox, listening: tuple[SendWorker, Slow]
) -> None:
    worker, slow = listening
    for _ in range(10):
        await create_message(client)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))

    for _ in range(4):
        await until(lambda: slow.has_waiting(3))
        slow.let_one_go()
    await until(lambda: slow.has_waiting(3))
    stop.set()
    while slow.waiting:
        slow.let_one_go()
    await asyncio.wait_for(running, 30)

    sent = [m for m in await rows(db) if m.message_sid is not None]
    assert slow.most_at_once == 3
    assert len(sent) == len(slow.taken) == 7
    assert {m.attempts for m in await rows(db) if m.message_sid is None} == {0}


async def test_running_worker_is_woken_by_each_create(
    client: Client, carrier: Sandbox, listening: tuple[SendWorker, Slow]
) -> None:
    worker, slow = listening
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))

    waited = 0.0
    for _ in range(10):
        await create_message(client)
        began = asyncio.get_running_loop().time()
        await until(lambda: slow.has_waiting(1))
        waited += asyncio.get_running_loop().time() - began
        slow.let_one_go()
    stop.set()
    await asyncio.wait_for(running, 30)

    assert waited < 5  # for a poll a second it would be ten


async def test_worker_outlives_a_failing_claim(
    client: Client,
    db: Database,
    carrier: Sandbox,
    listening: tuple[SendWorker, Slow],
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker, slow = listening
    await db.execute("ALTER TABLE messages RENAME TO messages_away")
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        await until(lambda: "send.claim_failed" in capsys.readouterr().out)
    finally:
        await db.execute("ALTER TABLE messages_away RENAME TO messages")

    await create_message(client)
    await until(lambda: slow.has_waiting(1))
    slow.let_one_go()
    stop.set()
    await asyncio.wait_for(running, 30)

    assert await count(db, "messages WHERE message_sid IS NOT NULL") == 1


async def test_high_priority_does_not_wait_behind_bulk(
    client: Client, db: Database, carrier: Sandbox, listening: tuple[SendWorker, Slow], make_worker: MakeWorker
) -> None:
    bulk, slow = listening
    one = await create_message(client)
    copied = "bearer_id, conversation_id, provider, sender_number, receiver_number, message_body, media_urls"
    columns = f"{copied}, message_type, priority"
    await db.execute(
        f"""INSERT INTO messages ({columns}, message_uuid, internal_status, sequence, due_at)
        SELECT {columns}, gen_random_uuid(), internal_status, 1, due_at FROM messages, generate_series(1, 1000)"""
    )
    stop = asyncio.Event()
    running = asyncio.create_task(bulk.run(stop))
    await until(lambda: slow.has_waiting(3))

    urgent = await create_message(client, priority="high", message_body="urgent")
    assert await make_worker("high").run_once() == 1

    [taken] = await carrier.taken()
    assert taken["body"] == "urgent"
    assert (await row_of(db, urgent)).message_sid == taken["sid"]
    assert (await row_of(db, one)).message_sid is None
    stop.set()
    while slow.waiting:
        slow.let_one_go()
    await asyncio.wait_for(running, 30)


async def test_worker_of_the_default_lane_leaves_the_high_one_alone(
    client: Client, carrier: Sandbox, worker: SendWorker
) -> None:
    await create_message(client, priority="high")

    assert await worker.run_once() == 0


async def test_claim_that_stood_still_is_left_to_its_successor(
    client: Client, db: Database, carrier: Sandbox, make_worker: MakeWorker
) -> None:
    await create_message(client, message_body=SILENT)
    times = iter([0.0, LEASE.total_seconds()])

    await make_worker(clock=lambda: next(times)).run_once()
    assert not await carrier.taken()
    await step(make_worker(), db)

    assert_each_sent_once(await rows(db), await carrier.taken())
