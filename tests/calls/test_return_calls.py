"""Contacts who call our numbers: whose conversation answers, and what comes of each digit and of none."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from commonservices.v1 import message_pb2
from psycopg.rows import scalar_row

from server.calls.queries import Call
from server.config import Settings
from server.db import Database
from tests.calls.browsers import MODERATOR, connect, events_of, get, new_token, only_call, tokens_of, told
from tests.calls.twilio import Script, Twilio, call_sid
from tests.clients import CALLBACK_URL, Client, refused
from tests.conftest import MakeClient
from tests.factories import RECEIVER, SENDER, create_message, make_messaging_service
from tests.messages.support import count

STRANGER = "+13035550111"
OTHER_SENDER = "+12065550101"


@pytest.fixture
async def paired(client: Client, db: Database) -> message_pb2.Message:
    """A message of a client to a contact, in the conversation whose answers are the client's."""
    await make_messaging_service(db)
    return await create_message(client)


async def opted_out(db: Database) -> bool:
    """Whether the contact takes no calls."""
    found = await db.fetch_one("SELECT opted_out_at IS NOT NULL FROM call_opt_outs", {}, scalar_row)
    return bool(found)


def leg(call: Call, kind: str) -> Any:
    [found] = [each for each in call.legs if each.kind == kind]
    return found


@pytest.mark.usefixtures("paired")
async def test_call_belongs_to_the_conversation_and_hears_the_menu(
    twilio: Twilio, client: Client, db: Database
) -> None:
    sid = call_sid()
    before = datetime.now(UTC)

    script = await twilio.phone(sid=sid)

    call = await only_call(db)
    shown = await get(client, call.row.uuid)
    [event] = await events_of(db, call.row.uuid)
    assert script.is_golden("return_call_menu")
    assert script.call_uuid == call.row.uuid
    assert (shown.kind, shown.internal_status, shown.provider_status) == ("return", "pending", "ringing")
    assert (shown.provider_number, shown.participant_number, shown.call_sid) == (SENDER, RECEIVER, sid)
    assert (shown.client_conversation_id, shown.bearer_id) == ("conversation-1", client.bearer_id)
    assert (shown.callback_url, shown.client_call_id) == (CALLBACK_URL, "")
    assert not shown.HasField("voicemail")
    assert before <= shown.created_at.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)
    assert (event.type, event.sequence, event.call) == ("direct_calls.call.status_update", 1, shown)
    [contact] = call.legs
    assert (contact.kind, contact.address, contact.call_sid, contact.dial_at) == ("contact", RECEIVER, sid, None)
    # A caller who hangs up in the menu is found out by asking.
    assert contact.check_at is not None


@pytest.mark.usefixtures("paired")
async def test_events_go_where_the_conversation_says(twilio: Twilio, db: Database) -> None:
    await db.execute("UPDATE conversations SET callback_url = 'http://a.example/conversation'")

    await twilio.phone()

    assert (await only_call(db)).row.callback_url == "http://a.example/conversation"


@pytest.mark.usefixtures("paired")
async def test_call_is_one_however_often_it_is_posted(twilio: Twilio, db: Database) -> None:
    sid = call_sid()

    scripts = await asyncio.gather(*(twilio.phone(sid=sid) for _ in range(16)))

    assert len({script.document for script in scripts}) == 1
    assert await count(db, "calls") == 1
    assert await count(db, "call_legs") == 1
    assert len(await told(db, scripts[0].call_uuid)) == 1


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize(
    "caller", [STRANGER, "anonymous", "+266696687", "+86282452253", "Restricted", "sip:a@b.example"]
)
async def test_caller_whom_nobody_knows_hears_the_configured_text(
    twilio: Twilio, settings: Settings, db: Database, caller: str
) -> None:
    script = await twilio.phone(caller=caller)

    assert script.verbs == ["Say", "Hangup"]
    assert script.spoken == settings.unknown_caller_answer
    assert await count(db, "calls") == 0


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("to", [OTHER_SENDER, "+13035550199", "client:somebody", "12"])
async def test_number_that_is_not_paired_with_the_caller_knows_nobody(
    twilio: Twilio, settings: Settings, db: Database, to: str
) -> None:
    assert (await twilio.phone(to=to)).spoken == settings.unknown_caller_answer
    assert await count(db, "calls") == 0


