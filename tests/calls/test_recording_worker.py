"""Recordings of calls: fetched from a real server as the account, streamed to a real folder, told once."""

import asyncio
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from server.calls.parts import CallParts
from server.calls.recordings.reports import LOOK_AFTER, receive_voicemail, update_recording
from server.calls.recordings.worker import RecordingWorker
from server.calls.tables import CallRow
from server.config import Settings
from server.db import Database
from server.leases import GIVE_UP_AFTER, LEAST_ATTEMPTS
from server.notifications import Channel, Notifications
from server.providers.twilio.account import TwilioAccount
from server.providers.twilio.recordings import TwilioCallRecordingFetcher
from server.storage import FolderStorage, Storage, UrlSigner, open_storage
from tests.calls.recorded import (
    audio,
    events_of,
    make_conference,
    make_direct_call,
    make_due,
    make_return_call,
    recordings,
    report,
    shown,
    sid,
    told,
    transcripts,
    wav,
)
from tests.clients import Client
from tests.cut_off import ASKING, RECORDING, STORED, CutOffStorage, cut_off
from tests.files.support import signer_of
from tests.leases import LEASE, until_renewed
from tests.messages.media import Answer, Vendor, content, running_vendor, status
from tests.messages.support import until

# Makes a worker, which stores where it is told.
MakeWorker = Callable[..., RecordingWorker]

any_order = hypothesis.settings(
    max_examples=30, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)

ACCOUNT = "AC" + "1" * 32
PASSWORD = "the-auth-token"
PATIENCE = timedelta(seconds=30)


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    """Whoever has the recordings; each is a WAV where nothing else is said."""
    async with running_vendor() as running:
        for name in ("a", "b", "c"):
            running.answers[name] = audio(wav())
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
) -> AsyncIterator[MakeWorker]:
    """Makes workers that are stepped."""
    account = TwilioAccount(sid=ACCOUNT, auth_token=PASSWORD, api_base_url=vendor.base_url)
    fetchers: list[TwilioCallRecordingFetcher] = []

    def make(kept: Storage = storage, *, patience: timedelta = PATIENCE, **over: Any) -> RecordingWorker:
        fetcher = TwilioCallRecordingFetcher(account, patience=patience)
        fetchers.append(fetcher)
        given = {"delete_provider_copies": False, **over}
        return RecordingWorker(db, notifications, fetcher, kept, **given)

    yield make
    for fetcher in fetchers:
        await fetcher.aclose()


@pytest.fixture
async def worker(make_worker: MakeWorker) -> RecordingWorker:
    """A worker that is stepped."""
    return make_worker()


@pytest.fixture
async def call(db: Database, client: Client) -> CallRow:
    """A browser's call that was answered and is over."""
    return await make_direct_call(db, client)


async def tell(parts: CallParts, call: CallRow, vendor: Vendor, name: str = "a", **over: Any) -> None:
    """The provider tells that the recording of this name is there."""
    url = vendor.urls(name)[0]
    await update_recording(parts, report(call, **{"recording_sid": sid("RE"), "url": url, **over}))


