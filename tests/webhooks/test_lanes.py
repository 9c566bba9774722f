"""A lane never loses its turn: who changes it at the same time as another waits for the other's commit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg.rows import scalar_row

from server.webhooks import deliveries
from server.webhooks.deliver import Deliverer
from tests.webhooks.receiver import Receiver, held, status
from tests.webhooks.support import Bearer, Webhooks

_WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def _until_waiting(webhooks: Webhooks, count: int, *tasks: "asyncio.Task[object]") -> None:
    """Until so many transactions wait for locks, or all these tasks are done, which none should be."""
    async with asyncio.timeout(30):
        while await webhooks.db.fetch_one(_WAITING, {}, scalar_row) != count:
            assert not all(task.done() for task in tasks)


@asynccontextmanager
async def _recording_held_up(webhooks: Webhooks) -> AsyncIterator[None]:
    """Whoever records news of an endpoint waits before its commit until the block ends."""
    await webhooks.db.execute("UPDATE webhook_endpoints SET failing_since = now()")
    async with webhooks.db.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM webhook_endpoints FOR NO KEY UPDATE")
        yield


async def test_fan_out_waits_for_the_end_of_the_one_before(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    resource = await webhooks.send(bearer, receiver.url())
    async with _recording_held_up(webhooks):
        recording = asyncio.create_task(deliverer.run_once())
        await _until_waiting(webhooks, 1, recording)

        relaying = asyncio.create_task(webhooks.send(bearer, receiver.url(), resource=resource))
        await _until_waiting(webhooks, 2, relaying)
    await asyncio.gather(recording, relaying)

    assert await webhooks.statuses() == ["delivered", "pending"]
    assert (await webhooks.all())[1].due_at is not None


async def test_end_waits_for_the_fan_out_of_the_next(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    answered = asyncio.Event()
    receiver.then(held(answered))
    resource = await webhooks.send(bearer, receiver.url())
    recording = asyncio.create_task(deliverer.run_once())
    await receiver.wait_for(1)
    async with webhooks.db.connection() as connection:
        async with connection.transaction():
            await webhooks.append(bearer, receiver.url(), resource=resource)
            await webhooks.fan_out_new(connection)
            answered.set()
            await _until_waiting(webhooks, 1, recording)
        await recording

    assert await webhooks.statuses() == ["delivered", "pending"]
    assert (await webhooks.all())[1].due_at is not None


async def test_two_ends_of_one_lane_wait_for_each_other(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    answered = asyncio.Event()
    receiver.then(status(500), held(answered), held(answered))
    await webhooks.send(bearer, receiver.url(), count=3)
    await webhooks.set_attempts_in_run(7)
    await deliverer.run_once()
    first = (await webhooks.all())[0]
    await deliveries.retry_delivery(webhooks.db, webhooks.notifications, caller=bearer.caller, delivery_uuid=first.uuid)

    async with webhooks.deliverer() as other:
        tasks = [asyncio.create_task(worker.run_once()) for worker in (deliverer, other)]
        await receiver.wait_for(3)
        async with _recording_held_up(webhooks):
            answered.set()
            await _until_waiting(webhooks, 2, *tasks)
        await asyncio.gather(*tasks)

    assert await webhooks.statuses() == ["delivered", "delivered", "pending"]
    assert (await webhooks.all())[2].due_at is not None


async def test_disabling_waits_for_the_fan_out_of_the_next(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    answered = asyncio.Event()
    receiver.then(held(answered, code=410))
    resource = await webhooks.send(bearer, receiver.url(), count=2)
    disabling = asyncio.create_task(deliverer.run_once())
    await receiver.wait_for(1)
    async with webhooks.db.connection() as connection:
        async with connection.transaction():
            await webhooks.append(bearer, receiver.url(), resource=resource)
            await webhooks.fan_out_new(connection)
            answered.set()
            await _until_waiting(webhooks, 1, disabling)
        await disabling

    assert await webhooks.statuses() == ["dead_lettered"] * 3
