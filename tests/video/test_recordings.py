"""Recordings: fetched from a real server with Zoom's token, streamed to a real folder, told once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from commonservices.v1 import video_call_pb2
from psycopg.rows import dict_row

from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from server.leases import GIVE_UP_AFTER
from server.notifications import Channel, Notifications
from server.providers.zoom.recordings import ZoomRecordingFetcher
from server.storage import FolderStorage, Storage, UrlSigner, open_storage
from server.video.recordings import RecordingWorker
from tests.clients import Client
from tests.cut_off import ASKING, RECORDING, STORED, CutOffStorage, cut_off
from tests.files.support import signer_of
from tests.leases import LEASE, until_renewed
from tests.messages.media import Vendor, content, file, running_vendor, status
from tests.messages.support import until
from tests.video import zoom as zooms
from tests.video.support import create, events_of, get
from tests.video.zoom import DOWNLOAD_TOKEN, Body, Story, Zoom, at

# Makes a worker, which stores where it is told.
MakeWorker = Callable[..., RecordingWorker]


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    """Whoever has the recordings."""
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
    db: Database, notifications: Notifications, vendor: Vendor, storage: Storage, cipher: Cipher
) -> AsyncIterator[MakeWorker]:
    """Makes workers that are stepped."""
    fetcher = ZoomRecordingFetcher(api_base_url=vendor.base_url, allowed_networks=[ip_network("127.0.0.0/8")])

    def make(kept: Storage = storage, **over: Any) -> RecordingWorker:
        return RecordingWorker(db, notifications, fetcher, kept, cipher, **over)

    yield make
    await fetcher.aclose()


@pytest.fixture
def worker(make_worker: MakeWorker) -> RecordingWorker:
    """A worker that is stepped."""
    return make_worker()


@pytest.fixture
async def story(client: Client, zoom: Zoom) -> Story:
    """A call that was recorded; its files are about to be told of."""
    story = Story(await create(client))
    await zoom.tell(story.started(), story.recording("started", 1), story.ended(10))
    return story


def listed(vendor: Vendor, name: str = "a", **over: Any) -> Body:
    """A file that the vendor has under a name, which is its id as well."""
    return zooms.file(name, download_url=vendor.urls(name)[0], **over)


async def rows(db: Database) -> list[dict[str, Any]]:
    """The recordings as stored."""
    return await db.fetch_all("SELECT * FROM video_call_recordings ORDER BY id", {}, dict_row)


async def make_due(db: Database) -> None:
    """As if every retry's delay and every lease had run out."""
    await db.execute("UPDATE video_call_recordings SET due_at = now() WHERE due_at IS NOT NULL")


async def recordings_told(db: Database, story: Story) -> list[list[tuple[str, str]]]:
    """What the events since the call's end tell of its recordings: status and Zoom's word of each."""
    events = (await events_of(db, story.call))[4:]
    return [[(r.internal_status, r.provider_status) for r in e.video_call.video_call_recordings] for e in events]


async def recordings_of(client: Client, story: Story) -> list[video_call_pb2.VideoCallRecording]:
    """The recordings as the API shows them."""
    return list((await get(client, story.call)).video_call_recordings)


