"""Calls that were recorded, what a provider tells of that and has, and what the tests of it look at."""

import asyncio
import itertools
import wave
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web
from commonservices.v1 import call_pb2, event_pb2
from psycopg.rows import dict_row, scalar_row
from sqlalchemy import select

from server.calls import convert, queries
from server.calls.state import CONFERENCE, CONTACT, DIRECT, MODERATOR, RETURN, SDK
from server.calls.status import update_status
from server.calls.tables import CallLegRow, CallRow, ConferenceCallRow, VoicemailRow
from server.db import Database
from server.file_urls import file_urls
from server.providers.voice_ports import RecordingReport
from server.storage import Storage
from tests.clients import Client
from tests.factories import RECEIVER, SENDER
from tests.messages.media import Answer

_NUMBERS = itertools.count(1)


def sid(prefix: str) -> str:
    """A sid that there was not yet."""
    return f"{prefix}{next(_NUMBERS):032}"


async def make_direct_call(db: Database, client: Client) -> CallRow:
    """A browser's call to a phone that was answered, and is over."""
    return await _make(db, client, DIRECT, ((SDK, "staff", "completed"), (CONTACT, RECEIVER, "completed")))


async def make_return_call(db: Database, client: Client, *, voicemail: bool = True) -> CallRow:
    """A contact's call that was sent to voicemail, and lasts; or nothing says yet what was chosen in it."""
    call = await _make(db, client, RETURN, ((CONTACT, RECEIVER, "in-progress"),))
    if voicemail:
        async with db.begin() as tx:
            row = await tx.get_one(CallRow, call.id)
            row.voicemail_at = datetime.now(UTC)
            tx.add(VoicemailRow(call_id=row.id, caller_id="+1 206 555 0190", internal_status="pending"))
            update_status(await queries.call_of(tx, row), now=datetime.now(UTC))
    return call


async def make_conference(db: Database, client: Client, *, conference_sid: str | None = None) -> CallRow:
    """A conference of two that are in it."""
    legs = ((MODERATOR, "+12065550111", "in-progress"), (CONTACT, RECEIVER, "in-progress"))
    call = await _make(db, client, CONFERENCE, legs, conference_sid=conference_sid)
    await db.execute("UPDATE call_legs SET joined_at = now() WHERE call_id = %s", [call.id])
    return call


async def _make(
    db: Database,
    client: Client,
    kind: str,
    legs: tuple[tuple[str, str, str], ...],
    *,
    conference_sid: str | None = None,
) -> CallRow:
    async with db.begin() as tx:
        call = CallRow(
            uuid=uuid4(),
            kind=kind,
            bearer_id=client.bearer_id,
            provider_number=SENDER,
            participant_number=legs[0][1] if kind != DIRECT else RECEIVER,
            internal_status="pending",
            sequence=0,
        )
        tx.add(call)
        await tx.flush()
        if kind == CONFERENCE:
            tx.add(
                ConferenceCallRow(
                    call_id=call.id, uuid=uuid4(), welcome_message="Welcome.", conference_sid=conference_sid
                )
            )
        for position, (leg, address, provider_status) in enumerate(legs):
            tx.add(
                CallLegRow(
                    uuid=uuid4(),
                    call_id=call.id,
                    kind=leg,
                    address=address,
                    position=position,
                    call_sid=sid("CA"),
                    provider_status=provider_status,
                )
            )
        await tx.flush()
        update_status(await queries.call_of(tx, call), now=datetime.now(UTC))
        await tx.flush()
        await tx.refresh(call)
    return call


async def legs_of(db: Database, call: CallRow) -> list[CallLegRow]:
    """The legs of a call in their order."""
    async with db.begin() as tx:
        return list(await queries.legs_of(tx, call.id))


def report(call: CallRow | None = None, provider_status: str = "completed", **over: Any) -> RecordingReport:
    """A callback about a recording of the call."""
    given = {
        "recording_sid": "RE" + "1" * 32,
        "url": "https://api.twilio.com/recording",
        "duration": 5,
        "channels": 1,
        "call_sid": None,
        "conference_sid": None,
        "call_uuid": call.uuid if call is not None else None,
        **over,
    }
    return RecordingReport(provider_status=provider_status, **given)


def wav(seconds: float = 2, *, channels: int = 1) -> bytes:
    """A WAV file as Twilio's are: 16 bits, 8 kHz; it hisses."""
    written = BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(8000)
        frames = round(seconds * 8000) * channels
        file.writeframes((bytes(range(256)) * (frames * 2 // 256 + 1))[: frames * 2])
    return written.getvalue()


def audio(data: bytes, *, content_type: str = "audio/x-wav") -> Answer:
    """A recording, as it is answered."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=BytesIO(data), headers={"Content-Type": content_type})

    return answer


async def recordings(db: Database) -> list[dict[str, Any]]:
    """The recordings as stored."""
    return await db.fetch_all("SELECT * FROM call_recordings ORDER BY id", {}, dict_row)


async def transcripts(db: Database) -> list[dict[str, Any]]:
    """The transcripts as stored."""
    return await db.fetch_all("SELECT * FROM transcripts ORDER BY id", {}, dict_row)


async def voicemails(db: Database) -> list[dict[str, Any]]:
    """The voicemails as stored."""
    return await db.fetch_all("SELECT * FROM voicemails ORDER BY id", {}, dict_row)


async def make_due(db: Database) -> None:
    """As if every retry's delay and every lease had run out."""
    await db.execute("UPDATE call_recordings SET due_at = now() WHERE due_at IS NOT NULL")
    await db.execute("UPDATE call_recordings SET delete_at = now() WHERE delete_at IS NOT NULL")
    await db.execute("UPDATE transcripts SET due_at = now() WHERE due_at IS NOT NULL")


async def shown(db: Database, storage: Storage, call: CallRow) -> call_pb2.Call:
    """The call as the API shows it."""
    async with db.begin() as tx:
        row = (await tx.scalars(select(CallRow).where(CallRow.id == call.id))).one()
        whole = await queries.call_of(tx, row)
        await queries.load_words(tx, whole.recording)
    urls = await file_urls(storage, [recording.row.storage_key for recording in whole.recordings])
    return convert.call_to_proto(whole, urls=urls)


async def events_of(db: Database, uuid: UUID) -> list[event_pb2.Event]:
    """The call's events in the order they were appended."""
    query = "SELECT payload FROM events WHERE resource_uuid = %(uuid)s ORDER BY sequence"
    payloads: list[bytes] = await db.fetch_all(query, {"uuid": uuid}, scalar_row)
    return [event_pb2.Event.FromString(payload) for payload in payloads]


async def told(db: Database, call: CallRow) -> list[str]:
    """What the call's events say of its status, each once more where it is told without a change of it."""
    return [event.call.internal_status for event in await events_of(db, call.uuid)]


async def run_out(*tasks: "asyncio.Task[Any]") -> None:
    """End tasks that are stuck."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
