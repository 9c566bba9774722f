"""Voice tokens: what a browser is given, whose it is, and the conversation that it belongs to."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
from commonservices.v1 import conversation_pb2, conversation_service_pb2
from commonservices.v1 import sdk_call_service_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import scalar_row

from server.api import running_api
from server.calls.browsers.voice_tokens import identity_of
from server.config import Settings
from server.db import Database
from tests.calls.browsers import MODERATOR, new_token, token_of, tokens_of
from tests.clients import Client, Refusal, client_with, refused
from tests.conftest import TWILIO_API_KEY_SECRET, TWILIO_API_KEY_SID, TWILIO_TWIML_APP_SID, MakeClient
from tests.factories import RECEIVER, SERVICE_SID, make_messaging_service
from tests.messages.support import count

INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def conversation(client: Client, **key: Any) -> conversation_pb2.Conversation:
    """The conversation of a client_conversation_id."""
    request = conversation_service_pb2.GetConversationRequest(**key)
    return await client.conversations.GetConversation(request, metadata=client.metadata)


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, signed with the API key."""
    assert jwt.get_unverified_header(token)["cty"] == "twilio-fpa;v=1"
    return dict(jwt.decode(token, TWILIO_API_KEY_SECRET, algorithms=["HS256"]))


async def test_token_lets_the_browser_be_rung_and_call_with_what_is_kept(client: Client, db: Database) -> None:
    await make_messaging_service(db)
    before = datetime.now(UTC).replace(microsecond=0)

    answer = await new_token(
        client,
        client_call_id="call-7",
        callback_url="http://callbacks.example/calls",
        phone_number="206-555-0190",
        messaging_service_sid=SERVICE_SID,
        global_customer_id="customer",
        ttl=600,
    )

    [row] = await tokens_of(db)
    claims = claims_of(answer.token)
    assert answer.identity == row.identity == identity_of(bearer_id=client.bearer_id, moderator_id=MODERATOR)
    assert claims["grants"] == {
        "identity": answer.identity,
        "voice": {
            "incoming": {"allow": True},
            "outgoing": {
                "application_sid": TWILIO_TWIML_APP_SID,
                "params": {"voice_token_uuid": str(row.uuid)},
            },
        },
    }
    assert (claims["iss"], claims["exp"] - claims["iat"]) == (TWILIO_API_KEY_SID, 600)
    assert row.expires_at - row.created_at == timedelta(seconds=600)
    assert before <= row.created_at <= datetime.now(UTC)
    assert (row.bearer_id, row.moderator_id, row.client_call_id) == (client.bearer_id, MODERATOR, "call-7")
    assert (row.callback_url, row.phone_number) == ("http://callbacks.example/calls", RECEIVER)
    assert (row.messaging_service_sid, row.global_customer_id) == (SERVICE_SID, "customer")


async def test_token_is_good_for_an_hour_where_it_does_not_say(client: Client) -> None:
    claims = claims_of((await new_token(client)).token)

    assert claims["exp"] - claims["iat"] == 3600


async def test_conversation_is_made_with_its_moderator_once(client: Client, db: Database) -> None:
    await make_messaging_service(db)

    await asyncio.gather(
        *(new_token(client, messaging_service_sid=SERVICE_SID, callback_url="http://a.example/b") for _ in range(8))
    )
    await new_token(client, moderator_id="another")

    made = await conversation(client, client_conversation_id="conversation-1")
    assert await count(db, "conversations") == 1
    assert await count(db, "voice_tokens") == 9
    assert made.callback_url == "http://a.example/b"
    assert made.messaging_service_uuid
    assert [(p.role, p.client_participant_id, p.phone_number) for p in made.participants] == [
        ("moderator", MODERATOR, ""),
        ("moderator", "another", ""),
    ]


async def test_conversation_is_found_by_any_of_its_ids(client: Client, db: Database) -> None:
    await new_token(client)
    known = await conversation(client, client_conversation_id="conversation-1")

    for key in ("internal_conversation_id", "global_id"):
        value = getattr(known, key)
        await new_token(client, conversation_id=value)
        await new_token(client, conversation_id="", **{key: value})
    await new_token(client, conversation_id="", client_conversation_id="conversation-1")

    rows = await tokens_of(db)
    assert len(rows) == 6
    assert {row.conversation_id for row in rows} == {known.id}


async def test_own_id_of_a_conversation_is_meant_before_another_conversations_uuid(
    client: Client, db: Database
) -> None:
    await new_token(client)
    first = await conversation(client, client_conversation_id="conversation-1")

    await new_token(client, conversation_id="", client_conversation_id=first.global_id)
    await new_token(client, conversation_id=first.global_id)

    [one, other, again] = await tokens_of(db)
    assert one.conversation_id == first.id
    assert other.conversation_id == again.conversation_id != first.id


async def test_uuid_of_anothers_conversation_is_an_id_like_any_other(
    client: Client, client_of: MakeClient, db: Database
) -> None:
    await new_token(client)
    known = await conversation(client, client_conversation_id="conversation-1")
    other = await client_of()

    await new_token(other, conversation_id=known.global_id)
    refusal = await refused(new_token(other, conversation_id="", global_id=known.global_id))

    [_own, row] = await tokens_of(db)
    assert row.conversation_id != known.id
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND")
    assert refusal.metadata == {"global_id": known.global_id}


async def test_identity_is_one_for_a_bearers_staff_member(client: Client, client_of: MakeClient) -> None:
    other = await client_of()

    one = await new_token(client)
    same = await new_token(client, conversation_id="conversation-2")
    another = await new_token(client, moderator_id="another")
    anothers = await new_token(other)

    assert one.identity == same.identity
    assert len({one.identity, another.identity, anothers.identity}) == 3


