"""Who is believed to be Zoom, and what its URL validation is answered."""

import hashlib
import hmac
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.ports import CallbackMalformed, SignatureInvalid, SignedRequest
from server.providers.video_ports import UrlValidation, VideoEvent
from server.providers.zoom.webhook import ZoomVideoEventReader

SECRET_TOKEN = "the-secret-token"
NOW = datetime(2026, 11, 23, 9, 0, 30, tzinfo=UTC)
URL = "https://api.example/api/v1/zoom_requests/webhook"

READER = ZoomVideoEventReader(secret_token=SECRET_TOKEN)

BODY = json.dumps({"event": "session.started", "event_ts": 1795424400000, "payload": {}}).encode()


def hex_hmac(data: bytes, secret: str = SECRET_TOKEN) -> str:
    return hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()


def headers(body: bytes, *, sent_at: datetime = NOW, secret: str = SECRET_TOKEN) -> dict[str, str]:
    timestamp = str(int(sent_at.timestamp()))
    signature = "v0=" + hex_hmac(f"v0:{timestamp}:".encode() + body, secret)
    return {"x-zm-request-timestamp": timestamp, "x-zm-signature": signature, "content-type": "application/json"}


def read(body: bytes, sent: dict[str, str] | None = None, *, now: datetime = NOW) -> VideoEvent | UrlValidation:
    return READER.read(SignedRequest(url=URL, body=body, headers=headers(body) if sent is None else sent), now=now)


def read_json(body: object) -> VideoEvent | UrlValidation:
    return read(json.dumps(body).encode())


def test_signature_is_that_of_zooms_description() -> None:
    body = b'{"event":"session.started"}'
    # printf 'v0:1795424430:{"event":"session.started"}' | openssl dgst -sha256 -hmac the-secret-token
    signature = "v0=e2213d88acf4d08ee142d6575ab242be9d29e7b06c37de0e87cf33d7508b522b"

    event = read(body, {"x-zm-request-timestamp": "1795424430", "x-zm-signature": signature})

    assert isinstance(event, VideoEvent)
    assert (event.name, event.occurred_at) == ("session.started", NOW)


@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
def test_header_fields_are_found_in_any_case(spell: Any) -> None:
    assert isinstance(read(BODY, {spell(name): value for name, value in headers(BODY).items()}), VideoEvent)


@pytest.mark.parametrize("missing", ["x-zm-signature", "x-zm-request-timestamp"])
def test_unsigned_webhook_is_refused(missing: str) -> None:
    sent = headers(BODY)
    without = {name: value for name, value in sent.items() if name != missing}

    for unsigned in (without, without | {missing: " "}):
        with pytest.raises(SignatureInvalid, match="no x-zm-signature or no x-zm-request-timestamp"):
            read(BODY, unsigned)


def test_body_is_signed_byte_for_byte() -> None:
    sent = headers(BODY)

    with pytest.raises(SignatureInvalid, match="does not fit"):
        read(BODY.replace(b": ", b":"), sent)


def test_timestamp_is_signed_too() -> None:
    sent = headers(BODY) | {"x-zm-request-timestamp": str(int(NOW.timestamp()) - 1)}

    with pytest.raises(SignatureInvalid, match="does not fit"):
        read(BODY, sent)


@pytest.mark.parametrize(
    "signature",
    [
        "v1={right}",
        "{right}",
        "v0={RIGHT}",
        "v0={right}0",
        "v0=",
        "v0=é",
        "v0=\ud83d",
    ],
)
def test_other_signature_is_refused(signature: str) -> None:
    sent = headers(BODY)
    right = sent["x-zm-signature"].removeprefix("v0=")

    with pytest.raises(SignatureInvalid, match="does not fit"):
        read(BODY, sent | {"x-zm-signature": signature.format(right=right, RIGHT=right.upper())})


def test_signature_of_another_account_is_refused() -> None:
    with pytest.raises(SignatureInvalid, match="does not fit"):
        read(BODY, headers(BODY, secret="another-secret-token"))


