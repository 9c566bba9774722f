"""Calls that nobody joined expire, once; Zoom's events are forgotten when they are old."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from psycopg.rows import scalar_row

from server.db import Database
from server.notifications import Notifications
from server.storage import Storage
from server.video.expiry import Expiry
from server.video.retention import forget_old
from tests.clients import Client
from tests.video.support import count, create, events_of, get
from tests.video.zoom import Story, Zoom

DAY = timedelta(days=1)


@pytest.fixture
def expiry(db: Database, notifications: Notifications, storage: Storage) -> Expiry:
    """One that is stepped."""
    return Expiry(db, notifications, storage)


async def age(db: Database) -> None:
    """As if every call had been created a day ago."""
    await db.execute("UPDATE video_calls SET expires_at = now() - interval '1 second'")


async def test_call_that_nobody_joined_expires_and_that_is_told(client: Client, db: Database, expiry: Expiry) -> None:
    call = await create(client)
    await expiry.step()
    young = await get(client, call)
    await age(db)

    assert not await expiry.step()

    old = await get(client, call)
    assert (young.internal_status, old.internal_status, old.host_token) == ("pending", "expired", "")
    events = await events_of(db, call)
    assert [(e.sequence, e.video_call.internal_status) for e in events] == [(1, "pending"), (2, "expired")]


async def test_name_of_a_call_that_expired_is_free(client: Client, db: Database, expiry: Expiry) -> None:
    await create(client, session_name="Math")
    await age(db)

    await expiry.step()

    assert (await create(client, session_name="Math")).internal_status == "pending"


async def test_call_that_somebody_joined_does_not_expire(
    zoom: Zoom, client: Client, db: Database, expiry: Expiry
) -> None:
    begun, over = Story(await create(client, session_name="begun")), Story(await create(client, session_name="over"))
    await zoom.tell(begun.started(), over.started(), over.ended(5))
    await age(db)

    await expiry.step()

    assert (await get(client, begun.call)).internal_status == "in_progress"
    assert (await get(client, over.call)).internal_status == "finished"


async def test_many_calls_expire_in_batches_and_each_is_told_once(
    client: Client, db: Database, notifications: Notifications, storage: Storage
) -> None:
    calls = [await create(client, session_name=f"call {number}") for number in range(120)]
    await age(db)
    steps = [Expiry(db, notifications, storage).step for _ in range(3)]

    async def work(step: Callable[[], Awaitable[bool]]) -> None:
        while await step():
            pass

    await asyncio.gather(*(work(step) for step in steps))

    assert await count(db, "video_calls WHERE internal_status = 'expired'") == 120
    for call in calls[::20]:
        assert [event.sequence for event in await events_of(db, call)] == [1, 2]
    assert await count(db, "events") == 240


async def test_begin_and_expiry_at_once_leave_a_call_in_progress(
    zoom: Zoom, client: Client, db: Database, expiry: Expiry
) -> None:
    stories = [Story(await create(client, session_name=f"call {number}")) for number in range(10)]
    await age(db)

    await asyncio.gather(expiry.step(), *(zoom.tell(story.started()) for story in stories))

    assert {(await get(client, story.call)).internal_status for story in stories} == {"in_progress"}


async def test_zooms_events_are_forgotten_when_they_are_old(zoom: Zoom, client: Client, db: Database) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started(), story.event("session.alert", 1), story.ended(2))
    await db.execute("UPDATE zoom_events SET received_at = now() - interval '31 days' WHERE event <> 'session.ended'")

    assert not await forget_old(db, keep=30 * DAY)

    assert await db.fetch_all("SELECT event FROM zoom_events", {}, scalar_row) == ["session.ended"]
    assert (await get(client, story.call)).internal_status == "finished"


async def test_many_events_are_forgotten_in_batches(db: Database) -> None:
    await db.execute(
        "INSERT INTO zoom_events (digest, event, body, received_at) "
        "SELECT sha256(n::text::bytea), 'session.alert', '{}', now() - interval '3 days' FROM generate_series(1, 700) n"
    )

    batches = [await forget_old(db, keep=2 * DAY) for _ in range(2)]

    assert batches == [True, False]
    assert await count(db, "zoom_events") == 0
