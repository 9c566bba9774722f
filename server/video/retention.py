"""Retention of Zoom's events as they came: what they told is in the rows."""

from datetime import timedelta

from server.db import Database

_BATCH = 500

_FORGET = """
DELETE FROM zoom_events WHERE digest IN (
    SELECT digest FROM zoom_events WHERE received_at < now() - %(keep)s
    ORDER BY received_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
"""


async def forget_old(db: Database, *, keep: timedelta) -> bool:
    """Delete a batch of those that are older; whether there may be more."""
    return await db.execute(_FORGET, {"keep": keep, "limit": _BATCH}) == _BATCH
