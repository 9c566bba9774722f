"""Inbound media: fetched from a real server, checked, stored in a real folder, told once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from commonservices.v1 import message_service_pb2
from structlog.testing import capture_logs

from server.config import Settings
from server.db import Database
from server.messages.media.types import MAX_BYTES
from server.messages.media.worker import MediaWorker
from server.notifications import Notifications
from server.providers.twilio.media import TwilioMediaFetcher
from server.storage import FolderStorage, Storage, UrlSigner, open_storage
from tests.clients import Client
from tests.cut_off import ASKING, RECORDING, STORED, CutOffStorage, cut_off
from tests.factories import RECEIVER, SENDER, create_message, make_messaging_service
from tests.files.support import signer_of
from tests.messages.media import (
    JPEG,
    PNG,
    Vendor,
    content,
    file,
    make_media_due,
    media_files,
    receive,
    running_vendor,
    see_to,
    status,
)
from tests.messages.support import events_of, listing, row_of, until
from tests.providers.servers import twilio_account

# Makes a worker, which stores where it is told.
MakeMediaWorker = Callable[..., MediaWorker]

DAY = timedelta(days=1)
GIVEN_UP = "could not be fetched within 24 hours"


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    """Whoever has the media."""
    async with running_vendor() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files are stored."""
    return tmp_path / "files"


@pytest.fixture
def signer(settings: Settings) -> UrlSigner:
    """The signer of the API under test."""
    return signer_of(settings)


@pytest.fixture
async def storage(folder: Path, signer: UrlSigner) -> AsyncIterator[Storage]:
    """The storage in the folder."""
    storage = open_storage(folder.as_uri(), signer)
    yield storage
    await storage.aclose()


@pytest.fixture
async def make_worker(
    db: Database, notifications: Notifications, vendor: Vendor, storage: Storage
) -> AsyncIterator[MakeMediaWorker]:
    """Makes workers that are stepped."""
    fetchers: list[TwilioMediaFetcher] = []

    def make(kept: Storage = storage) -> MediaWorker:
        fetcher = TwilioMediaFetcher(twilio_account(vendor.base_url))
        fetchers.append(fetcher)
        return MediaWorker(db, notifications, {"twilio": fetcher}, kept)

    yield make
    for fetcher in fetchers:
        await fetcher.aclose()


@pytest.fixture
async def worker(make_worker: MakeMediaWorker) -> MediaWorker:
    """A worker that is stepped."""
    return make_worker()


@pytest.fixture
async def _paired(admin: Client, client: Client, db: Database) -> None:
    """A conversation of the client's, which inbound messages belong to."""
    await make_messaging_service(db)
    await create_message(client)


pytestmark = pytest.mark.usefixtures("_paired")


async def test_media_are_stored_and_told_in_their_order(
    db: Database,
    notifications: Notifications,
    vendor: Vendor,
    storage: Storage,
    signer: UrlSigner,
    worker: MediaWorker,
    client: Client,
) -> None:
    vendor.answers = {"b": file(JPEG, "image/jpg; charset=x"), "c": file(b"BEGIN:VCARD", "text/x-vcard")}
    message = await receive(db, notifications, vendor.urls("a", "b", "c"))
    before = datetime.now(UTC)

    await see_to(worker, files=3)

    row = await row_of(db, message)
    assert [await content(storage, key) for key in row.stored_media] == [PNG + b"a", JPEG, b"BEGIN:VCARD"]
    assert [key.rpartition(".")[2] for key in row.stored_media] == ["png", "jpg", "vcf"]
    assert [f["content_type"] for f in await media_files(db, row)] == ["image/png", "image/jpeg", "text/vcard"]
    assert (row.sequence, row.error_code, row.error_description) == (2, None, None)
    assert row.updated_at >= before
    first, second = await events_of(db, message)
    assert (first.type, list(first.message.media_file_urls)) == ("messages.message.inbound_mms", [])
    assert (second.type, second.sequence) == ("messages.message.images_lambda", 2)
    assert (second.bearer_id, second.message.client_conversation_id) == (client.bearer_id, "conversation-1")
    assert second.message.updated_at.ToDatetime(tzinfo=UTC) == row.updated_at
    for key, url in zip(row.stored_media, second.message.media_file_urls, strict=True):
        assert is_good_for_a_day(signer, key, url)


