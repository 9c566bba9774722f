"""A provider's media over a real server, and inbound messages that have them."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from commonservices.v1 import message_pb2
from psycopg.rows import dict_row

from server.db import Database
from server.messages.inbound import receive_message
from server.messages.media.worker import MediaWorker
from server.messages.message import Message
from server.notifications import Notifications
from server.providers.ports import InboundMedia, InboundMessage
from server.storage import Storage
from tests.factories import RECEIVER, SENDER
from tests.messages.inbound import received
from tests.providers.servers import listening

PNG = b"\x89PNG\r\n\x1a\n" + b"png"
JPEG = b"\xff\xd8\xff\xe0" + b"jpeg"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SIDS = itertools.count(1)


@dataclass
class Vendor:
    """A server with files; a name that it has no answer for is an image."""

    base_url: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    fetched: Counter[str] = field(default_factory=Counter)
    # While it is closed nothing is answered.
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0

    def urls(self, *names: str) -> list[str]:
        """Where files of these names are."""
        return [f"{self.base_url}/{name}" for name in names]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer with the file."""
        name = request.path.removeprefix("/")
        self.fetched[name] += 1
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        return await self.answers.get(name, file(PNG + name.encode(), "image/png"))(request)


def file(data: bytes, content_type: str) -> Answer:
    """A file of a type."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, headers={"Content-Type": content_type})

    return answer


def status(code: int) -> Answer:
    """A failure."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=code)

    return answer


@asynccontextmanager
async def running_vendor() -> AsyncIterator[Vendor]:
    """A vendor on a port of its own, whose gate is open."""
    vendor = Vendor()
    vendor.gate.set()
    app = web.Application()
    app.router.add_get("/{path:.*}", vendor.handle)
    async with listening(app) as base_url:
        vendor.base_url = base_url
        try:
            yield vendor
        finally:
            vendor.gate.set()


async def receive(
    db: Database, notifications: Notifications, urls: Sequence[str], *, sid: str | None = None
) -> message_pb2.Message:
    """A message that came in with media at these URLs, by its uuid alone."""
    sid = sid or f"MM{next(_SIDS):032}"
    message = InboundMessage(
        message_sid=sid,
        sender_number=RECEIVER,
        receiver_number=SENDER,
        message_body="",
        media=tuple(InboundMedia(url, "application/octet-stream") for url in urls),
        keyword=None,
    )
    await receive_message(
        db, notifications, provider="twilio", message=message, unknown_sender_answer="Who?", now=datetime.now(UTC)
    )
    return message_pb2.Message(message_uuid=str((await received(db, sid)).message_uuid))


async def media_files(db: Database, message: Message) -> list[dict[str, Any]]:
    """The rows of a message's media, in their order."""
    query = "SELECT * FROM media_files WHERE message_id = %(id)s ORDER BY place"
    return await db.fetch_all(query, {"id": message.id}, dict_row)


async def make_media_due(db: Database) -> None:
    """As if every retry's delay and every lease had run out."""
    await db.execute("UPDATE media_files SET due_at = now() WHERE due_at IS NOT NULL")


async def see_to(worker: MediaWorker, *, files: int) -> None:
    """Step the worker over so many files, all that are due."""
    for _ in range(files):
        assert await worker.step()
    assert not await worker.step()


async def content(storage: Storage, key: str) -> bytes:
    """What is stored under a key."""
    return b"".join([chunk async for chunk in (await storage.open(key)).chunks])
