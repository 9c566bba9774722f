"""An image processor of the caller's own says where it has stored the media of inbound messages."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from commonservices.v1 import lambda_request_service_pb2, lambda_request_service_pb2_grpc, message_pb2

from server.api import Api
from server.db import Database
from server.messages.media.worker import MediaWorker
from server.notifications import Notifications
from server.providers.twilio.media import TwilioMediaFetcher
from server.storage import UrlSigner, open_storage
from tests.clients import Client, refused
from tests.conftest import MakeClient
from tests.factories import create_message, make_messaging_service
from tests.messages.media import Vendor, make_media_due, media_files, receive, running_vendor, see_to, status
from tests.messages.support import events_of, row_of, until
from tests.providers.servers import twilio_account
from tests.rest.case import with_patterns
from tests.rest.front import Front, running_envoy, until_healthy

GOLDEN = Path(__file__).parent.parent / "golden" / "rest" / "images_stored.json"
URLS = ["https://images.example/a.png?token=x", "http://images.example/b.png"]
OTHER_URLS = ["https://images.example/c.png"]


@pytest.fixture
async def message(
    api: Api, admin: Client, client: Client, db: Database, notifications: Notifications, vendor: Vendor
) -> message_pb2.Message:
    """The client's inbound message, whose two media are still to be fetched."""
    await make_messaging_service(db)
    await create_message(client)
    return await receive(db, notifications, vendor.urls("a", "b"))


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    """Whoever has the media."""
    async with running_vendor() as running:
        yield running


@pytest.fixture
async def worker(
    db: Database, notifications: Notifications, vendor: Vendor, tmp_path: Path
) -> AsyncIterator[MediaWorker]:
    """A media worker."""
    fetcher = TwilioMediaFetcher(twilio_account(vendor.base_url))
    storage = open_storage(tmp_path.as_uri(), UrlSigner("https://api.example", ["A" * 44]))
    yield MediaWorker(db, notifications, {"twilio": fetcher}, storage)
    await fetcher.aclose()
    await storage.aclose()


