"""What a change of a call costs: few statements, no words shown anew, and nobody woken for nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from server.calls.parts import CallParts
from server.db import Database
from server.notifications import Channel
from tests.calls.conferences import Conference, create, events_of
from tests.clients import Client
from tests.factories import make_messaging_service

# A callback finds its leg, and holds, reads, changes and reads its call.
_MOST = 15


@pytest.fixture(autouse=True)
async def _numbers(db: Database) -> None:
    await make_messaging_service(db)


@pytest.fixture
async def conference(client: Client, parts: CallParts) -> Conference:
    """One that everybody is in."""
    conference = Conference(await create(client), parts)
    await conference.begin()
    return conference


@contextmanager
def _statements(db: Database) -> Iterator[list[str]]:
    """Those of the ORM, and how often a transaction began."""
    told: list[str] = []

    def keep(_c: Any, _cursor: Any, statement: str, _p: Any, _context: Any, _many: bool) -> None:
        told.append(statement)

    def begin(_c: Any) -> None:
        told.append("BEGIN")

    engine = db._engine.sync_engine
    event.listen(engine, "before_cursor_execute", keep)
    event.listen(engine, "begin", begin)
    yield told
    event.remove(engine, "before_cursor_execute", keep)
    event.remove(engine, "begin", begin)


async def _costs(conference: Conference, db: Database) -> dict[str, int]:
    moderator, contact, other, *_ = await conference.legs()
    posts: dict[str, Callable[[], Awaitable[Any]]] = {
        "repeated": lambda: conference.tell(moderator, "in-progress"),
        "completed": lambda: conference.tell(contact, "completed"),
        "asked for a script": lambda: conference.answer(other),
        "left": lambda: conference.happen("participant-leave", contact),
        "ended": lambda: conference.happen("conference-end"),
    }
    costs = {}
    for name, post in posts.items():
        with _statements(db) as told:
            await post()
        costs[name] = len(told)
    return costs


async def test_callbacks_take_few_statements_however_many_are_in_the_conference(
    conference: Conference, client: Client, parts: CallParts, db: Database
) -> None:
    many = [f"+1206555{number:04}" for number in range(200, 208)]
    large = Conference(await create(client, participant_numbers=many, client_conversation_id="many"), parts)
    await large.begin()

    costs = await _costs(conference, db)

    assert await _costs(large, db) == costs
    assert {name: cost for name, cost in costs.items() if cost > _MOST} == {}


async def test_what_was_said_is_not_shown_anew_for_a_callback(conference: Conference, db: Database) -> None:
    moderator, *_ = await conference.legs()
    await db.execute(
        """INSERT INTO call_recordings (call_id, recording_sid, internal_status, storage_key)
        VALUES (%s, 'RE1', 'stored', 'recordings/1')""",
        [conference.call.id],
    )
    # Whoever shows these words fails.
    await db.execute(
        """INSERT INTO transcripts (uuid, recording_id, internal_status, words)
        SELECT gen_random_uuid(), id, 'ready', '[[]]' FROM call_recordings"""
    )
    before = len(await events_of(db, conference.call))

    await conference.tell(moderator, "in-progress")

    assert len(await events_of(db, conference.call)) == before


@pytest.mark.parametrize("ends", [False, True])
async def test_workers_are_woken_for_legs_that_are_to_be_changed_alone(conference: Conference, ends: bool) -> None:
    notifications = conference.parts.notifications
    legs, marker = notifications.wake(Channel.CALL_LEGS), notifications.wake(Channel.MEDIA)
    connected = asyncio.Event()
    notifications.on_connect(connected.set)
    running = asyncio.create_task(notifications.run())
    moderator, *_ = await conference.legs()
    try:
        async with asyncio.timeout(30):
            await connected.wait()
            legs.clear()
            marker.clear()
            await conference.tell(moderator, "completed" if ends else "in-progress")
            # Is told no sooner than what was to be told before it.
            notifications.notify(Channel.MEDIA)
            await marker.wait()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert legs.is_set() == ends
