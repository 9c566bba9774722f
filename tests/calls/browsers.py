"""Staff members' browsers: their tokens, the calls made with them, and what is stored and told of those."""

import json
from typing import Any
from uuid import UUID

from commonservices.v1 import call_pb2, call_service_pb2, event_pb2
from commonservices.v1 import sdk_call_service_pb2 as pb
from google.api import httpbody_pb2
from psycopg.rows import scalar_row
from sqlalchemy import select

from server.calls import queries
from server.calls.queries import Call
from server.calls.tables import CallRow, VoiceTokenRow
from server.db import Database
from tests.calls.twilio import Script, Twilio
from tests.clients import Client
from tests.factories import SERVICE_SID
from tests.messages.support import count

MODERATOR = "teacher-1"


def token_of(**over: Any) -> pb.NewVoiceToken:
    """A staff member's token for a conversation, which needs no more."""
    return pb.NewVoiceToken(**{"moderator_id": MODERATOR, "conversation_id": "conversation-1", **over})


async def new_token(client: Client, **over: Any) -> pb.CreateVoiceTokenResponse:
    """A token, made through the API."""
    request = pb.CreateVoiceTokenRequest(conversation=token_of(**over))
    return await client.sdk_calls.CreateVoiceToken(request, metadata=client.metadata)


async def tokens_of(db: Database) -> list[VoiceTokenRow]:
    """Every token, oldest first."""
    async with db.begin() as tx:
        return list(await tx.scalars(select(VoiceTokenRow).order_by(VoiceTokenRow.id)))


async def connect(twilio: Twilio, row: VoiceTokenRow, *, sid: str | None = None, to: str = "", **page: str) -> Script:
    """A browser connects with a token; its page gives parameters of its own."""
    return await twilio.browser(row.identity, sid=sid, to=to, parameters={"voice_token_uuid": str(row.uuid), **page})


async def respond(client: Client, **fields: Any) -> Script:
    """What is to be dialled for a caller of the API."""
    body = httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps(fields).encode())
    answer = await client.sdk_calls.RespondToSdkCall(body, metadata=client.metadata)
    assert answer.content_type == "text/xml"
    return Script(answer.data)


async def calls_of(db: Database) -> list[Call]:
    """Every call with all that is known of it, oldest first."""
    async with db.begin() as tx:
        rows = (await tx.scalars(select(CallRow).order_by(CallRow.id))).all()
        return [await queries.call_of(tx, row) for row in rows]


async def only_call(db: Database) -> Call:
    """The one call that there is."""
    [call] = await calls_of(db)
    return call


async def get(client: Client, uuid: UUID) -> call_pb2.Call:
    """The call as the API tells it now."""
    request = call_service_pb2.GetCallRequest(uuid=str(uuid))
    return await client.calls.GetCall(request, metadata=client.metadata)


async def events_of(db: Database, uuid: UUID) -> list[event_pb2.Event]:
    """The call's events in the order they were appended."""
    query = "SELECT payload FROM events WHERE resource_uuid = %(uuid)s ORDER BY sequence"
    payloads: list[bytes] = await db.fetch_all(query, {"uuid": uuid}, scalar_row)
    return [event_pb2.Event.FromString(payload) for payload in payloads]


async def told(db: Database, uuid: UUID) -> list[str]:
    """The statuses that the call's events told, one after the other."""
    return [event.call.internal_status for event in await events_of(db, uuid)]


def json_body(content: bytes | None = None, **fields: Any) -> httpbody_pb2.HttpBody:
    """A body of an API caller's call: these fields, or these bytes."""
    data = json.dumps(fields).encode() if content is None else content
    return httpbody_pb2.HttpBody(content_type="application/json", data=data)


async def token_row(client: Client, db: Database, **over: Any) -> VoiceTokenRow:
    """A token that calls from the messaging service."""
    await new_token(client, messaging_service_sid=SERVICE_SID, **over)
    return (await tokens_of(db))[-1]


async def nothing_is_left(db: Database) -> bool:
    """Whether there is no call, and nobody new is paired."""
    return not any([await count(db, table) for table in ("calls", "call_legs", "events", "pairings")])
