"""The tokens of browsers, byte for byte and as anybody reads them, the sandbox among them."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.sandbox.settings import VoiceApp
from server.providers.sandbox.voice_tokens import AccessTokenRefused, Browser, browser_of
from tests.providers.servers import ACCOUNT_SID
from tests.providers.twilio_voice.browser import API_KEY_SECRET, API_KEY_SID, TOKENS, TWIML_APP_SID

TOKEN_UUID = UUID("0198c8a4-2b1c-7000-8000-000000000001")
ISSUED_AT = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)

APP = VoiceApp(
    api_key_sid=API_KEY_SID,
    api_key_secret=API_KEY_SECRET,
    twiml_app_sid=TWIML_APP_SID,
    voice_url="https://api.example/api/v1/sdk_calls/response",
)


def sign(**over: Any) -> str:
    return TOKENS.sign(
        **{
            "identity": "staff_7",
            "voice_token_uuid": TOKEN_UUID,
            "issued_at": ISSUED_AT,
            "ttl": timedelta(hours=1),
            **over,
        }
    )


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def test_token_is_what_is_computed_by_hand() -> None:
    header = '{"alg":"HS256","cty":"twilio-fpa;v=1","typ":"JWT"}'
    payload = (
        f'{{"jti":"{API_KEY_SID}-1795424400",'
        '"grants":{"voice":{"incoming":{"allow":true},'
        f'"outgoing":{{"application_sid":"{TWIML_APP_SID}",'
        '"params":{"voice_token_uuid":"0198c8a4-2b1c-7000-8000-000000000001"}}},"identity":"staff_7"},'
        f'"iat":1795424400,"iss":"{API_KEY_SID}","exp":1795428000,"sub":"{ACCOUNT_SID}"}}'
    )
    signed = f"{base64url(header.encode())}.{base64url(payload.encode())}"
    signature = hmac.new(API_KEY_SECRET.encode(), signed.encode(), hashlib.sha256).digest()

    assert sign() == f"{signed}.{base64url(signature)}"


def test_token_is_read_with_the_secret_and_with_no_other() -> None:
    token = sign()

    read = jwt.decode(token, API_KEY_SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})

    assert jwt.get_unverified_header(token) == {"alg": "HS256", "cty": "twilio-fpa;v=1", "typ": "JWT"}
    assert read == {
        "jti": f"{API_KEY_SID}-{int(ISSUED_AT.timestamp())}",
        "iss": API_KEY_SID,
        "sub": ACCOUNT_SID,
        "iat": int(ISSUED_AT.timestamp()),
        "exp": int(ISSUED_AT.timestamp()) + 3600,
        "grants": {
            "identity": "staff_7",
            "voice": {
                "incoming": {"allow": True},
                "outgoing": {"application_sid": TWIML_APP_SID, "params": {"voice_token_uuid": str(TOKEN_UUID)}},
            },
        },
    }
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, API_KEY_SECRET[::-1], algorithms=["HS256"])


@pytest.mark.parametrize("second", [-30, 0, 86_399])
def test_token_lets_a_browser_in_for_as_long_as_it_is_good(second: int) -> None:
    token = sign(ttl=timedelta(days=1))

    browser = browser_of(token, APP, account_sid=ACCOUNT_SID, now=ISSUED_AT.timestamp() + second)

    assert browser == Browser(
        identity="staff_7",
        may_be_called=True,
        application_sid=TWIML_APP_SID,
        parameters={"voice_token_uuid": str(TOKEN_UUID)},
    )


def test_token_is_good_no_longer() -> None:
    with pytest.raises(AccessTokenRefused, match="must not have expired"):
        browser_of(sign(), APP, account_sid=ACCOUNT_SID, now=ISSUED_AT.timestamp() + 3600)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.timezones()),  # noqa: DTZ001 # are added
    st.integers(60, 86_400),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=255),
    st.uuids(),
)
def test_claims_are_what_was_asked(issued_at: datetime, seconds: int, identity: str, token_uuid: UUID) -> None:
    token = sign(issued_at=issued_at, ttl=timedelta(seconds=seconds), identity=identity, voice_token_uuid=token_uuid)

    read = jwt.decode(token, API_KEY_SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})

    assert 0 <= issued_at.timestamp() - read["iat"] < 1
    assert read["exp"] - read["iat"] == seconds
    assert read["grants"]["identity"] == identity
    assert read["grants"]["voice"]["outgoing"]["params"] == {"voice_token_uuid": str(token_uuid)}
