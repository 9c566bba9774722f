"""Whole calls: the sandbox carries our scripts out, signs what it tells, and our reader understands all of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.providers.twilio.recordings import TwilioCallRecordingFetcher
from server.providers.twilio.voice import TwilioVoiceCalls
from server.providers.voice_ports import (
    VOICE_TOKEN_PARAMETER,
    ConferenceEvent,
    DialResult,
    IncomingCall,
    LegAnswer,
    LegProgress,
    MenuChoice,
    RecordingReport,
)
from tests.providers.sandbox_voice.account import call_of
from tests.providers.servers import Sandbox
from tests.providers.twilio_voice.browser import TOKENS
from tests.providers.twilio_voice.outbound import NUMBER, OTHER_PHONE, PHONE, make_call
from tests.providers.twilio_voice.server import TIME_LIMIT, Server

LEG = uuid4()


def token(voice_token_uuid: UUID, *, identity: str = "staff_7") -> str:
    """A browser's, good from now on."""
    return TOKENS.sign(
        identity=identity, voice_token_uuid=voice_token_uuid, issued_at=datetime.now(UTC), ttl=timedelta(hours=1)
    )


async def heard(sandbox: Sandbox, call_sid: str) -> list[str]:
    """What whoever is on the phone has heard."""
    call = await sandbox.control("GET", f"calls/{call_sid}")
    return [each["text"] for each in call["heard"] if each["kind"] == "say"]


async def said_at_last(sandbox: Sandbox, call_sid: str) -> str:
    """The last that whoever is on the phone has heard, once the call is over."""
    await call_of(sandbox, call_sid)
    return (await heard(sandbox, call_sid))[-1]


async def call_in(sandbox: Sandbox) -> str:
    """A contact calls our number."""
    called: dict[str, Any] = await sandbox.control("POST", "calls", json={"from": PHONE, "to": NUMBER})
    return str(called["sid"])


async def assert_nothing_was_wrong(sandbox: Sandbox) -> None:
    assert (await sandbox.control("GET", "problems"))["problems"] == []


def menu(server: Server, *, attempt: int = 1, pressed: str | None = None) -> bytes:
    return server.scripts.return_call_menu(
        call_uuid=server.call_uuid, attempt=attempt, pressed=pressed, opted_out=False
    )


async def test_conference_is_joined_recorded_and_ended_by_its_moderator(
    calls: TwilioVoiceCalls, server: Server, sandbox: Sandbox, fetcher: TwilioCallRecordingFetcher
) -> None:
    moderator = make_call(
        call_uuid=server.call_uuid, conference_uuid=server.conference_uuid, leg_uuid=server.moderator_leg
    )
    moderator_sid = (await calls.dial(moderator)).call_sid
    await server.until(ConferenceEvent, lambda event: event.name == "participant-join")
    contact_sid = (await calls.dial(replace(moderator, leg_uuid=LEG, to_number=OTHER_PHONE))).call_sid
    await server.until(LegAnswer, lambda answer: (answer.progress.call_sid, answer.is_welcomed) == (contact_sid, True))
    await server.until(ConferenceEvent, lambda event: event.name == "conference-start")
    await sandbox.control("POST", f"calls/{contact_sid}/speech", json={"text": "Hello, this is me."})

    await calls.hang_up(moderator_sid)

    end = await server.until(ConferenceEvent, lambda event: event.name == "conference-end")
    assert end.conference_uuid == server.conference_uuid
    await server.until_status(LEG, "completed")
    recording = await server.until(RecordingReport, lambda told: told.provider_status == "completed")
    assert recording.conference_sid == end.conference_sid
    assert recording.call_uuid == server.call_uuid
    assert recording.url is not None
    async with fetcher.open(recording.url) as chunks:
        assert [chunk async for chunk in chunks]
    assert await heard(sandbox, moderator_sid) == []
    assert await heard(sandbox, contact_sid) == ["This is a call from your school."]
    await assert_nothing_was_wrong(sandbox)


