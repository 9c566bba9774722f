import hashlib
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.ports import (
    CallbackMalformed,
    InboundMedia,
    InboundMessage,
    Keyword,
    SignatureInvalid,
    SignedRequest,
)
from server.providers.sandbox.callbacks import signature
from server.providers.twilio.inbound import TwilioInboundMessageReader

FORM = "application/x-www-form-urlencoded; charset=UTF-8"
TOKEN = "SKXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"
URL = "https://api.example/api/v1/twilio_requests/inbound"
READER = TwilioInboundMessageReader(auth_token=TOKEN)

# What Twilio posts of a text, every field of it.
TEXT = {
    "ToCountry": "US",
    "ToState": "WA",
    "SmsMessageSid": "SM" + "1" * 32,
    "NumMedia": "0",
    "ToCity": "SEATTLE",
    "FromZip": "98101",
    "SmsSid": "SM" + "1" * 32,
    "FromState": "WA",
    "SmsStatus": "received",
    "FromCity": "SEATTLE",
    "Body": "Is the bus late? ü 🚌 & co",
    "FromCountry": "US",
    "To": "+12065550100",
    "MessagingServiceSid": "MG" + "1" * 32,
    "ToZip": "98101",
    "AddOns": '{"status":"successful","message":null,"code":null,"results":{}}',
    "NumSegments": "1",
    "MessageSid": "SM" + "1" * 32,
    "AccountSid": "AC" + "1" * 32,
    "From": "+12065550190",
    "ApiVersion": "2010-04-01",
}


def signed(fields: dict[str, str], *, url: str = URL, token: str = TOKEN, body: str | None = None) -> SignedRequest:
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature(token, url, fields)}
    return SignedRequest(url=url, body=(urlencode(fields) if body is None else body).encode(), headers=headers)


def read(**over: str) -> InboundMessage:
    return READER.read(signed(TEXT | over))


def test_text_is_read() -> None:
    assert read() == InboundMessage(
        message_sid="SM" + "1" * 32,
        sender_number="+12065550190",
        receiver_number="+12065550100",
        message_body="Is the bus late? ü 🚌 & co",
        media=(),
        keyword=None,
    )


def test_media_are_read_in_their_order() -> None:
    over = {"NumMedia": "11", "Body": ""}
    for number in range(11):
        over |= {
            f"MediaUrl{number}": f"https://api.twilio.com/{number}",
            f"MediaContentType{number}": f"image/{number}",
        }

    message = read(**over)

    assert message.message_body == ""
    assert message.media == tuple(InboundMedia(f"https://api.twilio.com/{n}", f"image/{n}") for n in range(11))


def test_media_other_than_stated_lose_no_message(capsys: pytest.CaptureFixture[str]) -> None:
    message = read(NumMedia="2", MediaUrl0="https://api.twilio.com/0")

    assert message.media == (InboundMedia("https://api.twilio.com/0", "application/octet-stream"),)
    assert "twilio.media_not_as_stated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("opt_out_type", "keyword"),
    [("STOP", Keyword.STOP), ("START", Keyword.START), ("HELP", Keyword.HELP), ("Stop", Keyword.STOP), ("LATER", None)],
)
def test_opt_out_type_is_what_twilio_took_the_text_for(opt_out_type: str, keyword: Keyword | None) -> None:
    assert read(OptOutType=opt_out_type, Body="something else").keyword is keyword


def test_text_without_a_body_is_empty() -> None:
    fields = {name: value for name, value in TEXT.items() if name != "Body"}

    assert READER.read(signed(fields)).message_body == ""


def test_nul_is_replaced_and_no_message_lost() -> None:
    message = read(Body="a\0b", From="\0", NumMedia="1", MediaUrl0="https://x.example/\0", MediaContentType0="\0")

    assert (message.message_body, message.sender_number) == ("a\ufffdb", "\ufffd")
    assert message.media == (InboundMedia("https://x.example/\ufffd", "\ufffd"),)


def test_half_a_character_in_json_is_replaced() -> None:
    body = json.dumps(TEXT | {"Body": "a\ud83dz"})
    url = f"{URL}?bodySHA256={hashlib.sha256(body.encode()).hexdigest()}"
    headers = {"Content-Type": "application/json", "X-Twilio-Signature": signature(TOKEN, url, {})}

    message = READER.read(SignedRequest(url=url, body=body.encode(), headers=headers))

    assert message.message_body == "a?z"


@pytest.mark.parametrize(
    ("over", "missing"),
    [
        ({"MessageSid": None}, "missing: MessageSid"),
        ({"From": ""}, "missing: From"),
        ({"To": None}, "missing: To"),
        ({"MessageSid": "", "From": None, "To": ""}, "missing: MessageSid, From, To"),
    ],
)
def test_text_without_a_needed_field_is_malformed(over: dict[str, str | None], missing: str) -> None:
    fields = {name: value for name, value in (TEXT | over).items() if value is not None}

    with pytest.raises(CallbackMalformed) as refused:
        READER.read(signed(fields))
    assert str(refused.value) == missing


@pytest.mark.parametrize(
    ("url", "fields", "token", "golden", "missing"),
    [
        (
            "http://test.com/callback_url",
            {"MessageSid": "SIDTESTING", "MessageStatus": "delivered"},
            TOKEN,
            "R/t8sPRgN+rlhwL3LEQFwLJl7Jk=",
            "missing: From, To",
        ),
        (
            "http://shunkan_ido/api/v1/twilio_requests/webhook_message_updates",
            {"MessageSid": "SIDTESTING", "MessageStatus": "delivered"},
            TOKEN,
            "fSX0swfxH1zw3AxBsY8hFGSlQR4=",
            "missing: From, To",
        ),
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
            "missing: MessageSid",
        ),
    ],
)
def test_golden_signature_holds_before_anything_is_missed(
    url: str, fields: dict[str, str], token: str, golden: str, missing: str
) -> None:
    reader = TwilioInboundMessageReader(auth_token=token)
    body = urlencode(fields).encode()

    with pytest.raises(CallbackMalformed, match=missing):
        reader.read(SignedRequest(url=url, body=body, headers={"Content-Type": FORM, "X-Twilio-Signature": golden}))
    with pytest.raises(SignatureInvalid):
        reader.read(
            SignedRequest(url=url, body=body, headers={"Content-Type": FORM, "X-Twilio-Signature": golden[::-1]})
        )


@pytest.mark.parametrize(
    "request_",
    [
        signed(TEXT, token="another account's token"),
        signed(TEXT, body=urlencode(TEXT | {"Body": "changed"})),
        signed(TEXT, body=urlencode(TEXT | {"OptOutType": "STOP"})),
        signed(TEXT, body=""),
        SignedRequest(url=URL, body=urlencode(TEXT).encode(), headers={"Content-Type": FORM}),
        SignedRequest(url=URL + "?a=b", body=urlencode(TEXT).encode(), headers=signed(TEXT).headers),
    ],
)
def test_request_that_twilio_did_not_sign_is_refused(request_: SignedRequest) -> None:
    with pytest.raises(SignatureInvalid):
        READER.read(request_)


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
texts = st.text(st.characters(codec="utf-8"), max_size=1600)


@given(extra=st.dictionaries(names, texts, max_size=5), body=texts)
def test_signed_text_is_read_whatever_it_says_and_else_holds(extra: dict[str, str], body: str) -> None:
    message = READER.read(signed({**extra, **TEXT, "Body": body}))

    assert message.message_body == body.replace("\0", "\ufffd")
    assert message.media == ()
