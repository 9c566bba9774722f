"""How much of payloads a worker holds at once."""

import asyncio
from collections import Counter

import pytest

from tests.webhooks.receiver import Receiver, held
from tests.webhooks.support import Bearer, Webhooks

# With what else an event has, a little over 3000 bytes.
BODY = "x" * 3000


async def test_worker_claims_no_more_while_it_holds_so_many_bytes(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver
) -> None:
    answered = asyncio.Event()
    for n in range(6):
        receiver.always(held(answered), path=f"/{n}")
        await webhooks.send(bearer, receiver.url(f"/{n}"), body=BODY)

    async with webhooks.deliverer(max_bytes=9_000) as deliverer:
        first = asyncio.create_task(deliverer.run_once())
        for n in range(3):
            await receiver.wait_for(1, f"/{n}")
        meanwhile = await deliverer.run_once()
        answered.set()

        assert (await first, meanwhile) == (3, 0)
        assert await deliverer.run_once() == 3
    assert Counter(request.path for request in receiver.received) == {f"/{n}": 1 for n in range(6)}


async def test_large_events_of_a_slow_endpoint_leave_room_to_others(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver
) -> None:
    answered, stop = asyncio.Event(), asyncio.Event()
    receiver.always(held(answered), path="/slow")
    for _ in range(20):
        await webhooks.append(bearer, receiver.url("/slow"), body=BODY)
    for _ in range(20):
        await webhooks.append(bearer, receiver.url("/quick"), body=BODY)
    await webhooks.relay_all()

    async with webhooks.deliverer(max_bytes=48_000) as deliverer:
        running = asyncio.create_task(deliverer.run(stop))
        await receiver.wait_for(20, "/quick")
        slow = len(receiver.at("/slow"))
        answered.set()
        await receiver.wait_for(20, "/slow")
        stop.set()
        await asyncio.wait_for(running, 20)

    assert slow == 2
    assert set(await webhooks.statuses()) == {"delivered"}


@pytest.mark.parametrize("max_bytes", [1, 3_000])
async def test_event_larger_than_all_that_may_be_held_is_delivered_alone(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, max_bytes: int
) -> None:
    for n in range(3):
        await webhooks.send(bearer, receiver.url(f"/{n}"), body=BODY)

    async with webhooks.deliverer(max_bytes=max_bytes) as deliverer:
        claimed = [await deliverer.run_once() for _ in range(4)]

    assert claimed == [1, 1, 1, 0]
    assert await webhooks.statuses() == ["delivered"] * 3
