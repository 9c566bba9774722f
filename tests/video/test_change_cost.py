"""What a change of a video call costs: few round trips, and nothing read twice that it does not change."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from server.config import Settings
from server.db import Database
from server.notifications import Notifications
from server.storage import Storage, open_storage
from server.video.events import change_call
from server.video.tables import VideoCallRow
from tests.clients import Client
from tests.files.support import signer_of
from tests.round_trips import traced
from tests.video.support import add_recording, create, row_of

# Each BEGINs, holds the call, reads its recordings, reads them anew and COMMITs; what is to be seen changes the call,
# then its number, and the log. One with a file that has no URL yet finds that out, rolls back, and begins again.
_UNSEEN = 5
_SEEN = 8
_FOUND_OUT = 4


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    """The API's storage."""
    storage = open_storage(settings.storage_url, signer_of(settings))
    yield storage
    await storage.aclose()


async def _change_nothing(_tx: AsyncSession, _call: VideoCallRow) -> None:
    pass


async def _begin(_tx: AsyncSession, call: VideoCallRow) -> None:
    call.internal_status = "in_progress"
    call.start_time = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(("has_files", "more"), [(False, 0), (True, _FOUND_OUT)])
async def test_change_takes_few_round_trips(
    client: Client,
    db: Database,
    database_url: str,
    notifications: Notifications,
    storage: Storage,
    has_files: bool,
    more: int,
) -> None:
    call = await create(client)
    if has_files:
        await add_recording(db, call, provider_id="a", storage_key="recordings/a.mp4", internal_status="stored")
        await add_recording(db, call, provider_id="b", storage_key="recordings/b.mp4", internal_status="stored")
    row = await row_of(db, call)

    async with traced(database_url) as one:
        costs = [
            await one.during(change_call(one.db, notifications, storage, video_call_id=row.id, change=change))
            for change in (_change_nothing, _begin)
        ]

    assert [cost.round_trips for cost in costs] == [_UNSEEN + more, _SEEN + more]
