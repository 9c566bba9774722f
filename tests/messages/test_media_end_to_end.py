"""A parent's picture, from the phone to whoever opens its URL: network, Envoy, API, worker and storage."""

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from server.config import Settings
from server.db import Database
from server.messages.media.worker import MediaWorker
from server.messages.message import INBOUND, Message
from server.notifications import Notifications
from server.providers import registry
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID
from server.storage import open_storage
from tests.clients import Client
from tests.factories import RECEIVER, SENDER
from tests.files.support import signer_of
from tests.messages.media import JPEG, PNG, see_to
from tests.messages.support import rows
from tests.messages.wire import Wire
from tests.providers.servers import Sandbox

CARD = b"BEGIN:VCARD\r\nFN:A parent\r\nEND:VCARD\r\n"


@pytest.fixture
async def media_worker(
    live: Settings, db: Database, notifications: Notifications, admin: Client
) -> AsyncIterator[MediaWorker]:
    """A worker as processes have it."""
    fetchers = registry.media_fetchers(live)
    storage = open_storage(live.storage_url, signer_of(live))
    yield MediaWorker(db, notifications, fetchers, storage)
    for fetcher in fetchers.values():
        await fetcher.aclose()
    await storage.aclose()


@pytest.fixture
async def phone(carrier: Sandbox, live: Settings, wire: Wire) -> AsyncIterator[aiohttp.ClientSession]:
    """The carrier's phones, whose texts are posted to our public address."""
    inbound = f"{live.public_base_url}/api/v1/twilio_requests/inbound"
    status, _service = await carrier.rest(
        "POST", f"/v1/Services/{MESSAGING_SERVICE_SID}", data={"InboundRequestUrl": inbound}
    )
    assert status == 200
    async with aiohttp.ClientSession(wire.base_url) as session:
        yield session


async def send(phone: aiohttp.ClientSession, *media: tuple[str, bytes]) -> Any:
    """Send a text with files, and answer what our server said to it."""
    files = [{"content_type": content_type, "data": b64encode(data).decode()} for content_type, data in media]
    async with phone.post("/sandbox/texts", json={"from": RECEIVER, "to": SENDER, "media": files}) as sent:
        return (await sent.json())["webhook"]["answers"][0]


async def received(db: Database) -> Message:
    """The one message that came."""
    [message] = [row for row in await rows(db) if row.direction == INBOUND]
    return message


async def opened(http: aiohttp.ClientSession, url: str) -> tuple[str, bytes]:
    """What a URL gives to whoever has it."""
    async with http.get(url) as answer:
        assert answer.status == 200
        return answer.content_type, await answer.read()


async def test_picture_that_a_phone_sends_can_be_opened(
    phone: aiohttp.ClientSession, live: Settings, db: Database, media_worker: MediaWorker, admin: Client
) -> None:
    files = [("image/jpeg", JPEG), ("text/x-vcard", CARD), ("image/png", b"<script>"), ("image/png", PNG * 10_000)]

    answer = await send(phone, *files)
    await see_to(media_worker, files=4)
    message = await received(db)
    async with aiohttp.ClientSession(live.public_base_url, headers=dict(admin.metadata)) as http:
        shown = await (await http.get(f"/api/v1/messages/{message.message_uuid}")).json()
    async with aiohttp.ClientSession() as anybody:
        pictures = [await opened(anybody, url) for url in shown["media_file_urls"]]

    assert answer["status"] == 200
    assert (shown["message_type"], len(shown["media_urls"])) == ("mms", 4)
    assert pictures == [("image/jpeg", JPEG), ("text/vcard", CARD), ("image/png", PNG * 10_000)]


async def test_picture_that_the_carrier_has_deleted_is_told(
    phone: aiohttp.ClientSession, carrier: Sandbox, db: Database, media_worker: MediaWorker
) -> None:
    await send(phone, ("image/png", PNG))
    [url] = (await received(db)).media_urls
    await carrier.rest("DELETE", urlsplit(url).path)

    await media_worker.step()

    message = await received(db)
    assert (message.error_code, message.stored_media) == ("MEDIA_NOT_STORED", [])