@pytest.mark.parametrize("age", [timedelta(minutes=5), timedelta(0), timedelta(minutes=-5)])
def test_webhook_of_these_minutes_is_read(age: timedelta) -> None:
    assert isinstance(read(BODY, headers(BODY, sent_at=NOW - age)), VideoEvent)


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (timedelta(minutes=5, seconds=1), "the timestamp is stale"),
        (timedelta(days=400), "the timestamp is stale"),
        (timedelta(minutes=-5, seconds=-1), "the timestamp is ahead of our clock"),
    ],
)
def test_webhook_of_another_time_is_refused_and_that_is_said(age: timedelta, said: str) -> None:
    with pytest.raises(SignatureInvalid) as refused:
        read(BODY, headers(BODY, sent_at=NOW - age))

    assert str(refused.value) == said


@pytest.mark.parametrize("timestamp", ["-1", "0", "now", "1795424430.5", "١٧٩٥٤٢٤٤٣٠", "9" * 5000, "é"])
def test_timestamp_that_is_no_time_is_refused_although_it_is_signed(timestamp: str) -> None:
    signature = "v0=" + hex_hmac(b"v0:" + timestamp.encode() + b":" + BODY)
    sent = {"x-zm-request-timestamp": timestamp, "x-zm-signature": signature}

    with pytest.raises(SignatureInvalid, match="is no time"):
        read(BODY, sent)


def test_url_validation_is_answered_with_the_hmac_of_its_token() -> None:
    body = {"event": "endpoint.url_validation", "event_ts": 1654503849680, "payload": {"plainToken": "qgg8vlvZRS6UYoo"}}

    assert read_json(body) == UrlValidation("qgg8vlvZRS6UYoo", hex_hmac(b"qgg8vlvZRS6UYoo"))


def test_url_validation_that_is_not_signed_is_not_answered() -> None:
    forged = f"v0:{int(NOW.timestamp())}:{BODY.decode()}"
    body = json.dumps({"event": "endpoint.url_validation", "payload": {"plainToken": forged}}).encode()

    with pytest.raises(SignatureInvalid):
        read(body, {"content-type": "application/json"})
    with pytest.raises(SignatureInvalid):
        read(body, headers(body, secret="another-secret-token"))


@pytest.mark.parametrize("payload", [None, [], {}, {"plainToken": ""}, {"plainToken": 7}, {"plainToken": "a\0b"}])
def test_url_validation_without_a_token_is_malformed(payload: object) -> None:
    with pytest.raises(CallbackMalformed, match=r"missing: payload\.plainToken"):
        read_json({"event": "endpoint.url_validation", "payload": payload})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b'{"event": "a\0b"}', "the body is not JSON"),
        ('{"event": "session.started"}'.encode("utf-16"), "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"event": "session.started", "event_ts": ' + b"9" * 5000 + b"}", "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b"null", "the body is not a JSON object"),
        (b'"session.started"', "the body is not a JSON object"),
        (b"{}", "missing: event"),
        (b'{"event": null}', "missing: event"),
        (b'{"event": ""}', "missing: event"),
        (b'{"event": 7}', "missing: event"),
        (b'{"event": ["session.started"]}', "missing: event"),
        (b'{"event": "session.\\u0000"}', "missing: event"),
        (b'{"event": "session.\\ud83d"}', "missing: event"),
        (b'{"event": "' + b"x" * 256 + b'"}', "missing: event"),
    ],
)
def test_body_that_is_no_event_is_malformed(body: bytes, said: str) -> None:
    with pytest.raises(CallbackMalformed) as malformed:
        read(body)

    assert str(malformed.value) == said


@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(sorted(headers(BODY))), st.text()))
def test_nobody_without_the_secret_is_believed(body: bytes, sent: dict[str, str]) -> None:
    with pytest.raises(SignatureInvalid):
        read(body, sent)


@given(st.binary(max_size=200))
def test_signed_bytes_are_an_event_or_malformed(body: bytes) -> None:
    with suppress(CallbackMalformed):
        assert isinstance(read(body), VideoEvent | UrlValidation)