async def test_recording_is_stored_and_told(
    zoom: Zoom,
    story: Story,
    vendor: Vendor,
    worker: RecordingWorker,
    client: Client,
    db: Database,
    storage: Storage,
    signer: UrlSigner,
) -> None:
    authorizations: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        authorizations.append(request.headers.get("Authorization"))
        return web.Response(body=b"an mp4", headers={"Content-Type": "application/octet-stream"})

    vendor.answers["a"] = answer
    await zoom.tell(story.files(12, listed(vendor)))
    [pending] = await recordings_of(client, story)
    [due] = await rows(db)

    assert await worker.step()
    assert not await worker.step()

    [stored], [row] = await recordings_of(client, story), await rows(db)
    assert (pending.internal_status, pending.provider_status, pending.recording_url) == ("pending", "completed", "")
    assert (pending.file_type, pending.file_size, pending.provider_id) == ("MP4", 7, "a")
    assert (pending.recording_start.ToDatetime(tzinfo=UTC), pending.recording_end.ToDatetime(tzinfo=UTC)) == (
        at(1),
        at(9),
    )
    assert DOWNLOAD_TOKEN.encode() not in due["download_token_encrypted"]
    assert authorizations == [f"Bearer {DOWNLOAD_TOKEN}"]
    assert stored.internal_status == "stored"
    assert await content(storage, row["storage_key"]) == b"an mp4"
    assert row["storage_key"].startswith("recordings/")
    assert is_good_for_a_day(signer, row["storage_key"], stored.recording_url)
    assert (row["due_at"], row["download_token_encrypted"], row["error_description"]) == (None, None, None)
    assert await recordings_told(db, story) == [[("pending", "completed")], [("stored", "completed")]]
    last = (await events_of(db, story.call))[-1].video_call.video_call_recordings[0]
    assert is_good_for_a_day(signer, row["storage_key"], last.recording_url)
    assert (await get(client, story.call)).recording_status == "completed"


@pytest.mark.parametrize(
    ("over", "extension"),
    [
        ({"file_type": "MP4", "file_extension": "MP4"}, "mp4"),
        ({"file_type": "M4A", "file_extension": "M4A"}, "m4a"),
        ({"file_type": "CHAT", "file_extension": "TXT"}, "txt"),
        ({"file_type": "TRANSCRIPT", "file_extension": "VTT"}, "vtt"),
        ({"file_type": "CSV", "file_extension": "CSV"}, "csv"),
        ({"file_type": "TIMELINE", "file_extension": "JSON"}, "json"),
        ({"file_type": "TB", "file_extension": "jpg"}, "jpg"),
        ({"file_type": "CC", "file_extension": None}, "vtt"),
        ({"file_type": "HTML", "file_extension": "HTML"}, "bin"),
        ({"file_type": "SOMETHING", "file_extension": None}, "bin"),
    ],
)
async def test_file_is_what_zoom_calls_it(
    zoom: Zoom,
    story: Story,
    vendor: Vendor,
    worker: RecordingWorker,
    db: Database,
    over: Body,
    extension: str,
) -> None:
    vendor.answers["a"] = file(b"data", "application/octet-stream")
    await zoom.tell(story.files(12, listed(vendor, **over)))

    await worker.step()

    assert [row["storage_key"].rpartition(".")[2] for row in await rows(db)] == [extension]


async def test_transcript_comes_beside_what_was_recorded(
    zoom: Zoom, story: Story, vendor: Vendor, worker: RecordingWorker, client: Client
) -> None:
    vendor.answers = {"a": file(b"an mp4", "video/mp4"), "b": file(b"WEBVTT", "text/vtt")}
    transcript = listed(vendor, "b", file_type="TRANSCRIPT", file_extension="VTT", recording_type="audio_transcript")

    await zoom.tell(story.files(14, transcript, word="transcript_completed"), story.files(12, listed(vendor)))
    while await worker.step():
        pass

    found = {(r.file_type, r.internal_status) for r in await recordings_of(client, story)}
    assert found == {("MP4", "stored"), ("TRANSCRIPT", "stored")}
    assert (await get(client, story.call)).recording_status == "completed"


async def test_recording_that_is_gone_fails_and_is_told(
    zoom: Zoom, story: Story, vendor: Vendor, worker: RecordingWorker, client: Client, db: Database
) -> None:
    vendor.answers["a"] = status(410)
    await zoom.tell(story.files(12, listed(vendor)))

    await worker.step()

    [recording], [row] = await recordings_of(client, story), await rows(db)
    assert (recording.internal_status, recording.recording_url) == ("failed", "")
    assert recording.error_description == "The recording is not at Zoom any more."
    assert (row["due_at"], row["download_token_encrypted"]) == (None, None)
    assert await recordings_told(db, story) == [[("pending", "completed")], [("failed", "completed")]]


