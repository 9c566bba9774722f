"""What nobody foresaw while a recording is stored: tried again, and given up after a day of tries."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from psycopg.rows import scalar_row

from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from server.leases import LEAST_ATTEMPTS
from server.notifications import Notifications
from server.video.recordings import RecordingWorker
from tests.clients import Client
from tests.faults import FaultyStorage
from tests.files.support import signer_of
from tests.video import zoom as zooms
from tests.video.support import create, get
from tests.video.zoom import Story, Zoom


class OneFile:
    """Has the same recording under every URL."""

    @asynccontextmanager
    async def open(self, url: str, *, download_token: str | None) -> AsyncIterator[AsyncIterator[bytes]]:
        """The recording."""

        async def chunks() -> AsyncIterator[bytes]:
            yield b"an mp4"

        yield chunks()

    async def aclose(self) -> None:
        """Nothing is open."""


async def test_recording_that_nobody_knows_how_to_store_fails_after_a_day_of_tries(
    zoom: Zoom,
    client: Client,
    db: Database,
    notifications: Notifications,
    cipher: Cipher,
    settings: Settings,
    tmp_path: Path,
) -> None:
    story = Story(await create(client))
    await zoom.tell(story.started(), story.recording("started", 1), story.ended(10))
    await zoom.tell(story.files(12, zooms.file("a", download_url="https://zoom.example/a")))
    faulty = FaultyStorage(tmp_path, signer_of(settings))
    worker = RecordingWorker(db, notifications, OneFile(), faulty, cipher)
    age = """UPDATE video_call_recordings
        SET due_at = now(), provider_status_at = now() - %(age)s, attempts = %(attempts)s"""
    found = []
    for hours, attempts in ((23, 1000), (30, LEAST_ATTEMPTS - 2), (25, LEAST_ATTEMPTS)):
        await db.execute(age, {"age": timedelta(hours=hours), "attempts": attempts})
        assert await worker.step()
        found += await db.fetch_all("SELECT internal_status FROM video_call_recordings", {}, scalar_row)

    assert found == ["pending", "pending", "failed"]
    [shows] = (await get(client, story.call)).video_call_recordings
    assert (shows.internal_status, shows.error_description) == (
        "failed",
        "The recording could not be fetched within 24 hours.",
    )