class Images:
    """The service, as a bearer's processor calls it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = lambda_request_service_pb2_grpc.LambdaRequestServiceStub(channel)

    async def store(self, client: Client, message: message_pb2.Message, urls: list[str]) -> message_pb2.Message:
        """Say where the media are."""
        stored = lambda_request_service_pb2.StoredImages(message_uuid=message.message_uuid, media_file_urls=urls)
        request = lambda_request_service_pb2.StoreImagesRequest(message=stored)
        return await self._stub.StoreImages(request, metadata=client.metadata)


@pytest.fixture
def images(channel: grpc.aio.Channel) -> Images:
    """The service."""
    return Images(channel)


async def test_urls_are_shown_and_told_and_nothing_is_fetched_any_more(
    images: Images,
    message: message_pb2.Message,
    client: Client,
    db: Database,
    worker: MediaWorker,
    vendor: Vendor,
) -> None:
    answer = await images.store(client, message, URLS)

    assert not await worker.step()
    row = await row_of(db, message)
    _inbound, told = await events_of(db, message)
    assert list(answer.media_file_urls) == row.stored_media == URLS
    assert (told.type, told.sequence, told.message) == ("messages.message.images_lambda", 2, answer)
    assert [f["error"] for f in await media_files(db, row)] == ["was stored by an image processor"] * 2
    assert vendor.fetched == {}


async def test_saying_the_same_again_changes_nothing(
    images: Images, message: message_pb2.Message, client: Client, db: Database
) -> None:
    first = await images.store(client, message, URLS)
    again = await images.store(client, message, URLS)
    told = len(await events_of(db, message))
    other = await images.store(client, message, OTHER_URLS)

    assert (again, told) == (first, 2)
    assert list(other.media_file_urls) == OTHER_URLS
    assert [e.sequence for e in await events_of(db, message)] == [1, 2, 3]


async def test_same_request_at_once_is_told_once(
    images: Images, message: message_pb2.Message, client: Client, db: Database
) -> None:
    await asyncio.gather(*(images.store(client, message, URLS) for _ in range(20)))

    assert len(await events_of(db, message)) == 2


async def test_own_files_are_replaced(
    images: Images, message: message_pb2.Message, client: Client, db: Database, worker: MediaWorker
) -> None:
    await see_to(worker, files=2)

    await images.store(client, message, URLS)

    row = await row_of(db, message)
    assert (row.stored_media, row.sequence) == (URLS, 3)


async def test_media_that_we_could_not_store_are_no_error_any_more(
    images: Images,
    message: message_pb2.Message,
    client: Client,
    db: Database,
    worker: MediaWorker,
    vendor: Vendor,
) -> None:
    vendor.answers = {"a": status(404), "b": status(404)}
    await see_to(worker, files=2)
    assert (await row_of(db, message)).error_code == "MEDIA_NOT_STORED"

    answer = await images.store(client, message, URLS)

    assert not answer.HasField("error_code")
    assert not answer.HasField("error_description")


async def test_file_that_is_being_fetched_is_not_told_afterwards(
    images: Images,
    message: message_pb2.Message,
    client: Client,
    db: Database,
    worker: MediaWorker,
    vendor: Vendor,
) -> None:
    vendor.gate.clear()
    steps = asyncio.gather(worker.step(), worker.step())
    await until(lambda: vendor.waiting == 2)

    await images.store(client, message, URLS)
    vendor.gate.set()
    await steps
    await make_media_due(db)
    assert not await worker.step()

    assert (await row_of(db, message)).stored_media == URLS
    assert len(await events_of(db, message)) == 2


@pytest.mark.parametrize("moment", range(8))
async def test_processor_and_worker_at_once_leave_the_processors(
    images: Images,
    message: message_pb2.Message,
    client: Client,
    db: Database,
    worker: MediaWorker,
    vendor: Vendor,
    moment: int,
) -> None:
    vendor.gate.clear()
    steps = asyncio.gather(worker.step(), worker.step())
    await until(lambda: vendor.waiting == 2)
    vendor.gate.set()
    for _ in range(moment * 10):
        await asyncio.sleep(0)
    await asyncio.gather(images.store(client, message, URLS), steps)

    row = await row_of(db, message)
    assert row.stored_media == URLS
    assert [e.sequence for e in await events_of(db, message)] == list(range(1, row.sequence + 1))


async def test_only_the_owner_and_admins_may_say_so(
    images: Images, message: message_pb2.Message, client_of: MakeClient, admin: Client, db: Database
) -> None:
    stranger = await client_of()

    refusal = await refused(images.store(stranger, message, URLS))
    answer = await images.store(admin, message, URLS)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "MESSAGE_NOT_FOUND")
    assert refusal.metadata == {"message_uuid": message.message_uuid}
    assert list(answer.media_file_urls) == URLS


async def test_through_rest(
    api: Api, admin: Client, client: Client, db: Database, notifications: Notifications
) -> None:
    await make_messaging_service(db)
    await create_message(client)
    urls = ["https://api.twilio.com/a", "https://api.twilio.com/b"]
    message = await receive(db, notifications, urls, sid="MM" + "1" * 32)
    body = {"message": {"message_uuid": message.message_uuid, "media_file_urls": URLS}}
    headers = {"authorization": f"Bearer {client.token}"}

    async with running_envoy([f"127.0.0.1:{api.port}"]) as front:
        await until_healthy(front, 1)
        answer, shown = await _post_and_get(front, body, headers)

    assert with_patterns(answer) == json.loads(GOLDEN.read_text())
    assert shown == answer


async def _post_and_get(front: Front, body: object, headers: dict[str, str]) -> tuple[object, object]:
    async with aiohttp.ClientSession(front.url, headers=headers) as session:
        async with session.post("/api/v1/lambda_requests/images", json=body) as posted:
            answer = await posted.json()
        assert posted.status == 200
        async with session.get(f"/api/v1/messages/{answer['message_uuid']}") as got:
            return answer, await got.json()