async def test_zoom_that_is_away_is_asked_again(
    zoom: Zoom, story: Story, vendor: Vendor, worker: RecordingWorker, db: Database
) -> None:
    vendor.answers["a"] = status(503)
    await zoom.tell(story.files(12, listed(vendor)))

    assert await worker.step()
    assert not await worker.step()
    [waiting] = await rows(db)
    told = await recordings_told(db, story)
    vendor.answers["a"] = file(b"an mp4", "video/mp4")
    await make_due(db)
    await worker.step()

    assert (waiting["internal_status"], waiting["attempts"]) == ("pending", 1)
    assert timedelta(seconds=5) < waiting["due_at"] - datetime.now(UTC) <= timedelta(seconds=12)
    assert waiting["download_token_encrypted"] is not None
    assert told == [[("pending", "completed")]]
    assert [row["internal_status"] for row in await rows(db)] == ["stored"]


async def test_zoom_that_breaks_off_leaves_no_half(
    zoom: Zoom, story: Story, vendor: Vendor, worker: RecordingWorker, db: Database, folder: Path
) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "video/mp4", "Content-Length": "20000000"})
        await answer.prepare(request)
        await answer.write(b"x" * 10_000_000)
        assert request.transport is not None
        request.transport.abort()
        return answer

    vendor.answers["a"] = broken
    await zoom.tell(story.files(12, listed(vendor)))

    await worker.step()

    [row] = await rows(db)
    assert (row["internal_status"], row["storage_key"], row["attempts"]) == ("pending", None, 1)
    assert row["due_at"] is not None
    assert list((folder / "recordings").iterdir()) == []


async def test_recording_is_given_up_when_its_token_is_good_no_more(
    zoom: Zoom, story: Story, vendor: Vendor, worker: RecordingWorker, client: Client, db: Database
) -> None:
    vendor.answers["a"] = status(500)
    await zoom.tell(story.files(12, listed(vendor)))
    age = "UPDATE video_call_recordings SET due_at = now(), provider_status_at = now() - %(age)s, attempts = 100"
    await db.execute(age, {"age": GIVE_UP_AFTER - timedelta(minutes=1)})
    await worker.step()
    [young] = await recordings_of(client, story)

    await db.execute(age, {"age": GIVE_UP_AFTER + timedelta(seconds=1)})
    await worker.step()
    [old] = await recordings_of(client, story)

    assert young.internal_status == "pending"
    assert (old.internal_status, old.error_description) == (
        "failed",
        "The recording could not be fetched within 24 hours.",
    )


async def test_old_recording_is_fetched_once_workers_are_back(
    zoom: Zoom, story: Story, vendor: Vendor, worker: RecordingWorker, client: Client, db: Database
) -> None:
    vendor.answers["a"] = file(b"an mp4", "video/mp4")
    await zoom.tell(story.files(12, listed(vendor)))
    await db.execute("UPDATE video_call_recordings SET provider_status_at = now() - interval '30 hours'")

    await worker.step()

    assert [r.internal_status for r in await recordings_of(client, story)] == ["stored"]


async def test_storage_that_is_away_is_tried_for_as_long_as_it_takes(
    zoom: Zoom, story: Story, vendor: Vendor, storage: Storage, folder: Path, worker: RecordingWorker, db: Database
) -> None:
    vendor.answers["a"] = file(b"an mp4", "video/mp4")
    await zoom.tell(story.files(12, listed(vendor)))
    await db.execute("UPDATE video_call_recordings SET provider_status_at = now() - interval '30 hours'")
    (folder / "recordings").write_text("a file where the folder should be")

    await worker.step()
    waiting = await rows(db)
    (folder / "recordings").unlink()
    await make_due(db)
    await worker.step()

    assert [(row["internal_status"], row["due_at"] is None) for row in waiting] == [("pending", False)]
    assert [row["internal_status"] for row in await rows(db)] == ["stored"]


async def test_workers_at_once_fetch_each_file_once_and_tell_of_each(
    zoom: Zoom, story: Story, vendor: Vendor, make_worker: MakeWorker, db: Database, client: Client
) -> None:
    names = [f"file-{number}" for number in range(8)]
    await zoom.tell(story.files(12, *(listed(vendor, name) for name in names)))
    vendor.gate.clear()

    async def work(worker: RecordingWorker) -> None:
        while await worker.step():
            pass

    steps = asyncio.gather(*(work(make_worker()) for _ in range(8)))
    await until(lambda: vendor.waiting == 8)
    vendor.gate.set()
    await steps

    assert vendor.fetched == dict.fromkeys(names, 1)
    assert {r.internal_status for r in await recordings_of(client, story)} == {"stored"}
    assert len({row["storage_key"] for row in await rows(db)}) == 8
    stored = [len([s for s, _ in told if s == "stored"]) for told in await recordings_told(db, story)]
    assert stored == list(range(9))


