"""The loops of a worker: a recording that is told of is stored, transcribed and deleted at the provider by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.calls.parts import CallParts
from server.calls.recordings.reports import update_recording
from server.calls.work import recording_work
from server.config import Settings
from server.db import Database
from server.notifications import Notifications
from tests.calls.recorded import make_direct_call, recordings, report, sid, told, transcripts, wav
from tests.calls.transcribing import OneFile, Service
from tests.clients import Client
from tests.messages.support import until


class Deletions:
    """Deletes recordings; nothing else is asked of it."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    async def delete_recording(self, recording_sid: str) -> None:
        """Take note."""
        self.deleted.append(recording_sid)


@asynccontextmanager
async def working(
    parts: CallParts, settings: Settings, service: Service, deletions: Any, *, delete: bool
) -> AsyncIterator[None]:
    """A worker process's loops of recordings, while the block lasts."""
    notifications = Notifications(settings.database_url.get_secret_value(), parts.db)
    connected = asyncio.Event()
    loops = recording_work(
        parts.db,
        notifications,
        parts.storage,
        voice=deletions,
        fetcher=OneFile(wav()),
        transcriber=service,
        public_base_url="https://school.example",
        time_limit=parts.time_limit,
        delete_provider_recordings=delete,
    )
    notifications.on_connect(connected.set)
    running = [asyncio.create_task(loop()) for loop in (*loops, notifications.run, parts.notifications.run)]
    try:
        async with asyncio.timeout(30):
            await connected.wait()
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@pytest.mark.parametrize("delete", [True, False])
async def test_recording_is_seen_through_as_soon_as_it_is_told_of(
    parts: CallParts, db: Database, client: Client, settings: Settings, delete: bool
) -> None:
    calls = [await make_direct_call(db, client) for _ in range(6)]
    service, deletions = Service(), Deletions()

    async def is_done() -> bool:
        rows = await transcripts(db)
        return len(rows) == 6 and all(row["internal_status"] == "ready" for row in rows)

    async with working(parts, settings, service, deletions, delete=delete):
        for call in calls:
            await update_recording(parts, report(call, recording_sid=sid("RE")))
        # Sooner than anybody looks who was not woken.
        await until(is_done, seconds=8)

    for call in calls:
        assert await told(db, call) == ["finished", "recorded", "transcripted"]
    assert {url for _audio, _type, _uuid, url in service.heard} == {
        "https://school.example/api/v1/transcription_requests/webhook"
    }
    assert [row["delete_at"] is not None for row in await recordings(db)] == [delete] * 6


async def test_copies_are_deleted_by_whoever_comes_up_next(
    parts: CallParts, db: Database, client: Client, settings: Settings
) -> None:
    sids = [sid("RE") for _ in range(3)]
    for each in sids:
        await update_recording(parts, report(await make_direct_call(db, client), recording_sid=each))
    service, deletions = Service(), Deletions()
    async with working(parts, settings, service, deletions, delete=True):
        await until(lambda: len(service.heard) == 3)

    async with working(parts, settings, service, deletions, delete=True):
        await until(lambda: len(deletions.deleted) == 3)

    assert sorted(deletions.deleted) == sids