@pytest.mark.usefixtures("paired")
async def test_deactivated_pairing_and_a_bearer_that_is_gone_know_nobody(
    twilio: Twilio, client: Client, settings: Settings, db: Database
) -> None:
    await db.execute("UPDATE bearers SET deleted_at = now() WHERE id = %s", [client.bearer_id])
    of_nobody = await twilio.phone()
    await db.execute("UPDATE bearers SET deleted_at = NULL")
    await db.execute("DELETE FROM pairings")
    deactivated = await twilio.phone()

    assert of_nobody.spoken == deactivated.spoken == settings.unknown_caller_answer
    assert await count(db, "calls") == 0


@pytest.mark.usefixtures("paired")
async def test_browser_that_asks_here_is_nobody(twilio: Twilio, settings: Settings) -> None:
    assert (await twilio.phone(caller="client:staff_1")).spoken == settings.unknown_caller_answer


@pytest.mark.usefixtures("paired")
async def test_call_of_one_kind_is_none_of_the_other(
    twilio: Twilio, client: Client, settings: Settings, db: Database
) -> None:
    await new_token(client)
    [token] = await tokens_of(db)
    of_browser, of_phone = call_sid(), call_sid()
    await connect(twilio, token, sid=of_browser)
    await twilio.phone(sid=of_phone)

    assert (await twilio.phone(sid=of_browser)).spoken == settings.unknown_caller_answer
    assert (await connect(twilio, token, sid=of_phone)).spoken == "This is another call."
    assert await count(db, "calls") == 2


@pytest.mark.usefixtures("paired")
async def test_numbers_may_be_spelled_otherwise(twilio: Twilio, db: Database) -> None:
    await twilio.phone(caller="(206) 555-0190", to="2065550100")

    call = await only_call(db)
    assert (call.row.participant_number, call.row.provider_number) == (RECEIVER, SENDER)


@pytest.mark.usefixtures("paired")
async def test_call_is_its_bearers_alone(twilio: Twilio, client: Client, client_of: MakeClient, admin: Client) -> None:
    script = await twilio.phone()
    other = await client_of()

    assert (await get(client, script.call_uuid)).bearer_id == client.bearer_id
    assert (await get(admin, script.call_uuid)).bearer_id == client.bearer_id
    assert (await refused(get(other, script.call_uuid))).reason == "CALL_NOT_FOUND"


async def call_in(twilio: Twilio) -> tuple[str, Script]:
    """A contact calls and hears the menu."""
    sid = call_sid()
    return sid, await twilio.phone(sid=sid)


@pytest.mark.usefixtures("paired")
async def test_one_rings_the_staff_members_browsers(twilio: Twilio, client: Client, db: Database) -> None:
    await new_token(client, moderator_id="somebody before")
    token = await new_token(client)
    sid, menu = await call_in(twilio)

    script = await twilio.press(menu, "1", sid=sid)
    again = await twilio.press(menu, "1", sid=sid)

    call = await only_call(db)
    browser = leg(call, "sdk")
    assert script.is_golden("return_call_rings")
    assert script.root.findtext("Dial/Client") == token.identity
    assert script.document == again.document
    assert f"leg_uuid={browser.uuid}" in script.url("Dial/Client", "statusCallback")
    assert (browser.address, browser.call_sid, browser.dial_at) == (token.identity, None, None)
    assert (call.row.internal_status, call.row.provider_status) == ("pending", "in-progress")


@pytest.mark.usefixtures("paired")
async def test_who_was_called_by_a_token_that_has_expired_is_rung(twilio: Twilio, client: Client, db: Database) -> None:
    token = await new_token(client)
    await db.execute("UPDATE voice_tokens SET expires_at = now() - interval '1 day'")
    sid, menu = await call_in(twilio)

    script = await twilio.press(menu, "1", sid=sid)

    assert script.root.findtext("Dial/Client") == token.identity


