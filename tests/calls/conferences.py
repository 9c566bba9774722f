"""Conference calls through the front door, the phones that a provider would reach in them, and what tests look at."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from commonservices.v1 import call_pb2, conference_call_pb2, event_pb2
from commonservices.v1 import conference_call_service_pb2 as pb
from psycopg.rows import scalar_row
from sqlalchemy import select

from server.calls.conferences import callbacks as conference_callbacks
from server.calls.conferences.dial import DialWorker
from server.calls.parts import CallParts
from server.calls.tables import CallLegRow, CallRow
from server.db import Database
from server.providers.ports import ProviderError, ProviderFailure
from server.providers.voice_ports import (
    ConferenceEvent,
    LegAnswer,
    LegProgress,
    LegReport,
    OutboundCall,
    RecordingReport,
)
from tests.clients import Client
from tests.factories import SENDER

MODERATOR = "+12065550110"
CONTACTS = ("+12065550120", "+12065550121")
UPDATE = "conference_calls.conference_call.status_update"
CONFERENCE_SID = "CF" + "1" * 32

_SIDS = itertools.count(1)


def call_sid() -> str:
    """The sid of a call that there was not yet."""
    return f"CA{next(_SIDS):032x}"


def new_conference(**over: Any) -> pb.CreateConferenceCallRequest:
    """A moderator and two contacts."""
    given: dict[str, Any] = {
        "twilio_number": SENDER,
        "moderator_number": MODERATOR,
        "client_conversation_id": "family-1",
        "participant_numbers": CONTACTS,
    }
    return pb.CreateConferenceCallRequest(**{**given, **over})


async def create(client: Client, **over: Any) -> call_pb2.Call:
    """A conference call, made through the API."""
    return await client.conference_calls.CreateConferenceCall(new_conference(**over), metadata=client.metadata)


async def get(client: Client, call: call_pb2.Call) -> conference_call_pb2.ConferenceCall:
    """The conference as the API tells it now."""
    request = pb.GetConferenceCallRequest(uuid=call.uuid)
    return await client.conference_calls.GetConferenceCall(request, metadata=client.metadata)


async def cancel(client: Client, call: call_pb2.Call) -> call_pb2.Call:
    """End it through the API."""
    request = pb.CancelConferenceCallRequest(uuid=call.uuid)
    return await client.conference_calls.CancelConferenceCall(request, metadata=client.metadata)


async def participants(client: Client, call: call_pb2.Call) -> list[conference_call_pb2.ConferenceCallParticipant]:
    """Who is called into it, as the API tells now."""
    request = pb.ListConferenceCallParticipantsRequest(uuid=call.uuid)
    listed = await client.conference_calls.ListConferenceCallParticipants(request, metadata=client.metadata)
    return list(listed.participants)


async def change(client: Client, call: call_pb2.Call, sid: str, **given: bool) -> Any:
    """Have somebody muted, held or not."""
    request = pb.UpdateConferenceCallParticipantRequest(uuid=call.uuid, call_sid=sid, **given)
    return await client.conference_calls.UpdateConferenceCallParticipant(request, metadata=client.metadata)


async def remove(client: Client, call: call_pb2.Call, sid: str) -> None:
    """Hang up on somebody."""
    request = pb.DeleteConferenceCallParticipantRequest(uuid=call.uuid, call_sid=sid)
    await client.conference_calls.DeleteConferenceCallParticipant(request, metadata=client.metadata)


async def row_of(db: Database, call: call_pb2.Call) -> CallRow:
    """The call as stored."""
    async with db.begin() as tx:
        return (await tx.scalars(select(CallRow).where(CallRow.uuid == UUID(call.uuid)))).one()


async def legs_of(db: Database, call: call_pb2.Call) -> Sequence[CallLegRow]:
    """Its legs as stored, the moderator's first."""
    async with db.begin() as tx:
        query = select(CallLegRow).where(CallLegRow.call_id == call.id).order_by(CallLegRow.position)
        return (await tx.scalars(query)).all()


async def events_of(db: Database, call: call_pb2.Call) -> list[event_pb2.Event]:
    """The call's events in the order they were appended."""
    query = "SELECT payload FROM events WHERE resource_uuid = %(uuid)s ORDER BY sequence"
    payloads: list[bytes] = await db.fetch_all(query, {"uuid": call.uuid}, scalar_row)
    return [event_pb2.Event.FromString(payload) for payload in payloads]


