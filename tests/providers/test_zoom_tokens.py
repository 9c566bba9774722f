"""The tokens of the Video SDK, byte for byte and as anybody reads them."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.video_ports import VideoAdmission
from server.providers.zoom.tokens import ZoomVideoTokens

SDK_KEY = "anSdkKey"
SDK_SECRET = "a-secret-of-the-video-sdk-of-36-signs"
SESSION_KEY = UUID("0198c8a4-2b1c-7000-8000-000000000001")
USER_KEY = UUID("0198c8a4-2b1c-7000-8000-0000000000ff")
ISSUED_AT = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)

TOKENS = ZoomVideoTokens(sdk_key=SDK_KEY, sdk_secret=SDK_SECRET)


def admission(**over: Any) -> VideoAdmission:
    fields: dict[str, Any] = {
        "session_name": "Conference with Ms Lee",
        "session_key": SESSION_KEY,
        "user_key": USER_KEY,
        "is_host": True,
        "issued_at": ISSUED_AT,
        "expires_at": ISSUED_AT + timedelta(hours=2),
    }
    return VideoAdmission(**fields | over)


def claims_of(token: str) -> dict[str, Any]:
    read: dict[str, Any] = jwt.decode(
        token, SDK_SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False}
    )
    return read


def claims(**over: Any) -> dict[str, Any]:
    return claims_of(TOKENS.sign(admission(**over)))


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def test_token_is_what_is_computed_by_hand() -> None:
    header = '{"alg":"HS256","typ":"JWT"}'
    payload = (
        '{"app_key":"anSdkKey","tpc":"Conference with Ms Lee","role_type":1,"version":1,"iat":1795424400,'
        '"exp":1795431600,"user_identity":"0198c8a42b1c700080000000000000ff",'
        '"user_key":"0198c8a42b1c700080000000000000ff","session_key":"0198c8a42b1c70008000000000000001"}'
    )
    signed = f"{base64url(header.encode())}.{base64url(payload.encode())}"
    signature = hmac.new(SDK_SECRET.encode(), signed.encode(), hashlib.sha256).digest()

    assert TOKENS.sign(admission()) == f"{signed}.{base64url(signature)}"


def test_token_is_read_with_the_secret_and_with_no_other() -> None:
    token = TOKENS.sign(admission(is_host=False))

    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert claims(is_host=False) == {
        "app_key": SDK_KEY,
        "tpc": "Conference with Ms Lee",
        "role_type": 0,
        "version": 1,
        "iat": int(ISSUED_AT.timestamp()),
        "exp": int(ISSUED_AT.timestamp()) + 7200,
        "user_identity": USER_KEY.hex,
        "user_key": USER_KEY.hex,
        "session_key": SESSION_KEY.hex,
    }
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, SDK_SECRET[::-1], algorithms=["HS256"])


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (timedelta(minutes=-5), 1800),
        (timedelta(seconds=1799), 1800),
        (timedelta(seconds=1801), 1801),
        (timedelta(hours=26), 93_600),
        (timedelta(hours=48), 172_800),
        (timedelta(hours=49), 172_800),
    ],
)
def test_expiry_is_moved_into_zooms_bounds(asked: timedelta, seconds: int) -> None:
    read = claims(expires_at=ISSUED_AT + asked)

    assert read["exp"] - read["iat"] == seconds


def test_names_of_all_alphabets_are_signed() -> None:
    name = "Réunion 父母会 " + "x" * 184

    assert len(name) < 200
    assert claims(session_name=name)["tpc"] == name


times = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone(timedelta(hours=-7))))  # noqa: DTZ001


@given(times, times, st.uuids(), st.uuids())
def test_claims_are_within_their_bounds_whatever_is_asked(
    issued_at: datetime, expires_at: datetime, session_key: UUID, user_key: UUID
) -> None:
    read = claims(issued_at=issued_at, expires_at=expires_at, session_key=session_key, user_key=user_key)

    assert isinstance(read["iat"], int)
    assert 0 <= issued_at.timestamp() - read["iat"] < 1
    assert 1800 <= read["exp"] - read["iat"] <= 172_800
    assert len(read["user_identity"]) < 35
    assert len(read["session_key"]) < 36
    assert (UUID(read["session_key"]), UUID(read["user_identity"])) == (session_key, user_key)