async def test_recording_is_stored_told_and_to_be_transcribed(
    parts: CallParts,
    call: CallRow,
    vendor: Vendor,
    worker: RecordingWorker,
    db: Database,
    storage: Storage,
    signer: UrlSigner,
) -> None:
    authorizations: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        authorizations.append(request.headers.get("Authorization"))
        return web.Response(body=BytesIO(wav(3)), headers={"Content-Type": "audio/x-wav"})

    vendor.answers["a"] = answer
    await tell(parts, call, vendor, duration=3)
    before = await shown(db, storage, call)

    assert await worker.step()
    assert not await worker.step()

    found, [row], [transcript] = await shown(db, storage, call), await recordings(db), await transcripts(db)
    assert authorizations == [aiohttp.encode_basic_auth(ACCOUNT, PASSWORD)]
    assert (before.internal_status, before.HasField("recording_url")) == ("finished", False)
    assert (found.internal_status, found.recording_duration) == ("recorded", 3)
    assert is_good_for_a_day(signer, row["storage_key"], found.recording_url)
    assert await content(storage, row["storage_key"]) == wav(3)
    assert row["storage_key"].startswith("recordings/")
    assert row["storage_key"].endswith(".wav")
    assert (row["internal_status"], row["due_at"], row["error_description"]) == ("stored", None, None)
    assert (transcript["recording_id"], transcript["internal_status"]) == (row["id"], "pending")
    assert transcript["due_at"] <= datetime.now(UTC)
    assert await told(db, call) == ["finished", "recorded"]
    last = (await events_of(db, call.uuid))[-1].call
    assert is_good_for_a_day(signer, row["storage_key"], last.recording_url)


@pytest.mark.parametrize("make", [make_return_call, make_conference])
async def test_recording_of_any_call_is_stored(
    parts: CallParts,
    client: Client,
    vendor: Vendor,
    worker: RecordingWorker,
    db: Database,
    storage: Storage,
    make: Callable[..., Any],
) -> None:
    call = await make(db, client)
    if make is make_return_call:
        await receive_voicemail(parts, report(call, url=vendor.urls("a")[0]))
    else:
        await tell(parts, call, vendor)

    await worker.step()

    found = await shown(db, storage, call)
    assert found.recording_url
    if make is make_return_call:
        assert (found.internal_status, found.voicemail.internal_status) == ("recorded", "recorded")
        assert found.voicemail.recording_url
        last = (await events_of(db, call.uuid))[-1]
        assert (last.call.voicemail.internal_status, bool(last.call.voicemail.recording_url)) == ("recorded", True)
    else:
        assert found.internal_status == "inviting"
        assert found.conference_call.recording_url == found.recording_url


async def test_length_and_channels_are_the_files_where_nobody_said_them(
    parts: CallParts, call: CallRow, vendor: Vendor, worker: RecordingWorker, db: Database
) -> None:
    vendor.answers["a"] = audio(wav(4.4, channels=2))
    await tell(parts, call, vendor, duration=None, channels=None)
    await tell(parts, call, vendor, "b", duration=0, channels=1)

    while await worker.step():
        pass

    assert [(row["duration"], row["channels"]) for row in await recordings(db)] == [(4, 2), (0, 1)]


async def test_recording_is_never_in_memory_as_a_whole(
    parts: CallParts, call: CallRow, vendor: Vendor, worker: RecordingWorker, db: Database, folder: Path
) -> None:
    header, piece, pieces = wav(0)[:40], bytes(1_000_000), 60

    async def answer(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "audio/x-wav"})
        await answer.prepare(request)
        await answer.write(header + struct.pack("<I", len(piece) * pieces))
        for _ in range(pieces):
            await answer.write(piece)
        return answer

    vendor.answers["a"] = answer
    await tell(parts, call, vendor)
    before = _reset_peak_memory()

    await worker.step()

    [row] = await recordings(db)
    assert (folder / row["storage_key"]).stat().st_size == 60_000_044
    assert _peak_memory() - before < 55_000_000


@pytest.mark.parametrize(
    ("answer", "description"),
    [
        (status(410), "The recording is not at Twilio any more."),
        (audio(b"ID3 an mp3", content_type="audio/mpeg"), "The recording is audio/mpeg, not a WAV file."),
        (audio(b"ID3 an mp3 all the same"), "The recording is no WAV file."),
        (audio(wav(60)), "The recording is larger than 100000 bytes."),
    ],
)
async def test_recording_that_will_never_do_fails_and_is_told(
    parts: CallParts,
    call: CallRow,
    vendor: Vendor,
    make_worker: MakeWorker,
    db: Database,
    storage: Storage,
    folder: Path,
    answer: Answer,
    description: str,
) -> None:
    vendor.answers["a"] = answer
    await tell(parts, call, vendor)

    assert await make_worker(max_bytes=100_000).step()

    [row] = await recordings(db)
    found = await shown(db, storage, call)
    assert (row["internal_status"], row["storage_key"], row["due_at"]) == ("failed", None, None)
    assert (found.internal_status, found.error_code, found.error_description) == (
        "finished",
        "RECORDING_FAILED",
        description,
    )
    assert [event.call.error_code for event in await events_of(db, call.uuid)] == ["", "RECORDING_FAILED"]
    assert await transcripts(db) == []
    assert files(folder) == []


