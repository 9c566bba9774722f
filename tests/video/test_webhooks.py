"""Zoom's webhooks: who is believed, what is kept, and what becomes of a call that they tell of."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from commonservices.v1 import video_call_pb2, zoom_request_service_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp
from psycopg.rows import dict_row

from server.api import running_api
from server.config import Settings
from server.db import Database
from tests.clients import Client, refused
from tests.conftest import ZOOM_WEBHOOK_SECRET_TOKEN
from tests.video.support import count, create, end, events_of, get, let_in
from tests.video.zoom import START, Body, Story, Zoom, at, new_session_id, new_user_id


async def told(db: Database, call: video_call_pb2.VideoCall) -> list[tuple[int, str, str]]:
    """Number, status and Zoom's word of each event of the call."""
    return [
        (event.sequence, event.video_call.internal_status, event.video_call.provider_status)
        for event in await events_of(db, call)
    ]


async def kept(db: Database) -> list[dict[str, Any]]:
    """Zoom's events as they came."""
    return await db.fetch_all("SELECT * FROM zoom_events ORDER BY received_at", {}, dict_row)


def participant(call: video_call_pb2.VideoCall, name: str) -> video_call_pb2.VideoCallParticipant:
    """The participant of this name."""
    [found] = [one for one in call.video_call_participants if one.username == name]
    return found


def when(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)


async def test_url_validation_is_answered_as_documented(zoom: Zoom, db: Database) -> None:
    body = {"event": "endpoint.url_validation", "event_ts": 1, "payload": {"plainToken": "plain-token"}}

    answer = await zoom.post(json.dumps(body).encode())

    encrypted = hmac.new(ZOOM_WEBHOOK_SECRET_TOKEN.encode(), b"plain-token", hashlib.sha256).hexdigest()
    assert answer.content_type == "application/json"
    assert json.loads(answer.data) == {"plainToken": "plain-token", "encryptedToken": encrypted}
    assert await kept(db) == []


@pytest.mark.parametrize(
    "signed",
    [
        pytest.param({"secret": "another-secret-token"}, id="another account's"),
        pytest.param({"age": timedelta(minutes=6)}, id="stale"),
        pytest.param({"age": timedelta(minutes=-6)}, id="ahead"),
    ],
)
async def test_webhook_that_is_not_proven_is_refused_and_not_kept(
    zoom: Zoom, client: Client, db: Database, signed: dict[str, Any]
) -> None:
    story = Story(await create(client))

    refusal = await refused(zoom.post(json.dumps(story.started()).encode(), **signed))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SIGNATURE_INVALID")
    assert await kept(db) == []
    assert (await get(client, story.call)).internal_status == "pending"


@pytest.mark.parametrize("body", [b"", b"[]", b"no JSON", b'{"payload": {}}', b"\xff"])
async def test_signed_webhook_that_says_nothing_is_a_bad_request(zoom: Zoom, db: Database, body: bytes) -> None:
    refusal = await refused(zoom.post(body))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert refusal.fields == ("body",)
    assert await kept(db) == []


@pytest.fixture
async def without_zoom(settings: Settings, db: Database) -> AsyncIterator[Zoom]:
    """Zoom, of which this API knows nothing."""
    parts = ("sdk_key", "sdk_secret", "api_key", "api_secret", "webhook_secret_token")
    bare = settings.model_copy(update={f"zoom_{part}": None for part in parts})
    async with (
        running_api(bare, listen="127.0.0.1:0") as api,
        grpc.aio.insecure_channel(f"127.0.0.1:{api.port}") as channel,
    ):
        yield Zoom(zoom_request_service_pb2_grpc.ZoomRequestServiceStub(channel))


async def test_nobody_is_believed_where_zoom_is_not_configured(without_zoom: Zoom, db: Database) -> None:
    refusal = await refused(without_zoom.post(b'{"event": "session.started"}'))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SIGNATURE_INVALID")


