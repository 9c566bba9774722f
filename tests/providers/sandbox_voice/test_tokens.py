"""What browsers are let in with: tokens that the official SDK signs, and those that are not as Twilio wants them."""

from typing import Any

import jwt
import pytest
from twilio.jwt.access_token import AccessToken
from twilio.jwt.access_token.grants import VoiceGrant

from server.providers.sandbox.settings import VoiceApp
from server.providers.sandbox.voice_tokens import AccessTokenRefused, Browser, browser_of

ACCOUNT_SID = "AC" + "1" * 32
KEY_SID = "SK" + "2" * 32
SECRET = "the secret of the API key, long enough"
APP_SID = "AP" + "3" * 32
NOW = 1_700_000_000
APP = VoiceApp(KEY_SID, SECRET, APP_SID, "http://127.0.0.1:1/voice")


def token(**grant: Any) -> str:
    made = AccessToken(ACCOUNT_SID, KEY_SID, SECRET, identity="staff", nbf=NOW, valid_until=NOW + 600)
    made.add_grant(VoiceGrant(**grant))
    return str(made.to_jwt())


def signed(*, secret: str = SECRET, header: dict[str, str] | None = None, **claims: Any) -> str:
    """A token that is good where nothing else is said."""
    good = {
        "iss": KEY_SID,
        "sub": ACCOUNT_SID,
        "nbf": NOW,
        "exp": NOW + 600,
        "grants": {"identity": "staff", "voice": {}},
    }
    kept = {name: value for name, value in (good | claims).items() if value is not None}
    return jwt.encode(kept, secret, algorithm="HS256", headers={"cty": "twilio-fpa;v=1"} | (header or {}))


def read(written: str) -> Browser:
    return browser_of(written, APP, account_sid=ACCOUNT_SID, now=NOW)


def test_what_the_sdk_signs_is_read() -> None:
    written = token(
        incoming_allow=True, outgoing_application_sid=APP_SID, outgoing_application_params={"voice_token_uuid": "7"}
    )

    assert read(written) == Browser("staff", True, APP_SID, {"voice_token_uuid": "7"})


def test_who_may_only_be_called_has_no_application() -> None:
    assert read(token(incoming_allow=True)) == Browser("staff", True, None)


def test_clock_of_whoever_signs_may_be_ahead_by_a_minute() -> None:
    assert read(signed(nbf=NOW + 50)).identity == "staff"


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("no token", 20101),
        (signed(header={"cty": "other"}), 20102),
        (jwt.encode({}, SECRET * 2, algorithm="HS512", headers={"cty": "twilio-fpa;v=1"}), 20102),
        (signed(secret="another secret, also long enough"), 20107),
        (signed(iss="SK" + "9" * 32), 20103),
        (signed(sub="AC" + "9" * 32), 20103),
        (signed(exp=1), 20104),
        (signed(exp=None), 20104),
        (signed(exp="tomorrow"), 20104),
        (signed(nbf=NOW + 90), 20105),
        (signed(exp=NOW + 90_000), 20157),
        (signed(grants={"voice": {}}), 20106),
        (signed(grants={"identity": "staff"}), 20106),
        (signed(grants=None), 20106),
    ],
)
def test_bad_token_is_refused_with_twilios_code(written: str, code: int) -> None:
    with pytest.raises(AccessTokenRefused) as refused:
        read(written)

    assert refused.value.code == code
