import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.twiml import voice_response as sdk

from server.providers.sandbox import voice_verbs as verbs
from server.providers.sandbox.twiml import MAX_BYTES, TwimlInvalid
from server.providers.sandbox.voice_twiml import verbs_in, verbs_of
from server.providers.sandbox.voice_verbs import (
    Client,
    Conference,
    Dial,
    Gather,
    Hangup,
    Number,
    Parameter,
    Pause,
    Play,
    Record,
    Redirect,
    Reject,
    Say,
)


def read(response: sdk.VoiceResponse) -> list[verbs.Verb]:
    return verbs_of("text/xml", str(response).encode())


@pytest.mark.parametrize(
    ("kind", "written_by", "inner"),
    [
        (Say, sdk.VoiceResponse.say, {"message"}),
        (Play, sdk.VoiceResponse.play, set()),
        (Pause, sdk.VoiceResponse.pause, set()),
        (Gather, sdk.VoiceResponse.gather, set()),
        (Dial, sdk.VoiceResponse.dial, {"number"}),
        (Record, sdk.VoiceResponse.record, set()),
        (Redirect, sdk.VoiceResponse.redirect, set()),
        (Hangup, sdk.VoiceResponse.hangup, set()),
        (Reject, sdk.VoiceResponse.reject, set()),
        (Number, sdk.Dial.number, set()),
        (Client, sdk.Dial.client, set()),
        (Conference, sdk.Dial.conference, set()),
        (Parameter, sdk.Client.parameter, set()),
    ],
)
def test_every_attribute_of_the_sdk_is_known(kind: Any, written_by: Callable[..., Any], inner: set[str]) -> None:
    arguments = set(inspect.signature(written_by).parameters) - {"self", "kwargs"} - inner

    assert arguments <= {each.name for each in fields(kind)}


def test_a_menu_is_read() -> None:
    response = sdk.VoiceResponse()
    menu = response.gather(
        input="dtmf speech",
        action="/chosen?call=1",
        num_digits=1,
        timeout=7,
        finish_on_key="",
        speech_timeout="auto",
        action_on_empty_result=True,
        hints="staff, voicemail",
        barge_in=False,
    )
    menu.say("Press 1 & wait", voice="Polly.Joanna", loop=2, language="en-GB")
    menu.play("https://media.example/menu.mp3", loop=0)
    menu.pause(length=3)
    response.redirect("/again", method="GET")

    assert read(response) == [
        Gather(
            input=("dtmf", "speech"),
            action="/chosen?call=1",
            num_digits=1,
            timeout=7,
            finish_on_key="",
            speech_timeout="auto",
            action_on_empty_result=True,
            hints="staff, voicemail",
            barge_in=False,
            prompts=(
                Say("Press 1 & wait", voice="Polly.Joanna", loop=2, language="en-GB"),
                Play("https://media.example/menu.mp3", loop=0),
                Pause(3),
            ),
        ),
        Redirect("/again", method="GET"),
    ]


def test_a_dialled_number_and_client_are_read() -> None:
    response = sdk.VoiceResponse()
    dial = response.dial(
        caller_id="+12065550100",
        timeout=20,
        time_limit=600,
        action="/dialled",
        record="record-from-answer-dual",
        recording_status_callback="/recorded",
        recording_status_callback_event="in-progress completed absent",
        answer_on_bridge=True,
    )
    dial.number(
        "+14155550123",
        machine_detection="Enable",
        amd_status_callback="/amd",
        status_callback="/status",
        status_callback_event="initiated ringing answered completed",
        send_digits="ww12#",
    )
    client = dial.client(status_callback="/client")
    client.identity("staff-1")
    client.parameter(name="call_uuid", value="7 & 8")

    assert read(response) == [
        Dial(
            caller_id="+12065550100",
            timeout=20,
            time_limit=600,
            action="/dialled",
            record="record-from-answer-dual",
            recording_status_callback="/recorded",
            recording_status_callback_event=("in-progress", "completed", "absent"),
            answer_on_bridge=True,
            nouns=(
                Number(
                    "+14155550123",
                    machine_detection="Enable",
                    amd_status_callback="/amd",
                    status_callback="/status",
                    status_callback_event=("initiated", "ringing", "answered", "completed"),
                    send_digits="ww12#",
                ),
                Client("staff-1", (Parameter("call_uuid", "7 & 8"),), status_callback="/client"),
            ),
        )
    ]


def test_a_conference_is_read() -> None:
    response = sdk.VoiceResponse()
    response.say("Welcome")
    response.dial().conference(
        "room",
        start_conference_on_enter=False,
        end_conference_on_exit=True,
        beep="onEnter",
        muted=True,
        wait_url="",
        max_participants=3,
        record="record-from-start",
        status_callback="/conference",
        status_callback_event="start end join leave",
        recording_status_callback="/recorded",
        participant_label="moderator",
    )

    assert read(response) == [
        Say("Welcome"),
        Dial(
            nouns=(
                Conference(
                    "room",
                    start_conference_on_enter=False,
                    end_conference_on_exit=True,
                    beep="onEnter",
                    muted=True,
                    wait_url="",
                    max_participants=3,
                    record="record-from-start",
                    status_callback="/conference",
                    status_callback_event=("start", "end", "join", "leave"),
                    recording_status_callback="/recorded",
                    participant_label="moderator",
                ),
            )
        ),
    ]