async def test_every_answer_signs_anew(
    db: Database, notifications: Notifications, vendor: Vendor, signer: UrlSigner, worker: MediaWorker, client: Client
) -> None:
    message = await receive(db, notifications, vendor.urls("a"))
    await worker.step()
    [key] = (await row_of(db, message)).stored_media

    get = message_service_pb2.GetMessageRequest(uuid=message.message_uuid)
    shown = await client.messages.GetMessage(get, metadata=client.metadata)
    listed = await client.messages.ListMessages(listing(RECEIVER, SENDER), metadata=client.metadata)

    assert [m.message_uuid for m in listed.messages] == [message.message_uuid]
    for urls in (shown.media_file_urls, listed.messages[0].media_file_urls):
        [url] = urls
        assert is_good_for_a_day(signer, key, url)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(file(b"<script>", "text/html"), "is text/html, which is not accepted", id="type"),
        pytest.param(file(b"<svg/>", "image/svg+xml"), "is image/svg+xml, which is not accepted", id="svg"),
        pytest.param(file(PNG, "application/octet-stream"), "which is not accepted", id="no type"),
        pytest.param(file(b"<script>", "image/png"), "is said to be image/png, but is no image", id="no image"),
        pytest.param(file(b"", "text/plain"), "is empty", id="empty"),
        pytest.param(file(PNG + b"x" * MAX_BYTES, "image/png"), f"is larger than {MAX_BYTES} bytes", id="large"),
        pytest.param(status(404), "is not at Twilio any more", id="gone"),
    ],
)
async def test_file_that_is_not_taken_is_left_out_and_named(
    db: Database,
    notifications: Notifications,
    vendor: Vendor,
    storage: Storage,
    worker: MediaWorker,
    answer: Callable[..., object],
    error: str,
) -> None:
    vendor.answers["b"] = answer  # type: ignore[assignment]
    message = await receive(db, notifications, vendor.urls("a", "b", "c"))

    with capture_logs() as logs:
        await see_to(worker, files=3)

    row = await row_of(db, message)
    files = await media_files(db, row)
    _inbound, told = await events_of(db, message)
    assert [await content(storage, key) for key in row.stored_media] == [PNG + b"a", PNG + b"c"]
    assert error in files[1]["error"]
    assert (files[1]["storage_key"], files[1]["due_at"]) == (None, None)
    description = f"Some media could not be stored: media_urls[1] {files[1]['error']}."
    assert (row.error_code, row.error_description, row.internal_status) == (
        "MEDIA_NOT_STORED",
        description,
        "delivered",
    )
    assert (told.message.error_description, len(told.message.media_file_urls)) == (description, 2)
    attempts = {log["place"]: (log["outcome"], log["reason"]) for log in logs if log["event"] == "media.attempted"}
    assert attempts == {0: ("stored", None), 1: ("refused", files[1]["error"]), 2: ("stored", None)}
    assert vendor.base_url not in str(logs)


async def test_many_files_that_are_not_taken_are_not_all_named(
    db: Database, notifications: Notifications, vendor: Vendor, worker: MediaWorker
) -> None:
    names = [f"a{n}" for n in range(12)]
    vendor.answers = {name: file(b"x", "image/" + "x" * 1000) for name in names}
    message = await receive(db, notifications, vendor.urls(*names))

    await see_to(worker, files=12)

    description = (await row_of(db, message)).error_description
    assert description is not None
    assert description.endswith(f"; media_urls[9] is image/{'x' * 94}, which is not accepted; and 2 more.")
    assert len(description) < 2000


