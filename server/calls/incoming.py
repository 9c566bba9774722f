"""What calls have in common that the provider brings: each is made once, and asked about where nothing more is told."""

from datetime import datetime

from psycopg.rows import scalar_row
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls.legs import apply_progress, record_sid
from server.calls.tables import CallLegRow
from server.db import Database
from server.providers.voice_ports import IncomingCall

_LOCK_CALL = text("SELECT pg_advisory_xact_lock(hashtextextended('call ' || :call_sid, 0))")

_FIND = "SELECT call_id FROM call_legs WHERE call_sid = %(call_sid)s"


async def find_call(db: Database, call_sid: str) -> int | None:
    """The id of the call of ours that this call at the provider belongs to, also of one that is just being made."""
    found: int | None = await db.fetch_one(_FIND, {"call_sid": call_sid}, scalar_row)
    if found is not None:
        return found
    async with db.begin() as tx:
        leg = await hold_call_sid(tx, call_sid)
    return leg.call_id if leg is not None else None


async def hold_call_sid(tx: AsyncSession, call_sid: str) -> CallLegRow | None:
    """The leg that is this call at the provider; nobody else makes one until the transaction ends."""
    await tx.execute(_LOCK_CALL, {"call_sid": call_sid})
    return (await tx.scalars(select(CallLegRow).where(CallLegRow.call_sid == call_sid))).one_or_none()


def begin_leg(leg: CallLegRow, incoming: IncomingCall, *, now: datetime) -> None:
    """The leg is the call that the provider brought."""
    record_sid(leg, incoming.call_sid, now=now)
    apply_progress(
        leg, provider_status=incoming.provider_status, answered_by=None, error=None, occurred_at=None, now=now
    )