async def test_call_is_shown_and_told_from_its_begin_to_its_end(zoom: Zoom, client: Client, db: Database) -> None:
    call = await create(client, maximum_call_length=90)
    story, user_id = Story(call), new_user_id()
    host_key = call.video_call_participants[0].shunkan_ido_user_key

    await zoom.tell(story.started(), story.joined(0, user_id=user_id, user_key=host_key))
    begun = await get(client, call)
    await zoom.tell(story.left(50, user_id=user_id, user_key=host_key, why="left the session"), story.ended(50))
    over = await get(client, call)

    assert (begun.internal_status, begun.provider_status, begun.provider_id) == (
        "in_progress",
        "session.started",
        story.session_id,
    )
    assert (when(begun.start_time), begun.HasField("end_time"), when(begun.end_at)) == (START, False, at(90))
    assert begun.host_token
    assert (over.internal_status, over.provider_status) == ("finished", "session.ended")
    assert (when(over.start_time), when(over.end_time), when(over.end_at)) == (START, at(50), at(90))
    assert not over.host_token
    assert await told(db, call) == [
        (1, "pending", ""),
        (2, "in_progress", "session.started"),
        (3, "finished", "session.ended"),
    ]
    [_created, _begun, last] = await events_of(db, call)
    assert last.resource_uuid == call.shunkan_ido_session_key
    assert last.video_call.end_time == over.end_time
    assert list(last.video_call.video_call_participants) == []
    host = over.video_call_participants[0]
    assert (host.internal_status, host.provider_id, host.leave_reason) == ("left", user_id, "left the session")
    assert (when(host.join_time), when(host.leave_time)) == (START, at(50))


async def test_event_is_kept_as_it_came(zoom: Zoom, client: Client, db: Database) -> None:
    story = Story(await create(client))
    body = json.dumps(story.started(), indent=3).encode()

    await zoom.post(body)

    [event] = await kept(db)
    assert (event["event"], event["body"]) == ("session.started", body.decode())
    assert event["digest"] == hashlib.sha256(body).digest()
    assert event["video_call_id"] == story.call.id


async def test_event_that_is_posted_again_changes_nothing(zoom: Zoom, client: Client, db: Database) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started(), story.joined(1, user_id="1"), story.left(2, user_id="1"), story.ended(3))
    before = (await get(client, story.call), await told(db, story.call), await kept(db))

    await zoom.tell(story.joined(1, user_id="1"), story.ended(3), story.left(2, user_id="1"), story.started())

    assert (await get(client, story.call), await told(db, story.call), await kept(db)) == before


async def test_news_of_who_is_there_are_shown_and_not_told(zoom: Zoom, client: Client, db: Database) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started())

    await zoom.tell(story.joined(1, user_id="1", name="By telephone"), story.left(2, user_id="1"))

    assert participant(await get(client, story.call), "By telephone").internal_status == "left"
    assert len(await told(db, story.call)) == 2


@pytest.mark.parametrize("name", ["session.alert", "session.sharing_started", "session.something_new", "meeting.ended"])
async def test_unknown_event_is_kept_and_nothing_else(zoom: Zoom, client: Client, db: Database, name: str) -> None:
    story = Story(await create(client))

    await zoom.tell(story.event(name, 1, issues=["High CPU occupation"]))

    [event] = await kept(db)
    assert (event["event"], event["video_call_id"]) == (name, story.call.id)
    assert (await get(client, story.call)).internal_status == "pending"
    assert await count(db, "video_sessions") == 0


async def test_event_of_a_session_that_is_not_ours_is_kept(zoom: Zoom, client: Client, db: Database) -> None:
    story = Story(await create(client))
    stranger = story.event("session.started", 0, session_name="Somebody else's", session_key=None)

    await zoom.tell(stranger, stranger)

    [event] = await kept(db)
    assert (event["event"], event["video_call_id"]) == ("session.started", None)
    assert await count(db, "video_sessions") == 0


@pytest.mark.parametrize("spell", [str, str.lower, str.upper])
async def test_session_without_our_key_is_found_by_the_name_of_a_live_call(
    zoom: Zoom, client: Client, db: Database, spell: Any
) -> None:
    call = await create(client, session_name="Math, room 4")
    story = Story(call)

    await zoom.tell(story.event("session.started", 0, session_key=None, session_name=spell(call.session_name)))

    assert (await get(client, call)).internal_status == "in_progress"


async def test_session_of_another_key_is_not_ours_whatever_its_name(zoom: Zoom, client: Client, db: Database) -> None:
    story = Story(await create(client))

    await zoom.tell(story.event("session.started", 0, session_key=str(uuid4())))

    assert (await get(client, story.call)).internal_status == "pending"
    assert len(await kept(db)) == 1


async def test_session_is_found_by_its_id_once_it_is_known(zoom: Zoom, client: Client, db: Database) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started())

    await zoom.tell(story.event("session.ended", 5, session_key=None, session_name=None))

    ended = await get(client, story.call)
    assert (ended.internal_status, when(ended.end_time)) == ("finished", at(5))


