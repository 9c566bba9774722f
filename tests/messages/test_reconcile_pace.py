"""When and how often a carrier is asked about messages, by one reconciler and by several."""

import asyncio
from datetime import timedelta

import aiohttp
import pytest
from structlog.testing import capture_logs

from server.background import Pace
from server.config import Settings
from server.db import Database
from server.messages.reconcile import CHECKS_PER_SECOND, Check, Outcome, Reconciler
from server.messages.send import SendWorker
from server.notifications import Notifications
from server.providers.ports import MessageReport, MessageSender, MessageStatus, ProviderUnavailable
from tests.clients import Client
from tests.messages.reconciling import (
    MINUTE,
    Says,
    a_reconciler,
    check_in,
    fetches,
    make_checks_due,
    post_callback,
    senders_of,
    silent_messages,
    told,
)
from tests.messages.support import count, row_of, rows, until
from tests.messages.wire import Wire
from tests.providers.servers import Sandbox, closed_port_url


async def test_reconcilers_beside_each_other_ask_once(
    client: Client,
    db: Database,
    notifications: Notifications,
    carrier: Sandbox,
    worker: SendWorker,
    senders: dict[str, MessageSender],
) -> None:
    messages = await silent_messages(client, worker, carrier, *"abcdefghijklmnopqrst")
    await make_checks_due(db)

    async def work() -> None:
        reconciler = a_reconciler(db, notifications, senders)
        while await reconciler.step():
            pass

    await asyncio.gather(*(work() for _ in range(4)))

    assert {row.internal_status for row in await rows(db)} == {"delivered"}
    assert await fetches(carrier) == len(messages)
    assert await count(db, "events") == 3 * len(messages)


async def test_claim_passes_over_what_another_reconciler_is_claiming(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, reconciler: Reconciler
) -> None:
    await silent_messages(client, worker, carrier, "")
    await make_checks_due(db)
    async with db.connection() as connection, connection.transaction():
        await connection.execute("UPDATE messages SET checks = checks")

        async with asyncio.timeout(30):
            assert await reconciler.run_once() == []

    assert await fetches(carrier) == 0


async def test_carrier_is_asked_at_a_pace_and_about_few_at_once(
    client: Client,
    db: Database,
    notifications: Notifications,
    carrier: Sandbox,
    wire: Wire,
    worker: SendWorker,
    senders: dict[str, MessageSender],
) -> None:
    await silent_messages(client, worker, carrier, *"abcdefgh")
    await make_checks_due(db)
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    pace = Pace(CHECKS_PER_SECOND, clock=lambda: 0.0, sleep=sleep)
    reconciler = Reconciler(db, notifications, senders, pace=pace)
    wire.requests.hold(b"GET")

    first = asyncio.create_task(reconciler.step())
    await until(lambda: wire.requests.held == 5)
    wire.requests.open()
    await first
    await reconciler.step()

    assert waits == pytest.approx([n / CHECKS_PER_SECOND for n in range(8)])
    assert await fetches(carrier) == 8


