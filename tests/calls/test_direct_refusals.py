"""Browsers' calls that are not made: a browser hears why, an API caller is told, nobody finds a trace of them."""

from typing import Any

import grpc
import grpc.aio
import pytest
from commonservices.v1 import conversation_service_pb2
from psycopg.rows import tuple_row
from structlog.testing import capture_logs

from server.db import Database
from tests.calls.browsers import connect, json_body, new_token, nothing_is_left, respond, token_row, tokens_of
from tests.calls.twilio import SDK_PATH, Script, Twilio, call_sid
from tests.clients import Client, Refusal, refused
from tests.conftest import MakeClient
from tests.factories import RECEIVER, SENDER, SERVICE_SID, create_message
from tests.messages.support import count

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
OTHER_CONTACT = "+12065550191"

NO_TOKEN = "This call has no voice token that is known here."


async def told(client: Client, content: bytes | None = None, **fields: Any) -> Refusal:
    """How a call through the API is refused."""
    return await refused(client.sdk_calls.RespondToSdkCall(json_body(content, **fields), metadata=client.metadata))


async def opt_out(db: Database) -> None:
    """As if everybody had opted out of calls from every messaging service."""
    await db.execute(
        "INSERT INTO call_opt_outs (messaging_service_id, phone_number) SELECT id, %s FROM messaging_services",
        [RECEIVER],
    )


async def heard(script: Script, text: str) -> bool:
    """Whether the browser is told no more than this sentence, and hung up on."""
    return script.verbs == ["Say", "Hangup"] and script.spoken == text


@pytest.mark.usefixtures("messaging_service")
async def test_call_of_a_token_that_is_not_there_is_told_so(twilio: Twilio, client: Client, db: Database) -> None:
    row = await token_row(client, db, phone_number=RECEIVER)
    uuid = str(row.uuid)

    scripts = [
        await twilio.browser(row.identity),
        await twilio.browser(row.identity, parameters={"voice_token_uuid": "nonsense"}),
        await twilio.browser(row.identity, parameters={"voice_token_uuid": "0" * 8 + uuid[8:]}),
        await twilio.browser("staff_of_somebody_else", parameters={"voice_token_uuid": uuid}),
        await twilio.browser("", parameters={"voice_token_uuid": uuid}),
    ]

    assert [await heard(script, NO_TOKEN) for script in scripts] == [True] * 5
    assert await nothing_is_left(db)


@pytest.mark.usefixtures("messaging_service")
async def test_phone_that_calls_the_browsers_url_has_no_token(twilio: Twilio, client: Client, db: Database) -> None:
    row = await token_row(client, db, phone_number=RECEIVER)
    form = {
        "CallSid": call_sid(),
        "CallStatus": "ringing",
        "From": RECEIVER,
        "To": SENDER,
        "voice_token_uuid": str(row.uuid),
    }

    script = await twilio.post(client.sdk_calls.RespondToSdkCall, SDK_PATH, form)

    assert await heard(script, NO_TOKEN)


@pytest.mark.usefixtures("messaging_service")
async def test_token_of_a_bearer_that_is_gone_calls_nobody(twilio: Twilio, client: Client, db: Database) -> None:
    row = await token_row(client, db, phone_number=RECEIVER)
    await db.execute("UPDATE bearers SET deleted_at = now() WHERE id = %s", [client.bearer_id])

    assert await heard(await connect(twilio, row), NO_TOKEN)
    assert await nothing_is_left(db)


@pytest.mark.usefixtures("messaging_service")
async def test_token_that_has_expired_calls_nobody(twilio: Twilio, client: Client, db: Database) -> None:
    row = await token_row(client, db, phone_number=RECEIVER)
    await db.execute("UPDATE voice_tokens SET expires_at = now() - interval '2 minutes'")

    late = await connect(twilio, row)
    await db.execute("UPDATE voice_tokens SET expires_at = now() - interval '30 seconds'")
    in_time = await connect(twilio, row)

    assert await heard(late, "The voice token has expired.")
    assert in_time.verbs == ["Dial/Number"]


@pytest.mark.usefixtures("messaging_service")
@pytest.mark.parametrize(
    ("phone_number", "to", "text"),
    [
        (RECEIVER, OTHER_CONTACT, "The voice token is for another phone number."),
        (RECEIVER, "nobody", "The number to call is not a phone number."),
        ("", "911", "The number to call is not a phone number."),
        ("", "client:staff", "The number to call is not a phone number."),
    ],
)
async def test_page_calls_nobody_but_whom_its_token_is_for(
    twilio: Twilio, client: Client, db: Database, phone_number: str, to: str, text: str
) -> None:
    row = await token_row(client, db, phone_number=phone_number)

    assert await heard(await connect(twilio, row, to=to), text)
    assert await nothing_is_left(db)