async def test_message_of_which_nothing_is_stored_says_why(
    db: Database, notifications: Notifications, vendor: Vendor, worker: MediaWorker
) -> None:
    vendor.answers = {"a": status(410), "b": file(b"MZ", "application/x-msdownload")}
    message = await receive(db, notifications, vendor.urls("a", "b"))

    await see_to(worker, files=2)

    row = await row_of(db, message)
    _inbound, told = await events_of(db, message)
    assert (row.stored_media, row.error_code, row.internal_status) == ([], "MEDIA_NOT_STORED", "delivered")
    assert row.error_description == (
        "The media could not be stored: media_urls[0] is not at Twilio any more; "
        "media_urls[1] is application/x-msdownload, which is not accepted."
    )
    assert (told.type, told.message.error_code) == ("messages.message.images_lambda", "MEDIA_NOT_STORED")
    assert list(told.message.media_file_urls) == []


async def test_provider_that_is_away_is_asked_again(
    db: Database, notifications: Notifications, vendor: Vendor, worker: MediaWorker
) -> None:
    vendor.answers["b"] = status(503)
    message = await receive(db, notifications, vendor.urls("a", "b"))

    await see_to(worker, files=2)
    waiting = await media_files(db, await row_of(db, message))
    assert await events_of(db, message) == (await events_of(db, message))[:1]
    del vendor.answers["b"]
    await make_media_due(db)
    await see_to(worker, files=1)

    assert waiting[1]["due_at"] > datetime.now(UTC) - timedelta(seconds=5)
    assert (waiting[0]["due_at"], waiting[1]["attempts"]) == (None, 1)
    assert len((await row_of(db, message)).stored_media) == 2
    assert len(await events_of(db, message)) == 2
    assert vendor.fetched == {"a": 1, "b": 2}


async def test_provider_that_is_away_for_a_day_is_given_up(
    db: Database, notifications: Notifications, vendor: Vendor, worker: MediaWorker
) -> None:
    vendor.answers["a"] = status(500)
    message = await receive(db, notifications, vendor.urls("a"))
    await db.execute("UPDATE media_files SET created_at = now() - interval '23 hours 59 minutes'")
    await worker.step()
    assert (await row_of(db, message)).error_code is None

    await db.execute("UPDATE media_files SET created_at = now() - interval '24 hours 1 second', due_at = now()")
    await worker.step()

    row = await row_of(db, message)
    assert (row.error_code, row.error_description) == (
        "MEDIA_NOT_STORED",
        f"The media could not be stored: media_urls[0] {GIVEN_UP}.",
    )


async def test_provider_that_is_not_configured_any_more_is_away(
    db: Database, notifications: Notifications, vendor: Vendor, storage: Storage
) -> None:
    worker = MediaWorker(db, notifications, {}, storage)
    message = await receive(db, notifications, vendor.urls("a"))
    await worker.step()
    [waiting] = await media_files(db, await row_of(db, message))
    assert waiting["due_at"] < datetime.now(UTC) + timedelta(minutes=1)

    await db.execute("UPDATE media_files SET created_at = now() - interval '24 hours 1 second', due_at = now()")
    await worker.step()

    [settled] = await media_files(db, await row_of(db, message))
    assert (settled["due_at"], settled["error"]) == (None, GIVEN_UP)
    assert len(await events_of(db, message)) == 2


async def test_old_message_is_fetched_once_workers_are_back(
    db: Database, notifications: Notifications, vendor: Vendor, worker: MediaWorker
) -> None:
    message = await receive(db, notifications, vendor.urls("a"))
    await db.execute("UPDATE media_files SET created_at = now() - interval '30 hours'")

    await worker.step()

    assert len((await row_of(db, message)).stored_media) == 1


async def test_storage_that_is_away_is_tried_for_as_long_as_it_takes(
    db: Database, notifications: Notifications, vendor: Vendor, storage: Storage, folder: Path, worker: MediaWorker
) -> None:
    message = await receive(db, notifications, vendor.urls("a"))
    await db.execute("UPDATE media_files SET created_at = now() - interval '30 hours'")
    _block(folder)

    await worker.step()
    assert (await row_of(db, message)).error_code is None
    _unblock(folder)
    await make_media_due(db)
    await worker.step()

    assert len((await row_of(db, message)).stored_media) == 1


