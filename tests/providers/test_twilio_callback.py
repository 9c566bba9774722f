import base64
import hashlib
import hmac
import json
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.ports import (
    CallbackMalformed,
    MessageStatus,
    ProviderError,
    SignatureInvalid,
    SignedRequest,
)
from server.providers.sandbox.callbacks import signature
from server.providers.twilio.callback import TwilioMessageCallbackReader

FORM = "application/x-www-form-urlencoded; charset=UTF-8"
TOKEN = "SKXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"
URL = "https://api.example/api/v1/twilio_requests/webhook_message_updates"
FIELDS = {"MessageSid": "SIDTESTING", "MessageStatus": "delivered"}


def request(
    url: str, body: str | bytes, signed: str | None, *, content_type: str = FORM, header: str = "X-Twilio-Signature"
) -> SignedRequest:
    headers = {"Content-Type": content_type} | ({} if signed is None else {header: signed})
    return SignedRequest(url=url, body=body.encode() if isinstance(body, str) else body, headers=headers)


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("http://test.com/callback_url", "R/t8sPRgN+rlhwL3LEQFwLJl7Jk="),
        ("http://shunkan_ido/api/v1/twilio_requests/webhook_message_updates", "fSX0swfxH1zw3AxBsY8hFGSlQR4="),
    ],
)
def test_golden_signature_is_accepted(url: str, signed: str) -> None:
    callback = TwilioMessageCallbackReader(auth_token=TOKEN).read(request(url, urlencode(FIELDS), signed))

    assert callback.report.message_sid == "SIDTESTING"
    assert callback.report.internal_status is MessageStatus.DELIVERED
    assert callback.message_uuid is None


def test_golden_signature_of_a_call_is_accepted_and_then_found_to_name_no_message() -> None:
    fields = {
        "CallSid": "CA1234567890ABCDE",
        "From": "+12349013030",
        "To": "+18005551212",
        "Caller": "+12349013030",
        "Digits": "1234",
    }
    signed = request("https://mycompany.com/myapp.php?foo=1&bar=2", urlencode(fields), "0/KCTR6DLpKmkAf8muzZqo1nDgQ=")

    with pytest.raises(CallbackMalformed, match="missing: MessageSid, MessageStatus"):
        TwilioMessageCallbackReader(auth_token="12345").read(signed)


@pytest.mark.parametrize(
    ("url", "fields", "token", "expected"),
    [
        ("http://test.com/callback_url", FIELDS, TOKEN, "R/t8sPRgN+rlhwL3LEQFwLJl7Jk="),
        (
            "http://shunkan_ido/api/v1/twilio_requests/webhook_message_updates",
            FIELDS,
            TOKEN,
            "fSX0swfxH1zw3AxBsY8hFGSlQR4=",
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
        ),
    ],
)
def test_sandbox_signs_as_the_golden_vectors(url: str, fields: dict[str, str], token: str, expected: str) -> None:
    assert signature(token, url, fields) == expected


READER = TwilioMessageCallbackReader(auth_token=TOKEN)

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
values = st.text(st.characters(codec="utf-8"), max_size=50)


@given(extra=st.dictionaries(names, values, max_size=8), uuid=st.uuids())
def test_signed_callback_is_read_whatever_else_it_holds(extra: dict[str, str], uuid: UUID) -> None:
    fields = extra | {"MessageSid": "SM1", "MessageStatus": "sent", "ErrorCode": ""}
    url = f"{URL}?message_uuid={uuid}"

    callback = READER.read(request(url, urlencode(fields), signature(TOKEN, url, fields)))

    assert callback.message_uuid == uuid
    assert callback.report.provider_status == "sent"
    assert callback.report.error is None


@given(name=names, value=values)
def test_added_field_breaks_the_signature(name: str, value: str) -> None:
    forged = urlencode(FIELDS | {f"x{name}": value})

    with pytest.raises(SignatureInvalid):
        READER.read(request(URL, forged, signature(TOKEN, URL, FIELDS)))


@given(signed=st.text(max_size=40))
def test_made_up_signature_is_refused(signed: str) -> None:
    with pytest.raises(SignatureInvalid):
        READER.read(request(URL, urlencode(FIELDS), signed))