@pytest.mark.usefixtures("paired")
async def test_call_that_was_answered_is_finished_and_ended(twilio: Twilio, client: Client, db: Database) -> None:
    await new_token(client)
    sid, menu = await call_in(twilio)
    ring = await twilio.press(menu, "1", sid=sid)
    browser = call_sid()

    await twilio.progress(ring, "ringing", sid=browser, parent=sid)
    await twilio.progress(ring, "in-progress", sid=browser, parent=sid)
    script = await twilio.dialled(ring, "completed", sid=sid, dial_call_sid=browser)

    call = await get(client, menu.call_uuid)
    assert script.verbs == ["Hangup"]
    assert call.internal_status == "finished"
    assert not call.HasField("voicemail")
    assert leg(await only_call(db), "sdk").call_sid == browser


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("dial_status", ["no-answer", "busy", "failed"])
async def test_call_that_no_browser_answers_goes_to_voicemail(
    twilio: Twilio, client: Client, db: Database, dial_status: str
) -> None:
    await new_token(client)
    sid, menu = await call_in(twilio)
    ring = await twilio.press(menu, "1", sid=sid)

    scripts = [await twilio.dialled(ring, dial_status, sid=sid) for _ in range(2)]

    call = await get(client, menu.call_uuid)
    assert all(script.is_golden("return_call_voicemail") for script in scripts)
    assert (call.internal_status, call.voicemail.internal_status) == ("voicemail", "pending")
    assert (call.voicemail.caller_id, call.voicemail.provider_number) == (RECEIVER, SENDER)
    assert await count(db, "voicemails") == 1


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize(
    ("dial_status", "call_status"), [("canceled", "in-progress"), ("canceled", "completed"), ("no-answer", "completed")]
)
async def test_caller_who_hangs_up_while_it_rings_leaves_no_voicemail(
    twilio: Twilio, client: Client, db: Database, dial_status: str, call_status: str
) -> None:
    await new_token(client)
    sid, menu = await call_in(twilio)
    ring = await twilio.press(menu, "1", sid=sid)

    script = await twilio.dialled(ring, dial_status, sid=sid, call_status=call_status)
    await twilio.follow(
        "http://shunkan_ido/api/v1/twilio_calls/participant_status_changes",
        {"CallSid": sid, "CallStatus": "completed"},
    )

    call = await get(client, menu.call_uuid)
    assert script.verbs == ["Hangup"]
    assert (call.internal_status, call.provider_status) == ("no_answer", "completed")
    assert await count(db, "voicemails") == 0


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("digits", ["1", "2"])
async def test_voicemail_is_taken_at_once_where_there_is_no_browser_or_it_is_chosen(
    twilio: Twilio, client: Client, db: Database, digits: str
) -> None:
    if digits == "2":
        await new_token(client)
    sid, menu = await call_in(twilio)

    scripts = [await twilio.press(menu, digits, sid=sid) for _ in range(3)]

    call = await get(client, menu.call_uuid)
    assert all(script.is_golden("return_call_voicemail") for script in scripts)
    assert (call.internal_status, call.voicemail.internal_status) == ("voicemail", "pending")
    assert call.voicemail.call_uuid == call.uuid
    assert await count(db, "voicemails") == 1
    assert await count(db, "call_legs") == 1
    assert await told(db, menu.call_uuid) == ["pending", "voicemail"]


@pytest.mark.usefixtures("paired")
async def test_token_of_another_conversation_is_not_rung(twilio: Twilio, client: Client) -> None:
    await new_token(client, conversation_id="conversation-2", moderator_id=MODERATOR)
    sid, menu = await call_in(twilio)

    assert (await twilio.press(menu, "1", sid=sid)).verbs == ["Say", "Record", "Say", "Hangup"]


@pytest.mark.usefixtures("paired")
async def test_three_stops_calls_and_takes_them_again_in_the_next_call(twilio: Twilio, db: Database) -> None:
    first, menu = await call_in(twilio)
    stopped = [await twilio.press(menu, "3", sid=first) for _ in range(3)]
    was_out = await opted_out(db)
    second, opted_out_menu = await call_in(twilio)
    taken = [await twilio.press(opted_out_menu, "3", sid=second) for _ in range(3)]

    assert {script.spoken for script in stopped} == {"You will not be called from this number any more. Goodbye."}
    assert {script.spoken for script in taken} == {"You can be called from this number again. Goodbye."}
    assert all(script.verbs == ["Say", "Hangup"] for script in (*stopped, *taken))
    assert was_out
    assert not await opted_out(db)
    assert "stop calls" in menu.spoken
    assert "receive calls" in opted_out_menu.spoken


