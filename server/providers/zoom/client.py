"""Ends sessions by the Video SDK's REST API."""

import json
import re
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from urllib.parse import quote

import jwt
import structlog
from yarl import URL

from server.background import parse_retry_after
from server.providers.http import NoAnswer, NotReached, exchange, open_session
from server.providers.ports import ProviderError, ProviderRejected, ProviderUnavailable
from server.providers.video_ports import SessionOver
from server.providers.zoom.times import iso_time

log = structlog.get_logger(__name__)

_ERROR_PAGE = "https://developers.zoom.us/docs/api/errors/"

# Each request has a token of its own; the two clocks may differ by as much.
_TOKEN_LIFETIME = timedelta(minutes=2)

# The token, the account, its rights or the address are wrong, which people put right: an invalid token, no account of
# the Video SDK, no such user, no such endpoint, and a token without the scopes (two codes).
_OPERATOR_CODES = frozenset({124, 200, 1001, 2300, 4700, 4711})
_OPERATOR_STATUSES = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

_BUSY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})

# 3001 says it whatever the status. Of 300, which is said of everything, and of codes that are not documented, only the
# text tells; an id that Zoom itself gave us is invalid only once it stands for nothing.
_DOES_NOT_EXIST = 3001
_IS_OVER = re.compile(
    r"\bsession\b.*\b(not exist|not found|ended|expired|not (live|started|in progress))|invalid session id",
    re.IGNORECASE | re.DOTALL,
)


class ZoomVideoSessions:
    """video_ports.VideoSessions of one Video SDK account; made inside a running event loop."""

    def __init__(
        self,
        *,
        api_key: str,
        api_secret: str,
        api_base_url: str,
        connections: int = 10,
        timeout: timedelta = timedelta(seconds=15),
    ) -> None:
        self._api_key = api_key
        self._api_secret = api_secret
        self._sessions_url = f"{api_base_url}/v2/videosdk/sessions"
        self._session = open_session(connections=connections, timeout=timeout)

    async def end(self, session_id: str) -> None:
        """End a live session. A second end of the same is no harm, so an answer that is lost may be asked for again."""
        # Encoded already, and as it is sent.
        url = URL(f"{self._sessions_url}/{_in_path(session_id)}/status", encoded=True)
        try:
            with exchange():
                async with self._session.put(
                    url,
                    json={"action": "end"},
                    headers={"Authorization": f"Bearer {self._token()}"},
                    allow_redirects=False,
                ) as answer:
                    status, text, wait = answer.status, await answer.text(), answer.headers.get("Retry-After")
        except (NotReached, NoAnswer) as error:
            raise ProviderUnavailable(str(error)) from error
        if not 200 <= status < 300:
            raise _failure(status, text, wait=_wait(wait, now=datetime.now(UTC)))

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._session.close()

    def _token(self) -> str:
        now = datetime.now(UTC)
        claims = {"iss": self._api_key, "iat": now, "exp": now + _TOKEN_LIFETIME}
        return jwt.encode(claims, self._api_secret, algorithm="HS256")


def _in_path(session_id: str) -> str:
    """An id in a path. Zoom wants those encoded twice that its gateway, which decodes once, would take apart."""
    once = quote(session_id, safe="")
    return quote(once, safe="") if "/" in session_id or "+" in session_id else once


def _failure(status: int, text: str, *, wait: timedelta | None) -> Exception:
    """What an answer that is no success means.

    Only Zoom's own form of error says that the session is over, or that the end is refused for good: without it
    somebody in between answered, or the address is wrong, and a call would last for ever for that.
    """
    code, message = _error(text)
    described = f"status {status}" if code is None else f"status {status}, code {code}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _BUSY:
        return ProviderUnavailable(described, retry_after=wait)
    if code is None or status in _OPERATOR_STATUSES or code in _OPERATOR_CODES:
        log.error("zoom.refused_us", status=status, code=code)
        return ProviderUnavailable(described, retry_after=wait)
    if status == HTTPStatus.NOT_FOUND or code == _DOES_NOT_EXIST or _IS_OVER.search(message):
        return SessionOver(described)
    return ProviderRejected(ProviderError(code=str(code), url=_ERROR_PAGE))


def _error(text: str) -> tuple[int | None, str]:
    """Zoom's code and message; no code where the body is not Zoom's."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None, ""
    code = body.get("code") if isinstance(body, dict) else None
    if not isinstance(code, int):
        return None, ""
    return code, str(body.get("message"))


def _wait(value: str | None, *, now: datetime) -> timedelta | None:
    """What a Retry-After says; that of the daily limit names the time as ISO 8601 does, in none of HTTP's forms."""
    wait = parse_retry_after(value, now=now)
    until = iso_time(value)
    return wait if wait is not None or until is None else max(until - now, timedelta(0))
