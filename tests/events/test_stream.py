import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from commonservices.v1 import event_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from server.db import Database
from server.events import cursor
from server.notifications import Channel
from tests.clients import Refusal
from tests.events.support import EventLog, Server, an_event, append, make_bearer, serving

INBOUND = "messages.message.inbound_sms"
ONE_SECOND = Duration(seconds=1)

# Of which the first comes after 30 seconds where nobody asks for another.
_SOONER_THAN_A_HEARTBEAT = 15.0


@pytest.fixture
async def server(database_url: str, db: Database) -> AsyncIterator[Server]:
    async with serving(database_url, db) as server:
        yield server


def _events(count: int, bearer_id: int, **over: object) -> list[event_pb2.Event]:
    return [an_event(bearer_id, **over) for _ in range(count)]  # type: ignore[arg-type]  # passed on


def _at(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


async def test_new_events_are_pushed_with_their_cursors(server: Server, log: EventLog, bearer_id: int) -> None:
    async with server.subscribe(bearer_id) as subscription:
        await subscription.response()
        told = await log.add(*_events(3, bearer_id, body="Hello"))

        events = await subscription.events(3)

    assert events == told
    assert [cursor.decode(event.cursor) for event in events] == [1, 2, 3]


async def test_first_response_comes_at_once_and_says_where_the_subscriber_is(
    server: Server, log: EventLog, bearer_id: int
) -> None:
    told = await log.add(*_events(3, bearer_id))

    async with server.subscribe(bearer_id) as subscription:
        response = await subscription.response()

    assert not response.events
    assert response.cursor == told[-1].cursor


async def test_stream_resumes_from_every_cursor_with_exactly_the_rest(
    server: Server, log: EventLog, bearer_id: int
) -> None:
    told = await log.add(*_events(12, bearer_id))

    for index, event in enumerate(told):
        rest = told[index + 1 :]
        async with server.subscribe(bearer_id, after_cursor=event.cursor) as subscription:
            assert await subscription.events(len(rest)) == rest


async def test_replay_is_batched_and_followed_by_what_is_new(server: Server, log: EventLog, bearer_id: int) -> None:
    old = await log.add(*_events(250, bearer_id))

    async with server.subscribe(bearer_id, from_start=True) as subscription:
        replayed = await subscription.events(250)
        new = await log.add(*_events(2, bearer_id))
        assert await subscription.events(2) == new

    assert replayed == old


async def test_batches_end_with_the_cursor_of_their_last_event(server: Server, log: EventLog, bearer_id: int) -> None:
    await log.add(*_events(250, bearer_id))

    async with server.subscribe(bearer_id, from_start=True) as subscription:
        batches = [r for r in [await subscription.response() for _ in range(4)] if r.events]

    assert [len(batch.events) for batch in batches][:2] == [100, 100]
    assert all(batch.cursor == batch.events[-1].cursor for batch in batches[:2])


@pytest.mark.parametrize("is_live", [False, True])
async def test_batches_are_bounded_in_bytes(server: Server, log: EventLog, bearer_id: int, is_live: bool) -> None:
    big = _events(10, bearer_id, body="x" * 400_000)
    if not is_live:
        await log.add(*big)

    async with server.subscribe(bearer_id, from_start=True) as subscription:
        if is_live:
            await subscription.response()
            await log.add(*big)
        events: list[event_pb2.Event] = []
        while len(events) < 10:
            response = await subscription.response()
            assert len(response.events) <= 2
            events.extend(response.events)

    assert [event.event_id for event in events] == [event.event_id for event in big]


async def test_from_time_begins_with_the_first_event_at_or_after_it(
    server: Server, log: EventLog, bearer_id: int
) -> None:
    base = datetime(2026, 3, 1, tzinfo=UTC)
    told = await log.add(*(an_event(bearer_id, occurred_at=base + timedelta(minutes=n)) for n in range(40)))

    for index in (0, 1, 7, 38, 39):
        async with server.subscribe(bearer_id, from_time=_at(base + timedelta(minutes=index))) as subscription:
            assert await subscription.events(40 - index) == told[index:]
    async with server.subscribe(bearer_id, from_time=_at(base + timedelta(minutes=40))) as subscription:
        assert (await subscription.response()).cursor == told[-1].cursor


async def test_from_time_misses_no_event_that_committed_out_of_order(
    server: Server, log: EventLog, bearer_id: int
) -> None:
    base = datetime(2026, 3, 1, tzinfo=UTC)
    seconds = [0, 1, 9, 2, 3, 4, 8, 5, 6, 7]
    told = await log.add(*(an_event(bearer_id, occurred_at=base + timedelta(seconds=n)) for n in seconds))

    async with server.subscribe(bearer_id, from_time=_at(base + timedelta(seconds=5))) as subscription:
        assert await subscription.events(8) == told[2:]


async def test_bearer_hears_its_own_events_and_admin_all(
    server: Server, log: EventLog, db: Database, bearer_id: int
) -> None:
    other_id = await make_bearer(db)
    old = await log.add(an_event(bearer_id), an_event(other_id), an_event(bearer_id))

    async with (
        server.subscribe(bearer_id, from_start=True) as own,
        server.subscribe(other_id, from_start=True) as others,
        server.subscribe("admin", from_start=True) as admin,
    ):
        assert await own.events(2) == [old[0], old[2]]
        assert await others.events(1) == [old[1]]
        assert await admin.events(3) == old
        new = await log.add(an_event(other_id), an_event(bearer_id))
        assert await own.events(1) == new[1:]
        assert await others.events(1) == new[:1]
        assert await admin.events(2) == new


async def test_only_the_types_asked_for_are_heard(server: Server, log: EventLog, bearer_id: int) -> None:
    old = await log.add(an_event(bearer_id), an_event(bearer_id, event_type=INBOUND), an_event(bearer_id))

    async with server.subscribe(bearer_id, from_start=True, event_types=[INBOUND]) as subscription:
        assert await subscription.events(1) == [old[1]]
        new = await log.add(an_event(bearer_id), an_event(bearer_id, event_type=INBOUND))
        assert await subscription.events(1) == [new[1]]


@pytest.mark.parametrize("token", ["bearer", "admin"])
async def test_heartbeats_come_in_silence_and_pass_what_a_filter_leaves_out(
    server: Server, log: EventLog, db: Database, bearer_id: int, token: str
) -> None:
    other_id = await make_bearer(db)
    who = bearer_id if token == "bearer" else "admin"

    async with server.subscribe(who, event_types=[INBOUND], heartbeat=ONE_SECOND) as subscription:
        before = await subscription.response()
        told = await log.add(an_event(bearer_id), an_event(other_id), an_event(bearer_id))
        after = await subscription.response()

    assert not before.events
    assert cursor.decode(before.cursor) == 0
    assert not after.events
    assert after.cursor == told[-1].cursor


async def test_replay_with_a_rare_type_reaches_the_end(server: Server, log: EventLog, bearer_id: int) -> None:
    told = await log.add(*_events(2500, bearer_id), an_event(bearer_id, event_type=INBOUND))

    async with server.subscribe(bearer_id, from_start=True, event_types=[INBOUND]) as subscription:
        assert await subscription.events(1) == told[-1:]


async def test_quiet_subscriber_is_not_behind_when_its_event_comes(
    database_url: str, log: EventLog, db: Database, bearer_id: int
) -> None:
    other_id = await make_bearer(db)

    async with serving(database_url, db, window=10) as server, server.subscribe(bearer_id) as subscription:
        await subscription.response()
        await log.add(*_events(300, other_id))
        told = await log.add(an_event(bearer_id))
        assert await subscription.events(1) == told


async def test_subscriber_behind_the_window_reads_the_log(
    database_url: str, log: EventLog, db: Database, bearer_id: int
) -> None:
    async with (
        serving(database_url, db, window=5) as server,
        server.subscribe("admin", from_start=True) as subscription,
    ):
        await subscription.response()
        told = await log.add(*_events(700, bearer_id))
        assert await subscription.events(700) == told


@pytest.mark.parametrize(
    "text", ["", "nonsense", "AAAAAAAAAAAAAAAA", cursor.encode(1)[:-1], cursor.encode(4), cursor.encode(2**40)]
)
async def test_cursor_that_was_never_given_out_is_refused(
    server: Server, log: EventLog, bearer_id: int, text: str
) -> None:
    await log.add(*_events(3, bearer_id))

    failure = await server.subscribe(bearer_id, after_cursor=text).failure()

    assert failure == Refusal(grpc.StatusCode.INVALID_ARGUMENT, "CURSOR_INVALID", {}, ("after_cursor",))


async def test_expired_cursor_is_refused_with_the_oldest_that_is_good(
    server: Server, log: EventLog, db: Database, bearer_id: int
) -> None:
    told = await log.add(*_events(5, bearer_id))
    await db.execute("DELETE FROM events WHERE position <= 2")
    await db.execute("UPDATE event_log SET oldest_position = 2")

    failure = await server.subscribe(bearer_id, after_cursor=told[0].cursor).failure()

    assert failure == Refusal(grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED", {"oldest_cursor": told[1].cursor}, ())
    async with server.subscribe(bearer_id, after_cursor=failure.metadata["oldest_cursor"]) as subscription:
        assert await subscription.events(3) == told[2:]
    async with server.subscribe(bearer_id, from_start=True) as subscription:
        assert await subscription.events(3) == told[2:]


@pytest.mark.parametrize("heartbeat", [Duration(), Duration(nanos=999_999_999), Duration(seconds=31)])
async def test_heartbeat_out_of_bounds_is_refused(server: Server, bearer_id: int, heartbeat: Duration) -> None:
    failure = await server.subscribe(bearer_id, heartbeat=heartbeat).failure()

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")


async def test_slow_subscriber_is_ended_and_resumes_without_loss(
    database_url: str, log: EventLog, db: Database, bearer_id: int
) -> None:
    told = await log.add(*_events(400, bearer_id, body="x" * 50_000))

    async with serving(database_url, db, write_timeout=timedelta(seconds=0.2)) as server:
        slow = server.subscribe(bearer_id, from_start=True)
        events = list((await slow.response()).events)
        await server.subscribers(0)
        failure = await slow.failure(events)
    resumed_after = cursor.decode(failure.metadata["cursor"])
    async with (
        serving(database_url, db) as patient,
        patient.subscribe(bearer_id, after_cursor=failure.metadata["cursor"]) as subscription,
    ):
        rest = await subscription.events(400 - resumed_after)

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SUBSCRIBER_TOO_SLOW")
    assert events == told[: len(events)]
    assert 0 < resumed_after <= len(events) < 400
    assert rest == told[resumed_after:]


async def test_deleted_key_ends_its_stream_at_once(server: Server, db: Database, bearer_id: int) -> None:
    async with server.subscribe("admin") as other, server.subscribe(bearer_id) as subscription:
        await subscription.response()
        await other.response()
        server.revoked.add(str(bearer_id))
        await db.execute("SELECT pg_notify(%s, '')", [Channel.API_KEYS])

        failure = await asyncio.wait_for(subscription.failure(), _SOONER_THAN_A_HEARTBEAT)

        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
        await server.subscribers(1)


async def test_deleted_key_ends_its_stream_within_a_heartbeat_when_nobody_says_so(
    server: Server, bearer_id: int
) -> None:
    async with server.subscribe(bearer_id, heartbeat=ONE_SECOND) as subscription:
        await subscription.response()
        server.revoked.add(str(bearer_id))

        failure = await asyncio.wait_for(subscription.failure(), _SOONER_THAN_A_HEARTBEAT)

    assert failure.reason == "CREDENTIALS_INVALID"


async def test_key_that_ended_while_nobody_listened_ends_its_stream_at_the_reconnect(
    server: Server, db: Database, bearer_id: int
) -> None:
    async with server.subscribe(bearer_id) as subscription:
        await subscription.response()
        server.revoked.add(str(bearer_id))
        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN %%'"
        )

        failure = await asyncio.wait_for(subscription.failure(), _SOONER_THAN_A_HEARTBEAT)

    assert failure.reason == "CREDENTIALS_INVALID"


async def test_stopping_server_ends_streams_so_that_they_resume_elsewhere(server: Server, bearer_id: int) -> None:
    async with server.subscribe(bearer_id) as subscription:
        await subscription.response()
        server.streams.close()

        assert (await subscription.failure()).code == grpc.StatusCode.UNAVAILABLE
        assert (await server.subscribe(bearer_id).failure()).code == grpc.StatusCode.UNAVAILABLE


async def test_disconnected_subscribers_leave_nothing_behind(server: Server, log: EventLog, bearer_id: int) -> None:
    subscriptions = [server.subscribe(bearer_id) for _ in range(20)]
    for subscription in subscriptions:
        await subscription.response()
    await server.subscribers(20)

    for subscription in subscriptions:
        subscription.call.cancel()
    await server.subscribers(0)

    told = await log.add(an_event(bearer_id))
    async with server.subscribe(bearer_id, from_start=True) as again:
        assert await again.events(1) == told


async def test_disconnect_frees_a_stream_that_waits_for_its_reader(
    server: Server, log: EventLog, bearer_id: int
) -> None:
    await log.add(*_events(200, bearer_id, body="x" * 50_000))
    subscription = server.subscribe(bearer_id, from_start=True)
    await subscription.response()
    await server.subscribers(1)

    await server.channels[-1].close()

    await server.subscribers(0)


async def test_lost_notification_costs_a_poll_and_no_event(server: Server, log: EventLog, bearer_id: int) -> None:
    async with server.subscribe(bearer_id) as subscription:
        await subscription.response()
        event = an_event(bearer_id)
        async with log.db.connection() as connection:
            await append(connection, event)
        await log.relay.run_once()

        assert [e.event_id for e in await subscription.events(1)] == [event.event_id]
