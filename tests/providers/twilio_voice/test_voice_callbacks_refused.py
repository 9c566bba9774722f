"""What is not read of what Twilio posts of calls: unsigned, malformed, and what no row can hold."""

import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.ports import CallbackMalformed, SignatureInvalid, SignedRequest
from server.providers.sandbox.callbacks import signature
from server.providers.twilio.voice_callbacks import TwilioVoiceCallbackReader
from tests.providers.twilio_voice.callbacks import (
    CALL,
    CONFERENCE,
    FORM,
    KINDS,
    LEG,
    READER,
    TOKEN,
    every_kind,
    signed,
    without,
)


@pytest.mark.parametrize(
    ("kind", "missing", "told"),
    [
        ("incoming call", ("CallSid", "CallStatus", "From", "To"), "missing: CallSid, CallStatus, From, To"),
        ("incoming call", ("To",), "missing: To"),
        ("browser's call", ("CallSid", "CallStatus", "To"), "missing: CallSid, CallStatus"),
        ("leg answer", ("CallSid", "CallStatus"), "missing: CallSid, CallStatus"),
        ("leg progress", ("CallSid", "CallStatus", "AnsweredBy"), "missing: CallSid, CallStatus"),
        ("conference event", ("StatusCallbackEvent", "ConferenceSid"), "missing: StatusCallbackEvent, ConferenceSid"),
        ("recording", ("RecordingSid",), "missing: RecordingSid"),
        ("menu choice", ("CallSid", "Digits"), "missing: CallSid"),
        ("dial result", ("CallSid", "DialCallStatus"), "missing: CallSid, DialCallStatus"),
    ],
)
@pytest.mark.parametrize("is_empty", [True, False])
def test_callback_without_what_is_needed_names_all_of_it(
    kind: str, missing: tuple[str, ...], told: str, is_empty: bool
) -> None:
    read, url, fields = KINDS[kind]
    fields = fields | dict.fromkeys(missing, "") if is_empty else without(fields, *missing)

    with pytest.raises(CallbackMalformed) as malformed:
        read(signed(url, fields))

    assert str(malformed.value) == told


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("leg answer", "missing: CallSid, conference_uuid in the URL"),
        ("menu choice", "missing: CallSid, call_uuid in the URL, attempt in the URL"),
        ("dial result", "missing: CallSid, call_uuid in the URL"),
    ],
)
def test_url_without_what_is_needed_is_named_with_the_fields(kind: str, told: str) -> None:
    read, url, fields = KINDS[kind]

    with pytest.raises(CallbackMalformed) as malformed:
        read(signed(url.partition("?")[0], without(fields, "CallSid")))

    assert str(malformed.value) == told


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("leg answer", "conference_uuid"),
        ("leg answer", "leg_uuid"),
        ("leg progress", "leg_uuid"),
        ("conference event", "conference_uuid"),
        ("recording", "call_uuid"),
        ("menu choice", "call_uuid"),
        ("dial result", "call_uuid"),
    ],
)
@pytest.mark.parametrize("value", ["1", "0198c8a4-2b1c-7000-8000-00000000000", "%00", "' OR 1=1"])
def test_uuid_in_the_url_that_is_none_is_malformed(kind: str, name: str, value: str) -> None:
    read, url, fields = KINDS[kind]
    query = {"call_uuid": CALL, "leg_uuid": LEG, "conference_uuid": CONFERENCE, "attempt": 1} | {name: value}

    with pytest.raises(CallbackMalformed, match=f"{name} in the URL is not a UUID"):
        read(signed(f"{url.partition('?')[0]}?{urlencode(query)}", fields))


@every_kind
def test_words_that_are_not_known_are_passed_on(
    read: Callable[[SignedRequest], Any], url: str, fields: dict[str, str]
) -> None:
    words = {"CallStatus", "StatusCallbackEvent", "RecordingStatus", "DialCallStatus", "AnsweredBy", "Digits"}

    read_ = read(signed(url, fields | {name: "teleported" for name in words & set(fields)}))

    assert "teleported" in str(read_)


