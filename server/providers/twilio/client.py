"""Twilio's HTTP: the official SDK's client over one pool, with timeouts and failures that keep what was answered.

Importing this imports the SDK and aiohttp, half a second that processes which only read callbacks should not pay.
"""

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from server.background import parse_retry_after
from server.providers.http import NoAnswer, exchange, open_session
from server.providers.twilio.account import TwilioAccount

_NO_CONTENT = 204


class Refusal(Exception):
    """An answer that is no success. `code` is Twilio's own, None when whoever answered did not speak as Twilio."""

    def __init__(self, *, status: int, code: int | None, retry_after: timedelta | None) -> None:
        super().__init__(f"status {status}" if code is None else f"status {status}, code {code}")
        self.status = status
        self.code = code
        self.retry_after = retry_after


class TwilioHttp(AsyncHttpClient):  # type: ignore[misc] # the SDK publishes no types
    """The SDK's transport, ours because `AsyncTwilioHttpClient` cannot be made to do three things.

    It hands aiohttp a timeout of None, which switches off the session's: a silent server would hold a worker for good.
    Its failures drop the header fields, among them Retry-After. And it logs URLs, which hold phone numbers.
    """

    def __init__(self, *, connections: int, timeout: timedelta) -> None:
        super().__init__(logging.getLogger(__name__), is_async=True)
        self._session = open_session(connections=connections, timeout=timeout)

    async def request(
        self,
        method: str,
        url: str,
        params: dict[str, str] | None = None,
        data: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 # the SDK's signature; it always passes None
        allow_redirects: bool = False,
    ) -> Response:
        """Raises Refusal, NotReached or NoAnswer."""
        assert auth is not None, "the client below has credentials"
        authorization = {"Authorization": aiohttp.encode_basic_auth(*auth)}
        with exchange():
            async with self._session.request(
                method,
                url,
                params=params,
                data=data,
                headers={**(headers or {}), **authorization},
                allow_redirects=allow_redirects,
            ) as answer:
                response = Response(answer.status, await answer.text(), answer.headers)
        if not 200 <= response.status_code < 300:
            raise Refusal(
                status=response.status_code,
                code=_error_code(response.text),
                retry_after=parse_retry_after(response.headers.get("Retry-After"), now=datetime.now(UTC)),
            )
        if response.status_code != _NO_CONTENT and _json_object(response.text) is None:
            raise NoAnswer("the answer is not a JSON object")
        return response

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._session.close()


class TwilioClient(Client):  # type: ignore[misc] # the SDK publishes no types
    """The SDK's client, for one account."""

    def __init__(self, account: TwilioAccount, *, connections: int, timeout: timedelta) -> None:
        http = TwilioHttp(connections=connections, timeout=timeout)
        # An environment of its own, not an empty one, keeps the SDK from reading region and edge from the process's.
        super().__init__(account.sid, account.auth_token, http_client=http, environment={"TWILIO_REGION": ""})
        self._base = None if account.api_base_url is None else urlsplit(account.api_base_url)

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
