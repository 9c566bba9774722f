"""Zoom's webhooks of one call in any order, at one instant, on several servers, and with one that dies."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc.aio
import pytest
from commonservices.v1 import video_call_pb2, zoom_request_service_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row
from sqlalchemy import select

from server.api import running_api
from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from server.notifications import Notifications
from server.providers.video_ports import VideoEvent
from server.storage import Storage
from server.video.apply import apply_event
from server.video.tables import VideoCallParticipantRow, VideoCallRow
from tests.clients import Client, refusal, refused
from tests.video.history import LENGTH, PEOPLE, key_of, known_from
from tests.video.support import count, create, end, events_of, get, let_in, row_of, until_waiting
from tests.video.test_state import actions, happened
from tests.video.zoom import Story, Zoom, at, new_user_id

fresh = itertools.count()

any_history = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
async def elsewhere(settings: Settings, db: Database) -> AsyncIterator[Zoom]:
    """Zoom, at another server of the system."""
    async with (
        running_api(settings, listen="127.0.0.1:0") as api,
        grpc.aio.insecure_channel(f"127.0.0.1:{api.port}") as channel,
    ):
        yield Zoom(zoom_request_service_pb2_grpc.ZoomRequestServiceStub(channel))


async def assert_told_without_gaps(db: Database, call: video_call_pb2.VideoCall) -> None:
    """Every event of the call shows something else than the one before, and the last what is so."""
    events = await events_of(db, call)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    shown = [video_call_pb2.VideoCall.FromString(event.video_call.SerializeToString()) for event in events]
    for one in shown:
        one.ClearField("updated_at")
    assert all(before != after for before, after in itertools.pairwise(shown))
    row = await row_of(db, call)
    assert (row.sequence, row.internal_status) == (len(events), events[-1].video_call.internal_status)


@any_history
@given(steps=actions, data=st.data())
async def test_rows_come_to_what_happened_in_whatever_order_it_is_told(
    steps: list[tuple[Any, ...]],
    data: st.DataObject,
    client: Client,
    db: Database,
    notifications: Notifications,
    storage: Storage,
    cipher: Cipher,
) -> None:
    number = next(fresh)
    call = await create(client, session_name=f"call {number}", maximum_call_length=int(LENGTH.total_seconds() / 60))
    parent = await let_in(client, call)
    keys = {
        key_of("host"): UUID(call.video_call_participants[0].shunkan_ido_user_key),
        key_of("parent"): UUID(parent.shunkan_ido_user_key),
        None: None,
    }
    told = [_of_call(event, call, keys) for event in happened(steps).told]
    known = known_from(happened(steps).told)
    repeated = data.draw(st.lists(st.sampled_from(told), max_size=5)) if told else []

    for event in data.draw(st.permutations([*told, *repeated])):
        body = f"{event!r}".encode()
        await apply_event(db, notifications, storage, cipher, event=event, body=body, now=datetime.now(UTC))

    row, state = await row_of(db, call), known.call()
    if state is None:
        assert (row.internal_status, row.provider_id, row.start_time, row.sequence) == ("pending", None, None, 1)
        return
    assert (row.internal_status, row.provider_id) == (state.internal_status, f"{number} {state.provider_id}")
    assert (row.start_time, row.end_time, row.end_at) == (state.start_time, state.end_time, state.end_at)
    words = (known.provider_status, known.recording_status)
    assert [row.provider_status, row.recording_status] == [word.word if word is not None else None for word in words]
    async with db.begin() as tx:
        query = select(VideoCallParticipantRow).where(VideoCallParticipantRow.video_call_id == row.id)
        participants = (await tx.scalars(query)).all()
    for person in PEOPLE[:2]:
        expected = known.participant(person)
        [found] = [p for p in participants if p.user_key == keys[key_of(person)]]
        if expected is None:
            assert (found.internal_status, found.provider_id, found.join_time) == ("invited", None, None)
            continue
        assert (found.internal_status, found.provider_id) == (expected.internal_status, expected.provider_id)
        assert (found.join_time, found.leave_time) == (expected.join_time, expected.leave_time)
        assert found.leave_reason == expected.leave_reason
    # Who calls by telephone is somebody else each time.
    strangers = [p for p in participants if p.user_key not in keys.values()]
    assert len(strangers) == len([place for place, key in known.people.items() if key is None])
    await assert_told_without_gaps(db, call)
    assert await count(db, f"zoom_events WHERE video_call_id = {row.id}") == len(told)


def _of_call(event: VideoEvent, call: video_call_pb2.VideoCall, keys: dict[UUID | None, UUID | None]) -> VideoEvent:
    user = replace(event.user, user_key=keys[event.user.user_key]) if event.user is not None else None
    session_id = f"{call.session_name.removeprefix('call ')} {event.session_id}"
    return replace(event, session_id=session_id, session_key=UUID(call.shunkan_ido_session_key), user=user)


async def test_events_of_one_instant_on_two_servers_are_applied_one_after_the_other(
    zoom: Zoom, elsewhere: Zoom, client: Client, db: Database
) -> None:
    call = await create(client)
    first, second = Story(call), Story(call, start=20)
    people = [await let_in(client, call, username=f"parent {number}") for number in range(5)]
    events = [first.started(), first.recording("started", 1), first.recording("stopped", 9), first.ended(10)]
    events += [second.started(), second.recording("started", 21)]
    for person in people:
        user_id, key = new_user_id(), person.shunkan_ido_user_key
        events += [first.joined(1, user_id=user_id, user_key=key), first.left(5, user_id=user_id, user_key=key)]
        events.append(second.joined(22, user_id=user_id, user_key=key))
    posts = [(server, event) for event in events for server in (zoom, elsewhere)]
    random.Random(4).shuffle(posts)  # noqa: S311 an order, the same each time

    await asyncio.gather(*(server.tell(event) for server, event in posts))

    shown = await get(client, call)
    assert (shown.internal_status, shown.provider_id, shown.recording_status) == (
        "in_progress",
        second.session_id,
        "started",
    )
    assert (shown.start_time.ToDatetime(tzinfo=UTC), shown.end_at.ToDatetime(tzinfo=UTC)) == (at(0), at(60))
    assert [p.internal_status for p in shown.video_call_participants] == ["invited"] + ["joined"] * 5
    assert await count(db, "zoom_events") == len(events)
    await assert_told_without_gaps(db, call)


async def test_same_event_at_one_instant_on_two_servers_is_told_once(
    zoom: Zoom, elsewhere: Zoom, client: Client, db: Database
) -> None:
    story = Story(await create(client))
    async with db.begin() as tx:
        await tx.execute(select(VideoCallRow.id).where(VideoCallRow.id == story.call.id).with_for_update())
        posts = asyncio.gather(zoom.tell(story.started()), elsewhere.tell(story.started()))
        await _until_waiting(db, 2)

    await posts

    assert [event.video_call.internal_status for event in await events_of(db, story.call)] == ["pending", "in_progress"]
    assert await count(db, "zoom_events") == 1


async def test_transaction_that_dies_leaves_nothing_and_the_event_is_applied_when_it_comes_again(
    zoom: Zoom, client: Client, db: Database
) -> None:
    story = Story(await create(client))
    body = json.dumps(story.joined(1, user_id="1")).encode()
    # After everything else of the transaction: its last statement is the event's.
    async with db.connection() as connection, connection.transaction():
        await connection.execute("LOCK TABLE events IN EXCLUSIVE MODE")
        dying = asyncio.create_task(zoom.post(body))
        await until_waiting(db, dying)
        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        refused_for = await refused(dying)
    tables = ("zoom_events", "video_sessions", "video_call_stays")
    left = [await count(db, table) for table in tables]

    await zoom.post(body)

    assert refused_for.reason == "UNAVAILABLE"
    assert left == [0, 0, 0]
    assert [await count(db, table) for table in tables] == [1, 1, 1]
    assert (await get(client, story.call)).internal_status == "in_progress"
    await assert_told_without_gaps(db, story.call)


async def test_name_that_is_taken_while_the_call_begins_anew_is_the_others(
    zoom: Zoom, client: Client, db: Database
) -> None:
    story = Story(await create(client, session_name="Math"))
    await end(db, story.call)
    async with db.begin() as tx:
        row = await row_of(db, story.call)
        values = {c.name: getattr(row, c.name) for c in VideoCallRow.__table__.columns if c.name != "id"}
        tx.add(VideoCallRow(**{**values, "session_key": UUID(int=1), "internal_status": "pending"}))
        await tx.flush()
        beginning = asyncio.create_task(zoom.tell(story.started()))
        await until_waiting(db, beginning)

    await beginning

    assert (await get(client, story.call)).internal_status == "finished"
    [session] = await db.fetch_all("SELECT due_at <= now() AS is_due FROM video_sessions", {}, dict_row)
    assert session == {"is_due": True}
    assert await count(db, "zoom_events") == 1


async def test_name_has_one_live_call_whoever_comes_first(zoom: Zoom, client: Client, db: Database) -> None:
    for number in range(10):
        story = Story(await create(client, session_name=f"Math {number}"))
        await end(db, story.call)

        _, made = await asyncio.gather(
            zoom.tell(story.started()), create(client, session_name=f"math {number}"), return_exceptions=True
        )

        if isinstance(made, grpc.aio.AioRpcError):
            assert refusal(made).reason == "SESSION_NAME_TAKEN"
        live = "internal_status IN ('pending', 'in_progress') AND lower(session_name)"
        assert await count(db, f"video_calls WHERE {live} = 'math {number}'") == 1
        is_begun = (await get(client, story.call)).internal_status == "in_progress"
        assert is_begun == isinstance(made, grpc.aio.AioRpcError)


async def _until_waiting(db: Database, backends: int) -> None:
    waiting = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while await count(db, waiting) != backends:
            pass