@given(body=st.binary(max_size=200))
def test_any_unsigned_body_is_refused(body: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        READER.read(request(URL, body, "R/t8sPRgN+rlhwL3LEQFwLJl7Jk="))


@pytest.mark.parametrize(
    ("signed_url", "read_url"),
    [
        ("https://api.example:443/x", "https://api.example/x"),
        ("https://api.example/x", "https://api.example:443/x"),
        ("http://api.example:80/x", "http://api.example/x"),
        ("http://127.0.0.1:8080/x?a=b%20c", "http://127.0.0.1:8080/x?a=b%20c"),
    ],
)
def test_default_port_may_be_signed_or_not(signed_url: str, read_url: str) -> None:
    callback = READER.read(request(read_url, urlencode(FIELDS), signature(TOKEN, signed_url, FIELDS)))

    assert callback.report.message_sid == "SIDTESTING"


def test_repeated_names_are_signed_once_per_value_in_order() -> None:
    body = urlencode([("b", "2"), ("a", "z"), ("a", "y"), ("a", "z"), *FIELDS.items()])
    text = URL + "MessageSidSIDTESTING" + "MessageStatusdelivered" + "ayaz" + "b2"
    signed = base64.b64encode(hmac.new(TOKEN.encode(), text.encode(), hashlib.sha1).digest()).decode()

    assert READER.read(request(URL, body, signed)).report.message_sid == "SIDTESTING"


def test_header_names_are_read_in_any_case() -> None:
    signed = signature(TOKEN, URL, FIELDS)

    callback = READER.read(request(URL, urlencode(FIELDS), signed, header="x-tWILIO-signature"))

    assert callback.report.message_sid == "SIDTESTING"


@pytest.mark.parametrize(
    ("url", "body", "token"),
    [
        (URL, urlencode(FIELDS), "another account's token"),
        (URL + "?message_uuid=1", urlencode(FIELDS), TOKEN),
        (URL, urlencode(FIELDS | {"MessageStatus": "failed"}), TOKEN),
        (URL, "", TOKEN),
    ],
)
def test_changed_request_is_refused(url: str, body: str, token: str) -> None:
    with pytest.raises(SignatureInvalid):
        READER.read(request(url, body, signature(token, URL, FIELDS)))


def test_unsigned_request_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        READER.read(request(URL, urlencode(FIELDS), None))


def test_body_of_too_many_fields_is_refused_unread() -> None:
    body = "&".join(f"f{number}=1" for number in range(501))

    with pytest.raises(SignatureInvalid):
        READER.read(request(URL, body, "R/t8sPRgN+rlhwL3LEQFwLJl7Jk="))


def signed_json(body: bytes, *, hashed: bytes | None = None, content_type: str = "application/json") -> SignedRequest:
    url = f"{URL}?message_uuid={uuid4()}&bodySHA256={hashlib.sha256(body if hashed is None else hashed).hexdigest()}"
    return request(url, body, signature(TOKEN, url, {}), content_type=content_type)


def test_json_body_is_proven_by_its_hash_in_the_signed_url() -> None:
    body = json.dumps({"MessageSid": "SM1", "MessageStatus": "undelivered", "ErrorCode": 30003, "To": None}).encode()

    report = READER.read(signed_json(body, content_type="application/json; charset=utf-8")).report

    assert report.error == ProviderError("30003", "https://www.twilio.com/docs/api/errors/30003")


def test_json_body_other_than_the_hashed_one_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        READER.read(signed_json(json.dumps(FIELDS).encode(), hashed=b"{}"))


def test_json_body_without_a_hash_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        READER.read(request(URL, json.dumps(FIELDS), signature(TOKEN, URL, {}), content_type="application/json"))


def test_hash_in_an_unsigned_url_is_refused() -> None:
    body = json.dumps(FIELDS).encode()
    url = f"{URL}?bodySHA256={hashlib.sha256(body).hexdigest()}"

    with pytest.raises(SignatureInvalid):
        READER.read(request(url, body, signature(TOKEN, URL, {}), content_type="application/json"))


@pytest.mark.parametrize("body", [b"\xff", b"[]", b"", b"{}", b"[" * 100_000])
def test_signed_json_that_names_no_message_is_malformed(body: bytes) -> None:
    with pytest.raises(CallbackMalformed):
        READER.read(signed_json(body))


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"MessageSid": "SM1"}, "missing: MessageStatus"),
        ({"MessageStatus": "sent"}, "missing: MessageSid"),
        ({"MessageSid": "", "MessageStatus": ""}, "missing: MessageSid, MessageStatus"),
    ],
)
def test_signed_form_without_a_needed_field_is_malformed(fields: dict[str, str], missing: str) -> None:
    with pytest.raises(CallbackMalformed, match=missing):
        READER.read(request(URL, urlencode(fields), signature(TOKEN, URL, fields)))


def test_signed_url_with_an_impossible_uuid_is_malformed() -> None:
    url = f"{URL}?message_uuid=nobody"

    with pytest.raises(CallbackMalformed, match="message_uuid"):
        READER.read(request(url, urlencode(FIELDS), signature(TOKEN, url, FIELDS)))
