"""Workers, relays and people at the same deliveries at once."""

import asyncio
import os
import random
import signal
import sys
from collections import defaultdict

import pytest
from cryptography.fernet import Fernet
from psycopg.rows import tuple_row

from server.db import Database
from server.encryption import Cipher
from server.notifications import Notifications
from server.webhooks import deliveries
from server.webhooks.deliver import Deliverer
from tests.webhooks.receiver import Received, Receiver, held, one_of
from tests.webhooks.support import LOOPBACK, Bearer, Webhooks

_STRANDED = """
SELECT id FROM (
    SELECT DISTINCT ON (endpoint_id, resource_uuid) id, due_at FROM webhook_deliveries
    WHERE status = 'pending' ORDER BY endpoint_id, resource_uuid, id
) AS first WHERE due_at IS NULL
"""


async def _stranded(webhooks: Webhooks) -> list[tuple[int]]:
    return await webhooks.db.fetch_all(_STRANDED, {}, tuple_row)


def _sequences(requests: list[Received]) -> dict[str, list[int]]:
    """The sequences each resource's events came in, first arrivals only."""
    seen: defaultdict[str, list[int]] = defaultdict(list)
    for request in requests:
        body = request.json
        if body["metadata"]["sequence"] not in seen[body["message_uuid"]]:
            seen[body["message_uuid"]].append(body["metadata"]["sequence"])
    return seen


async def test_slow_endpoint_does_not_delay_another(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    never = asyncio.Event()
    receiver.always(held(never), path="/slow")
    for _ in range(100):
        await webhooks.append(bearer, receiver.url("/slow"))
    for _ in range(20):
        await webhooks.append(bearer, receiver.url("/quick"))
    await webhooks.relay_all()
    stop = asyncio.Event()

    running = asyncio.create_task(deliverer.run(stop))
    await receiver.wait_for(20, "/quick")

    assert len(receiver.at("/slow")) <= 32
    never.set()
    stop.set()
    await asyncio.wait_for(running, 30)


async def test_many_slow_endpoints_leave_slots_to_others(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver
) -> None:
    never = asyncio.Event()
    for n in range(5):
        receiver.always(held(never), path=f"/slow{n}")
        for _ in range(20):
            await webhooks.append(bearer, receiver.url(f"/slow{n}"))
    await webhooks.relay_all()
    stop = asyncio.Event()
    async with webhooks.deliverer(slots=32) as small:
        running = asyncio.create_task(small.run(stop))
        await receiver.wait_for(1, "/slow4")

        await webhooks.send(bearer, receiver.url("/quick"))

        await receiver.wait_for(1, "/quick")
        never.set()
        stop.set()
        await asyncio.wait_for(running, 30)


async def test_backlog_larger_than_the_slots_is_served_endpoint_by_endpoint(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver
) -> None:
    for n in range(6):
        for _ in range(3):
            await webhooks.append(bearer, receiver.url(f"/{n}"))
    await webhooks.relay_all()

    async with webhooks.deliverer(slots=2) as small:
        while await small.run_once():
            pass
        assert [len(receiver.at(f"/{n}")) for n in range(6)] == [3] * 6
        assert {request.path for request in receiver.received[:6]} == {f"/{n}" for n in range(6)}


async def test_stopping_sees_attempts_through(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    answered = asyncio.Event()
    receiver.then(held(answered))
    await webhooks.send(bearer, receiver.url())
    stop = asyncio.Event()
    running = asyncio.create_task(deliverer.run(stop))
    await receiver.wait_for(1)

    stop.set()
    await webhooks.send(bearer, receiver.url())
    answered.set()
    await asyncio.wait_for(running, 30)

    assert await webhooks.statuses() == ["delivered", "pending"]


async def test_workers_at_one_database_attempt_nothing_twice_and_keep_the_order(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver
) -> None:
    dice = random.Random(7)  # noqa: S311 not a secret
    for path in ("/a", "/b", "/c"):
        receiver.always(one_of(dice, 200, 200, 200, 200, 500), path=path)
    for n in range(40):
        await webhooks.append(bearer, receiver.url(f"/{'abc'[n % 3]}"), count=4)
    await webhooks.relay_all()
    workers = [
        Deliverer(webhooks.db, webhooks.notifications, webhooks.cipher, allowed_networks=LOOPBACK) for _ in range(4)
    ]

    async def work(worker: Deliverer) -> None:
        while set(await webhooks.statuses()) != {"delivered"}:
            await worker.run_once()
            await webhooks.wait_until_retries_are_due()

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(worker) for worker in workers))
    for worker in workers:
        await worker.aclose()

    assert max(receiver.most_open.values()) == 1
    assert list(_sequences(receiver.received).values()) == [[1, 2, 3, 4]] * 40


