"""What the tests of webhooks share: bearers with events, relayed and delivered, and time that passes when told to."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from uuid import UUID, uuid4

from commonservices.v1 import event_pb2, message_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row

from server.accounts import bearers
from server.caller import BearerType, Caller
from server.config import Network
from server.db import Database
from server.encryption import Cipher
from server.events import outbox
from server.events.log import RelayedEvent
from server.events.relay import Relay
from server.notifications import Notifications
from server.webhooks import endpoints, queries
from server.webhooks.deliver import Deliverer
from server.webhooks.delivery import Attempt, Delivery
from server.webhooks.post import TIMEOUT

TYPE = "messages.message.status_update"
USERNAME = "callback-user"
PASSWORD = "pässword:1"
LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"),)

_APPEND = f"WITH source AS (SELECT 1) {outbox.append_from('source')}".encode()
_NUMBER = """
UPDATE events SET position = id + 1000000 WHERE position IS NULL
RETURNING id, position, bearer_id, type, resource_uuid, callback_url
"""
_ALL = queries.GET.partition("WHERE")[0] + "ORDER BY delivery.id"


@dataclass(frozen=True)
class Bearer:
    """A bearer with a signing secret."""

    id: int
    signing_secret: str

    @property
    def caller(self) -> Caller:
        """The bearer, calling."""
        return Caller(bearer_id=self.id, bearer_type=BearerType.APPLICATION, api_key_id=1)


@dataclass
class Webhooks:
    """One test's bearers, events and deliveries."""

    db: Database
    notifications: Notifications
    cipher: Cipher
    sequences: dict[UUID, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.relay = Relay(self.db, self.notifications, endpoints.fan_out)

    async def make_bearer(self) -> Bearer:
        """A bearer as an admin makes it."""
        async with self.db.begin() as tx:
            row, secret = await bearers.create_bearer(
                tx,
                cipher=self.cipher,
                bearer_name="b",
                bearer_type=BearerType.APPLICATION,
                callback_url="http://nowhere.example/",
                username=USERNAME,
                password=PASSWORD,
            )
        return Bearer(row.id, secret)

    async def append(
        self, bearer: Bearer, url: str | None, *, resource: UUID | None = None, count: int = 1, body: str = "hello"
    ) -> UUID:
        """Append events of one resource, and answer the resource."""
        resource = resource or uuid4()
        async with self.db.connection() as connection, connection.transaction():
            for _ in range(count):
                event = self._next(bearer, resource, body)
                await connection.execute(_APPEND, outbox.parameters(event, callback_url=url))
        return resource

    async def relay_all(self) -> None:
        """Give the events that wait their deliveries."""
        while await self.relay.run_once():
            pass

    async def send(
        self, bearer: Bearer, url: str | None, *, resource: UUID | None = None, count: int = 1, body: str = "hello"
    ) -> UUID:
        """Append and relay."""
        resource = await self.append(bearer, url, resource=resource, count=count, body=body)
        await self.relay_all()
        return resource

    async def fan_out_new(self, connection: AsyncConnection[TupleRow]) -> None:
        """What the relay does, in a transaction of the test's own."""
        async with connection.cursor(row_factory=class_row(RelayedEvent)) as cursor:
            await cursor.execute(_NUMBER)
            await endpoints.fan_out(connection, await cursor.fetchall())

    async def all(self) -> list[Delivery]:
        """Every delivery, oldest first."""
        return await self.db.fetch_all(_ALL, {}, class_row(Delivery))

    async def only(self) -> Delivery:
        """The delivery, where there is one."""
        (delivery,) = await self.all()
        return delivery

    async def statuses(self) -> list[str]:
        """Of every delivery, oldest first."""
        return [delivery.status for delivery in await self.all()]

    async def attempts(self, delivery: Delivery) -> list[Attempt]:
        """Its attempts, oldest first."""
        return await self.db.fetch_all(queries.ATTEMPTS, {"id": delivery.id}, class_row(Attempt))

    async def wait_until_due(self) -> None:
        """Let the time pass that any delivery still waits for."""
        await self.db.execute("UPDATE webhook_deliveries SET due_at = now() WHERE due_at > now()")

    async def wait_until_retries_are_due(self) -> None:
        """The same, but for leases: attempts may be under way."""
        await self.db.execute(
            "UPDATE webhook_deliveries SET due_at = now() WHERE due_at > now()"
            " AND due_at NOT BETWEEN now() + interval '20 seconds' AND now() + interval '60 seconds'"
        )

    async def delay(self, delivery: Delivery) -> tuple[timedelta, timedelta]:
        """At least and at most how long its last attempt made a delivery wait: it began to wait between the attempt's
        beginning and now."""
        assert delivery.due_at is not None, "the delivery waits"
        attempted_at = max(attempt.attempted_at for attempt in await self.attempts(delivery))
        return delivery.due_at - datetime.now(UTC), delivery.due_at - attempted_at

    async def set_attempts_in_run(self, count: int) -> None:
        """Let so many attempts of every delivery's run be over."""
        await self.db.execute("UPDATE webhook_deliveries SET attempts_in_run = %s", [count])

    @asynccontextmanager
    async def deliverer(
        self,
        *,
        allowed_networks: Sequence[Network] = LOOPBACK,
        endpoint_slots: int = 32,
        slots: int = 512,
        max_bytes: int = 64 << 20,
        timeout: timedelta = TIMEOUT,  # noqa: ASYNC109 the worker's, not this call's
    ) -> AsyncIterator[Deliverer]:
        """A worker to be stepped."""
        deliverer = Deliverer(
            self.db,
            self.notifications,
            self.cipher,
            allowed_networks=allowed_networks,
            endpoint_slots=endpoint_slots,
            slots=slots,
            max_bytes=max_bytes,
            timeout=timeout,
        )
        try:
            yield deliverer
        finally:
            await deliverer.aclose()

    def _next(self, bearer: Bearer, resource: UUID, body: str) -> event_pb2.Event:
        self.sequences[resource] = sequence = self.sequences.get(resource, 0) + 1
        at = Timestamp()
        at.FromDatetime(datetime.now(UTC))
        event = outbox.new_event(
            event_type=TYPE, bearer_id=bearer.id, resource_uuid=resource, sequence=sequence, occurred_at=at
        )
        event.message.CopyFrom(message_pb2.Message(message_uuid=str(resource), message_body=body))
        return event
