"""Calls, tokens, messages and changes of the same conversations and contacts at once: all are made, nobody waits for
somebody who waits for them."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import grpc.aio
import pytest
from commonservices.v1 import conversation_service_pb2
from psycopg.rows import scalar_row

from server.db import Database
from server.numbers.selection import LOCK_CONTACT
from tests.calls.browsers import calls_of, connect, new_token, respond, tokens_of
from tests.calls.twilio import CALLS_PATH, Twilio, call_sid
from tests.clients import Client, refusal
from tests.conftest import PUBLIC_BASE_URL
from tests.conversations.support import broken
from tests.factories import RECEIVER, SERVICE_SID, create_message, make_messaging_service

CONTACTS = ("+12065550190", "+12065550191")
CONVERSATIONS = ("a", "b", "c")

# Two conversations use up the two numbers for a contact: a third is refused one.
EXPECTED_REFUSALS = {"NUMBER_POOL_EXHAUSTED"}

_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def update(client: Client, key: str, contact: str) -> None:
    """Have the contact in the conversation, which is made first if it must be."""
    given = conversation_service_pb2.NewConversation(
        client_conversation_id=key,
        messaging_service_sid=SERVICE_SID,
        participants=[conversation_service_pb2.NewParticipant(phone_number=contact)],
    )
    request = conversation_service_pb2.CreateConversationRequest(conversation=given)
    try:
        await client.conversations.CreateConversation(request, metadata=client.metadata)
    except grpc.aio.AioRpcError as error:
        if refusal(error).reason != "CONVERSATION_EXISTS":
            raise


async def test_end_that_is_told_while_the_call_is_being_made_waits_for_it(
    twilio: Twilio, client: Client, db: Database
) -> None:
    await make_messaging_service(db)
    await new_token(client, messaging_service_sid=SERVICE_SID, phone_number=RECEIVER)
    [token] = await tokens_of(db)
    sid = call_sid()
    url = f"{PUBLIC_BASE_URL}{CALLS_PATH}/participant_status_changes"

    async def until_waiting(expected: int) -> None:
        async with asyncio.timeout(30):
            while await db.fetch_one(_WAITING, {}, scalar_row) != expected:  # noqa: ASYNC110 only PostgreSQL knows
                await asyncio.sleep(0.01)

    # Whoever makes a call with a contact waits for who pairs that contact.
    async with asyncio.TaskGroup() as tasks, db.connection() as connection, connection.transaction():
        await connection.execute(LOCK_CONTACT, {"receiver_number": RECEIVER})
        tasks.create_task(connect(twilio, token, sid=sid))
        await until_waiting(1)
        tasks.create_task(twilio.follow(url, {"CallSid": sid, "CallStatus": "no-answer"}))
        await until_waiting(2)

    [call] = await calls_of(db)
    assert call.row.internal_status == "canceled"


@pytest.mark.parametrize("seed", range(4))
async def test_everything_at_once_is_made(twilio: Twilio, client: Client, db: Database, seed: int) -> None:
    await make_messaging_service(db)
    chosen = random.Random(seed)  # noqa: S311 guards nothing

    async def browser(key: str, contact: str) -> None:
        await new_token(client, conversation_id=key, messaging_service_sid=SERVICE_SID, phone_number=contact)
        row = chosen.choice(await tokens_of(db))
        await connect(twilio, row, sid=call_sid())

    async def api_caller(key: str, contact: str) -> None:
        await respond(client, client_conversation_id=key, To=contact, messaging_service_sid=SERVICE_SID)

    async def message(key: str, contact: str) -> None:
        await create_message(
            client,
            sender_number="",
            messaging_service_sid=SERVICE_SID,
            client_conversation_id=key,
            receiver_number=contact,
        )

    acts: list[Callable[[str, str], Awaitable[None]]] = [
        browser,
        api_caller,
        message,
        lambda key, contact: update(client, key, contact),
    ]
    asked = [chosen.choice(acts)(chosen.choice(CONVERSATIONS), chosen.choice(CONTACTS)) for _ in range(60)]

    done = await asyncio.gather(*asked, return_exceptions=True)

    failures = [each for each in done if isinstance(each, BaseException)]
    refusals = {refusal(each).reason for each in failures if isinstance(each, grpc.aio.AioRpcError)}
    assert refusals <= EXPECTED_REFUSALS
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in failures), failures
    assert await broken(db) == []
    made = [(call.row.provider_number, call.row.participant_number) for call in await calls_of(db)]
    paired = {(call.row.conversation_id, *made[place]) for place, call in enumerate(await calls_of(db))}
    # A number and a contact are of one conversation.
    assert len({(number, contact) for _conversation, number, contact in paired}) == len(paired)
