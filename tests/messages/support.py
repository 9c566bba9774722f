"""What the tests of messages look at: rows, events, kept callbacks, and the invariant between us and the carrier."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from commonservices.v1 import event_pb2, message_pb2, message_service_pb2
from psycopg.rows import class_row, dict_row, scalar_row

from server.db import Database
from server.messages import queries
from server.messages.message import Message
from server.messages.send import SendWorker
from tests.providers.servers import Sandbox

# The body of a message that the carrier never calls back about.
SILENT = "[sandbox:callbacks=missing]"


async def row_of(db: Database, message: message_pb2.Message) -> Message:
    """The message as stored."""
    row = await db.fetch_one(queries.GET, {"message_uuid": UUID(message.message_uuid)}, class_row(Message))
    assert row is not None
    return row


async def rows(db: Database) -> list[Message]:
    """Every message, oldest first."""
    everything = queries.GET.replace("WHERE m.message_uuid = %(message_uuid)s", "ORDER BY m.id")
    return await db.fetch_all(everything, {}, class_row(Message))


async def events_of(db: Database, message: message_pb2.Message) -> list[event_pb2.Event]:
    """The message's events in the order they were appended."""
    query = "SELECT payload FROM events WHERE resource_uuid = %(uuid)s ORDER BY sequence"
    payloads: list[bytes] = await db.fetch_all(query, {"uuid": message.message_uuid}, scalar_row)
    return [event_pb2.Event.FromString(payload) for payload in payloads]


async def kept_callbacks(db: Database) -> list[dict[str, Any]]:
    """The raw callbacks, oldest first."""
    return await db.fetch_all("SELECT * FROM message_callbacks ORDER BY id", {}, dict_row)


async def count(db: Database, table: str) -> int:
    """How many rows a table has."""
    found = await db.fetch_one(f"SELECT count(*) FROM {table}", {}, scalar_row)
    assert isinstance(found, int)
    return found


async def make_due(db: Database) -> None:
    """As if every retry's delay and every lease had run out."""
    await db.execute("UPDATE messages SET due_at = now() WHERE due_at IS NOT NULL")


def assert_each_sent_once(messages: Sequence[Message], taken: Sequence[dict[str, Any]]) -> None:
    """Every message of ours that is not failed or cancelled has one copy at the carrier, and every copy is of one."""
    refused = [m for m in messages if m.internal_status in ("failed", "cancelled") and m.message_sid is None]
    ours = Counter(_described(m) for m in messages if m not in refused)
    theirs = Counter((c["from"], c["to"], c["body"]) for c in taken)
    assert ours == theirs
    sids = [m.message_sid for m in messages if m.message_sid is not None]
    assert len(set(sids)) == len(sids)
    assert set(sids) == {c["sid"] for c in taken}


def _described(message: Message) -> tuple[str, str, str]:
    return (message.sender_number, message.receiver_number, message.message_body)


def listing(sender_number: str, receiver_number: str, **page: Any) -> message_service_pb2.ListMessagesRequest:
    """A list request: `from` is no name that Python takes as a keyword."""
    request = message_service_pb2.ListMessagesRequest(to=receiver_number, **page)
    setattr(request, "from", sender_number)
    return request


async def step(worker: SendWorker, db: Database) -> None:
    """Let every delay run out, and one round be worked."""
    await make_due(db)
    await worker.run_once()


async def requests(carrier: Sandbox, method: str) -> list[int | None]:
    """How requests were answered, oldest first."""
    asked = (await carrier.control("GET", "requests", params={"method": method}))["requests"]
    return [request["status"] for request in asked]


async def until(holds: Callable[[], Awaitable[object] | object], *, seconds: float = 40) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)


async def until_settled(db: Database) -> None:
    """Wait until no message has anything to do or to hear."""

    async def settled() -> bool:
        finals = ("delivered", "failed", "cancelled")
        return all(m.internal_status in finals and m.due_at is None for m in await rows(db))

    await until(settled)
