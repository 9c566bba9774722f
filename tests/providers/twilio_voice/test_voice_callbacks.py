"""Reading what Twilio posts of calls: every kind as it is documented, and with all that may be missing."""

from datetime import datetime
from uuid import UUID

import pytest

from server.providers.ports import CallbackMalformed, ProviderError
from server.providers.voice_ports import (
    ConferenceEvent,
    DialResult,
    IncomingCall,
    LegAnswer,
    LegProgress,
    MenuChoice,
    RecordingReport,
)
from tests.providers.twilio_voice.callbacks import (
    AT,
    CALL,
    CALL_BLOCK,
    CALL_SID,
    CONFERENCE,
    CONFERENCE_EVENT,
    CONFERENCE_URL,
    DIAL,
    DIAL_URL,
    INCOMING_URL,
    LEG,
    LEG_ANSWER_URL,
    LEG_PROGRESS_URL,
    MENU,
    MENU_URL,
    PROGRESS,
    READER,
    RECORDING,
    RECORDING_URL,
    SDK,
    SDK_URL,
    TIMESTAMP,
    URLS,
    signed,
    without,
)


def test_contacts_call_is_read() -> None:
    assert READER.read_incoming_call(signed(INCOMING_URL, CALL_BLOCK)) == IncomingCall(
        call_sid=CALL_SID,
        provider_status="ringing",
        from_number="+14155550123",
        to_number="+12065550100",
        from_identity=None,
        parameters={},
    )


def test_browsers_call_is_read_with_what_its_token_and_its_page_say() -> None:
    assert READER.read_incoming_call(signed(SDK_URL, SDK)) == IncomingCall(
        call_sid=CALL_SID,
        provider_status="ringing",
        from_number="client:staff_7",
        to_number="+14155550123",
        from_identity="staff_7",
        parameters={"To": "+14155550123", "voice_token_uuid": str(LEG), "client_conversation_id": "c-1"},
    )


@pytest.mark.parametrize("to", [{}, {"To": ""}])
def test_browser_need_not_say_whom_to_call(to: dict[str, str]) -> None:
    call = READER.read_incoming_call(signed(SDK_URL, without(SDK, "To") | to))

    assert call.to_number == ""
    assert call.parameters["voice_token_uuid"] == str(LEG)


def test_what_twilio_says_of_every_call_is_no_parameter() -> None:
    fields = PROGRESS | CALL_BLOCK | {"From": "client:staff_7", "CallerName": "x", "StirPassportToken": "y"}

    assert READER.read_incoming_call(signed(SDK_URL, fields)).parameters == {"To": "+12065550100"}


def test_leg_that_asks_for_its_script_is_read() -> None:
    answer = READER.read_leg_answer(signed(LEG_ANSWER_URL, PROGRESS | {"CallStatus": "in-progress"}))

    assert answer.conference_uuid == CONFERENCE
    assert answer.progress.leg_uuid == LEG
    assert (answer.progress.provider_status, answer.progress.answered_by) == ("in-progress", "machine_start")
    assert not answer.is_welcomed


def test_leg_that_has_heard_the_welcome_message_is_read() -> None:
    url = URLS.welcomed_leg_answer(conference_uuid=CONFERENCE, leg_uuid=LEG)

    answer = READER.read_leg_answer(signed(url, PROGRESS | {"CallStatus": "in-progress"}))

    assert (answer.conference_uuid, answer.progress.leg_uuid, answer.is_welcomed) == (CONFERENCE, LEG, True)


def test_leg_without_a_uuid_of_ours_is_read() -> None:
    url = f"https://api.example/api/v1/twilio_calls/voice_responses?conference_uuid={CONFERENCE}"

    answer = READER.read_leg_answer(signed(url, CALL_BLOCK | {"StirStatus": "", "AnsweredBy": "unknown"}))

    assert answer == LegAnswer(
        progress=LegProgress(
            call_sid=CALL_SID,
            provider_status="ringing",
            answered_by="unknown",
            occurred_at=None,
            to_number="+12065550100",
            error=None,
            sip_response_code=None,
            leg_uuid=None,
        ),
        conference_uuid=CONFERENCE,
        is_welcomed=False,
    )


