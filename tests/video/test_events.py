"""One event for each change that is to be seen, whatever changes at once."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from server.config import Settings
from server.db import Database
from server.errors import Unavailable
from server.notifications import Notifications
from server.storage import FolderStorage, Storage, UrlSigner, open_storage
from server.video.events import change_call
from server.video.tables import VideoCallRecordingRow, VideoCallRow
from tests.clients import Client
from tests.files.support import signer_of
from tests.video.support import add_recording, create, events_of, get, row_of

BEGAN = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    """The API's storage."""
    storage = open_storage(settings.storage_url, signer_of(settings))
    yield storage
    await storage.aclose()


async def begin(_tx: AsyncSession, call: VideoCallRow) -> None:
    call.internal_status = "in_progress"
    call.start_time = BEGAN


async def test_change_is_told_once_as_it_is_shown(
    client: Client, db: Database, notifications: Notifications, storage: Storage
) -> None:
    call = await create(client)
    await add_recording(db, call, provider_id="a", storage_key="recordings/aaa.mp4", internal_status="stored")
    row = await row_of(db, call)

    told = [await change_call(db, notifications, storage, video_call_id=row.id, change=begin) for _ in range(3)]
    [_created, event] = await events_of(db, call)
    got = await get(client, call)

    assert told == [True, False, False]
    assert (event.sequence, event.type) == (2, "video_calls.video_call.status_update")
    assert event.occurred_at == event.video_call.updated_at == got.updated_at
    assert got.updated_at.ToDatetime(tzinfo=UTC) > row.updated_at
    assert event.video_call.start_time.ToDatetime(tzinfo=UTC) == BEGAN
    assert event.video_call.video_call_recordings[0].recording_url
    for one in (got, event.video_call):
        one.ClearField("host_token")
        one.ClearField("video_call_participants")
        one.video_call_recordings[0].ClearField("recording_url")
    assert event.video_call == got
    assert not event.video_call.video_call_participants


async def test_what_is_not_shown_is_kept_and_not_told(
    client: Client, db: Database, notifications: Notifications, storage: Storage
) -> None:
    call = await create(client)
    row = await row_of(db, call)

    async def note(_tx: AsyncSession, call: VideoCallRow) -> None:
        call.provider_status_at = BEGAN

    assert not await change_call(db, notifications, storage, video_call_id=row.id, change=note)

    changed = await row_of(db, call)
    assert changed.provider_status_at == BEGAN
    assert (changed.sequence, changed.updated_at) == (1, row.updated_at)
    assert len(await events_of(db, call)) == 1


async def test_change_by_a_statement_is_told(
    client: Client, db: Database, notifications: Notifications, storage: Storage
) -> None:
    call = await create(client)
    await add_recording(db, call, provider_id="a")
    key = "recordings/aaa.mp4"

    async def store(tx: AsyncSession, call: VideoCallRow) -> None:
        await tx.execute(update(VideoCallRecordingRow).values(storage_key=key, internal_status="stored"))
        await tx.execute(update(VideoCallRow).values(recording_status="completed"))

    row = await row_of(db, call)
    await change_call(db, notifications, storage, video_call_id=row.id, change=store, new_keys=[key])

    told = (await events_of(db, call))[-1].video_call
    assert told.recording_status == "completed"
    assert key in told.video_call_recordings[0].recording_url


async def test_failed_change_leaves_nothing(
    client: Client, db: Database, notifications: Notifications, storage: Storage
) -> None:
    call = await create(client)

    async def fail(tx: AsyncSession, call: VideoCallRow) -> None:
        await begin(tx, call)
        await tx.flush()
        raise ZeroDivisionError

    row = await row_of(db, call)
    with pytest.raises(ZeroDivisionError):
        await change_call(db, notifications, storage, video_call_id=row.id, change=fail)

    assert (await row_of(db, call)).internal_status == "pending"
    assert len(await events_of(db, call)) == 1


async def test_changes_at_once_are_told_one_after_the_other(
    client: Client, db: Database, notifications: Notifications, storage: Storage
) -> None:
    call = await create(client)
    row = await row_of(db, call)

    async def count(_tx: AsyncSession, call: VideoCallRow) -> None:
        call.provider_status = str(int(call.provider_status or "0") + 1)

    await asyncio.gather(
        *(change_call(db, notifications, storage, video_call_id=row.id, change=count) for _ in range(20))
    )

    events = await events_of(db, call)
    assert [event.sequence for event in events] == list(range(1, 22))
    assert [event.video_call.provider_status for event in events] == ["", *(str(n) for n in range(1, 21))]


class BusyStorage(FolderStorage):
    """One in which other recordings are stored while URLs are signed."""

    def __init__(self, folder: Path, signer: UrlSigner, meanwhile: Iterator[Awaitable[None]]) -> None:
        super().__init__(folder, signer)
        self._meanwhile = meanwhile

    async def url(self, key: str, *, expires_in: timedelta) -> str:
        other = next(self._meanwhile, None)
        if other is not None:
            await other
        return await super().url(key, expires_in=expires_in)


@pytest.mark.parametrize("others", [1, 3])
async def test_recording_that_is_stored_meanwhile_is_told_with_its_url(
    client: Client, db: Database, notifications: Notifications, settings: Settings, tmp_path: Path, others: int
) -> None:
    call = await create(client)
    await add_recording(db, call, provider_id="first", storage_key="recordings/first.mp4", internal_status="stored")
    meanwhile = (
        add_recording(db, call, provider_id=f"{n}", storage_key=f"recordings/{n}.mp4", internal_status="stored")
        for n in range(others)
    )
    busy = BusyStorage(tmp_path, signer_of(settings), meanwhile)

    row = await row_of(db, call)
    await change_call(db, notifications, busy, video_call_id=row.id, change=begin)

    [_created, event] = await events_of(db, call)
    assert len(event.video_call.video_call_recordings) == others + 1
    assert all(recording.recording_url for recording in event.video_call.video_call_recordings)
    await busy.aclose()


async def test_change_gives_up_while_recordings_keep_being_stored(
    client: Client, db: Database, notifications: Notifications, settings: Settings, tmp_path: Path
) -> None:
    call = await create(client)
    await add_recording(db, call, provider_id="first", storage_key="recordings/first.mp4", internal_status="stored")
    meanwhile = (
        add_recording(db, call, provider_id=f"{n}", storage_key=f"recordings/{n}.mp4", internal_status="stored")
        for n in itertools.count()
    )
    busy = BusyStorage(tmp_path, signer_of(settings), meanwhile)

    row = await row_of(db, call)
    with pytest.raises(Unavailable):
        await change_call(db, notifications, busy, video_call_id=row.id, change=begin)

    assert (await row_of(db, call)).internal_status == "pending"
    await busy.aclose()
