"""Messages whose callbacks stopped: asked about at the sandbox carrier over sockets, and settled with what it says."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest
from commonservices.v1 import message_pb2
from structlog.testing import capture_logs

from server.background import Pace
from server.config import Settings
from server.db import Database
from server.messages.message import FIRST_CHECK_AFTER
from server.messages.reconcile import CHECKS_PER_SECOND, Check, Outcome, Reconciler, reconcile_all
from server.messages.send import SendWorker
from server.notifications import Notifications
from server.providers import registry
from server.providers.ports import MessageReport, MessageSender, MessageStatus, OutboundMessage, ProviderUnavailable
from server.providers.sandbox.callbacks import signature
from server.stack.postgres import free_port
from tests.clients import Client
from tests.factories import create_message
from tests.messages.inbound import Texts, inbound_form
from tests.messages.support import count, events_of, kept_callbacks, row_of, rows, until
from tests.messages.wire import Wire
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, Sandbox, closed_port_url

ROOT = Path(__file__).parents[2]
SILENT = "[sandbox:callbacks=missing]"
MINUTE = timedelta(minutes=1)


def a_reconciler(db: Database, notifications: Notifications, senders: Mapping[str, MessageSender]) -> Reconciler:
    return Reconciler(db, notifications, senders, pace=Pace(1_000_000))


@pytest.fixture
def reconciler(db: Database, notifications: Notifications, senders: dict[str, MessageSender]) -> Reconciler:
    """One that asks the carrier, as fast as it can."""
    return a_reconciler(db, notifications, senders)


async def make_checks_due(db: Database) -> None:
    """As if the time of every check had come."""
    await db.execute("UPDATE messages SET check_at = now() WHERE check_at IS NOT NULL")


async def until_carried(carrier: Sandbox) -> None:
    """Wait until the carrier has done with every message, and has no callback left to post."""

    async def carried() -> bool:
        finals = ("delivered", "undelivered", "failed")
        return all(m["status"] in finals and not m["callbacks_due"] for m in await carrier.taken())

    await until(carried)


async def silent_messages(
    client: Client, worker: SendWorker, carrier: Sandbox, *texts: str
) -> list[message_pb2.Message]:
    """Messages that were sent and delivered while no callback came."""
    messages = [await create_message(client, message_body=SILENT + text) for text in texts]
    await worker.run_once()
    await until_carried(carrier)
    return messages


async def fetches(carrier: Sandbox) -> int:
    """How often the carrier was asked about one message."""
    asked = (await carrier.control("GET", "requests", params={"method": "GET", "path": "Messages/"}))["requests"]
    return len(asked)


async def told(db: Database, message: message_pb2.Message) -> list[str]:
    """The statuses that the message's events tell."""
    return [event.message.internal_status for event in await events_of(db, message)]


async def check_in(db: Database, message: message_pb2.Message) -> timedelta:
    """How long until the message is asked about."""
    row = await row_of(db, message)
    assert row.check_at is not None
    return row.check_at - datetime.now(UTC)


