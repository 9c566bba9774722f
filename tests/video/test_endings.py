"""Sessions are ended at their time, once, whatever Zoom answers and however many workers there are."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import web
from psycopg.rows import dict_row

from server.db import Database
from server.notifications import Notifications
from server.providers.zoom.client import ZoomVideoSessions
from server.storage import Storage
from server.video.endings import LEASE, LONGEST_RETRY_AFTER, EndingWorker
from tests.clients import Client
from tests.messages.support import until
from tests.providers.servers import listening
from tests.video.support import create, end, events_of, get
from tests.video.zoom import Story, Zoom, at

MakeWorker = Callable[[], EndingWorker]


@dataclass
class Sessions:
    """Zoom's REST API, as far as sessions are ended by it: a live one is over afterwards."""

    base_url: str = ""
    over: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)
    # What is answered instead, while it is set.
    instead: Callable[[], web.Response] | None = None
    # While it is closed nothing is answered.
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        """PUT /v2/videosdk/sessions/{id}/status."""
        session_id = unquote(unquote(request.rel_url.raw_path.split("/")[4]))
        assert await request.json() == {"action": "end"}
        self.asked[session_id] += 1
        if self.instead is not None:
            return self.instead()
        is_over = session_id in self.over
        self.over.add(session_id)
        await self.gate.wait()
        if is_over:
            return web.json_response({"code": 3001, "message": "Session does not exist."}, status=404)
        return web.Response(status=204)


@asynccontextmanager
async def running_sessions() -> AsyncIterator[Sessions]:
    """Zoom on a port of its own, whose gate is open."""
    sessions = Sessions()
    sessions.gate.set()
    app = web.Application()
    app.router.add_put("/{path:.*}", sessions.handle)
    async with listening(app) as base_url:
        sessions.base_url = base_url
        try:
            yield sessions
        finally:
            sessions.gate.set()


@pytest.fixture
async def sessions() -> AsyncIterator[Sessions]:
    """Whoever has the sessions."""
    async with running_sessions() as running:
        yield running


@pytest.fixture
async def make_worker(
    db: Database, notifications: Notifications, sessions: Sessions, storage: Storage
) -> AsyncIterator[MakeWorker]:
    """Makes workers that are stepped."""
    adapters: list[ZoomVideoSessions] = []

    def make() -> EndingWorker:
        secret = "a-secret-of-at-least-thirty-two-bytes"
        adapters.append(ZoomVideoSessions(api_key="a-key", api_secret=secret, api_base_url=sessions.base_url))
        return EndingWorker(db, notifications, adapters[-1], storage)

    yield make
    for adapter in adapters:
        await adapter.aclose()


@pytest.fixture
async def worker(make_worker: MakeWorker) -> EndingWorker:
    """A worker that is stepped."""
    return make_worker()


async def session_row(db: Database, story: Story) -> dict[str, Any]:
    """The session as stored."""
    query = "SELECT * FROM video_sessions WHERE session_id = %(session_id)s"
    row = await db.fetch_one(query, {"session_id": story.session_id}, dict_row)
    assert row is not None
    return row


async def make_due(db: Database) -> None:
    """As if every retry's delay and every lease had run out."""
    await db.execute("UPDATE video_sessions SET due_at = now() WHERE due_at IS NOT NULL")


async def told(db: Database, story: Story) -> list[str]:
    """The status of each event of the call."""
    return [event.video_call.internal_status for event in await events_of(db, story.call)]


async def test_session_is_ended_at_the_end_of_its_call_and_told_once(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, worker: EndingWorker
) -> None:
    story = Story(await create(client, maximum_call_length=30))
    await zoom.tell(story.started(), story.joined(0, user_id="1", name="By telephone"))
    before = datetime.now(UTC)

    assert await worker.step()
    assert not await worker.step()

    over = await get(client, story.call)
    assert sessions.asked == {story.session_id: 1}
    assert (over.internal_status, over.provider_status) == ("finished", "session.started")
    assert before <= over.end_time.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)
    assert over.video_call_participants[1].internal_status == "left"
    assert not over.video_call_participants[1].HasField("leave_time")
    assert await told(db, story) == ["pending", "in_progress", "finished"]