async def test_session_of_another_call_is_left_to_it(zoom: Zoom, client: Client, db: Database) -> None:
    story = Story(await create(client))
    other = Story(await create(client, session_name="Another"), session_id=story.session_id)
    await zoom.tell(story.started())

    await zoom.tell(other.ended(5))

    assert (await get(client, story.call)).internal_status == "in_progress"
    assert (await get(client, other.call)).internal_status == "pending"
    assert len(await kept(db)) == 2


async def test_who_was_let_in_is_known_by_their_key_and_comes_again(zoom: Zoom, client: Client) -> None:
    story = Story(await create(client))
    parent = await let_in(client, story.call, username="A parent")
    key = parent.shunkan_ido_user_key
    first, second = new_user_id(), new_user_id()

    await zoom.tell(story.started(), story.joined(1, user_id=first, user_key=key, name="Another name"))
    joined = participant(await get(client, story.call), "A parent")
    await zoom.tell(story.left(4, user_id=first, user_key=key, why="network"))
    left = participant(await get(client, story.call), "A parent")
    await zoom.tell(story.joined(6, user_id=second, user_key=key))
    back = participant(await get(client, story.call), "A parent")

    assert (joined.internal_status, joined.provider_id, when(joined.join_time)) == ("joined", first, at(1))
    assert not joined.HasField("leave_time")
    assert (left.internal_status, when(left.leave_time), left.leave_reason) == ("left", at(4), "network")
    assert (back.internal_status, back.provider_id, when(back.join_time)) == ("joined", second, at(6))
    assert when(back.updated_at) > when(left.updated_at) > when(joined.updated_at) > when(parent.updated_at)


async def test_leaving_that_is_told_before_the_joining_is_known_by_it(zoom: Zoom, client: Client) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started(), story.left(4, user_id="1", name="By telephone"))
    early = participant(await get(client, story.call), "By telephone")

    await zoom.tell(story.joined(1, user_id="1", name="By telephone"))
    late = participant(await get(client, story.call), "By telephone")

    assert (early.internal_status, early.HasField("join_time"), when(early.leave_time)) == ("left", False, at(4))
    assert (late.internal_status, when(late.join_time), when(late.leave_time)) == ("left", at(1), at(4))


async def test_who_came_without_a_token_is_a_participant_of_their_own(zoom: Zoom, client: Client) -> None:
    story = Story(await create(client))

    await zoom.tell(
        story.started(),
        story.joined(1, user_id="1", name="One"),
        story.joined(2, user_id="2", name="Two", user_key=str(uuid4())),
        story.left(3, user_id="1", name="One"),
    )

    [_host, one, two] = (await get(client, story.call)).video_call_participants
    assert [(p.username, p.internal_status, p.is_host) for p in (one, two)] == [
        ("One", "left", False),
        ("Two", "joined", False),
    ]
    assert len({one.shunkan_ido_user_key, two.shunkan_ido_user_key}) == 2


async def test_stranger_turns_out_to_be_whom_a_later_event_names(zoom: Zoom, client: Client) -> None:
    story = Story(await create(client))
    key = story.call.video_call_participants[0].shunkan_ido_user_key

    await zoom.tell(story.started(), story.left(5, user_id="1"))
    assert len((await get(client, story.call)).video_call_participants) == 2
    await zoom.tell(story.joined(1, user_id="1", user_key=key), story.left(6, user_id="1"))

    [host] = (await get(client, story.call)).video_call_participants
    assert (host.internal_status, when(host.join_time), when(host.leave_time)) == ("left", at(1), at(6))


async def test_zooms_ids_of_users_begin_anew_in_another_session(zoom: Zoom, client: Client) -> None:
    call = await create(client)
    first, second = Story(call), Story(call, start=20)
    key = call.video_call_participants[0].shunkan_ido_user_key

    await zoom.tell(first.started(), first.joined(0, user_id="1", user_key=key), first.ended(10))
    await zoom.tell(second.started(), second.joined(20, user_id="1", name="By telephone"))

    [host, other] = (await get(client, call)).video_call_participants
    assert (host.internal_status, when(host.join_time), host.HasField("leave_time")) == ("left", START, False)
    assert (other.username, other.internal_status, when(other.join_time)) == ("By telephone", "joined", at(20))