async def test_fan_out_and_recording_at_once_strand_nothing(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    resources = [await webhooks.append(bearer, receiver.url()) for _ in range(5)]
    stop = asyncio.Event()
    done = 0

    async def relay() -> None:
        nonlocal done
        for _ in range(60):
            await asyncio.gather(*(webhooks.append(bearer, receiver.url(), resource=r) for r in resources))
            await webhooks.relay_all()
            assert await _stranded(webhooks) == []
            done += 1

    running = asyncio.create_task(deliverer.run(stop))
    async with asyncio.timeout(90):
        await relay()
        await receiver.wait_for(61 * 5)
    stop.set()
    await running

    assert done == 60
    assert set(await webhooks.statuses()) == {"delivered"}
    assert list(_sequences(receiver.received).values()) == [list(range(1, 62))] * 5


async def test_retries_by_hand_and_410_at_once_strand_nothing(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    dice = random.Random(3)  # noqa: S311 not a secret
    receiver.always(one_of(dice, 200, 200, 200, 400, 410))
    resources = [await webhooks.append(bearer, receiver.url()) for _ in range(5)]
    stop = asyncio.Event()
    running = asyncio.create_task(deliverer.run(stop))

    async def recover() -> None:
        for _ in range(40):
            dead = [d for d in await webhooks.all() if d.status == "dead_lettered"]
            if dead:
                await deliveries.recover_deliveries(
                    webhooks.db,
                    webhooks.notifications,
                    caller=bearer.caller,
                    since=dice.choice(dead).created_at,
                    until=None,
                )
            await webhooks.wait_until_retries_are_due()

    async def relay() -> None:
        for _ in range(40):
            await asyncio.gather(*(webhooks.append(bearer, receiver.url(), resource=r) for r in resources))
            await webhooks.relay_all()

    async with asyncio.timeout(90):
        await asyncio.gather(recover(), relay())
    stop.set()
    await running

    assert await _stranded(webhooks) == []


_WORKER = """
import asyncio, os
from ipaddress import ip_network
from server.db import Database
from server.encryption import Cipher
from server.notifications import Notifications
from server.webhooks.deliver import Deliverer

async def main():
    url = os.environ["DATABASE_URL"]
    db = Database(url, max_size=4)
    await db.open()
    cipher = Cipher([os.environ["KEY"]])
    worker = Deliverer(db, Notifications(url, db), cipher, allowed_networks=[ip_network("127.0.0.0/8")])
    await worker.run(asyncio.Event())

asyncio.run(main())
"""


async def test_killed_worker_leaves_the_delivery_to_another(
    database_url: str, db: Database, notifications: Notifications, receiver: Receiver
) -> None:
    key = Fernet.generate_key().decode()
    webhooks = Webhooks(db, notifications, Cipher([key]))
    bearer = await webhooks.make_bearer()
    never = asyncio.Event()
    receiver.then(held(never))
    await webhooks.send(bearer, receiver.url(), count=2)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORKER, env={**os.environ, "DATABASE_URL": database_url, "KEY": key}
    )
    await receiver.wait_for(1)

    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    never.set()
    async with webhooks.deliverer() as other:
        assert await other.run_once() == 0
        await webhooks.wait_until_due()
        while await other.run_once():
            pass

    first, again, second = receiver.received
    assert first.headers["webhook-id"] == again.headers["webhook-id"] != second.headers["webhook-id"]
    assert await webhooks.statuses() == ["delivered", "delivered"]
    assert [a.number for a in await webhooks.attempts((await webhooks.all())[0])] == [2]


@pytest.mark.parametrize("slots", [1, 3])
async def test_late_outcome_of_a_lost_lease_is_not_recorded(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, slots: int
) -> None:
    answered = asyncio.Event()
    receiver.then(held(answered, code=500))
    await webhooks.send(bearer, receiver.url())
    async with webhooks.deliverer(slots=slots) as stalled, webhooks.deliverer() as other:
        late = asyncio.create_task(stalled.run_once())
        await receiver.wait_for(1)
        await webhooks.wait_until_due()
        await other.run_once()
        answered.set()
        await late

    delivery = await webhooks.only()
    assert delivery.status == "delivered"
    assert [a.response_status for a in await webhooks.attempts(delivery)] == [200]