def test_what_is_not_said_is_as_at_twilio() -> None:
    response = sdk.VoiceResponse()
    response.record()
    response.dial("+14155550123")
    response.play(digits="1w2")
    response.reject(reason="busy")
    response.hangup()

    record, dial, play, reject, hangup = read(response)

    assert isinstance(record, Record)
    assert (record.timeout, record.max_length, record.finish_on_key, record.play_beep) == (
        5,
        3600,
        "1234567890*#",
        True,
    )
    assert isinstance(dial, Dial)
    assert (dial.timeout, dial.time_limit, dial.record, dial.nouns) == (
        30,
        14_400,
        "do-not-record",
        (Number("+14155550123"),),
    )
    assert (play, reject, hangup) == (Play(digits="1w2"), Reject(reason="busy"), Hangup())


def test_old_words_for_recording_are_those_of_today() -> None:
    written = '<Response><Dial record="true">+14155550123</Dial><Dial record="false">+14155550123</Dial></Response>'

    assert [verb.record for verb in verbs_in(written) if isinstance(verb, Dial)] == [
        "record-from-answer",
        "do-not-record",
    ]


def test_ssml_is_spoken_as_its_words() -> None:
    response = sdk.VoiceResponse()
    said = sdk.Say("Hello ")
    said.emphasis("dear", level="strong")
    said.append(" parent")
    response.append(said)

    assert read(response) == [Say("Hello dear parent")]


def test_plain_text_is_spoken_and_nothing_does_nothing() -> None:
    assert verbs_of("text/plain", b" Hello ") == [Say("Hello")]
    assert verbs_of("text/plain", b" ") == []
    assert verbs_of("text/xml", b"<Response/>") == []


# Line ends are XML's to change, and what is around a text is not part of it.
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"])))
def test_any_words_are_spoken(words: str) -> None:
    response = sdk.VoiceResponse()
    response.say(words)

    assert read(response) == [Say(words)]


@given(st.binary())
def test_any_bytes_are_read_or_refused_by_name(body: bytes) -> None:
    with suppress(TwimlInvalid):
        verbs_of("text/xml", body)


@pytest.mark.parametrize(
    ("content_type", "body", "code", "named"),
    [
        ("application/json", b"{}", 12300, "application/json"),
        ("text/xml", b"<Response>", 12100, "XML"),
        ("text/xml", b" " * (MAX_BYTES + 1), 11750, "longer"),
        ("text/xml", b"<Answer/>", 12200, "<Answer>"),
    ],
)
def test_what_is_no_twiml_is_refused(content_type: str, body: bytes, code: int, named: str) -> None:
    with pytest.raises(TwimlInvalid, match=named) as refused:
        verbs_of(content_type, body)

    assert refused.value.code == code


@pytest.mark.parametrize(
    ("verb", "named"),
    [
        ("<Sing/>", "<Sing>"),
        ("<Message>hello</Message>", "<Message>"),
        ("hello", "text in it"),
        ('<Say pitch="high">hello</Say>', "pitch of <Say>"),
        ('<Say loop="often">hello</Say>', "loop of <Say>"),
        ("<Play/>", "URL or digits"),
        ('<Play digits="12a"/>', "digits of <Play>"),
        ('<Pause length="-1"/>', "length of <Pause>"),
        ("<Gather><Dial>+14155550123</Dial></Gather>", "not <Dial>"),
        ('<Gather input="dtmf touch"/>', "input of <Gather>"),
        ('<Gather numDigits="0"/>', "numDigits of <Gather>"),
        ('<Gather num_digits="1"/>', "num_digits of <Gather>"),
        ('<Gather speechTimeout="soon"/>', "speechTimeout of <Gather>"),
        ('<Gather method="PUT"/>', "method of <Gather>"),
        ('<Gather actionOnEmptyResult="yes"/>', "actionOnEmptyResult of <Gather>"),
        ("<Dial/>", "nobody"),
        ('<Dial record="always">+14155550123</Dial>', "record of <Dial>"),
        ("<Dial><Sip>sip:a@b.example</Sip></Dial>", "<Sip>"),
        ("<Dial><Number/></Dial>", "<Number> is empty"),
        ("<Dial><Client/></Dial>", "identity"),
        ('<Dial><Client>a<Parameter value="1"/></Client></Dial>', "name"),
        ("<Dial><Conference>a</Conference><Number>+14155550123</Number></Dial>", "one <Conference>"),
        (f"<Dial>{'<Number>+14155550123</Number>' * 11}</Dial>", "at most 10"),
        ('<Dial><Conference beep="loud">a</Conference></Dial>', "beep of <Conference>"),
        ('<Dial><Number statusCallbackEvent="answered ended">+14155550123</Number></Dial>', "statusCallbackEvent"),
        ('<Record finishOnKey="x"/>', "finishOnKey of <Record>"),
        ("<Hangup>now</Hangup>", "text in <Hangup>|<Hangup> has text"),
        ('<Reject reason="asleep"/>', "reason of <Reject>"),
    ],
)
def test_what_means_nothing_is_named(verb: str, named: str) -> None:
    with pytest.raises(TwimlInvalid, match=named) as refused:
        verbs_in(f"<Response>{verb}</Response>")

    assert refused.value.code == 12200