async def test_worker_whose_lease_ran_out_changes_nothing(
    zoom: Zoom, story: Story, vendor: Vendor, make_worker: MakeWorker, db: Database
) -> None:
    await zoom.tell(story.files(12, listed(vendor)))
    vendor.gate.clear()
    late = asyncio.create_task(make_worker().step())
    await until(lambda: vendor.waiting == 1)
    await make_due(db)
    prompt = asyncio.create_task(make_worker().step())
    await until(lambda: vendor.waiting == 2)

    vendor.gate.set()
    await asyncio.gather(late, prompt)

    [row] = await rows(db)
    assert (row["internal_status"], row["attempts"]) == ("stored", 2)
    assert await recordings_told(db, story) == [[("pending", "completed")], [("stored", "completed")]]


async def test_lease_lasts_for_as_long_as_the_file_arrives(
    zoom: Zoom, story: Story, vendor: Vendor, make_worker: MakeWorker, db: Database
) -> None:
    await zoom.tell(story.files(12, listed(vendor)))
    vendor.gate.clear()
    slow = asyncio.create_task(make_worker(lease=LEASE).step())
    await until(lambda: vendor.waiting == 1)
    for _ in range(2):
        await until_renewed(lambda: rows(db))
        assert not await make_worker().step()
    vendor.gate.set()
    await slow

    [row] = await rows(db)
    assert (row["internal_status"], row["attempts"], vendor.fetched["a"]) == ("stored", 1, 1)


class Crashing(FolderStorage):
    """Keeps a file; then the process dies."""

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        await super().put_stream(key, chunks)
        raise asyncio.CancelledError


async def test_crash_between_storing_and_recording_costs_one_more_fetch(
    zoom: Zoom,
    story: Story,
    vendor: Vendor,
    folder: Path,
    signer: UrlSigner,
    make_worker: MakeWorker,
    db: Database,
) -> None:
    await zoom.tell(story.files(12, listed(vendor)))
    crashing = Crashing(folder, signer)
    with pytest.raises(asyncio.CancelledError):
        await make_worker(crashing).step()
    await crashing.aclose()
    assert not await make_worker().step()

    await make_due(db)
    await make_worker().step()

    [row] = await rows(db)
    kept = [f"recordings/{path.name}" for path in (folder / "recordings").iterdir()]
    assert row["storage_key"] in kept
    assert (len(kept), vendor.fetched["a"]) == (2, 2)
    assert await recordings_told(db, story) == [[("pending", "completed")], [("stored", "completed")]]


@pytest.mark.parametrize("moment", [ASKING, STORED, RECORDING])
async def test_worker_may_be_cancelled_at_any_moment(
    zoom: Zoom,
    story: Story,
    vendor: Vendor,
    folder: Path,
    signer: UrlSigner,
    make_worker: MakeWorker,
    db: Database,
    moment: str,
) -> None:
    await zoom.tell(story.files(12, listed(vendor)))
    storage = CutOffStorage(folder, signer, moment)
    step = make_worker(storage).step()
    asked, stored = lambda: vendor.waiting == 1, storage.stored
    await cut_off(moment, step, db=db, table="video_call_recordings", asked=asked, gate=vendor.gate, stored=stored)
    await storage.aclose()

    await make_due(db)
    await make_worker().step()

    assert [row["internal_status"] for row in await rows(db)] == ["stored"]
    assert await recordings_told(db, story) == [[("pending", "completed")], [("stored", "completed")]]


