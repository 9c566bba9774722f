"""Messages whose callbacks stopped: asked about at the sandbox carrier over sockets, and settled with what it says."""

import asyncio
from collections import Counter
from datetime import timedelta

import aiohttp
from structlog.testing import capture_logs

from server.config import Settings
from server.db import Database
from server.messages.message import FIRST_CHECK_AFTER
from server.messages.reconcile import Outcome, Reconciler, reconcile_all
from server.messages.send import SendWorker
from server.notifications import Notifications
from server.stack.ports import free_port
from tests.clients import Client
from tests.factories import create_message
from tests.messages.inbound import Texts, inbound_form
from tests.messages.reconciling import (
    MINUTE,
    check_in,
    fetches,
    make_checks_due,
    post_callback,
    senders_of,
    silent_messages,
    told,
    until_carried,
)
from tests.messages.support import count, events_of, kept_callbacks, row_of, rows, until
from tests.messages.wire import Wire
from tests.providers.servers import ACCOUNT_SID, Sandbox


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


async def test_message_that_the_provider_does_not_know_stays_as_it_is(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, reconciler: Reconciler
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    [taken] = await carrier.taken()
    await carrier.rest("DELETE", f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{taken['sid']}.json")
    await make_checks_due(db)
    young = await reconciler.run_once()
    asked_again = await check_in(db, message)
    await db.execute("UPDATE messages SET updated_at = now() - interval '40 min'")
    await make_checks_due(db)
    before = await row_of(db, message)

    with capture_logs() as logs:
        old = await reconciler.run_once()

    row = await row_of(db, message)
    [line] = [line for line in logs if line["event"] == "message.unknown_to_provider"]
    assert ([check.outcome for check in young], round(asked_again / MINUTE)) == ([Outcome.NO_NEWS], 30)
    assert [check.outcome for check in old] == [Outcome.UNKNOWN]
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