async def test_message_without_callbacks_is_settled_and_that_is_told(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, reconciler: Reconciler
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    planned = await check_in(db, message)
    early = await reconciler.step()
    await make_checks_due(db)

    assert await reconciler.step()
    assert not await reconciler.step()

    row = await row_of(db, message)
    assert FIRST_CHECK_AFTER - MINUTE < planned <= FIRST_CHECK_AFTER
    assert not early
    assert (row.internal_status, row.provider_status, row.check_at, row.checks) == ("delivered", "delivered", None, 0)
    assert row.delivered_at is not None
    assert await told(db, message) == ["pending", "processing", "delivered"]
    assert await fetches(carrier) == 1


async def test_failure_that_no_callback_told_is_told_with_its_error(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, reconciler: Reconciler
) -> None:
    [message] = await silent_messages(client, worker, carrier, "[sandbox:undelivered=30005]")
    await make_checks_due(db)

    await reconciler.step()

    row = await row_of(db, message)
    assert (row.internal_status, row.provider_status, row.error_code) == ("failed", "undelivered", "30005")
    assert (await told(db, message))[-1] == "failed"


async def test_callbacks_lost_while_envoy_was_down_are_made_up_for(
    client: Client, db: Database, notifications: Notifications, carrier: Sandbox, live: Settings, reconciler: Reconciler
) -> None:
    nowhere = live.model_copy(update={"public_base_url": f"http://127.0.0.1:{free_port()}"})
    async with senders_of(nowhere) as senders:
        message = await create_message(client)
        await SendWorker(db, notifications, senders, priority="default").run_once()
    await until_carried(carrier)
    lost = await row_of(db, message), await count(db, "message_callbacks")
    await make_checks_due(db)

    await reconciler.step()

    assert (lost[0].internal_status, lost[1]) == ("processing", 0)
    assert (await row_of(db, message)).internal_status == "delivered"
    assert await told(db, message) == ["pending", "processing", "delivered"]


async def test_callbacks_after_a_reconciliation_change_nothing(
    client: Client,
    db: Database,
    carrier: Sandbox,
    live: Settings,
    worker: SendWorker,
    reconciler: Reconciler,
    callback_http: aiohttp.ClientSession,
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    await make_checks_due(db)
    await reconciler.step()
    settled = await row_of(db, message)
    assert settled.message_sid is not None

    for status in ("queued", "sent", "delivered", "undelivered"):
        await post_callback(callback_http, live, message_sid=settled.message_sid, status=status)

    assert await row_of(db, message) == settled
    assert len(await events_of(db, message)) == 3
    assert [kept["message_id"] for kept in await kept_callbacks(db)] == [settled.id] * 4


async def test_kept_callbacks_find_their_message_with_the_news(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, reconciler: Reconciler
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    row = await row_of(db, message)
    await db.execute(
        """INSERT INTO message_callbacks
        (provider, message_sid, provider_status, provider_rank, internal_status, recipient_opted_out, body)
        VALUES ('twilio', %(sid)s, 'sent', 4, 'sent', false, 'raw')""",
        {"sid": row.message_sid},
    )
    await make_checks_due(db)

    await reconciler.step()

    [kept] = await kept_callbacks(db)
    assert kept["message_id"] == row.id
    assert await told(db, message) == ["pending", "processing", "delivered"]


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

        async with asyncio.timeout(5):
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


async def test_message_that_the_provider_does_not_know_stays_as_it_is(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, reconciler: Reconciler
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    [taken] = await carrier.taken()
    await carrier.rest("DELETE", f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{taken['sid']}.json")
    before = await row_of(db, message)
    await make_checks_due(db)

    with capture_logs() as logs:
        assert await reconciler.step()

    row = await row_of(db, message)
    [line] = [line for line in logs if line["event"] == "message.unknown_to_provider"]
    assert (line["message_uuid"], line["message_sid"]) == (message.message_uuid, before.message_sid)
    assert (row.internal_status, row.provider_status, row.check_at) == ("processing", before.provider_status, None)
    assert await told(db, message) == ["pending", "processing"]


async def test_inbound_and_unfinished_messages_are_nobodys_to_check(
    client: Client, admin: Client, db: Database, carrier: Sandbox, texts: Texts, reconciler: Reconciler
) -> None:
    waiting = await create_message(client, message_body="waiting")
    doubtful = await create_message(client, message_body="in doubt")
    await db.execute(
        """UPDATE messages SET internal_status = 'processing', attempts = 1, in_doubt = true,
        first_claimed_at = now(), due_at = now() + interval '60 s' WHERE message_uuid = %(uuid)s""",
        {"uuid": doubtful.message_uuid},
    )
    await texts.post(inbound_form())
    before = await rows(db)

    found = await reconcile_all(reconciler, db, older_than=timedelta(0))

    assert {row.direction for row in before} == {"inbound", "outbound"}
    assert waiting.message_uuid in {str(row.message_uuid) for row in before}
    assert await rows(db) == before
    assert (found.checks, list(found.still_open)) == (Counter(), [])
    assert await fetches(carrier) == 0


class Says:
    """A MessageSender that has one thing to say of every message."""

    def __init__(self, says: MessageReport | Exception | None) -> None:
        self._says = says

    async def fetch(self, message_sid: str) -> MessageReport | None:
        if isinstance(self._says, Exception):
            raise self._says
        return self._says

    async def send(self, message: OutboundMessage) -> MessageReport:
        raise AssertionError("a reconciler sends nothing")

    async def find_copies(self, message: OutboundMessage, *, since: datetime) -> list[MessageReport]:
        raise AssertionError("a reconciler looks for no copies")

    async def aclose(self) -> None:
        """Nothing to close."""


def queued(message_sid: str | None) -> MessageReport:
    assert message_sid is not None
    return MessageReport(message_sid, "queued", MessageStatus.PROCESSING, 2)


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
    stuck = a_reconciler(db, notifications, {"twilio": Says(queued(sid))})
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


async def test_check_that_news_overtook_plans_nothing(
    client: Client,
    db: Database,
    carrier: Sandbox,
    live: Settings,
    wire: Wire,
    worker: SendWorker,
    reconciler: Reconciler,
    callback_http: aiohttp.ClientSession,
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    sid = str((await row_of(db, message)).message_sid)
    await carrier.misbehave(answer="503")
    await make_checks_due(db)
    wire.answers.hold(b"GET")

    asking = asyncio.create_task(reconciler.run_once())
    await until(lambda: wire.answers.held)
    await post_callback(callback_http, live, message_sid=sid, status="delivered")
    settled = await row_of(db, message)
    wire.answers.open()

    assert [check.outcome for check in await asking] == [Outcome.UNAVAILABLE]
    assert await row_of(db, message) == settled
    assert (settled.internal_status, settled.check_at) == ("delivered", None)


async def test_batch_is_told_to_the_log_in_one_line(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, reconciler: Reconciler
) -> None:
    await silent_messages(client, worker, carrier, "a", "b", "[sandbox:undelivered=30003]")
    await make_checks_due(db)

    with capture_logs() as logs:
        await reconciler.step()
        await reconciler.step()

    assert logs == [
        {
            "event": "messages.reconciled",
            "log_level": "info",
            "asked": 3,
            "settled": 3,
            "statuses": {"delivered": 2, "failed": 1},
            "news": 3,
            "no_news": 0,
            "unsettled": 0,
            "unknown": 0,
            "unavailable": 0,
            "not_configured": 0,
            "failed": 0,
        }
    ]


async def test_command_settles_what_is_due_and_prints_it(
    client: Client, db: Database, carrier: Sandbox, live: Settings, worker: SendWorker
) -> None:
    await silent_messages(client, worker, carrier, "a", "b", "[sandbox:undelivered=30003]")
    await make_checks_due(db)
    [later] = await silent_messages(client, worker, carrier, "later")

    first = await run_server(live, "reconcile")
    waiting = await row_of(db, later)
    second = await run_server(live, "reconcile", "--all-older-than", "0")

    assert first == (
        0,
        [
            "checked  status     outcome  messages",
            "twilio   delivered  news     2",
            "twilio   failed     news     1",
            "",
            "still open  status      messages",
            "twilio      processing  1",
        ],
    )
    assert waiting.internal_status == "processing"
    assert second == (
        0,
        ["checked  status     outcome  messages", "twilio   delivered  news     1", "", "still open  status  messages"],
    )
    assert (await row_of(db, later)).internal_status == "delivered"
    assert await told(db, later) == ["pending", "processing", "delivered"]


async def test_command_leaves_alone_what_has_newer_news(
    client: Client, db: Database, carrier: Sandbox, live: Settings, worker: SendWorker
) -> None:
    await silent_messages(client, worker, carrier, "")

    code, lines = await run_server(live, "reconcile", "--all-older-than", "3600")

    assert (code, lines[0]) == (0, "checked  status  outcome  messages")
    assert await fetches(carrier) == 0


async def test_command_fails_where_a_provider_cannot_be_reached(
    client: Client, db: Database, carrier: Sandbox, live: Settings, worker: SendWorker
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    down = live.model_copy(update={"twilio_api_base_url": closed_port_url()})

    code, lines = await run_server(down, "reconcile", "--all-older-than", "0")

    assert code == 1
    assert "twilio   processing  unavailable  1" in lines
    assert (await row_of(db, message)).internal_status == "processing"


async def test_worker_process_reconciles_and_looks_line_types_up(
    client: Client, db: Database, carrier: Sandbox, live: Settings, worker: SendWorker
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    await make_checks_due(db)

    async def settled() -> bool:
        row = await row_of(db, message)
        return (row.internal_status, row.phone_number_type) == ("delivered", "mobile")

    async with server_process(live, "worker") as process:
        await until(settled)
        process.terminate()
        assert await process.wait() == 0


@asynccontextmanager
async def senders_of(settings: Settings) -> AsyncIterator[dict[str, MessageSender]]:
    """The real adapters of other settings."""
    senders = registry.message_senders(settings)
    try:
        yield senders
    finally:
        for sender in senders.values():
            await sender.aclose()


async def post_callback(http: aiohttp.ClientSession, live: Settings, *, message_sid: str, status: str) -> None:
    """A status callback as Twilio posts it to a messaging service's own URL."""
    path = "/api/v1/twilio_requests/webhook_message_updates"
    fields = {"MessageSid": message_sid, "MessageStatus": status}
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Twilio-Signature": signature(AUTH_TOKEN, live.public_base_url + path, fields),
    }
    async with http.post(path, data=urlencode(fields), headers=headers) as answer:
        assert answer.status == 200, await answer.text()


@asynccontextmanager
async def server_process(settings: Settings, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m server …` with these settings."""
    environment = {
        **os.environ,
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "PUBLIC_BASE_URL": settings.public_base_url,
        "ENCRYPTION_KEYS": ",".join(key.get_secret_value() for key in settings.encryption_keys),
        "TWILIO_ACCOUNT_SID": settings.twilio_account_sid,
        "TWILIO_AUTH_TOKEN": settings.twilio_auth_token.get_secret_value(),
        "TWILIO_API_BASE_URL": str(settings.twilio_api_base_url),
        "STORAGE_URL": settings.storage_url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", *arguments),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def run_server(settings: Settings, *arguments: str) -> tuple[int | None, list[str]]:
    """The exit code of a command, and the lines it prints."""
    async with server_process(settings, *arguments) as process:
        output, _ = await process.communicate()
    return process.returncode, output.decode().splitlines()