async def test_call_that_is_joined_again_after_its_end_goes_on(zoom: Zoom, client: Client, db: Database) -> None:
    call = await create(client)
    first, second = Story(call), Story(call, start=20)

    await zoom.tell(first.started(), first.ended(10), second.started())
    again = await get(client, call)
    await zoom.tell(second.ended(30))
    over = await get(client, call)

    assert (again.internal_status, again.provider_id) == ("in_progress", second.session_id)
    assert (when(again.start_time), again.HasField("end_time"), when(again.end_at)) == (START, False, at(60))
    assert again.host_token
    assert (over.internal_status, when(over.start_time), when(over.end_time)) == ("finished", START, at(30))
    assert [status for _, status, _ in await told(db, call)] == [
        "pending",
        "in_progress",
        "finished",
        "in_progress",
        "finished",
    ]


async def test_call_that_expired_begins_when_somebody_joins_after_all(zoom: Zoom, client: Client, db: Database) -> None:
    story = Story(await create(client))
    await end(db, story.call, "expired")

    await zoom.tell(story.started())

    assert (await get(client, story.call)).internal_status == "in_progress"


@pytest.mark.parametrize("status", ["expired", "finished"])
async def test_call_whose_name_is_taken_stays_over_and_its_session_is_ended_at_once(
    zoom: Zoom, client: Client, db: Database, status: str
) -> None:
    story = Story(await create(client, session_name="Math"))
    await end(db, story.call, status)
    other = await create(client, session_name="MATH")

    await zoom.tell(story.started(), story.joined(1, user_id="1"))
    held = await get(client, story.call)
    due = await db.fetch_one("SELECT due_at <= now() AS is_due, end_time FROM video_sessions", {}, dict_row)
    await zoom.tell(story.ended(2))
    over = await get(client, story.call)

    assert (held.internal_status, held.HasField("start_time"), held.HasField("end_at")) == (status, False, False)
    assert due == {"is_due": True, "end_time": None}
    assert (over.internal_status, when(over.start_time), when(over.end_time)) == ("finished", START, at(2))
    assert (await get(client, other)).internal_status == "pending"


async def test_recording_is_what_zoom_said_last_whenever_that_comes(zoom: Zoom, client: Client, db: Database) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started(), story.recording("started", 1), story.recording("resumed", 3))
    resumed = await get(client, story.call)

    await zoom.tell(story.recording("paused", 2), story.recording("stopped", 4))
    stopped = await get(client, story.call)

    assert (resumed.recording_status, stopped.recording_status) == ("resumed", "stopped")
    statuses = [event.video_call.recording_status for event in await events_of(db, story.call)]
    assert statuses == ["", "", "started", "resumed", "stopped"]


async def test_word_of_the_same_instant_is_the_later_one(zoom: Zoom, client: Client) -> None:
    story = Story(await create(client))

    await zoom.tell(story.recording("stopped", 1), story.recording("started", 1))

    assert (await get(client, story.call)).recording_status == "stopped"


async def test_session_that_nobody_said_began_is_in_progress_of_an_unknown_start(
    zoom: Zoom, client: Client, db: Database
) -> None:
    story = Story(await create(client, maximum_call_length=30))

    await zoom.tell(story.joined(3, user_id="1"))

    begun = await get(client, story.call)
    assert (begun.internal_status, begun.provider_status) == ("in_progress", "")
    assert not begun.HasField("start_time")
    assert not begun.HasField("end_at")
    [session] = await db.fetch_all("SELECT due_at FROM video_sessions", {}, dict_row)
    assert session["due_at"] == at(33)


@pytest.mark.parametrize("length", [0, 45])
async def test_session_is_to_be_ended_at_the_end_of_its_call(
    zoom: Zoom, client: Client, db: Database, length: int
) -> None:
    call = await create(client, maximum_call_length=length)
    first, second = Story(call), Story(call, start=20)

    await zoom.tell(first.started(), first.ended(10), second.started())

    rows = await db.fetch_all("SELECT session_id, due_at FROM video_sessions ORDER BY id", {}, dict_row)
    assert [(row["session_id"], row["due_at"]) for row in rows] == [
        (first.session_id, None),
        (second.session_id, at(length)),
    ]


async def test_text_that_no_row_can_hold_is_no_reason_to_fail(zoom: Zoom, client: Client) -> None:
    story = Story(await create(client))
    event: Body = story.joined(1, user_id="1", name="A\0B")

    await zoom.tell(story.started(), event)

    assert (await get(client, story.call)).video_call_participants[1].username == "A\ufffdB"


async def test_ids_are_as_zoom_has_them(zoom: Zoom, client: Client) -> None:
    story = Story(await create(client), session_id=new_session_id())

    await zoom.tell(story.started())

    assert (await get(client, story.call)).provider_id == story.session_id