async def statuses_of(db: Database, call: call_pb2.Call) -> list[tuple[str, str | None]]:
    """What its events tell, one after the other: both statuses."""
    told = [event.call for event in await events_of(db, call)]
    return [(call.internal_status, call.provider_status or None) for call in told]


async def count(db: Database, table: str) -> int:
    """How many rows a table has."""
    found = await db.fetch_one(f"SELECT count(*) FROM {table}", {}, scalar_row)
    assert isinstance(found, int)
    return found


async def make_due(db: Database) -> None:
    """As if every delay and every lease had run out, but of legs that a callback has in hand at this moment."""
    for column in ("dial_at", "control_at", "check_at"):
        await db.execute(
            f"""UPDATE call_legs SET {column} = now() WHERE id IN (
                    SELECT id FROM call_legs WHERE {column} IS NOT NULL FOR UPDATE SKIP LOCKED)"""
        )


async def age(db: Database, by: timedelta) -> None:
    """As if so much time had gone by."""
    for column in ("dial_at", "control_at", "check_at", "first_claimed_at"):
        await db.execute(f"UPDATE call_legs SET {column} = {column} - %s", [by])
    await db.execute("UPDATE calls SET expires_at = expires_at - %s", [by])


@dataclass
class Phones:
    """A provider of calls in memory: `voice_ports.VoiceCalls`. It rings nobody; a test says what becomes of a call.

    What is in `failures` is raised in turn by what is asked next, or nothing where it is None. With `takes_it` a failed
    dial has made the call all the same. `gate` holds answers up to what makes or changes
    a call.
    """

    calls: dict[str, LegReport] = field(default_factory=dict)
    dialled: list[OutboundCall] = field(default_factory=list)
    hung_up: list[str] = field(default_factory=list)
    changed: list[tuple[str, str, bool, bool]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    # What was recorded, the conferences' sids by their names, and how often that was asked for.
    recorded: list[RecordingReport] = field(default_factory=list)
    conferences: dict[UUID | None, str] = field(default_factory=dict)
    lists: int = 0
    failures: list[Exception | None] = field(default_factory=list)
    takes_it: bool = False
    gate: asyncio.Event | None = None
    waiting: int = 0
    _made: dict[str, tuple[OutboundCall, datetime]] = field(default_factory=dict)

    def sid_of(self, leg: CallLegRow) -> str:
        """The one call that was made for a leg."""
        [sid] = [sid for sid, (call, _at) in self._made.items() if call.leg_uuid == leg.uuid]
        return sid

    def become(self, sid: str, provider_status: str, answered_by: str | None = None) -> None:
        """As if the call had come so far; nobody is told."""
        ended_at = datetime.now(UTC) if provider_status not in ("ringing", "in-progress") else None
        self.calls[sid] = replace(
            self.calls[sid], provider_status=provider_status, answered_by=answered_by, ended_at=ended_at
        )

    async def dial(self, call: OutboundCall) -> LegReport:
        self.dialled.append(call)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None and not self.takes_it:
            raise failure
        sid = call_sid()
        self._made[sid] = (call, datetime.now(UTC))
        self.calls[sid] = LegReport(sid, "queued")
        await self._wait()
        if failure is not None:
            raise failure
        return self.calls[sid]

    async def find_copies(self, call: OutboundCall, *, since: datetime) -> list[LegReport]:
        self._fail()
        numbers = (call.from_number, call.to_number)
        return [
            self.calls[sid]
            for sid, (made, at) in self._made.items()
            if (made.from_number, made.to_number) == numbers and at >= since - timedelta(minutes=1)
        ]

    async def fetch(self, call_sid: str) -> LegReport | None:
        self.asked.append(call_sid)
        self._fail()
        return self.calls.get(call_sid)

    async def hang_up(self, call_sid: str) -> None:
        self._fail()
        self.hung_up.append(call_sid)

    async def update_participant(self, conference_sid: str, call_sid: str, *, muted: bool, hold: bool) -> None:
        self._fail()
        self.changed.append((conference_sid, call_sid, muted, hold))
        await self._wait()

    async def list_recordings(
        self, *, call_sids: Sequence[str], conference_sid: str | None, conference_uuid: UUID | None
    ) -> list[RecordingReport]:
        self.lists += 1
        self._fail()
        found = conference_sid or self.conferences.get(conference_uuid)
        return [
            report
            for report in self.recorded
            if report.call_sid in call_sids or (found is not None and report.conference_sid == found)
        ]

    async def delete_recording(self, recording_sid: str) -> None:
        raise AssertionError("no recording is deleted here")

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _wait(self) -> None:
        if self.gate is not None:
            self.waiting += 1
            await self.gate.wait()

    def _fail(self) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure


REFUSED = ProviderError("21211", "https://www.twilio.com/docs/api/errors/21211")


def dialler(parts: CallParts, phones: Phones, **over: Any) -> DialWorker:
    """A worker that dials them."""
    given: dict[str, Any] = {"time_limit": parts.time_limit, **over}
    return DialWorker(parts.db, parts.notifications, phones, parts.storage, **given)


def progress(leg: CallLegRow, sid: str, provider_status: str | None, **over: Any) -> LegProgress:
    """A callback about a leg that its URL names."""
    given: dict[str, Any] = {
        "call_sid": sid,
        "provider_status": provider_status,
        "answered_by": None,
        "occurred_at": None,
        "to_number": leg.address,
        "error": None,
        "sip_response_code": None,
        "leg_uuid": leg.uuid,
    }
    return LegProgress(**{**given, **over})


def event(conference: UUID | None, name: str, **over: Any) -> ConferenceEvent:
    """A callback about a conference."""
    given: dict[str, Any] = {
        "name": name,
        "conference_sid": CONFERENCE_SID,
        "conference_uuid": conference,
        "call_sid": None,
        "occurred_at": None,
        "participant_call_status": None,
    }
    return ConferenceEvent(**{**given, **over})


@dataclass
class Conference:
    """A conference call and what the provider does in it."""

    call: call_pb2.Call
    parts: CallParts
    phones: Phones = field(default_factory=Phones)

    @property
    def uuid(self) -> UUID:
        """The conference's own."""
        return UUID(self.call.conference_call.uuid)

    async def legs(self) -> Sequence[CallLegRow]:
        """As stored, the moderator's first."""
        return await legs_of(self.parts.db, self.call)

    async def row(self) -> CallRow:
        """The call as stored."""
        return await row_of(self.parts.db, self.call)

    async def status(self) -> tuple[str, str | None]:
        """Both statuses, as stored."""
        row = await self.row()
        return row.internal_status, row.provider_status

    async def dial(self) -> None:
        """Dial whoever is due."""
        await dialler(self.parts, self.phones).step()

    async def answer(self, leg: CallLegRow, answered_by: str | None = "human", status: str = "in-progress") -> bytes:
        """Somebody picks up, hears the welcome message if there is one, and is to do what the last script says."""
        script = await self.ask(leg, answered_by, status)
        if b"<Redirect" in script:
            return await self.ask(leg, answered_by, status, is_welcomed=True)
        return script

    async def ask(
        self,
        leg: CallLegRow,
        answered_by: str | None = "human",
        status: str = "in-progress",
        *,
        is_welcomed: bool = False,
    ) -> bytes:
        """Somebody's script is asked for, at first or once they have heard the welcome message."""
        told = progress(leg, self.phones.sid_of(leg), status, answered_by=answered_by)
        return await conference_callbacks.answer_leg(self.parts, LegAnswer(told, self.uuid, is_welcomed))

    async def tell(self, leg: CallLegRow, provider_status: str, **over: Any) -> None:
        """A status callback."""
        await conference_callbacks.update_leg(
            self.parts, progress(leg, self.phones.sid_of(leg), provider_status, **over)
        )

    async def happen(self, name: str, leg: CallLegRow | None = None, **over: Any) -> None:
        """A callback about the conference."""
        sid = self.phones.sid_of(leg) if leg is not None else None
        await conference_callbacks.update_conference(self.parts, event(self.uuid, name, call_sid=sid, **over))

    async def begin(self) -> Sequence[CallLegRow]:
        """Until everybody is in it; answers their legs."""
        await self.dial()
        moderator, *_ = await self.legs()
        await self.answer(moderator)
        await self.happen("participant-join", moderator)
        await self.dial()
        legs = await self.legs()
        for contact in legs[1:]:
            await self.answer(contact)
            await self.happen("participant-join", contact)
        await self.happen("conference-start")
        return await self.legs()


def failing(*failures: ProviderFailure | Exception | None, takes_it: bool = False) -> Phones:
    """A provider that fails so, in turn."""
    return Phones(failures=list(failures), takes_it=takes_it)
