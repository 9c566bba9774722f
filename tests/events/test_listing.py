from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from commonservices.v1 import event_pb2
from commonservices.v1 import event_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from server.db import Database
from tests.clients import Refusal, credentials, refusal
from tests.events.support import EventLog, Server, an_event, append, make_bearer, serving

INBOUND = "messages.message.inbound_sms"
BASE = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
async def server(database_url: str, db: Database) -> AsyncIterator[Server]:
    async with serving(database_url, db) as server:
        yield server


async def _list(server: Server, token: object, **request: Any) -> list[event_pb2.Event]:
    """All pages."""
    stub = server.stub()
    events: list[event_pb2.Event] = []
    page_token = ""
    while True:
        page = await stub.ListEvents(
            pb.ListEventsRequest(page_token=page_token, **request), metadata=credentials(str(token))
        )
        events.extend(page.events)
        page_token = page.next_page_token
        if not page_token:
            return events


async def _get(server: Server, token: object, event_id: str) -> event_pb2.Event:
    return await server.stub().GetEvent(pb.GetEventRequest(id=event_id), metadata=credentials(str(token)))


async def _refusal(server: Server, token: object, **request: Any) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await server.stub().ListEvents(pb.ListEventsRequest(**request), metadata=credentials(str(token)))
    return refusal(failed.value)


def _at(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


async def test_events_are_listed_newest_first_in_pages(server: Server, log: EventLog, bearer_id: int) -> None:
    told = await log.add(*(an_event(bearer_id) for _ in range(7)))

    assert await _list(server, bearer_id) == told[::-1]
    assert await _list(server, bearer_id, page_size=3) == told[::-1]
    assert await _list(server, bearer_id, page_size=7) == told[::-1]


async def test_page_token_of_another_filter_is_refused(server: Server, log: EventLog, bearer_id: int) -> None:
    await log.add(*(an_event(bearer_id) for _ in range(3)))
    page = await server.stub().ListEvents(pb.ListEventsRequest(page_size=1), metadata=credentials(str(bearer_id)))

    failure = await _refusal(server, bearer_id, page_token=page.next_page_token, event_types=[INBOUND])

    assert failure == Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", {}, ("page_token",))


async def test_list_and_get_know_the_callers_own_events_only(
    server: Server, log: EventLog, db: Database, bearer_id: int
) -> None:
    other_id = await make_bearer(db)
    own, others = await log.add(an_event(bearer_id), an_event(other_id))

    assert await _list(server, bearer_id) == [own]
    assert await _list(server, "admin") == [others, own]
    assert await _get(server, bearer_id, own.event_id) == own
    assert await _get(server, "admin", others.event_id) == others
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await _get(server, bearer_id, others.event_id)
    assert refusal(failed.value) == Refusal(
        grpc.StatusCode.NOT_FOUND, "EVENT_NOT_FOUND", {"event_id": others.event_id}, ()
    )


@pytest.mark.parametrize("event_id", ["", "7", "not-a-uuid", "00000000-0000-4000-8000-000000000000"])
async def test_event_that_does_not_exist_is_not_found(server: Server, event_id: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await _get(server, "admin", event_id)

    assert refusal(failed.value).reason == "EVENT_NOT_FOUND"


async def test_event_without_a_position_is_seen_by_nobody(server: Server, db: Database, bearer_id: int) -> None:
    async with db.connection() as connection:
        event = await append(connection, an_event(bearer_id))

    assert await _list(server, "admin") == []
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await _get(server, "admin", event.event_id)
    assert refusal(failed.value).reason == "EVENT_NOT_FOUND"


async def test_list_is_filtered(server: Server, log: EventLog, bearer_id: int) -> None:
    resource_uuid = uuid4()
    told = await log.add(
        an_event(bearer_id, occurred_at=BASE, resource_uuid=resource_uuid),
        an_event(bearer_id, occurred_at=BASE + timedelta(seconds=1), event_type=INBOUND),
        an_event(bearer_id, occurred_at=BASE + timedelta(seconds=3)),
        an_event(bearer_id, occurred_at=BASE + timedelta(seconds=2), resource_uuid=resource_uuid, sequence=2),
        an_event(bearer_id, occurred_at=BASE + timedelta(seconds=4)),
    )
    first, inbound, third, second, last = told
    since, until = _at(BASE + timedelta(seconds=2)), _at(BASE + timedelta(seconds=3))

    assert await _list(server, bearer_id, event_types=[INBOUND]) == [inbound]
    assert await _list(server, bearer_id, event_types=[INBOUND, "unknown"]) == [inbound]
    assert await _list(server, bearer_id, event_types=["unknown"]) == []
    assert await _list(server, bearer_id, resource_uuid=str(resource_uuid)) == [second, first]
    assert await _list(server, bearer_id, since=since) == [last, second, third]
    assert await _list(server, bearer_id, until=until) == [second, inbound, first]
    assert await _list(server, bearer_id, since=since, until=until) == [second]
    assert await _list(server, bearer_id, since=_at(BASE + timedelta(days=1))) == []
    assert await _list(server, bearer_id, until=_at(BASE)) == []
    assert await _list(server, bearer_id, until=_at(BASE + timedelta(days=1)), page_size=2) == told[::-1]


async def test_narrow_filter_makes_short_pages_and_loses_nothing(server: Server, log: EventLog, bearer_id: int) -> None:
    rare = await log.add(an_event(bearer_id, event_type=INBOUND))
    await log.db.execute(
        "INSERT INTO events (event_id, bearer_id, type, resource_uuid, sequence, callback_url, payload)"
        " SELECT gen_random_uuid(), bearer_id, 'other', gen_random_uuid(), 1, callback_url, payload"
        " FROM events CROSS JOIN generate_series(1, 10500)"
    )
    while await log.relay.run_once():
        pass

    page = await server.stub().ListEvents(
        pb.ListEventsRequest(event_types=[INBOUND]), metadata=credentials(str(bearer_id))
    )

    assert not page.events
    assert page.next_page_token
    assert await _list(server, bearer_id, event_types=[INBOUND]) == rare


async def test_large_events_make_short_pages_that_clients_take_and_lose_nothing(
    server: Server, log: EventLog, bearer_id: int
) -> None:
    told = await log.add(*(an_event(bearer_id, body="word " * 200_000) for _ in range(7)), an_event(bearer_id))

    page = await server.stub().ListEvents(pb.ListEventsRequest(page_size=1000), metadata=credentials(str(bearer_id)))

    assert list(page.events) == told[:-4:-1]
    assert page.ByteSize() < 4 << 20
    assert await _list(server, bearer_id, page_size=1000) == told[::-1]
    assert await _list(server, bearer_id, page_size=2) == told[::-1]


async def test_every_bad_field_is_named(server: Server, bearer_id: int) -> None:
    far = Timestamp(seconds=10**14)

    failure = await _refusal(
        server, bearer_id, resource_uuid="x", since=far, until=far, page_size=1001, event_types=["t"] * 101
    )

    assert failure.code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(failure.fields) == {"resource_uuid", "since", "until", "page_size", "event_types"}