async def test_browser_calls_a_contact(server: Server, sandbox: Sandbox) -> None:
    voice_token_uuid = uuid4()
    server.answers[IncomingCall] = lambda call: server.scripts.dial_contact(
        call_uuid=server.call_uuid,
        leg_uuid=LEG,
        caller_id=NUMBER,
        phone_number=call.to_number,
        time_limit=TIME_LIMIT,
    )
    server.answers[DialResult] = lambda _: server.scripts.hang_up()
    await sandbox.control("PUT", f"phones/{PHONE}", json={"hangs_up_after_ms": 4000})

    browser = await sandbox.control(
        "POST",
        "clients/staff_7/calls",
        json={"token": token(voice_token_uuid), "params": {"To": PHONE, VOICE_TOKEN_PARAMETER: "forged"}},
    )

    asked = await server.until(IncomingCall)
    assert (asked.call_sid, asked.from_identity, asked.to_number) == (browser["sid"], "staff_7", PHONE)
    assert asked.parameters == {"To": PHONE, VOICE_TOKEN_PARAMETER: str(voice_token_uuid)}
    leg = await server.until_status(LEG, "in-progress")
    assert leg.to_number == PHONE
    detected = await server.until(LegProgress, lambda told: told.answered_by is not None)
    assert (detected.leg_uuid, detected.call_sid, detected.answered_by) == (LEG, leg.call_sid, "human")
    result = await server.until(DialResult)
    assert (result.dial_status, result.dial_call_sid) == ("completed", leg.call_sid)
    recording = await server.until(RecordingReport, lambda told: told.provider_status == "completed")
    assert (recording.call_sid, recording.channels) == (browser["sid"], 2)
    await assert_nothing_was_wrong(sandbox)


@pytest.mark.parametrize(
    ("pickup", "status", "sip_response_code"),
    [("busy", "busy", 486), ("no-answer", "no-answer", 487), ("unreachable", "failed", 404)],
)
async def test_contact_who_is_not_reached_is_told_of(
    server: Server, sandbox: Sandbox, pickup: str, status: str, sip_response_code: int
) -> None:
    server.answers[IncomingCall] = lambda call: server.scripts.dial_contact(
        call_uuid=server.call_uuid, leg_uuid=LEG, caller_id=NUMBER, phone_number=PHONE, time_limit=TIME_LIMIT
    )
    await sandbox.control("PUT", f"phones/{PHONE}", json={"pickup": pickup})

    await sandbox.control("POST", "clients/staff_7/calls", json={"token": token(uuid4())})

    assert (await server.until(DialResult)).dial_status == status
    assert (await server.until_status(LEG, status)).sip_response_code == sip_response_code
    assert server.of(RecordingReport) == []


async def test_contact_who_calls_back_is_connected_with_the_browser(server: Server, sandbox: Sandbox) -> None:
    server.answers[IncomingCall] = lambda _: menu(server)
    server.answers[MenuChoice] = lambda _: server.scripts.ring_browser(
        call_uuid=server.call_uuid, leg_uuid=LEG, identity="staff_7", caller_id=PHONE, time_limit=TIME_LIMIT
    )
    await sandbox.control("POST", "clients", json={"token": token(uuid4()), "hangs_up_after_ms": 3000})
    await sandbox.control("PUT", f"phones/{PHONE}", json={"presses": ["1"]})

    sid = await call_in(sandbox)

    incoming = await server.until(IncomingCall)
    assert (incoming.call_sid, incoming.from_number, incoming.to_number) == (sid, PHONE, NUMBER)
    assert (incoming.from_identity, incoming.parameters) == (None, {})
    choice = await server.until(MenuChoice)
    assert (choice.call_uuid, choice.digits, choice.attempt) == (server.call_uuid, "1", 1)
    leg = await server.until_status(LEG, "in-progress")
    assert leg.to_number == "client:staff_7"
    assert (await server.until(DialResult)).dial_status == "completed"
    recording = await server.until(RecordingReport, lambda told: told.provider_status == "completed")
    assert (recording.call_sid, recording.channels) == (sid, 2)
    await assert_nothing_was_wrong(sandbox)