@given(st.integers(1, 2**40), st.text(min_size=1, max_size=255), st.integers(1, 2**40), st.text(min_size=1))
def test_identities_have_no_more_than_browsers_names_may(
    bearer_id: int, moderator_id: str, other_bearer_id: int, other_moderator_id: str
) -> None:
    one = identity_of(bearer_id=bearer_id, moderator_id=moderator_id)
    other = identity_of(bearer_id=other_bearer_id, moderator_id=other_moderator_id)

    assert re.fullmatch(r"[A-Za-z0-9_]{1,121}", one)
    assert (one == other) == ((bearer_id, moderator_id) == (other_bearer_id, other_moderator_id))


@pytest.mark.parametrize(
    ("over", "fields"),
    [
        ({"moderator_id": ""}, {"moderator_id"}),
        ({"conversation_id": ""}, {"conversation_id"}),
        ({"moderator_id": " ", "conversation_id": "\n"}, {"moderator_id", "conversation_id"}),
        ({"moderator_id": "x" * 256}, {"moderator_id"}),
        ({"moderator_id": "a\0b", "client_call_id": "a\0b"}, {"moderator_id", "client_call_id"}),
        ({"client_conversation_id": "a"}, {"client_conversation_id"}),
        ({"conversation_id": "", "client_conversation_id": "a", "global_id": "b"}, {"global_id"}),
        ({"callback_url": "javascript:1", "phone_number": "nobody"}, {"callback_url", "phone_number"}),
        ({"ttl": 59}, {"ttl"}),
        ({"ttl": 86401}, {"ttl"}),
        ({"messaging_service_sid": " a", "global_customer_id": "b "}, {"messaging_service_sid", "global_customer_id"}),
    ],
)
async def test_every_bad_field_is_named(client: Client, db: Database, over: dict[str, Any], fields: set[str]) -> None:
    refusal = await refused(new_token(client, **over))

    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_ARGUMENT")
    assert set(refusal.fields) == {f"conversation.{field}" for field in fields}
    assert await count(db, "conversations") == 0


async def test_nothing_at_all_is_one_bad_field(client: Client) -> None:
    call = client.sdk_calls.CreateVoiceToken(pb.CreateVoiceTokenRequest(), metadata=client.metadata)

    assert (await refused(call)).fields == ("conversation",)


async def test_unknown_messaging_service_is_told_before_anybody_calls(client: Client, db: Database) -> None:
    refusal = await refused(new_token(client, messaging_service_sid="MG0"))

    assert refusal == Refusal(
        grpc.StatusCode.FAILED_PRECONDITION, "NO_SENDER_NUMBER", {"messaging_service_sid": "MG0"}, ()
    )
    assert await count(db, "conversations") == 0


async def test_nobody_without_a_key_has_a_token(client: Client, db: Database) -> None:
    request = pb.CreateVoiceTokenRequest(conversation=token_of())

    refusal = await refused(client.sdk_calls.CreateVoiceToken(request))

    assert refusal.reason == "CREDENTIALS_MISSING"
    assert await count(db, "voice_tokens") == 0


async def test_without_an_api_key_of_twilios_there_are_no_tokens(
    client: Client, db: Database, settings: Settings
) -> None:
    nothing = {name: None for name in ("twilio_api_key_sid", "twilio_api_key_secret", "twilio_twiml_app_sid")}
    async with (
        running_api(settings.model_copy(update=nothing), listen="127.0.0.1:0") as api,
        grpc.aio.insecure_channel(f"127.0.0.1:{api.port}") as channel,
    ):
        without = client_with(channel, bearer_id=client.bearer_id, token=client.token)
        refusal = await refused(new_token(without))
        bad = await refused(new_token(without, moderator_id=""))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VOICE_NOT_CONFIGURED")
    assert bad.fields == ("conversation.moderator_id",)
    assert await count(db, "conversations") == 0


async def test_full_conversation_takes_no_other_moderator(client: Client, db: Database) -> None:
    await new_token(client)
    await db.execute(
        "INSERT INTO participants (conversation_id, role, phone_number) "
        "SELECT id, 'contact', '+1206555' || to_char(n, 'FM0000') FROM conversations, generate_series(1, 249) n"
    )

    refusal = await refused(new_token(client, moderator_id="another"))
    await new_token(client)

    assert refusal.fields == ("conversation.participants",)
    newest = await db.fetch_one("SELECT max(moderator_id) FROM voice_tokens", {}, scalar_row)
    assert newest == MODERATOR


async def test_token_that_expired_a_day_ago_is_forgotten_once_there_is_a_newer_one(
    client: Client, db: Database
) -> None:
    await new_token(client, conversation_id="conversation-2")
    for _ in range(3):
        await new_token(client)
    others, old, lately, live = [row.id for row in await tokens_of(db)]
    for token, hours in ((others, 48), (old, 25), (lately, 23)):
        await db.execute(
            "UPDATE voice_tokens SET expires_at = now() - make_interval(hours => %s) WHERE id = %s", [hours, token]
        )

    await new_token(client)

    *kept, _new = [row.id for row in await tokens_of(db)]
    assert kept == [others, lately, live]


async def test_repeated_request_id_answers_the_first_token(client: Client, db: Database) -> None:
    def requested(**over: Any) -> Any:
        request = pb.CreateVoiceTokenRequest(conversation=token_of(**over), request_id="once")
        return client.sdk_calls.CreateVoiceToken(request, metadata=client.metadata)

    await make_messaging_service(db)
    first = await requested()
    # A token made a second later is another one.
    await asyncio.sleep(1.1)
    again = await requested()
    other = await refused(requested(client_call_id="another"))

    assert again == first
    assert (other.code, other.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert len(await tokens_of(db)) == 1
