"""The three kinds of tokens: people join sessions with one, the REST API takes another, Zoom gives out a third.

A token to join with is a JWT, HS256 with the SDK secret. Its claims, as https://developers.zoom.us/docs/video-sdk/auth/
and Zoom's sample of an auth endpoint bound them:

    app_key             the SDK key
    tpc                 the session's name: 1 to 199 characters; read in lower case
    role_type           1 host or co-host, 0 participant
    version             1
    iat, exp            Unix seconds; not issued later than now, not expired, 30 minutes to 48 hours apart
    user_identity       fewer than 35 characters; or user_key, its newer name, at most 36; optional
    session_key         fewer than 36 characters; optional, but all of one session have the same or none
    geo_regions         country codes of Zoom's regions, comma-separated; optional
    cloud_recording_option, cloud_recording_election    0 or 1; optional

Claims that are not listed are not looked at. Zoom's page also lists the characters that names may have, ASCII without
quotes, asterisk and slash; what becomes of others is said nowhere, so the sandbox takes them.

A token of the REST API is a JWT, HS256 with the API secret, whose `iss` is the API key and whose `exp` has not come.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt
from jwt.types import Options

from server.providers.sandbox.settings import ZOOM_ACCOUNT_ID, ZoomAccount

_SHORTEST, _LONGEST = timedelta(minutes=30), timedelta(hours=48)
# Whoever signs has a clock of their own.
_CLOCK_SLACK = timedelta(minutes=1)
_DOWNLOAD_LIFETIME = timedelta(hours=24)
_ISSUER = "https://event.zoom.us"

_REGIONS = frozenset(["AU", "BR", "CA", "CN", "DE", "HK", "IN", "JP", "MX", "NL", "SG", "US"])

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


# By claim: what a value must be, and in words.
Wanted = dict[str, tuple[Callable[[Any], bool], str]]


class TokenRefused(Exception):
    """A token that nobody is let in with, and what is wrong with it by claim."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__("; ".join(f"{claim} {said}" for claim, said in errors.items()))
        self.errors = errors


@dataclass(frozen=True)
class Admission:
    """Whom a token lets into which session."""

    session_name: str
    session_key: str | None
    user_key: str | None
    is_host: bool


def admission_of(token: str, account: ZoomAccount, *, session_name: str | None, now: float) -> Admission:
    """What a token to join with says; `session_name` is what is joined, None whatever the token names. Raises
    TokenRefused."""
    try:
        claims = jwt.decode(token, account.sdk_secret, algorithms=["HS256"], options=_UNCHECKED)
    except jwt.InvalidSignatureError as error:
        raise TokenRefused({"token": "must be signed with the account's SDK secret"}) from error
    except jwt.InvalidTokenError as error:
        raise TokenRefused({"token": "must be a JWT with HS256"}) from error
    topic = claims.get("tpc") if session_name is None else session_name
    wanted: Wanted = {"app_key": (lambda value: value == account.sdk_key, "the account's SDK key"), **_WANTED}
    errors = {
        f"token.{claim}": f"must be {words}"
        for claim, (fits, words) in wanted.items()
        if not (fits(claims[claim]) if claim in claims else claim not in _REQUIRED)
    }
    if "token.tpc" not in errors and str(topic).lower() != claims["tpc"].lower():
        errors["token.tpc"] = "must be the name of the session that is joined"
    errors |= _time_errors(claims.get("iat"), claims.get("exp"), now=now)
    if errors:
        raise TokenRefused(errors)
    return Admission(
        session_name=claims["tpc"],
        session_key=claims.get("session_key") or None,
        user_key=claims.get("user_key") or claims.get("user_identity") or None,
        is_host=claims["role_type"] == 1,
    )


def _time_errors(issued: Any, expires: Any, *, now: float) -> dict[str, str]:
    if not (_is_whole(issued) and _is_whole(expires)):
        times = (("iat", issued), ("exp", expires))
        return {f"token.{claim}": "must be Unix seconds" for claim, value in times if not _is_whole(value)}
    if issued > now + _CLOCK_SLACK.total_seconds():
        return {"token.iat": "must not be later than now"}
    if not _SHORTEST.total_seconds() <= expires - issued <= _LONGEST.total_seconds():
        return {"token.exp": "must be 1800 to 172800 seconds after iat"}
    return {"token.exp": "must not have come: the token has expired"} if expires <= now else {}


def api_refusal(authorization: str, account: ZoomAccount, *, now: float) -> str | None:
    """Why a request of the REST API is not let in, in Zoom's words; None where it is."""
    claims = _claims(_bearer(authorization), account.api_secret)
    if claims is None or claims.get("iss") != account.api_key or not _is_whole(claims.get("exp")):
        return "Invalid access token."
    return "Access token is expired." if claims["exp"] <= now else None


def download_token(session_id: str, account: ZoomAccount, *, now: float) -> str:
    """What fetches a session's recordings for a day."""
    expires = int(now + _DOWNLOAD_LIFETIME.total_seconds())
    claims = {"iss": _ISSUER, "accountId": ZOOM_ACCOUNT_ID, "mid": session_id, "exp": expires}
    return jwt.encode(claims, _download_secret(account), algorithm="HS256")


def may_download(authorization: str, session_id: str, account: ZoomAccount, *, now: float) -> bool:
    """Whether a bearer may fetch a session's recordings: with its download token, or one of the REST API."""
    claims = _claims(_bearer(authorization), _download_secret(account))
    if claims is not None:
        return bool(claims["mid"] == session_id and claims["exp"] > now)
    return api_refusal(authorization, account, now=now) is None


def _download_secret(account: ZoomAccount) -> str:
    """Zoom's own, which nobody else knows."""
    return f"downloads of {account.api_secret}"


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _claims(token: str, secret: str) -> dict[str, Any] | None:
    try:
        return jwt.decode(token, secret, algorithms=["HS256"], options=_UNCHECKED)
    except jwt.InvalidTokenError:
        return None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_of(*numbers: int) -> Callable[[Any], bool]:
    return lambda value: _is_whole(value) and value in numbers


def _shorter_than(length: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and len(value) < length


def _is_session_name(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) < 200


def _are_regions(value: Any) -> bool:
    return isinstance(value, str) and {region.strip() for region in value.split(",")} <= _REGIONS


_REQUIRED = ("app_key", "tpc", "role_type", "version")
_WANTED: Wanted = {
    "tpc": (_is_session_name, "the name of a session, 1 to 199 characters"),
    "role_type": (_one_of(0, 1), "1 for a host or 0 for a participant"),
    "version": (_one_of(1), "1"),
    "user_identity": (_shorter_than(35), "a text of fewer than 35 characters"),
    "user_key": (_shorter_than(37), "a text of at most 36 characters"),
    "session_key": (_shorter_than(36), "a text of fewer than 36 characters"),
    "geo_regions": (_are_regions, f"some of {', '.join(sorted(_REGIONS))}, with commas between"),
    "cloud_recording_option": (_one_of(0, 1), "0 or 1"),
    "cloud_recording_election": (_one_of(0, 1), "0 or 1"),
}