async def test_url_elsewhere_than_at_the_provider_is_not_asked(
    parts: CallParts, call: CallRow, vendor: Vendor, worker: RecordingWorker, db: Database
) -> None:
    async with running_vendor() as elsewhere:
        await tell(parts, call, elsewhere)
        await worker.step()

        assert elsewhere.fetched == {}
    [row] = await recordings(db)
    assert (row["internal_status"], row["error_description"]) == ("failed", "The recording is not at Twilio.")


def retry_after(seconds: int) -> Answer:
    """Too many requests."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": str(seconds)})

    return answer


async def broken_off(request: web.Request) -> web.StreamResponse:
    """Half of a large file."""
    answer = web.StreamResponse(headers={"Content-Type": "audio/x-wav", "Content-Length": "20000000"})
    await answer.prepare(request)
    await answer.write(wav(500))
    assert request.transport is not None
    request.transport.abort()
    return answer


async def paused(request: web.Request) -> web.StreamResponse:
    """A file that stops arriving."""
    answer = web.StreamResponse(headers={"Content-Type": "audio/x-wav", "Content-Length": "20000000"})
    await answer.prepare(request)
    await answer.write(wav(10))
    await asyncio.Event().wait()
    return answer


@pytest.mark.parametrize(
    ("answer", "patience", "least"),
    [
        (status(404), PATIENCE, 10),
        (status(500), PATIENCE, 10),
        (status(503), PATIENCE, 10),
        (status(401), PATIENCE, 10),
        (retry_after(120), PATIENCE, 120),
        (retry_after(1_000_000), PATIENCE, 3600),
        (audio(b"<html>", content_type="text/html"), PATIENCE, 10),
        (audio(wav(2)[:-1]), PATIENCE, 10),
        (audio(b""), PATIENCE, 10),
        (broken_off, PATIENCE, 10),
        (paused, timedelta(seconds=1), 10),
    ],
)
async def test_provider_that_cannot_give_it_now_is_asked_again(
    parts: CallParts,
    call: CallRow,
    vendor: Vendor,
    make_worker: MakeWorker,
    db: Database,
    folder: Path,
    answer: Answer,
    patience: timedelta,
    least: int,
) -> None:
    vendor.answers["a"] = answer
    await tell(parts, call, vendor)
    worker = make_worker(patience=patience)

    assert await worker.step()
    assert not await worker.step()
    [waiting] = await recordings(db)
    wait = waiting["due_at"] - datetime.now(UTC)
    left, told_before = files(folder), await told(db, call)
    vendor.answers["a"] = audio(wav())
    await make_due(db)
    await make_worker().step()

    assert (waiting["internal_status"], waiting["attempts"], waiting["storage_key"]) == ("pending", 1, None)
    assert timedelta(seconds=least - 5) < wait <= timedelta(seconds=least * 1.2)
    assert left == []
    assert told_before == ["finished"]
    assert [row["internal_status"] for row in await recordings(db)] == ["stored"]


async def test_recording_is_given_up_after_a_day_of_tries(
    parts: CallParts, call: CallRow, vendor: Vendor, worker: RecordingWorker, db: Database, storage: Storage
) -> None:
    vendor.answers["a"] = status(500)
    await tell(parts, call, vendor)
    age = "UPDATE call_recordings SET due_at = now(), created_at = now() - %(age)s, attempts = %(attempts)s"
    found = []
    for hours, attempts in ((23, 1000), (30, LEAST_ATTEMPTS - 2), (25, LEAST_ATTEMPTS)):
        await db.execute(age, {"age": timedelta(hours=hours), "attempts": attempts})
        await worker.step()
        found += [(row["internal_status"], row["due_at"] is None) for row in await recordings(db)]

    assert timedelta(hours=24) == GIVE_UP_AFTER
    assert found == [("pending", False), ("pending", False), ("failed", True)]
    description = (await shown(db, storage, call)).error_description
    assert description == "The recording could not be fetched within 24 hours."


async def test_old_recording_is_fetched_once_workers_are_back(
    parts: CallParts, call: CallRow, vendor: Vendor, worker: RecordingWorker, db: Database
) -> None:
    await tell(parts, call, vendor)
    await db.execute("UPDATE call_recordings SET created_at = now() - interval '30 days'")

    await worker.step()

    assert [row["internal_status"] for row in await recordings(db)] == ["stored"]


async def test_storage_that_is_away_is_tried_for_as_long_as_it_takes(
    parts: CallParts, call: CallRow, vendor: Vendor, folder: Path, worker: RecordingWorker, db: Database
) -> None:
    await tell(parts, call, vendor)
    await db.execute("UPDATE call_recordings SET created_at = now() - interval '30 days', attempts = 1000")
    (folder / "recordings").write_text("a file where the folder should be")

    await worker.step()
    waiting = await recordings(db)
    (folder / "recordings").unlink()
    await make_due(db)
    await worker.step()

    assert [(row["internal_status"], row["due_at"] is None) for row in waiting] == [("pending", False)]
    assert [row["internal_status"] for row in await recordings(db)] == ["stored"]


async def test_workers_at_once_store_each_recording_once_and_tell_of_each(
    parts: CallParts, call: CallRow, vendor: Vendor, make_worker: MakeWorker, db: Database, folder: Path
) -> None:
    names = [f"file-{number}" for number in range(8)]
    for name in names:
        vendor.answers[name] = audio(wav(0.1))
        await tell(parts, call, vendor, name)
    vendor.gate.clear()

    async def work(worker: RecordingWorker) -> None:
        while await worker.step():
            pass

    steps = asyncio.gather(*(work(make_worker()) for _ in range(8)))
    await until(lambda: vendor.waiting == 8)
    vendor.gate.set()
    await steps

    rows = await recordings(db)
    assert vendor.fetched == dict.fromkeys(names, 1)
    assert {row["internal_status"] for row in rows} == {"stored"}
    assert {row["storage_key"] for row in rows} == set(files(folder))
    assert len(rows) == len(await transcripts(db)) == 8
    urls = [event.call.recording_url for event in await events_of(db, call.uuid)]
    assert urls[0] == ""
    assert all(urls[1:])


async def test_worker_whose_lease_ran_out_changes_nothing(
    parts: CallParts, call: CallRow, vendor: Vendor, make_worker: MakeWorker, db: Database
) -> None:
    await tell(parts, call, vendor)
    vendor.gate.clear()
    late = asyncio.create_task(make_worker().step())
    await until(lambda: vendor.waiting == 1)
    await make_due(db)
    prompt = asyncio.create_task(make_worker().step())
    await until(lambda: vendor.waiting == 2)

    vendor.gate.set()
    await asyncio.gather(late, prompt)

    [row], [_transcript] = await recordings(db), await transcripts(db)
    assert (row["internal_status"], row["attempts"]) == ("stored", 2)
    assert await told(db, call) == ["finished", "recorded"]


@pytest.mark.parametrize("late_answer", [status(410), status(503), audio(wav(9)), audio(wav(2)[:-1]), audio(b"no WAV")])
async def test_worker_whose_lease_ran_out_changes_nothing_of_who_has_it_now(
    parts: CallParts, call: CallRow, vendor: Vendor, make_worker: MakeWorker, db: Database, late_answer: Answer
) -> None:
    came, late_may_go, prompt_may_go = 0, asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal came
        came += 1
        if came == 1:
            await late_may_go.wait()
            return await late_answer(request)
        await prompt_may_go.wait()
        return await audio(wav(2))(request)

    vendor.answers["a"] = answer
    await tell(parts, call, vendor, duration=None)
    late = asyncio.create_task(make_worker().step())
    await until(lambda: came == 1)
    await make_due(db)
    prompt = asyncio.create_task(make_worker().step())
    await until(lambda: came == 2)
    claimed = await recordings(db)

    late_may_go.set()
    await late
    meanwhile = await recordings(db)
    prompt_may_go.set()
    await prompt

    assert meanwhile == claimed
    assert [(row["internal_status"], row["duration"]) for row in await recordings(db)] == [("stored", 2)]
    assert await told(db, call) == ["recorded"]


async def test_lease_lasts_for_as_long_as_the_file_arrives(
    parts: CallParts, call: CallRow, vendor: Vendor, make_worker: MakeWorker, db: Database
) -> None:
    all_may_come = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        data = wav(3)
        answer = web.StreamResponse(headers={"Content-Type": "audio/x-wav"})
        await answer.prepare(request)
        await answer.write(data[:5000])
        await all_may_come.wait()
        await answer.write(data[5000:])
        return answer

    vendor.answers["a"] = slow
    await tell(parts, call, vendor)
    storing = asyncio.create_task(make_worker(lease=LEASE).step())
    await until(lambda: vendor.fetched["a"] == 1)
    for _ in range(2):
        await until_renewed(lambda: recordings(db))
        assert not await make_worker().step()
    all_may_come.set()
    await storing

    [row] = await recordings(db)
    assert (row["internal_status"], row["attempts"], vendor.fetched["a"]) == ("stored", 1, 1)


_WORKER_THAT_DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from server.calls.recordings.worker import RecordingWorker
from server.db import Database
from server.notifications import Notifications
from server.providers.twilio.account import TwilioAccount
from server.providers.twilio.recordings import TwilioCallRecordingFetcher
from server.storage import FolderStorage, UrlSigner

class Dying(FolderStorage):
    async def put_stream(self, key, chunks):
        await super().put_stream(key, chunks)
        os.kill(os.getpid(), signal.SIGKILL)

async def main(url, base_url, folder):
    db = Database(url, max_size=2)
    await db.open()
    account = TwilioAccount(sid="AC1", auth_token="a", api_base_url=base_url)
    storage = Dying(Path(folder), UrlSigner(base_url, ["a" * 44]))
    worker = RecordingWorker(
        db, Notifications(url, db), TwilioCallRecordingFetcher(account), storage, delete_provider_copies=True
    )
    await worker.step()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_process_killed_between_storing_and_recording_costs_one_more_fetch(
    parts: CallParts,
    call: CallRow,
    vendor: Vendor,
    folder: Path,
    make_worker: MakeWorker,
    db: Database,
    database_url: str,
) -> None:
    await tell(parts, call, vendor)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _WORKER_THAT_DIES, database_url, vendor.base_url, str(folder)),
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
    )
    assert await asyncio.wait_for(process.wait(), 30) == -9
    [claimed], left = await recordings(db), files(folder)
    assert not await make_worker().step()

    await make_due(db)
    await make_worker().step()

    [row], [_transcript] = await recordings(db), await transcripts(db)
    # Nothing was to be deleted at the provider.
    assert (claimed["internal_status"], claimed["storage_key"], claimed["delete_at"]) == ("pending", None, None)
    assert len(left) == 1
    assert row["storage_key"] in set(files(folder)) - set(left)
    assert (len(files(folder)), vendor.fetched["a"]) == (2, 2)
    assert await told(db, call) == ["finished", "recorded"]


@pytest.mark.parametrize("moment", [ASKING, STORED, RECORDING])
async def test_worker_may_be_cancelled_at_any_moment(
    parts: CallParts,
    call: CallRow,
    vendor: Vendor,
    folder: Path,
    signer: UrlSigner,
    make_worker: MakeWorker,
    db: Database,
    moment: str,
) -> None:
    await tell(parts, call, vendor)
    storage = CutOffStorage(folder, signer, moment)
    step = make_worker(storage).step()
    asked, stored = lambda: vendor.waiting == 1, storage.stored
    await cut_off(moment, step, db=db, table="call_recordings", asked=asked, gate=vendor.gate, stored=stored)
    await storage.aclose()

    await make_due(db)
    await make_worker().step()

    assert [row["internal_status"] for row in await recordings(db)] == ["stored"]
    assert len(await transcripts(db)) == 1
    assert await told(db, call) == ["finished", "recorded"]


async def test_recording_whose_end_nobody_heard_of_is_fetched_once_it_must_have_ended(
    parts: CallParts, call: CallRow, vendor: Vendor, worker: RecordingWorker, db: Database
) -> None:
    await tell(parts, call, vendor, "a", provider_status="in-progress", duration=None)
    await tell(parts, call, vendor, "b", provider_status="in-progress", duration=2)
    waits = [row["due_at"] - datetime.now(UTC) for row in await recordings(db)]
    assert not await worker.step()
    vendor.answers["a"] = status(404)

    await make_due(db)
    while await worker.step():
        pass

    assert [wait > limit for wait, limit in zip(waits, (parts.time_limit, timedelta(minutes=4)), strict=True)]
    assert waits[1] <= LOOK_AFTER
    found = [(row["internal_status"], row["provider_status"], row["duration"]) for row in await recordings(db)]
    assert found == [("pending", "in-progress", None), ("stored", "completed", 2)]
    assert (await told(db, call))[-1] == "recorded"


async def test_what_is_told_after_it_was_looked_for_changes_nothing(
    parts: CallParts, call: CallRow, vendor: Vendor, worker: RecordingWorker, db: Database
) -> None:
    recording_sid = sid("RE")
    await tell(parts, call, vendor, provider_status="in-progress", recording_sid=recording_sid)
    await make_due(db)
    await worker.step()
    before = await recordings(db)

    for late in ("completed", "absent", "in-progress"):
        await tell(parts, call, vendor, provider_status=late, recording_sid=recording_sid)

    assert await recordings(db) == before
    assert not await worker.step()


async def test_end_that_is_told_late_has_it_fetched_at_once(
    parts: CallParts, call: CallRow, vendor: Vendor, worker: RecordingWorker, db: Database
) -> None:
    recording_sid = sid("RE")
    vendor.answers["a"] = status(404)
    await tell(parts, call, vendor, provider_status="in-progress", recording_sid=recording_sid)
    await make_due(db)
    await worker.step()
    vendor.answers["a"] = audio(wav())

    await tell(parts, call, vendor, recording_sid=recording_sid)

    assert await worker.step()
    assert [row["internal_status"] for row in await recordings(db)] == ["stored"]


@any_order
@given(order=st.permutations(["in-progress", "completed", "completed", "failed", "worker", "worker"]))
async def test_whatever_the_order_of_reports_and_workers_the_recording_is_stored_once(
    parts: CallParts,
    client: Client,
    vendor: Vendor,
    make_worker: MakeWorker,
    db: Database,
    order: list[str],
) -> None:
    call, recording_sid = await make_return_call(db, client), sid("RE")
    for step in order:
        if step == "worker":
            await make_worker().step()
        else:
            told_of = report(call, step, recording_sid=recording_sid, url=vendor.urls("a")[0])
            await receive_voicemail(parts, told_of)
    while await make_worker().step():
        pass

    [row] = [each for each in await recordings(db) if each["call_id"] == call.id]
    assert (row["internal_status"], row["provider_status"], row["due_at"]) == ("stored", "completed", None)
    events = await events_of(db, call.uuid)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.call.internal_status for event in events].count("recorded") == 1
    assert events[-1].call.voicemail.internal_status == "recorded"


class Refusing(FolderStorage):
    """Keeps a file, of which the URL cannot be signed."""

    async def url(self, key: str, *, expires_in: timedelta) -> str:
        raise AssertionError("an unexpected fault")


async def test_unexpected_fault_leaves_the_lease_to_run_out(
    parts: CallParts,
    call: CallRow,
    vendor: Vendor,
    folder: Path,
    signer: UrlSigner,
    make_worker: MakeWorker,
    db: Database,
) -> None:
    await tell(parts, call, vendor)
    refusing = Refusing(folder, signer)

    assert await make_worker(refusing).step()
    await refusing.aclose()
    [row] = await recordings(db)
    assert not await make_worker().step()
    await make_due(db)
    await make_worker().step()

    assert (row["internal_status"], row["attempts"]) == ("pending", 1)
    assert [each["internal_status"] for each in await recordings(db)] == ["stored"]


async def test_recording_that_comes_after_the_first_takes_its_place(
    parts: CallParts, call: CallRow, vendor: Vendor, worker: RecordingWorker, db: Database, storage: Storage
) -> None:
    await tell(parts, call, vendor, "a", duration=1)
    await worker.step()
    first = await shown(db, storage, call)

    await tell(parts, call, vendor, "b", duration=9)
    pending = await shown(db, storage, call)
    await worker.step()
    second = await shown(db, storage, call)

    assert (first.recording_duration, pending.recording_duration, second.recording_duration) == (1, 1, 9)
    assert pending.recording_url
    assert second.recording_url.partition("?")[0] != first.recording_url.partition("?")[0]


@pytest.mark.parametrize("delete", [True, False])
async def test_providers_copy_is_to_be_deleted_only_where_that_is_wanted(
    parts: CallParts, call: CallRow, vendor: Vendor, make_worker: MakeWorker, db: Database, delete: bool
) -> None:
    vendor.answers["b"] = status(410)
    await tell(parts, call, vendor, "a")
    await tell(parts, call, vendor, "b")

    worker = make_worker(delete_provider_copies=delete)
    while await worker.step():
        pass

    assert [row["delete_at"] is not None for row in await recordings(db)] == [delete, False]


async def test_transcribers_are_woken(
    parts: CallParts, call: CallRow, vendor: Vendor, make_worker: MakeWorker, db: Database, settings: Settings
) -> None:
    await tell(parts, call, vendor)
    notifications = Notifications(settings.database_url.get_secret_value(), db)
    heard, connected = asyncio.Event(), asyncio.Event()
    notifications.listen(Channel.TRANSCRIPTS, heard.set)
    notifications.on_connect(connected.set)
    running = [asyncio.create_task(each.run()) for each in (notifications, parts.notifications)]
    async with asyncio.timeout(30):
        await connected.wait()

        await make_worker().step()

        await heard.wait()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def files(folder: Path) -> list[str]:
    """The keys of what is stored, and whatever else is left there."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def is_good_for_a_day(signer: UrlSigner, key: str, url: str) -> bool:
    """Whether it is a URL of the file that was signed just now."""
    until_then = datetime.now(UTC) + timedelta(hours=24)
    return any(url == signer.url(key, until=until_then - timedelta(seconds=ago)) for ago in range(30))


def _reset_peak_memory() -> int:
    """Forget how much memory this process ever had, and answer what it has, in bytes."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _peak_memory()


def _peak_memory() -> int:
    """The most memory that this process had since then, in bytes."""
    with open("/proc/self/status") as file:
        [line] = [line for line in file if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