async def test_workers_that_end_at_once_tell_once(
    db: Database, notifications: Notifications, vendor: Vendor, make_worker: MakeMediaWorker
) -> None:
    workers = [make_worker() for _ in range(16)]
    messages = [await receive(db, notifications, vendor.urls(f"{n}a", f"{n}b", f"{n}c", f"{n}d")) for n in range(4)]
    vendor.gate.clear()

    steps = asyncio.gather(*(worker.step() for worker in workers))
    await until(lambda: vendor.waiting == 16)
    vendor.gate.set()
    await steps

    for message in messages:
        row = await row_of(db, message)
        assert [e.type for e in await events_of(db, message)][1:] == ["messages.message.images_lambda"]
        assert row.stored_media == [f["storage_key"] for f in await media_files(db, row)]
        assert (len(row.stored_media), row.sequence) == (4, 2)
    assert set(vendor.fetched.values()) == {1}


async def test_worker_whose_lease_ran_out_changes_nothing(
    db: Database, notifications: Notifications, vendor: Vendor, storage: Storage, make_worker: MakeMediaWorker
) -> None:
    message = await receive(db, notifications, vendor.urls("a"))
    vendor.gate.clear()
    late = asyncio.create_task(make_worker().step())
    await until(lambda: vendor.waiting == 1)
    await make_media_due(db)
    prompt = asyncio.create_task(make_worker().step())
    await until(lambda: vendor.waiting == 2)

    vendor.gate.set()
    await asyncio.gather(late, prompt)

    row = await row_of(db, message)
    [kept] = await media_files(db, row)
    assert (row.stored_media, row.sequence, kept["attempts"]) == ([kept["storage_key"]], 2, 2)
    assert len(await events_of(db, message)) == 2


class Crashing(FolderStorage):
    """Keeps a file; then the process dies."""

    async def put(self, key: str, data: bytes) -> None:
        await super().put(key, data)
        raise asyncio.CancelledError


async def test_crash_between_storing_and_recording_costs_one_more_fetch(
    db: Database,
    notifications: Notifications,
    vendor: Vendor,
    folder: Path,
    signer: UrlSigner,
    make_worker: MakeMediaWorker,
) -> None:
    message = await receive(db, notifications, vendor.urls("a", "b"))
    crashing = Crashing(folder, signer)
    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            await make_worker(crashing).step()
    await crashing.aclose()
    assert not await make_worker().step()

    await make_media_due(db)
    await see_to(make_worker(), files=2)

    row = await row_of(db, message)
    assert (len(row.stored_media), row.sequence, len(await events_of(db, message))) == (2, 2, 2)
    assert set(row.stored_media) < set(_keys(folder))
    assert vendor.fetched == {"a": 2, "b": 2}


@pytest.mark.parametrize("moment", [ASKING, STORED, RECORDING])
async def test_worker_may_be_cancelled_at_any_moment(
    db: Database,
    notifications: Notifications,
    vendor: Vendor,
    folder: Path,
    signer: UrlSigner,
    make_worker: MakeMediaWorker,
    moment: str,
) -> None:
    message = await receive(db, notifications, vendor.urls("a", "b"))
    storage = CutOffStorage(folder, signer, moment)
    step = make_worker(storage).step()
    asked, stored = lambda: vendor.waiting == 1, storage.stored
    await cut_off(moment, step, db=db, table="messages", asked=asked, gate=vendor.gate, stored=stored)
    await storage.aclose()

    await make_media_due(db)
    worker = make_worker()
    while await worker.step():
        pass

    row = await row_of(db, message)
    assert (len(row.stored_media), row.sequence, len(await events_of(db, message))) == (2, 2, 2)


def is_good_for_a_day(signer: UrlSigner, key: str, url: str) -> bool:
    """Whether it is a URL of the file that was signed just now."""
    until = datetime.now(UTC) + DAY
    return any(url == signer.url(key, until=until - timedelta(seconds=ago)) for ago in range(30))


def _block(folder: Path) -> None:
    (folder / "media").write_text("a file where the folder should be")


def _unblock(folder: Path) -> None:
    (folder / "media").unlink()


def _keys(folder: Path) -> list[str]:
    return [f"media/{path.name}" for path in (folder / "media").iterdir()]