async def test_what_became_of_zooms_copies_is_shown_and_ours_stay(
    zoom: Zoom, story: Story, vendor: Vendor, worker: RecordingWorker, client: Client, db: Database
) -> None:
    await zoom.tell(story.files(12, listed(vendor, "a"), listed(vendor, "b")))
    while await worker.step():
        pass

    await zoom.tell(story.recording("trashed", 100))
    trashed = [r.provider_status for r in await recordings_of(client, story)]
    await zoom.tell(story.recording("deleted", 300), story.recording("recovered", 200))
    deleted = await recordings_of(client, story)

    assert trashed == ["trashed", "trashed"]
    assert [(r.provider_status, r.internal_status, bool(r.recording_url)) for r in deleted] == [
        ("deleted", "stored", True),
        ("deleted", "stored", True),
    ]
    assert len(await recordings_told(db, story)) == 5
    assert (await get(client, story.call)).recording_status == "completed"


async def test_word_that_comes_before_the_files_is_said_of_them(
    zoom: Zoom, story: Story, vendor: Vendor, client: Client
) -> None:
    await zoom.tell(story.recording("trashed", 100), story.files(12, listed(vendor)))

    assert [r.provider_status for r in await recordings_of(client, story)] == ["trashed"]


async def test_word_is_said_of_its_session_alone(zoom: Zoom, story: Story, vendor: Vendor, client: Client) -> None:
    again = Story(story.call, start=20)
    await zoom.tell(story.files(12, listed(vendor, "a")), again.files(32, listed(vendor, "b")))

    await zoom.tell(again.recording("trashed", 100))

    found = {r.provider_id: r.provider_status for r in await recordings_of(client, story)}
    assert found == {"a": "completed", "b": "trashed"}


async def test_file_that_failed_is_fetched_when_it_is_told_of_anew(
    zoom: Zoom, story: Story, vendor: Vendor, worker: RecordingWorker, client: Client, db: Database
) -> None:
    vendor.answers = {"old": status(410), "new": file(b"an mp4", "video/mp4")}
    first = zooms.file("a", download_url=vendor.urls("old")[0])
    await zoom.tell(story.files(12, first))
    await worker.step()

    await zoom.tell(story.files(11, first), story.files(30, zooms.file("a", download_url=vendor.urls("new")[0])))
    [again] = await recordings_of(client, story)
    await worker.step()
    [stored] = await recordings_of(client, story)
    await zoom.tell(story.files(40, first))

    assert (again.internal_status, again.error_description) == ("pending", "")
    assert stored.internal_status == "stored"
    assert not await worker.step()
    assert vendor.fetched == {"old": 1, "new": 1}
    assert [s for [(s, _)] in await recordings_told(db, story)] == ["pending", "failed", "pending", "stored"]


async def test_file_that_is_nowhere_fails_until_it_is_somewhere(
    zoom: Zoom, story: Story, vendor: Vendor, worker: RecordingWorker, client: Client
) -> None:
    await zoom.tell(story.files(12, zooms.file("a", download_url=None)))
    [nowhere] = await recordings_of(client, story)
    assert not await worker.step()

    await zoom.tell(story.files(12, listed(vendor, "a"), word="transcript_completed"))
    await worker.step()

    assert (nowhere.internal_status, nowhere.error_description) == ("failed", "Zoom does not say where the file is.")
    assert [r.internal_status for r in await recordings_of(client, story)] == ["stored"]


async def test_workers_are_woken(zoom: Zoom, story: Story, vendor: Vendor, db: Database, settings: Settings) -> None:
    notifications = Notifications(settings.database_url.get_secret_value(), db)
    heard: asyncio.Event = asyncio.Event()
    connected: asyncio.Event = asyncio.Event()
    notifications.listen(Channel.RECORDINGS, heard.set)
    notifications.on_connect(connected.set)
    listening = asyncio.create_task(notifications.run())
    await connected.wait()

    await zoom.tell(story.files(12, listed(vendor)))

    async with asyncio.timeout(30):
        await heard.wait()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


def is_good_for_a_day(signer: UrlSigner, key: str, url: str) -> bool:
    """Whether it is a URL of the file that was signed just now."""
    until_then = datetime.now(UTC) + timedelta(hours=24)
    return any(url == signer.url(key, until=until_then - timedelta(seconds=ago)) for ago in range(30))