async def test_browser_that_is_not_there_does_not_answer(server: Server, sandbox: Sandbox) -> None:
    server.answers[IncomingCall] = lambda _: server.scripts.ring_browser(
        call_uuid=server.call_uuid, leg_uuid=LEG, identity="nobody", caller_id=PHONE, time_limit=TIME_LIMIT
    )

    await call_in(sandbox)

    assert (await server.until(DialResult)).dial_status in ("no-answer", "failed")


async def test_menu_hears_wrong_keys_and_silence_again(server: Server, sandbox: Sandbox) -> None:
    server.answers[IncomingCall] = lambda _: menu(server)
    server.answers[MenuChoice] = lambda choice: (
        menu(server, attempt=choice.attempt + 1, pressed=choice.digits)
        if choice.attempt < 3
        else server.scripts.say_and_hang_up("Goodbye.")
    )
    await sandbox.control("PUT", f"phones/{PHONE}", json={"presses": ["", "9", "#"]})

    sid = await call_in(sandbox)

    await server.until(MenuChoice, lambda choice: choice.attempt == 3)
    assert [(choice.digits, choice.attempt) for choice in server.of(MenuChoice)] == [("", 1), ("9", 2), ("", 3)]
    assert await said_at_last(sandbox, sid) == "Goodbye."
    first, second, third, _ = await heard(sandbox, sid)
    assert first.startswith("To speak with your school, press 1.")
    assert second == f"No key was pressed. {first}"
    assert third == f"Sorry, that is not one of the choices. {first}"
    await assert_nothing_was_wrong(sandbox)


async def test_voicemail_is_recorded_once_and_can_be_had(
    server: Server, sandbox: Sandbox, fetcher: TwilioCallRecordingFetcher
) -> None:
    server.answers[IncomingCall] = lambda _: server.scripts.take_voicemail(call_uuid=server.call_uuid)
    server.answers[RecordingReport] = lambda _: server.scripts.hang_up()
    await sandbox.control("PUT", f"phones/{PHONE}", json={"says": ["The bus was late again."]})

    sid = await call_in(sandbox)

    completed = await server.until(RecordingReport, lambda told: told.provider_status == "completed")
    reports = server.of(RecordingReport)
    assert {(report.recording_sid, report.call_sid, report.call_uuid) for report in reports} == {
        (completed.recording_sid, sid, server.call_uuid)
    }
    assert {report.provider_status for report in reports} == {"in-progress", "completed"}
    assert completed.url is not None
    async with fetcher.open(completed.url) as chunks:
        assert b"".join([chunk async for chunk in chunks]).startswith(b"RIFF")
    await assert_nothing_was_wrong(sandbox)


async def test_who_says_nothing_leaves_no_voicemail_and_is_told_so(server: Server, sandbox: Sandbox) -> None:
    server.answers[IncomingCall] = lambda _: server.scripts.take_voicemail(call_uuid=server.call_uuid)

    sid = await call_in(sandbox)

    absent = await server.until(RecordingReport, lambda told: told.provider_status == "absent")
    assert absent.call_uuid == server.call_uuid
    assert await said_at_last(sandbox, sid) == "We did not hear a message. Goodbye."
    await assert_nothing_was_wrong(sandbox)


async def test_mocked_order_of_a_conference_is_read_to_its_end(
    calls: TwilioVoiceCalls, server: Server, sandbox: Sandbox
) -> None:
    await sandbox.control("PUT", f"phones/{PHONE}", json={"scenario": "mocked"})
    call = make_call(leg_uuid=server.moderator_leg)

    await calls.dial(call)

    first = await server.until(LegAnswer)
    assert (first.progress.provider_status, first.progress.answered_by) == ("ringing", "unknown")
    last = await server.until(LegAnswer, lambda answer: answer.progress.provider_status == "completed")
    assert last.progress.answered_by == "human"
    end = await server.until(ConferenceEvent, lambda event: event.name == "conference-end")
    assert end.conference_uuid == call.conference_uuid