async def test_provider_that_is_down_is_asked_later_and_costs_no_check(
    client: Client,
    db: Database,
    notifications: Notifications,
    carrier: Sandbox,
    live: Settings,
    worker: SendWorker,
    reconciler: Reconciler,
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    async with senders_of(live.model_copy(update={"twilio_api_base_url": closed_port_url()})) as senders:
        down = a_reconciler(db, notifications, senders)
        for _ in range(10):
            await make_checks_due(db)
            assert await down.run_once() == [Check("twilio", "processing", Outcome.UNAVAILABLE)]
            assert await down.run_once() == []
    waiting = await row_of(db, message), await check_in(db, message), await told(db, message)
    await make_checks_due(db)

    await reconciler.step()

    assert (waiting[0].internal_status, waiting[0].checks) == ("processing", 0)
    assert round(waiting[1] / MINUTE) == 5
    assert waiting[2] == ["pending", "processing"]
    assert (await row_of(db, message)).internal_status == "delivered"


@pytest.mark.parametrize(("retry_after", "minutes"), [(None, 5), (0.5, 5), (30, 30), (600, 60)])
async def test_retry_after_is_honoured_within_bounds(
    client: Client,
    db: Database,
    notifications: Notifications,
    carrier: Sandbox,
    worker: SendWorker,
    retry_after: float | None,
    minutes: int,
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    busy = ProviderUnavailable("busy", retry_after=None if retry_after is None else retry_after * MINUTE)
    await make_checks_due(db)

    await a_reconciler(db, notifications, {"twilio": Says(busy)}).step()

    assert round(await check_in(db, message) / MINUTE) == minutes


async def test_message_of_a_provider_that_is_not_configured_waits_for_it(
    client: Client,
    db: Database,
    notifications: Notifications,
    carrier: Sandbox,
    worker: SendWorker,
    reconciler: Reconciler,
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    await make_checks_due(db)

    with capture_logs() as logs:
        [check] = await a_reconciler(db, notifications, {}).run_once()

    assert check == Check("twilio", "processing", Outcome.NOT_CONFIGURED)
    assert [line["event"] for line in logs] == ["message.provider_not_configured"]
    assert ((await row_of(db, message)).checks, round(await check_in(db, message) / MINUTE)) == (0, 60)

    await make_checks_due(db)
    await reconciler.step()
    assert (await row_of(db, message)).internal_status == "delivered"


async def test_fault_of_one_check_is_no_other_messages(
    client: Client, db: Database, notifications: Notifications, carrier: Sandbox, worker: SendWorker
) -> None:
    [first] = await silent_messages(client, worker, carrier, "first")
    [second] = await silent_messages(client, worker, carrier, "second")
    sid = (await row_of(db, first)).message_sid
    delivered = MessageReport(str(sid), "delivered", MessageStatus.DELIVERED, 5)

    class FaultyForOthers(Says):
        async def fetch(self, message_sid: str) -> MessageReport | None:
            if message_sid != sid:
                raise ZeroDivisionError
            return delivered

    await make_checks_due(db)
    checks = await a_reconciler(db, notifications, {"twilio": FaultyForOthers(None)}).run_once()

    assert {check.outcome for check in checks} == {Outcome.NEWS, Outcome.FAILED}
    assert (await row_of(db, first)).internal_status == "delivered"
    assert round(await check_in(db, second) / MINUTE) == 30


async def test_message_without_news_is_asked_about_for_some_three_days(
    client: Client,
    db: Database,
    notifications: Notifications,
    carrier: Sandbox,
    live: Settings,
    worker: SendWorker,
    callback_http: aiohttp.ClientSession,
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    sid = (await row_of(db, message)).message_sid
    stuck = a_reconciler(
        db, notifications, {"twilio": Says(MessageReport(str(sid), "queued", MessageStatus.PROCESSING, 2))}
    )
    delays, outcomes = [await check_in(db, message)], []

    while (await row_of(db, message)).check_at is not None:
        await make_checks_due(db)
        with capture_logs() as logs:
            [check] = await stuck.run_once()
        outcomes.append(check.outcome)
        if check.outcome in (Outcome.NEWS, Outcome.NO_NEWS):
            delays.append(await check_in(db, message))

    minutes = [round(delay / MINUTE) for delay in delays]
    # The first ask has news: the carrier's create said `accepted`.
    assert minutes == [10, 10, 30, 120, 360, 720, 1440, 1440]
    assert outcomes == [Outcome.NEWS, *[Outcome.NO_NEWS] * 6, Outcome.UNSETTLED]
    assert timedelta(days=2.5) < sum(delays[1:], timedelta(0)) < timedelta(days=3)
    assert [line["event"] for line in logs] == ["message.unsettled"]
    assert (await row_of(db, message)).internal_status == "processing"
    assert not await stuck.step()

    assert sid is not None
    await post_callback(callback_http, live, message_sid=sid, status="sent")

    row = await row_of(db, message)
    assert (row.internal_status, row.checks) == ("sent", 0)
    assert round(await check_in(db, message) / MINUTE) == 10