@pytest.mark.usefixtures("messaging_service")
async def test_page_may_name_the_tokens_number_again(twilio: Twilio, client: Client, db: Database) -> None:
    row = await token_row(client, db, phone_number=RECEIVER)

    assert (await connect(twilio, row, to="206 555 0190")).verbs == ["Dial/Number"]


@pytest.mark.usefixtures("messaging_service")
async def test_who_has_opted_out_of_calls_is_not_called(twilio: Twilio, client: Client, db: Database) -> None:
    row = await token_row(client, db, phone_number=RECEIVER)
    await opt_out(db)

    script = await connect(twilio, row)
    refusal = await told(client, To=RECEIVER, client_conversation_id="conversation-1")

    assert await heard(script, "This contact has asked not to be called from this number.")
    assert refusal == Refusal(PRECONDITION, "RECIPIENT_OPTED_OUT_OF_CALLS", {"phone_number": RECEIVER}, ())
    assert await nothing_is_left(db)
    # Messages are another matter.
    await create_message(client)


@pytest.mark.usefixtures("messaging_service")
@pytest.mark.parametrize("contacts", [[], [RECEIVER, OTHER_CONTACT]])
async def test_contact_must_be_named_where_it_is_not_the_only_one(
    twilio: Twilio, client: Client, db: Database, contacts: list[str]
) -> None:
    row = await token_row(client, db)
    for contact in contacts:
        await create_message(client, receiver_number=contact)

    script = await connect(twilio, row)
    request = conversation_service_pb2.GetConversationRequest(client_conversation_id="conversation-1")
    global_id = (await client.conversations.GetConversation(request, metadata=client.metadata)).global_id
    refusals = [await told(client, client_conversation_id="conversation-1"), await told(client, global_id=global_id)]

    assert await heard(script, "It is not known whom to call, because the conversation has no contact, or several.")
    assert refusals == [
        Refusal(PRECONDITION, "CONTACT_NOT_NAMED", {"client_conversation_id": "conversation-1"}, ()),
        Refusal(PRECONDITION, "CONTACT_NOT_NAMED", {"global_id": global_id}, ()),
    ]
    assert await count(db, "calls") == 0


async def test_there_must_be_something_to_call_from(twilio: Twilio, client: Client, db: Database) -> None:
    await new_token(client, phone_number=RECEIVER)
    [row] = await tokens_of(db)

    script = await connect(twilio, row)
    refusals = [
        await told(client, client_conversation_id="a", To=RECEIVER),
        await told(client, client_conversation_id="a", To=RECEIVER, messaging_service_sid="MG0"),
        await told(client, To=RECEIVER, global_customer_id="nobody"),
    ]

    assert await heard(script, "There is no number to call from.")
    assert [refusal.reason for refusal in refusals] == ["INVALID_ARGUMENT", "NO_SENDER_NUMBER", "NO_SENDER_NUMBER"]
    assert refusals[0].fields == ("messaging_service_sid",)
    assert refusals[1].metadata == {"messaging_service_sid": "MG0"}
    assert await nothing_is_left(db)
    assert await count(db, "conversations") == 1


@pytest.mark.usefixtures("messaging_service")
async def test_numbers_that_other_conversations_have_are_told(
    twilio: Twilio, client: Client, client_of: MakeClient, db: Database
) -> None:
    row = await token_row(client, db, phone_number=RECEIVER)
    other = await client_of()
    for number in ("+12065550100", "+12065550101"):
        await create_message(other, sender_number=number, client_conversation_id=number)

    script = await connect(twilio, row)
    refusal = await told(client, client_conversation_id="conversation-1", To=RECEIVER)

    assert await heard(script, "Every number there is to call from is used for this contact in other conversations.")
    assert refusal == Refusal(PRECONDITION, "NUMBER_POOL_EXHAUSTED", {"receiver_number": RECEIVER}, ())


@pytest.mark.usefixtures("messaging_service")
async def test_page_calls_contacts_alone_where_its_token_names_no_number(
    twilio: Twilio, client: Client, db: Database
) -> None:
    row = await token_row(client, db)

    stranger = await connect(twilio, row, to=RECEIVER)
    assert await heard(stranger, "The number to call is no contact of the conversation.")
    assert await nothing_is_left(db)

    await respond(client, To=RECEIVER, client_conversation_id="conversation-1", messaging_service_sid=SERVICE_SID)
    assert (await connect(twilio, row, to=RECEIVER)).verbs == ["Dial/Number"]


@pytest.mark.usefixtures("messaging_service")
async def test_our_number_does_not_call_itself(twilio: Twilio, client: Client, db: Database) -> None:
    row = await token_row(client, db, phone_number=SENDER)
    await db.execute("DELETE FROM twilio_numbers WHERE phone_number <> %s", [SENDER])

    script = await connect(twilio, row, to=SENDER)
    refusal = await told(client, To=SENDER, client_conversation_id="a", messaging_service_sid=SERVICE_SID)

    assert await heard(script, "There is no number to call from.")
    assert refusal.reason == "NO_SENDER_NUMBER"
    assert await nothing_is_left(db)


