"""What the tests of events share: appending, relaying, and a gRPC server with the event service alone."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc.aio
from commonservices.v1 import event_pb2, event_service_pb2_grpc, message_pb2
from commonservices.v1 import event_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, tuple_row

from server.caller import BearerType, Caller
from server.db import Database
from server.events import cursor, outbox
from server.events.feed import Feed
from server.events.log import RelayedEvent
from server.events.relay import FanOut, Relay
from server.events.service import EventService
from server.events.stream import Streams
from server.notifications import Channel, Notifications
from server.rpc.auth import Gate
from server.rpc.edge import Edge
from tests.clients import Refusal, credentials, refusal

TYPE = "messages.message.status_update"
_APPEND = f"WITH source AS (SELECT 1) {outbox.append_from('source')}".encode()


def an_event(
    bearer_id: int,
    *,
    resource_uuid: UUID | None = None,
    sequence: int = 1,
    event_type: str = TYPE,
    occurred_at: datetime | None = None,
    body: str = "",
) -> event_pb2.Event:
    at = Timestamp()
    at.FromDatetime(occurred_at or datetime.now(UTC))
    event = outbox.new_event(
        event_type=event_type,
        bearer_id=bearer_id,
        resource_uuid=resource_uuid or uuid4(),
        sequence=sequence,
        occurred_at=at,
    )
    event.message.CopyFrom(message_pb2.Message(message_uuid=event.resource_uuid, message_body=body))
    return event


async def append(connection: AsyncConnection[TupleRow], event: event_pb2.Event) -> event_pb2.Event:
    await connection.execute(_APPEND, outbox.parameters(event, callback_url="http://127.0.0.1:1/"))
    return event


async def nobody_to_tell(connection: AsyncConnection[TupleRow], events: Sequence[RelayedEvent]) -> None:
    pass


def relay_for(url: str, db: Database, fan_out: FanOut = nobody_to_tell) -> Relay:
    return Relay(db, Notifications(url, db), fan_out)


async def make_bearer(db: Database) -> int:
    row = await db.fetch_one(
        "INSERT INTO bearers (bearer_name, bearer_type, callback_url, username, password_encrypted,"
        " signing_secret_encrypted) VALUES ('b', 'User', 'http://127.0.0.1:1/', 'u', 'x', 'x') RETURNING id",
        {},
        tuple_row,
    )
    assert row is not None
    bearer_id: int = row[0]
    return bearer_id


@dataclass
class EventLog:
    """The log of one test."""

    url: str
    db: Database
    relay: Relay

    async def add(self, *events: event_pb2.Event) -> list[event_pb2.Event]:
        """Append and relay events, and answer them as subscribers see them."""
        async with self.db.connection() as connection, connection.transaction():
            for event in events:
                await append(connection, event)
        while await self.relay.run_once():
            pass
        await self.db.execute("SELECT pg_notify(%s, '')", [Channel.EVENTS])
        rows: list[TupleRow] = await self.db.fetch_all(
            "SELECT event_id::text, position FROM events WHERE event_id = ANY(%(ids)s)",
            {"ids": [UUID(event.event_id) for event in events]},
            tuple_row,
        )
        positions: dict[str, int] = dict(rows)
        told = []
        for event in sorted(events, key=lambda event: positions[event.event_id]):
            copy = event_pb2.Event()
            copy.CopyFrom(event)
            copy.cursor = cursor.encode(positions[event.event_id])
            told.append(copy)
        return told


class WatchedFeed(Feed):
    """A feed that says when subscribers come and go."""

    def __init__(self, db: Database, notifications: Notifications, *, max_events: int) -> None:
        super().__init__(db, notifications, max_events=max_events)
        self.changed = asyncio.Event()

    @contextmanager
    def joined(self) -> Iterator[None]:
        try:
            with super().joined():
                self.changed.set()
                yield
        finally:
            self.changed.set()


@dataclass
class Server:
    """A server of the event service. A token is the number of a bearer, or `admin`."""

    target: str
    feed: WatchedFeed
    streams: Streams
    notifications: Notifications
    db: Database
    revoked: set[str] = field(default_factory=set)
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def authenticate(self, token: str) -> Caller | None:
        if token in self.revoked:
            return None
        if token == "admin":
            return Caller(0, BearerType.ADMIN, 0)
        return Caller(int(token), BearerType.USER, int(token))

    async def is_still_valid(self, caller: Caller) -> bool:
        return ("admin" if caller.is_admin else str(caller.bearer_id)) not in self.revoked

    def subscribe(self, token: object, **request: Any) -> "Subscription":
        return Subscription(self, str(token), pb.StreamEventsRequest(**request))

    def stub(self) -> "event_service_pb2_grpc.EventServiceAsyncStub":
        channel = grpc.aio.insecure_channel(self.target, options=[("grpc.use_local_subchannel_pool", 1)])
        self.channels.append(channel)
        return event_service_pb2_grpc.EventServiceStub(channel)

    async def subscribers(self, count: int) -> None:
        """Wait until there are that many subscribers."""
        async with asyncio.timeout(30):
            while self.feed.subscribers != count:
                self.feed.changed.clear()
                await self.feed.changed.wait()


class Subscription:
    """A running stream."""

    def __init__(self, server: Server, token: str, request: pb.StreamEventsRequest) -> None:
        self.call = server.stub().StreamEvents(request, metadata=credentials(token))

    async def response(self) -> pb.StreamEventsResponse:
        # Sooner than a heartbeat that nobody asked for.
        async with asyncio.timeout(20):
            response = await self.call.read()
        assert isinstance(response, pb.StreamEventsResponse), "the stream has ended"
        return response

    async def events(self, count: int) -> list[event_pb2.Event]:
        """The next events, exactly so many."""
        events: list[event_pb2.Event] = []
        while len(events) < count:
            events.extend((await self.response()).events)
        assert len(events) == count
        return events

    async def failure(self, before: list[event_pb2.Event] | None = None) -> Refusal:
        """How the stream ends, and what it says before."""
        try:
            while True:
                events = (await self.response()).events
                if before is not None:
                    before.extend(events)
        except grpc.aio.AioRpcError as error:
            return refusal(error)

    async def __aenter__(self) -> "Subscription":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()


@asynccontextmanager
async def serving(
    url: str, db: Database, *, write_timeout: timedelta = timedelta(seconds=10), window: int = 10_000
) -> AsyncIterator[Server]:
    notifications = Notifications(url, db)
    feed = WatchedFeed(db, notifications, max_events=window)
    streams = Streams(db, notifications, feed)
    running = Server("", feed, streams, notifications, db)
    service = EventService(db, streams, still_valid=running.is_still_valid, write_timeout=write_timeout)
    server = grpc.aio.server(interceptors=[Edge(Gate(running.authenticate))])
    event_service_pb2_grpc.add_EventServiceServicer_to_server(service, server)
    running.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    heard = asyncio.Event()
    notifications.on_connect(heard.set)
    background = [asyncio.create_task(notifications.run()), asyncio.create_task(feed.run())]
    async with asyncio.timeout(30):
        await heard.wait()
    try:
        yield running
    finally:
        for channel in running.channels:
            await channel.close()
        await server.stop(0)
        for task in background:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
