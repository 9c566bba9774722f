"""Calls that nobody joined in time."""

from psycopg.rows import scalar_row
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database
from server.notifications import Notifications
from server.storage import Storage
from server.video.events import change_call
from server.video.tables import VideoCallRow
from server.video.video_call import CallStatus

_BATCH = 100

_OVERDUE = """
SELECT id FROM video_calls WHERE internal_status = 'pending' AND expires_at <= now()
ORDER BY expires_at LIMIT %(limit)s
"""


class Expiry:
    """Any number of processes may run one: a call expires once."""

    def __init__(self, db: Database, notifications: Notifications, storage: Storage) -> None:
        self._db = db
        self._notifications = notifications
        self._storage = storage

    async def step(self) -> bool:
        """Let a batch of calls expire; whether there may be more."""
        overdue = await self._db.fetch_all(_OVERDUE, {"limit": _BATCH}, scalar_row)
        for video_call_id in overdue:
            await change_call(self._db, self._notifications, self._storage, video_call_id=video_call_id, change=_expire)
        return len(overdue) == _BATCH


async def _expire(_tx: AsyncSession, call: VideoCallRow) -> None:
    # Somebody may have joined since.
    if call.internal_status == CallStatus.PENDING:
        call.internal_status = CallStatus.EXPIRED