def test_progress_of_a_leg_is_read() -> None:
    assert READER.read_leg_progress(signed(LEG_PROGRESS_URL, PROGRESS)) == LegProgress(
        call_sid=CALL_SID,
        provider_status="completed",
        answered_by="machine_start",
        occurred_at=AT,
        to_number="+12065550100",
        error=None,
        sip_response_code=200,
        leg_uuid=LEG,
    )


def test_outcome_of_a_detection_has_no_status() -> None:
    fields = {
        "AccountSid": "AC" + "1" * 32,
        "CallSid": CALL_SID,
        "AnsweredBy": "human",
        "MachineDetectionDuration": "2300",
    }

    progress = READER.read_leg_progress(signed(LEG_PROGRESS_URL, fields))

    assert (progress.call_sid, progress.provider_status, progress.answered_by) == (CALL_SID, None, "human")
    assert progress.to_number == ""


def test_error_of_a_leg_is_twilios_code_with_its_page() -> None:
    progress = READER.read_leg_progress(signed(LEG_PROGRESS_URL, PROGRESS | {"ErrorCode": "13224"}))

    assert progress.error == ProviderError("13224", "https://www.twilio.com/docs/api/errors/13224")


@pytest.mark.parametrize("code", ["", "0", "none", "../x", "9" * 5000])
def test_error_code_that_is_none_is_no_error(code: str) -> None:
    assert READER.read_leg_progress(signed(LEG_PROGRESS_URL, PROGRESS | {"ErrorCode": code})).error is None


@pytest.mark.parametrize(("code", "read"), [("404", 404), ("", None), ("none", None), ("-1", None), ("9" * 50, None)])
def test_what_the_network_answered_is_a_number_or_not_known(code: str, read: int | None) -> None:
    fields = PROGRESS | {"CallStatus": "failed", "SipResponseCode": code}

    assert READER.read_leg_progress(signed(LEG_PROGRESS_URL, fields)).sip_response_code == read


def test_browsers_leg_is_read() -> None:
    fields = PROGRESS | {"To": "client:staff_7"}

    assert READER.read_leg_progress(signed(LEG_PROGRESS_URL, fields)).to_number == "client:staff_7"


@pytest.mark.parametrize(
    ("timestamp", "at"),
    [
        (TIMESTAMP, AT),
        ("Mon, 23 Nov 2026 01:00:05 -0800", AT),
        ("Mon, 23 Nov 2026 09:00:05 -0000", AT),
        ("23 Nov 2026 09:00:05", AT),
        ("2026-11-23T09:00:05Z", None),
        ("soon", None),
        ("", None),
        ("Mon, 23 Nov 99999 09:00:05 +0000", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("Mon, 23 Nov 2026 09:00:05 +999999999999", None),
    ],
)
def test_time_is_of_rfc_2822_or_not_known(timestamp: str, at: datetime | None) -> None:
    assert READER.read_leg_progress(signed(LEG_PROGRESS_URL, PROGRESS | {"Timestamp": timestamp})).occurred_at == at


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("0", 0), ("61", 61), ("-1", None), ("1.5", None), ("", None), ("٣", None), ("9" * 10, None)],
)
def test_duration_is_whole_seconds_or_not_known(duration: str, seconds: int | None) -> None:
    report = READER.read_recording(signed(RECORDING_URL, RECORDING | {"RecordingDuration": duration}))

    assert report.duration == seconds


