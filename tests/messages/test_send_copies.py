"""What the carrier may have taken already, of a message or of its twin: each copy is found, and made once."""

import asyncio
from datetime import timedelta

import pytest
from commonservices.v1 import message_pb2

from server.db import Database
from server.messages.send import SendWorker
from server.providers.ports import MessageSender
from tests.clients import Client
from tests.factories import create_message
from tests.messages.conftest import MakeWorker
from tests.messages.support import (
    SILENT,
    assert_each_sent_once,
    kept_callbacks,
    make_due,
    requests,
    row_of,
    rows,
    step,
    until,
    until_settled,
)
from tests.messages.wire import Wire
from tests.providers.servers import Sandbox


@pytest.mark.parametrize("trigger", ["lost-response", "garbled", "500-taken", "502-taken", "504-taken"])
async def test_message_that_was_taken_is_found_and_not_sent_again(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, trigger: str
) -> None:
    message = await create_message(client, message_body=f"[sandbox:{trigger}]{SILENT}")

    await worker.run_once()
    waiting = await row_of(db, message)
    await step(worker, db)

    [taken] = await carrier.taken()
    assert (waiting.message_sid, waiting.in_doubt) == (None, True)
    assert waiting.due_at is not None
    assert waiting.due_at - waiting.updated_at >= timedelta(seconds=30)
    assert (await row_of(db, message)).message_sid == taken["sid"]
    assert len(await requests(carrier, "POST")) == 1
    assert_each_sent_once(await rows(db), await carrier.taken())


@pytest.mark.parametrize("trigger", ["lost-response", "500-taken"])
async def test_callback_alone_settles_a_message_whose_answer_was_lost(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker, trigger: str
) -> None:
    await create_message(client, message_body=f"[sandbox:{trigger}]")

    await worker.run_once()
    await until_settled(db)

    assert len(await requests(carrier, "POST")) == 1
    assert await requests(carrier, "GET") == []
    assert_each_sent_once(await rows(db), await carrier.taken())


async def twins(client: Client, body: str) -> tuple[message_pb2.Message, message_pb2.Message]:
    return await create_message(client, message_body=body), await create_message(client, message_body=body)


async def test_twins_of_which_one_was_taken_end_as_two_copies(
    client: Client, db: Database, carrier: Sandbox, make_worker: MakeWorker
) -> None:
    await twins(client, SILENT)
    one_by_one = make_worker(concurrency=1)
    await carrier.misbehave(answer="lost-response", next_requests=1)
    await one_by_one.run_once()
    await carrier.misbehave(answer="500", next_requests=1)
    await one_by_one.run_once()
    taken_before = len(await carrier.taken())
    in_doubt = [m.in_doubt for m in await rows(db)]

    await step(make_worker(), db)
    await step(make_worker(), db)

    assert (taken_before, in_doubt) == (1, [True, True])
    assert len(await carrier.taken()) == 2
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_copy_that_a_twin_adopted_is_made_up_for(
    client: Client, db: Database, carrier: Sandbox, wire: Wire, make_worker: MakeWorker
) -> None:
    _, second = await twins(client, SILENT)
    await carrier.misbehave(answer="500", next_requests=1)
    await make_worker(concurrency=1).run_once()  # the first is in doubt, and was not taken
    wire.answers.hold(b"POST")
    sending = asyncio.create_task(make_worker(concurrency=1).run_once())  # the second is taken, its answer on the way
    await until(lambda: wire.requests.held or wire.answers.held)
    await db.execute(
        "UPDATE messages SET due_at = now() WHERE attempts = 1 AND message_uuid <> %s", [second.message_uuid]
    )
    await make_worker().run_once()  # the first finds the copy of the second

    wire.answers.open()
    await sending
    robbed = await row_of(db, second)
    await step(make_worker(), db)

    assert (robbed.message_sid, robbed.in_doubt) == (None, True)
    assert len(await carrier.taken()) == 2
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_twins_with_callbacks_each_end_delivered(
    client: Client, db: Database, carrier: Sandbox, worker: SendWorker
) -> None:
    await twins(client, "[sandbox:lost-response]")

    await worker.run_once()
    await until_settled(db)

    assert len(await carrier.taken()) == 2
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_message_whose_callback_comes_while_its_copy_is_looked_for_is_not_sent_again(
    client: Client, db: Database, carrier: Sandbox, wire: Wire, make_worker: MakeWorker
) -> None:
    message = await create_message(client)
    wire.requests.hold(b"POST")
    stuck = asyncio.create_task(make_worker().run_once())
    await until(lambda: wire.requests.held or wire.answers.held)
    await make_due(db)
    wire.answers.hold(b"GET")
    looking = asyncio.create_task(make_worker().run_once())  # it finds nothing
    await until(lambda: wire.answers.held)

    wire.requests.open()
    await stuck
    await until_settled(db)
    wire.answers.open()
    await looking

    assert (await row_of(db, message)).attempts == 2
    assert_each_sent_once(await rows(db), await carrier.taken())


async def test_unmatched_callbacks_are_none_after_all_is_settled(
    client: Client, db: Database, carrier: Sandbox, senders: dict[str, MessageSender], worker: SendWorker
) -> None:
    for n in range(10):
        await create_message(client, message_body=f"{n}")

    await worker.run_once()
    await until_settled(db)

    kept = await kept_callbacks(db)
    assert kept
    assert all(callback["message_id"] is not None for callback in kept)