async def test_zooms_time_of_the_end_replaces_ours(
    zoom: Zoom, client: Client, db: Database, worker: EndingWorker
) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started())
    await worker.step()

    await zoom.tell(story.ended(60))

    over = await get(client, story.call)
    assert (over.end_time.ToDatetime(tzinfo=UTC), over.provider_status) == (at(60), "session.ended")
    assert await told(db, story) == ["pending", "in_progress", "finished", "finished"]


async def test_session_whose_time_has_not_come_goes_on(
    zoom: Zoom, client: Client, sessions: Sessions, worker: EndingWorker
) -> None:
    # Now is three hours after START.
    story = Story(await create(client, maximum_call_length=120), start=175)
    await zoom.tell(story.started())

    assert not await worker.step()

    assert sessions.asked == {}


async def test_call_of_no_length_is_ended_as_it_begins(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, worker: EndingWorker
) -> None:
    story = Story(await create(client, maximum_call_length=0), start=180)
    await zoom.tell(story.started())

    await worker.step()

    over = await get(client, story.call)
    assert (over.internal_status, over.end_at) == ("finished", over.start_time)
    assert sessions.asked == {story.session_id: 1}


async def test_session_that_is_over_already_is_no_error(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, worker: EndingWorker
) -> None:
    story = Story(await create(client))
    sessions.over.add(story.session_id)
    await zoom.tell(story.started())

    await worker.step()

    row = await session_row(db, story)
    assert (row["due_at"], row["end_time"] is not None) == (None, True)
    assert await told(db, story) == ["pending", "in_progress", "finished"]


async def test_session_that_ended_in_time_is_left_alone(
    zoom: Zoom, client: Client, sessions: Sessions, worker: EndingWorker
) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started(), story.ended(10))

    assert not await worker.step()

    assert sessions.asked == {}


async def test_end_that_zoom_tells_of_before_it_answers_is_told_once(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, worker: EndingWorker
) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started())
    sessions.gate.clear()
    step = asyncio.create_task(worker.step())
    await until(lambda: sessions.asked)

    await zoom.tell(story.ended(60))
    sessions.gate.set()
    await step

    assert (await get(client, story.call)).end_time.ToDatetime(tzinfo=UTC) == at(60)
    assert await told(db, story) == ["pending", "in_progress", "finished"]


async def test_zoom_that_is_away_is_asked_again(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, worker: EndingWorker
) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started())
    sessions.instead = lambda: web.Response(status=503)

    assert await worker.step()
    assert not await worker.step()
    first = await session_row(db, story)
    await make_due(db)
    await worker.step()
    second = await session_row(db, story)
    sessions.instead = None
    await make_due(db)
    await worker.step()

    now = datetime.now(UTC)
    assert timedelta(0) < first["due_at"] - now <= timedelta(seconds=2.4)
    assert timedelta(seconds=2) < second["due_at"] - now <= timedelta(seconds=4.8)
    assert second["end_time"] is None
    assert sessions.asked == {story.session_id: 3}
    assert await told(db, story) == ["pending", "in_progress", "finished"]


@pytest.mark.parametrize(
    ("asks", "waits"), [("120", timedelta(minutes=2)), ("86400", LONGEST_RETRY_AFTER)], ids=["asked", "too much"]
)
async def test_zoom_is_given_the_time_it_asks_for(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, worker: EndingWorker, asks: str, waits: timedelta
) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started())
    sessions.instead = lambda: web.Response(status=429, headers={"Retry-After": asks})

    await worker.step()

    delay = (await session_row(db, story))["due_at"] - datetime.now(UTC)
    assert waits - timedelta(seconds=10) < delay <= waits * 1.2


