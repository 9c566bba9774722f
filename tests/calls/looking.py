"""Calls that are over, what a provider recorded of them, and the worker that asks it."""

import itertools
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from commonservices.v1 import call_pb2
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls.events import change_call
from server.calls.parts import CallParts
from server.calls.queries import Call
from server.calls.recordings.checks import RecordingCheckWorker
from server.calls.recordings.reports import receive_voicemail, update_recording
from server.calls.state import SDK
from server.calls.tables import CallLegRow, CallRow
from server.db import Database
from server.providers.voice_ports import RecordingReport
from server.storage import Storage
from tests.calls.conferences import Phones
from tests.calls.recorded import (
    events_of,
    legs_of,
    make_conference,
    make_direct_call,
    make_return_call,
    report,
    shown,
    sid,
)
from tests.clients import Client

DIRECT_CALL = "direct"
CONFERENCE_CALL = "conference"
VOICEMAIL = "voicemail"
ANSWERED = "answered"
KINDS = (DIRECT_CALL, CONFERENCE_CALL, VOICEMAIL, ANSWERED)

_SOURCES = {CONFERENCE_CALL: "Conference", VOICEMAIL: "RecordVerb"}


@dataclass
class Recorded:
    """A call that is over, and what a callback would say of its recording."""

    call: CallRow
    said: RecordingReport
    parts: CallParts

    def reported(self, provider_status: str, **over: Any) -> RecordingReport:
        """What is said of the recording when it has come so far."""
        plain = {"duration": None} if provider_status == "in-progress" else {}
        return replace(self.said, provider_status=provider_status, **{**plain, **over})

    async def tell(self, provider_status: str, **over: Any) -> None:
        """A callback, where this call's are sent to."""
        told = replace(self.reported(provider_status, **over), call_uuid=self.call.uuid)
        if told.source == "RecordVerb":
            await receive_voicemail(self.parts, told)
        else:
            await update_recording(self.parts, told)


async def over(parts: CallParts, client: Client, kind: str) -> Recorded:
    """A call of a kind that was spoken in, and is over; nothing was told of its recording."""
    db = parts.db
    conference_sid = sid("CF") if kind == CONFERENCE_CALL else None
    if kind == DIRECT_CALL:
        call = await make_direct_call(db, client)
    elif kind == CONFERENCE_CALL:
        call = await make_conference(db, client, conference_sid=conference_sid)
    else:
        call = await make_return_call(db, client, voicemail=kind == VOICEMAIL)
    if kind == ANSWERED:
        async with db.begin() as tx:
            tx.add(_answered_leg(call))
    await end(parts, call)
    call_sid = (await legs_of(db, call))[0].call_sid if conference_sid is None else None
    said = report(
        recording_sid=sid("RE"),
        url="https://api.twilio.com/recording",
        call_sid=call_sid,
        conference_sid=conference_sid,
        source=_SOURCES.get(kind, "DialVerb"),
    )
    return Recorded(call, said, parts)


def _answered_leg(call: CallRow) -> CallLegRow:
    """A browser that answered a contact who called back."""
    return CallLegRow(
        uuid=uuid4(),
        call_id=call.id,
        kind=SDK,
        address="staff",
        position=1,
        call_sid=sid("CA"),
        provider_status="in-progress",
    )


async def end(parts: CallParts, call: CallRow, *, but: str | None = None) -> None:
    """Everybody has hung up, but a kind of them."""

    async def change(_tx: AsyncSession, held: Call) -> None:
        for leg in held.legs:
            if leg.kind != but:
                leg.provider_status, leg.ended_at = "completed", datetime.now(UTC)

    await change_call(parts.db, parts.notifications, parts.storage, call_id=call.id, change=change)


def finder(parts: CallParts, phones: Any, **over: Any) -> RecordingCheckWorker:
    """A worker."""
    given: dict[str, Any] = {"time_limit": parts.time_limit, **over}
    return RecordingCheckWorker(parts.db, parts.notifications, phones, parts.storage, **given)


async def make_due(db: Database) -> None:
    """As if it were time to ask, or a lease had run out."""
    await db.execute("UPDATE calls SET recordings_check_at = now() WHERE recordings_check_at IS NOT NULL")


async def look(parts: CallParts, phones: Phones) -> bool:
    """Ask about all that is still to be asked about; whether anything was."""
    await make_due(parts.db)
    return await finder(parts, phones).step()


async def looks_of(db: Database, call: CallRow) -> tuple[timedelta | None, int]:
    """How soon the provider is to be asked, and how often it was."""
    query = (
        "SELECT recordings_check_at - now() AS wait, recordings_check_attempts AS attempts FROM calls WHERE id = %(id)s"
    )
    row = await db.fetch_one(query, {"id": call.id}, dict_row)
    assert row is not None
    return row["wait"], row["attempts"]


def is_about(wait: timedelta | None, expected: timedelta) -> bool:
    """Whether it is that, but for the seconds that the test takes."""
    return wait is not None and timedelta(0) <= expected - wait < timedelta(seconds=30)


def phones_with(*reports: RecordingReport) -> Phones:
    """A provider that has recorded this."""
    return Phones(recorded=list(reports))


def lasting(call: call_pb2.Call) -> dict[str, Any]:
    """What of a call is not its own, and no time."""
    names = ("internal_status", "provider_status", "error_code", "error_description", "kind", "recording_duration")
    voicemail = ("internal_status", "provider_status", "recording_duration")
    return {
        **{name: getattr(call, name) for name in names},
        "has_duration": call.HasField("recording_duration"),
        "has_url": bool(call.recording_url),
        "voicemail": {name: getattr(call.voicemail, name) for name in voicemail}
        if call.HasField("voicemail")
        else None,
    }


async def assert_told(db: Database, storage: Storage, call: CallRow) -> None:
    """That each change was told once, the last one as it is shown."""
    events = [lasting(event.call) for event in await events_of(db, call.uuid)]
    assert all(before != after for before, after in itertools.pairwise(events))
    assert events[-1] == lasting(await shown(db, storage, call))