def test_conference_event_is_read() -> None:
    assert READER.read_conference_event(signed(CONFERENCE_URL, CONFERENCE_EVENT)) == ConferenceEvent(
        name="participant-leave",
        conference_sid="CF" + "1" * 32,
        conference_uuid=CONFERENCE,
        call_sid=CALL_SID,
        occurred_at=AT,
        participant_call_status="completed",
    )


@pytest.mark.parametrize(("name", "expected"), [(str(LEG), LEG), ("My conference", None), ("", None)])
def test_conference_is_known_by_its_name_where_the_url_has_none(name: str, expected: UUID | None) -> None:
    url = "https://api.example/api/v1/twilio_calls/conference_status_changes"
    fields = {
        "FriendlyName": name,
        "SequenceNumber": "1",
        "ConferenceSid": "CF" + "1" * 32,
        "StatusCallbackEvent": "conference-end",
        "Timestamp": TIMESTAMP,
        "AccountSid": "AC" + "1" * 32,
        "Reason": "last-participant-left",
    }

    event = READER.read_conference_event(signed(url, fields))

    assert event.conference_uuid == expected
    assert (event.name, event.call_sid, event.participant_call_status) == ("conference-end", None, None)


def test_recording_is_read() -> None:
    assert READER.read_recording(signed(RECORDING_URL, RECORDING)) == RecordingReport(
        recording_sid="RE" + "1" * 32,
        provider_status="completed",
        url="https://api.twilio.com/2010-04-01/Accounts/AC1/Recordings/RE1",
        duration=17,
        channels=2,
        call_sid=CALL_SID,
        conference_sid=None,
        call_uuid=CALL,
        source="DialVerb",
    )


def test_recording_of_a_conference_has_no_call() -> None:
    fields = without(RECORDING, "CallSid") | {"ConferenceSid": "CF" + "1" * 32, "RecordingStatus": "absent"}

    report = READER.read_recording(signed(RECORDING_URL, fields))

    assert (report.call_sid, report.conference_sid, report.provider_status) == (None, "CF" + "1" * 32, "absent")


def test_result_of_record_says_no_status_and_may_come_before_the_file() -> None:
    fields = CALL_BLOCK | {
        "Digits": "hangup",
        "RecordingDuration": "9",
        "RecordingSid": "RE" + "1" * 32,
        "RecordingUrl": "https://api.twilio.com/RE1",
    }

    report = READER.read_recording(signed(URLS.voicemail(call_uuid=CALL), fields))

    assert (report.provider_status, report.duration, report.call_uuid) == ("in-progress", 9, CALL)


def test_menu_choice_is_read() -> None:
    assert READER.read_menu_choice(signed(MENU_URL, MENU)) == MenuChoice(call_uuid=CALL, digits="1", attempt=2)


@pytest.mark.parametrize("fields", [without(MENU, "Digits"), MENU | {"Digits": ""}])
def test_nothing_pressed_is_no_digits(fields: dict[str, str]) -> None:
    assert READER.read_menu_choice(signed(MENU_URL, fields)).digits == ""


@pytest.mark.parametrize("attempt", ["0", "-1", "two", "1.0", "9" * 5000])
def test_attempt_that_is_no_number_is_malformed(attempt: str) -> None:
    url = f"{MENU_URL.partition('&')[0]}&attempt={attempt}"

    with pytest.raises(CallbackMalformed, match="attempt in the URL is not a number from 1"):
        READER.read_menu_choice(signed(url, MENU))


def test_dial_result_is_read() -> None:
    assert READER.read_dial_result(signed(DIAL_URL, DIAL)) == DialResult(
        call_sid=CALL_SID,
        call_uuid=CALL,
        provider_status="in-progress",
        dial_status="no-answer",
        dial_call_sid="CA" + "2" * 32,
    )


def test_dial_that_reached_nobody_has_no_call_of_its_own() -> None:
    fields = without(DIAL, "DialCallSid") | {"DialCallStatus": "failed"}

    assert READER.read_dial_result(signed(DIAL_URL, fields)).dial_call_sid is None