@every_kind
def test_what_no_row_can_hold_is_replaced(
    read: Callable[[SignedRequest], Any], url: str, fields: dict[str, str]
) -> None:
    of_a_form = read(signed(url, {name: f"{value}\0" for name, value in fields.items()}))
    body = json.dumps({name: f"{value}\ud83d" for name, value in fields.items()})
    signed_url = url.partition("#")[0]
    signed_url += f"{'&' if '?' in signed_url else '?'}bodySHA256={hashlib.sha256(body.encode()).hexdigest()}"
    headers = {"Content-Type": "application/json", "X-Twilio-Signature": signature(TOKEN, signed_url, {})}
    of_json = read(SignedRequest(url=signed_url, body=body.encode(), headers=headers))

    assert "\\x00" not in repr(of_a_form)
    assert "\ufffd" in repr(of_a_form)
    assert "\\ud83d" not in repr(of_json)
    assert "?" in repr(of_json)


@every_kind
@pytest.mark.parametrize("tamper", ["token", "body", "url", "nothing signed", "no form"])
def test_request_that_twilio_did_not_sign_is_refused_before_it_is_read(
    read: Callable[[SignedRequest], Any], url: str, fields: dict[str, str], tamper: str
) -> None:
    plain = signed(url, fields)
    unsigned = {"Content-Type": FORM}
    forged = {
        "token": signed(url, fields, token="another account's token"),
        "body": signed(url, fields, body=urlencode(fields | {"CallSid": "CA" + "9" * 32})),
        "url": SignedRequest(url=f"{plain.url}&leg_uuid=1", body=plain.body, headers=plain.headers),
        "nothing signed": SignedRequest(url=plain.url, body=b"", headers=unsigned),
        "no form": SignedRequest(url=plain.url, body=b"\xff", headers=plain.headers),
    }

    with pytest.raises(SignatureInvalid):
        read(forged[tamper])


@pytest.mark.parametrize(
    ("url", "fields", "token", "golden"),
    [
        (
            "https://mycompany.com/myapp.php?foo=1&bar=2",
            {
                "CallSid": "CA1234567890ABCDE",
                "From": "+12349013030",
                "To": "+18005551212",
                "Caller": "+12349013030",
                "Digits": "1234",
            },
            "12345",
            "0/KCTR6DLpKmkAf8muzZqo1nDgQ=",
        ),
        (
            "http://test.com/callback_url",
            {"MessageSid": "SIDTESTING", "MessageStatus": "delivered"},
            TOKEN,
            "R/t8sPRgN+rlhwL3LEQFwLJl7Jk=",
        ),
    ],
)
def test_golden_signature_holds_before_anything_is_missed(
    url: str, fields: dict[str, str], token: str, golden: str
) -> None:
    reader = TwilioVoiceCallbackReader(auth_token=token)
    body = urlencode(fields).encode()

    with pytest.raises(CallbackMalformed, match=r"missing: .*CallStatus"):
        reader.read_incoming_call(
            SignedRequest(url=url, body=body, headers={"Content-Type": FORM, "X-Twilio-Signature": golden})
        )
    with pytest.raises(SignatureInvalid):
        reader.read_incoming_call(
            SignedRequest(url=url, body=body, headers={"Content-Type": FORM, "X-Twilio-Signature": golden[::-1]})
        )


def test_request_without_a_body_is_proved_by_its_url() -> None:
    url = f"https://api.example/api/v1/twilio_calls/{CALL}/call_welcome_message"
    signed_header = {"X-Twilio-Signature": signature(TOKEN, url, {})}

    READER.verify(SignedRequest(url=url, body=b"", headers=signed_header))

    with pytest.raises(SignatureInvalid):
        READER.verify(SignedRequest(url=f"{url}?x=y", body=b"", headers=signed_header))
    with pytest.raises(SignatureInvalid):
        READER.verify(SignedRequest(url=url, body=b"", headers={}))


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
texts = st.text(st.characters(codec="utf-8"), max_size=200)


@every_kind
@given(data=st.data())
def test_signed_callback_is_read_or_malformed_whatever_it_says(
    read: Callable[[SignedRequest], Any], url: str, fields: dict[str, str], data: st.DataObject
) -> None:
    changed = data.draw(st.dictionaries(st.one_of(st.sampled_from(sorted(fields)), names), texts, max_size=6))

    try:
        read(signed(url, fields | changed))
    except CallbackMalformed as malformed:
        missing = str(malformed).removeprefix("missing: ").split(", ")
        assert all(not changed[name] for name in missing)
