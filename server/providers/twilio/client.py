"""Twilio's HTTP: the official SDK's async client with our timeouts, one pool, and failures that keep what was answered.

Importing this imports the SDK and aiohttp, half a second that processes which only read callbacks should not pay.
"""

import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

# Twilio answers a create in well under a second and gives up on itself after 15.
_TIMEOUT = aiohttp.ClientTimeout(total=20, connect=5, sock_connect=5, sock_read=15)


class Refusal(Exception):
    """An answer that is no success. `code` is Twilio's own, None when whoever answered did not speak as Twilio."""

    def __init__(self, *, status: int, code: int | None, retry_after: timedelta | None) -> None:
        super().__init__(f"status {status}" if code is None else f"status {status}, code {code}")
        self.status = status
        self.code = code
        self.retry_after = retry_after


class NotReached(Exception):
    """No connection came about, so nothing was sent."""


class NoAnswer(Exception):
    """The request was, or may have been, sent; no answer that can be read came back."""


class TwilioHttp(AsyncTwilioHttpClient):  # type: ignore[misc] # the SDK publishes no types
    """The SDK's transport. Its own failures drop the header fields, among them Retry-After, so it raises ours."""

    def __init__(self, *, connections: int) -> None:
        super().__init__(pool_connections=False)
        self.session = aiohttp.ClientSession(
            timeout=_TIMEOUT, connector=aiohttp.TCPConnector(limit=connections), raise_for_status=False
        )

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        auth: tuple[str, str],
        **rest: Any,
    ) -> Response:
        """Raises Refusal, NotReached or NoAnswer.

        The credentials go into the header here: the SDK would hand aiohttp its `BasicAuth`, which is deprecated.
        """
        headers = headers | {"Authorization": aiohttp.encode_basic_auth(*auth)}
        try:
            response = await super().request(method, url, headers=headers, **rest)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotReached(type(error).__name__) from error
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            raise NoAnswer(type(error).__name__) from error
        if not 200 <= response.status_code < 300:
            raise Refusal(
                status=response.status_code,
                code=_error_code(response.text),
                retry_after=_retry_after(response.headers.get("Retry-After"), now=datetime.now(UTC)),
            )
        if response.text and _json_object(response.text) is None:
            raise NoAnswer("the answer is not a JSON object")
        return response

    def log_request(self, kwargs: dict[str, Any]) -> None:
        """Nothing: the SDK would log phone numbers."""

    def log_response(self, status_code: int, response: Any) -> None:
        """Nothing, as for requests."""


class TwilioClient(Client):  # type: ignore[misc] # the SDK publishes no types
    """The SDK's client, at another base URL when one is given (all of Twilio's hosts are then that one)."""

    def __init__(self, *, account_sid: str, auth_token: str, base_url: str | None, connections: int) -> None:
        # An empty region and edge keep the SDK from reading them from the process's environment.
        super().__init__(account_sid, auth_token, http_client=TwilioHttp(connections=connections), environment={"": ""})
        self._base = None if base_url is None else urlsplit(base_url)

    def get_hostname(self, uri: str) -> str:
        """Where the SDK sends a request for `uri`."""
        if self._base is None:
            return str(super().get_hostname(uri))
        asked = urlsplit(uri)
        return urlunsplit((self._base.scheme, self._base.netloc, asked.path, asked.query, ""))

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self.http_client.close()


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(text)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _error_code(text: str) -> int | None:
    body = _json_object(text)
    code = None if body is None else body.get("code")
    return code if isinstance(code, int) else None


def _retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """Seconds or an HTTP date; a value that is neither says nothing."""
    if value is None:
        return None
    if value.isdecimal():
        return timedelta(seconds=int(value))
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(at.replace(tzinfo=at.tzinfo or UTC) - now, timedelta(0))