async def test_session_that_zoom_will_not_end_lasts_until_zoom_says(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, worker: EndingWorker
) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started())
    sessions.instead = lambda: web.json_response({"code": 300, "message": "Nobody may."}, status=400)

    await worker.step()
    await zoom.tell(story.joined(1, user_id="1"))

    assert not await worker.step()
    row = await session_row(db, story)
    assert (row["due_at"], row["end_time"]) == (None, None)
    assert (await get(client, story.call)).internal_status == "in_progress"
    await zoom.tell(story.ended(90))
    assert await told(db, story) == ["pending", "in_progress", "finished"]


async def test_workers_at_once_end_each_session_once(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, make_worker: MakeWorker
) -> None:
    stories = [Story(await create(client, session_name=f"call {number}")) for number in range(20)]
    await zoom.tell(*(story.started() for story in stories))
    sessions.gate.clear()

    async def work(worker: EndingWorker) -> None:
        while await worker.step():
            pass

    steps = asyncio.gather(*(work(make_worker()) for _ in range(4)))
    await until(lambda: len(sessions.asked) == 20)
    sessions.gate.set()
    await steps

    assert sessions.asked == {story.session_id: 1 for story in stories}
    for story in stories:
        assert await told(db, story) == ["pending", "in_progress", "finished"]


async def test_worker_that_dies_is_followed_by_another(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, make_worker: MakeWorker
) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started())
    sessions.gate.clear()
    dying = asyncio.create_task(make_worker().step())
    await until(lambda: sessions.asked)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    sessions.gate.set()
    leased = (await session_row(db, story))["due_at"] - datetime.now(UTC)
    assert not await make_worker().step()

    await make_due(db)
    await make_worker().step()

    assert timedelta(0) < leased <= LEASE
    assert sessions.asked == {story.session_id: 2}
    assert await told(db, story) == ["pending", "in_progress", "finished"]


async def test_worker_whose_lease_ran_out_tells_nothing_more(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, make_worker: MakeWorker
) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started())
    sessions.gate.clear()
    late = asyncio.create_task(make_worker().step())
    await until(lambda: sessions.asked.total() == 1)
    await make_due(db)
    prompt = asyncio.create_task(make_worker().step())
    await until(lambda: sessions.asked.total() == 2)

    sessions.gate.set()
    await asyncio.gather(late, prompt)

    assert await told(db, story) == ["pending", "in_progress", "finished"]


async def test_session_that_begins_after_the_end_of_its_call_is_ended_at_once(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, worker: EndingWorker
) -> None:
    call = await create(client, maximum_call_length=30)
    first, second = Story(call), Story(call, start=179)
    await zoom.tell(first.started())
    await worker.step()

    await zoom.tell(second.started())
    begun = await get(client, call)
    await worker.step()

    assert (begun.internal_status, begun.provider_id) == ("in_progress", second.session_id)
    assert (await get(client, call)).internal_status == "finished"
    assert sessions.asked == {first.session_id: 1, second.session_id: 1}
    assert await told(db, first) == ["pending", "in_progress", "finished", "in_progress", "finished"]


async def test_session_of_a_call_whose_name_is_taken_is_ended_at_once(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, worker: EndingWorker
) -> None:
    story = Story(await create(client, session_name="Math"), start=179)
    await end(db, story.call, "expired")
    await create(client, session_name="Math")
    await zoom.tell(story.started())
    assert (await get(client, story.call)).internal_status == "expired"

    await worker.step()

    assert sessions.asked == {story.session_id: 1}
    assert (await get(client, story.call)).internal_status == "finished"


async def test_session_of_which_the_begin_was_lost_is_ended_all_the_same(
    zoom: Zoom, client: Client, db: Database, sessions: Sessions, worker: EndingWorker
) -> None:
    story = Story(await create(client, maximum_call_length=30))
    await zoom.tell(story.joined(3, user_id="1"))

    await worker.step()

    over = await get(client, story.call)
    assert sessions.asked == {story.session_id: 1}
    assert (over.internal_status, over.HasField("start_time"), over.HasField("end_time")) == ("finished", False, True)
