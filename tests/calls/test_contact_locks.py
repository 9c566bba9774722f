"""Whoever waits for a contact holds no conversation: else two of them could wait for each other."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from commonservices.v1 import conversation_service_pb2 as pb
from psycopg.rows import scalar_row
from sqlalchemy import select

from server.conversations import participants
from server.conversations.drafts import CONTACT, ConversationDraft, ParticipantDraft
from server.conversations.tables import ConversationRow
from server.db import Database
from tests.calls.browsers import connect, new_token, respond, tokens_of
from tests.calls.conferences import create
from tests.calls.twilio import Twilio, call_sid
from tests.clients import Client
from tests.factories import RECEIVER, SERVICE_SID, make_messaging_service

KEY = "conversation-1"


async def call_as_api(client: Client, _twilio: Twilio, _db: Database) -> None:
    await respond(client, client_conversation_id=KEY, To=RECEIVER, messaging_service_sid=SERVICE_SID)


async def call_from_browser(_client: Client, twilio: Twilio, db: Database) -> None:
    [token] = await tokens_of(db)
    await connect(twilio, token, sid=call_sid(), to=RECEIVER)


async def call_conference(client: Client, _twilio: Twilio, _db: Database) -> None:
    await create(client, client_conversation_id=KEY, participant_numbers=[RECEIVER])


async def change_conversation(client: Client, _twilio: Twilio, _db: Database) -> None:
    changes = pb.NewConversation(
        messaging_service_sid=SERVICE_SID, participants=[pb.NewParticipant(phone_number=RECEIVER)]
    )
    request = pb.UpdateConversationRequest(client_conversation_id=KEY, conversation=changes)
    await client.conversations.UpdateConversation(request, metadata=client.metadata)


@pytest.mark.parametrize("act", [call_as_api, call_from_browser, call_conference, change_conversation])
async def test_who_waits_for_a_contact_holds_no_conversation(
    client: Client,
    twilio: Twilio,
    db: Database,
    act: Callable[[Client, Twilio, Database], Coroutine[Any, Any, None]],
) -> None:
    await make_messaging_service(db)
    # Made without a messaging service: a call that names one would set it.
    await new_token(client, conversation_id=KEY, phone_number=RECEIVER)
    await db.execute("UPDATE voice_tokens SET messaging_service_sid = %s", [SERVICE_SID])
    contact = ConversationDraft(
        client_conversation_id=None,
        callback_url=None,
        messaging_service_sid=None,
        global_customer_id=None,
        sender_number=None,
        participants=[ParticipantDraft("", CONTACT, RECEIVER, None)],
    )

    async def is_waiting() -> bool:
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return await db.fetch_one(query, {}, scalar_row) == 1

    async with db.begin() as tx:
        await participants.lock_contacts(tx, contact)
        acting = asyncio.create_task(act(client, twilio, db))
        async with asyncio.timeout(30):
            while not await is_waiting():  # noqa: ASYNC110 only PostgreSQL knows
                await asyncio.sleep(0.01)
        # It would raise.
        await tx.scalar(select(ConversationRow).with_for_update(key_share=True, nowait=True))
    async with asyncio.timeout(30):
        await acting