@pytest.mark.usefixtures("paired")
async def test_three_stops_calls_from_a_number_of_no_messaging_service(twilio: Twilio, db: Database) -> None:
    await db.execute("UPDATE twilio_numbers SET messaging_service_id = NULL")
    await db.execute("UPDATE conversations SET messaging_service_id = NULL")
    first, menu = await call_in(twilio)
    stopped = await twilio.press(menu, "3", sid=first)

    second, opted_out_menu = await call_in(twilio)
    taken = await twilio.press(opted_out_menu, "3", sid=second)

    assert stopped.spoken == "You will not be called from this number any more. Goodbye."
    assert "receive calls" in opted_out_menu.spoken
    assert taken.spoken == "You can be called from this number again. Goodbye."
    assert await count(db, "call_opt_outs") == 0


@pytest.mark.usefixtures("paired")
async def test_three_at_once_is_three_once(twilio: Twilio, db: Database) -> None:
    sid, menu = await call_in(twilio)

    await asyncio.gather(*(twilio.press(menu, "3", sid=sid) for _ in range(7)))

    assert await opted_out(db)


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("digits", ["", "9", "0", "11", "*", "#", "1#", "٣", "x" * 5000])
async def test_wrong_digits_and_silence_hear_the_menu_three_times_in_all(
    twilio: Twilio, client: Client, db: Database, digits: str
) -> None:
    sid, menu = await call_in(twilio)

    second = await twilio.press(menu, digits, sid=sid)
    third = await twilio.press(second, digits, sid=sid)
    goodbye = await twilio.press(third, digits, sid=sid)

    call = await get(client, menu.call_uuid)
    assert second.is_golden("return_call_menu_again" if digits else "return_call_menu_after_silence")
    assert [script.verbs for script in (second, third, goodbye)] == [["Gather/Say"], ["Gather/Say"], ["Say", "Hangup"]]
    assert "attempt=3" in third.url("Gather", "action")
    assert goodbye.spoken == "No choice was made. Goodbye."
    assert (call.internal_status, call.provider_status) == ("pending", "in-progress")
    assert await count(db, "voicemails") == 0


@pytest.mark.usefixtures("paired")
async def test_choice_counts_after_wrong_ones(twilio: Twilio, client: Client) -> None:
    sid, menu = await call_in(twilio)

    second = await twilio.press(menu, "9", sid=sid)
    script = await twilio.press(second, "2", sid=sid)

    assert script.verbs == ["Say", "Record", "Say", "Hangup"]
    assert (await get(client, menu.call_uuid)).internal_status == "voicemail"


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("path", ["return_call_menu", "dial_results"])
async def test_what_is_told_of_a_call_that_is_not_there_is_its_end(twilio: Twilio, db: Database, path: str) -> None:
    url = f"http://shunkan_ido/api/v1/twilio_calls/{path}?attempt=1&call_uuid=0198c8a4-2b1c-7000-8000-00000000000c"

    script = await twilio.follow(url, {"CallSid": call_sid(), "Digits": "2", "DialCallStatus": "no-answer"})

    assert script.verbs == ["Hangup"]
    assert await count(db, "voicemails") == 0


@pytest.mark.usefixtures("paired")
async def test_result_of_a_dial_that_never_was_is_the_end(twilio: Twilio, client: Client, db: Database) -> None:
    sid, menu = await call_in(twilio)
    url = f"http://shunkan_ido/api/v1/twilio_calls/dial_results?call_uuid={menu.call_uuid}"

    script = await twilio.follow(url, {"CallSid": sid, "DialCallStatus": "no-answer"})

    assert script.verbs == ["Hangup"]
    assert (await get(client, menu.call_uuid)).internal_status == "pending"


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize(
    ("query", "form"),
    [
        ("attempt=1", {"CallSid": "CA1"}),
        ("call_uuid=nonsense&attempt=1", {"CallSid": "CA1"}),
        ("call_uuid=0198c8a4-2b1c-7000-8000-00000000000c", {"CallSid": "CA1"}),
        ("call_uuid=0198c8a4-2b1c-7000-8000-00000000000c&attempt=0", {"CallSid": "CA1"}),
        ("call_uuid=0198c8a4-2b1c-7000-8000-00000000000c&attempt=-1", {"CallSid": "CA1"}),
        ("call_uuid=0198c8a4-2b1c-7000-8000-00000000000c&attempt=1", {"Digits": "1"}),
    ],
)
async def test_choice_that_says_too_little_is_malformed(twilio: Twilio, query: str, form: dict[str, str]) -> None:
    url = f"http://shunkan_ido/api/v1/twilio_calls/return_call_menu?{query}"

    refusal = await refused(twilio.follow(url, form))

    assert (refusal.reason, refusal.fields) == ("INVALID_ARGUMENT", ("body",))