@pytest.mark.usefixtures("messaging_service")
async def test_one_of_our_numbers_is_called_from_another(twilio: Twilio, client: Client, db: Database) -> None:
    row = await token_row(client, db, phone_number=SENDER)

    script = await connect(twilio, row, to=SENDER)

    assert script.verbs == ["Dial/Number"]
    assert await db.fetch_all("SELECT provider_number, participant_number FROM calls", {}, tuple_row) == [
        ("+12065550101", SENDER)
    ]


@pytest.mark.usefixtures("messaging_service")
async def test_full_conversation_takes_no_other_contact(twilio: Twilio, client: Client, db: Database) -> None:
    row = await token_row(client, db, phone_number=RECEIVER)
    await db.execute(
        "INSERT INTO participants (conversation_id, role, phone_number) "
        "SELECT id, 'contact', '+1206555' || to_char(n, 'FM0000') FROM conversations, generate_series(1000, 1248) n"
    )

    script = await connect(twilio, row, to=RECEIVER)
    refusal = await told(client, client_conversation_id="conversation-1", To=RECEIVER)

    assert await heard(script, "The conversation has no room for another contact.")
    assert refusal.fields == ("conversation.participants",)
    assert await nothing_is_left(db)


@pytest.mark.usefixtures("messaging_service")
@pytest.mark.parametrize("to", ["\0", "9" * 100_000, "+" * 1000, "\u202e+1", "+1206555019\0", "nobody\n"])
async def test_whatever_a_page_asks_for_it_hears_a_sentence(
    twilio: Twilio, client: Client, db: Database, to: str
) -> None:
    row = await token_row(client, db)

    assert await heard(await connect(twilio, row, to=to), "The number to call is not a phone number.")
    assert await nothing_is_left(db)


@pytest.mark.usefixtures("messaging_service")
async def test_why_a_browser_cannot_call_is_logged_without_its_numbers(
    twilio: Twilio, client: Client, db: Database
) -> None:
    row = await token_row(client, db, phone_number=RECEIVER)
    await opt_out(db)
    sid = call_sid()

    with capture_logs() as logs:
        await connect(twilio, row, sid=sid)
        await twilio.browser(row.identity, sid=sid)

    refusals = [log for log in logs if log["event"].startswith("direct_call.")]
    assert [(log["event"], log["log_level"], log["call_sid"]) for log in refusals] == [
        ("direct_call.refused", "warning", sid),
        ("direct_call.token_refused", "warning", sid),
    ]
    assert refusals[0]["reason"] == "RECIPIENT_OPTED_OUT_OF_CALLS"
    assert refusals[1]["cause"] == NO_TOKEN
    assert RECEIVER not in repr(refusals)


@pytest.mark.usefixtures("messaging_service")
async def test_another_bearers_conversation_is_not_there(
    client: Client, client_of: MakeClient, admin: Client, db: Database
) -> None:
    message = await create_message(client)
    other = await client_of()

    refusals = [
        await told(caller, **{key: getattr(message, key)})
        for caller in (other, admin)
        for key in ("global_id", "internal_conversation_id")
    ]
    of_own_id = await told(other, client_conversation_id="conversation-1")

    assert {refusal.reason for refusal in refusals} == {"CONVERSATION_NOT_FOUND"}
    assert refusals[0].metadata == {"global_id": message.global_id}
    assert of_own_id.reason == "CONTACT_NOT_NAMED"
    assert await count(db, "calls") == 0


async def test_ids_that_are_none_are_not_found(client: Client) -> None:
    refusal = await told(client, global_id="nonsense")

    assert refusal == Refusal(grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND", {"global_id": "nonsense"}, ())


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"[" * 1_000_000, "body"),
        (b'{"To": "' + b"9" * 1_000_000 + b'"}', "To"),
        (b'{"client_conversation_id": "' + b"x" * 1_000_000 + b'"}', "client_conversation_id"),
        (b"\x00\x01\xff", "body"),
        (b'{"client_conversation_id": "a\\u0000b"}', "client_conversation_id"),
        (b'{"client_conversation_id": "\\ud800"}', "client_conversation_id"),
        (b'{"client_conversation_id": ["a"]}', "client_conversation_id"),
        (b'{"To": 12065550190}', "To"),
    ],
)
async def test_hostile_bodies_are_bad_fields(client: Client, db: Database, content: bytes, field: str) -> None:
    refusal = await told(client, content)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert field in refusal.fields
    assert await nothing_is_left(db)
