"""Calls, tokens, messages and changes of the same conversations and contacts at once: all are made, nobody waits for
somebody who waits for them."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import grpc.aio
import pytest
from commonservices.v1 import conversation_service_pb2

from server.db import Database
from tests.calls.browsers import calls_of, connect, new_token, respond, tokens_of
from tests.calls.twilio import Twilio, call_sid
from tests.clients import Client, refusal
from tests.conversations.support import broken
from tests.factories import SERVICE_SID, create_message, make_messaging_service

CONTACTS = ("+12065550190", "+12065550191")
CONVERSATIONS = ("a", "b", "c")

# Two conversations use up the two numbers for a contact: a third is refused one.
EXPECTED_REFUSALS = {"NUMBER_POOL_EXHAUSTED"}


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
