"""The access tokens that browsers call and are called with, checked as Twilio checks them.

A JWT, HS256 with an API key's secret, its header with `cty` `twilio-fpa;v=1`. Its claims:

    iss      the sid of the API key
    sub      the account's sid
    exp      Unix seconds: not come, and at most 24 hours after `nbf`, `iat` or now
    nbf      Unix seconds: come, or at most a minute ahead, as whoever signs has a clock of their own; optional
    grants   {"identity": "…", "voice": {"incoming": {"allow": true},
                                         "outgoing": {"application_sid": "AP…", "params": {…}}}}

Each is refused with the code that https://www.twilio.com/docs/api/errors has for it.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import jwt
from jwt.types import Options

from server.providers.sandbox.settings import VoiceApp

_CONTENT_TYPE: Final = "twilio-fpa;v=1"
_CLOCK_SLACK = timedelta(minutes=1)
_LONGEST = timedelta(hours=24)

# Each claim is looked at by itself here, and with the sandbox's own clock.
_UNCHECKED: Options = {
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


class AccessTokenRefused(Exception):
    """A token that nobody is let in with, and Twilio's code for why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


@dataclass(frozen=True)
class Browser:
    """Who a token is for. With `application_sid` None it may not call out; `parameters` go along when it does."""

    identity: str
    may_be_called: bool
    application_sid: str | None
    parameters: dict[str, str] = field(default_factory=dict)


def browser_of(token: str, app: VoiceApp, *, account_sid: str, now: float) -> Browser:
    """What a token says. Raises AccessTokenRefused."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise AccessTokenRefused(20101, "must be a JWT") from error
    if header.get("alg") != "HS256" or header.get("cty") != _CONTENT_TYPE:
        raise AccessTokenRefused(20102, f"must have alg HS256 and cty {_CONTENT_TYPE} in its header")
    try:
        claims = jwt.decode(token, app.api_key_secret, algorithms=["HS256"], options=_UNCHECKED)
    except jwt.InvalidSignatureError as error:
        raise AccessTokenRefused(20107, "must be signed with the secret of the API key") from error
    except jwt.InvalidTokenError as error:
        raise AccessTokenRefused(20101, "must be a JWT") from error
    if claims.get("iss") != app.api_key_sid or claims.get("sub") != account_sid:
        raise AccessTokenRefused(20103, "must have the API key as iss and the account as sub")
    _check_times(claims, now=now)
    return _granted(claims.get("grants"))


def _check_times(claims: dict[str, Any], *, now: float) -> None:
    expires, begins, issued = (_time(claims.get(name)) for name in ("exp", "nbf", "iat"))
    if expires is None or expires <= now:
        raise AccessTokenRefused(20104, "must not have expired: exp is Unix seconds still to come")
    if "nbf" in claims and (begins is None or begins > now + _CLOCK_SLACK.total_seconds()):
        raise AccessTokenRefused(20105, "must be valid by now: nbf is Unix seconds that have come")
    if expires - (begins or issued or now) > _LONGEST.total_seconds():
        raise AccessTokenRefused(20157, "must be valid for 24 hours at most")


def _granted(grants: Any) -> Browser:
    voice = _object(grants, "voice")
    identity = grants.get("identity") if isinstance(grants, dict) else None
    if voice is None or not isinstance(identity, str) or not identity:
        raise AccessTokenRefused(20106, "must grant an identity and voice")
    outgoing = _object(voice, "outgoing") or {}
    application_sid, parameters = outgoing.get("application_sid"), _object(outgoing, "params") or {}
    incoming = _object(voice, "incoming") or {}
    return Browser(
        identity=identity,
        may_be_called=incoming.get("allow") is True,
        application_sid=application_sid if isinstance(application_sid, str) else None,
        parameters={name: str(value) for name, value in parameters.items()},
    )


def _object(value: Any, name: str) -> dict[str, Any] | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else None


def _time(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
