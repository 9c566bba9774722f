"""OAuth 2.0 client credentials towards Bandwidth's API: a pool of connections whose requests carry an access token."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import structlog

from server.background import parse_retry_after
from server.providers.http import NoAnswer, NotReached, exchange, open_session
from server.providers.ports import ProviderUnavailable

log = structlog.get_logger(__name__)

# Fetching takes its part of a call, and a call must end within its lease (see send.py).
_FETCH_SECONDS = 4

# Bandwidth's own SDK asks for a new token so long before the old one ends.
_RENEW_BEFORE_SECONDS = 60


@dataclass(frozen=True)
class ClientCredentials:
    """What Bandwidth knows the account's programs by, and where it gives tokens for that."""

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float
    expires_at: float


class AuthorizedSession:
    """A pool of connections to Bandwidth's API; made inside a running event loop.

    One token serves all requests. Before it ends a new one is fetched, while requests go on with the old one; requests
    wait for a token only where there is none that is good, all of them for the same.
    """

    def __init__(
        self,
        credentials: ClientCredentials,
        *,
        connections: int,
        timeout: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._credentials = credentials
        self._session = open_session(connections=connections, timeout=timeout)
        self._clock = clock
        self._token: _Token | None = None
        self._fetching: asyncio.Task[_Token] | None = None

    @asynccontextmanager
    async def request(self, method: str, url: str, **request: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, which is made again with a new token if 401 is said of the first one.

        Raises ProviderUnavailable where no token is to be had, so nothing was sent. Both requests together take no
        longer than one may.
        """
        token = await self._good_token()
        longest = self._session.timeout.total
        assert longest is not None, "open_session sets it"
        deadline = asyncio.get_running_loop().time() + longest
        for is_last in (False, True):
            headers = {"Authorization": f"Bearer {token}"}
            async with (
                asyncio.timeout_at(deadline),
                self._session.request(method, url, headers=headers, allow_redirects=False, **request) as answer,
            ):
                if is_last or answer.status != 401:
                    yield answer
                    return
            if self._token is not None and self._token.value == token:
                self._token = None
            token = await self._good_token()

    async def aclose(self) -> None:
        """Close the pooled connections."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        await self._session.close()

    async def _good_token(self) -> str:
        now, token = self._clock(), self._token
        if token is not None and now < token.renew_at:
            return token.value
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._fetched)
        if token is not None and now < token.expires_at:
            return token.value
        # Who is cancelled must not take the token from the others who wait for it.
        return (await asyncio.shield(self._fetching)).value

    def _fetched(self, task: asyncio.Task[_Token]) -> None:
        self._fetching = None
        if task.cancelled():
            return
        failure = task.exception()
        if failure is None:
            self._token = task.result()
        else:
            log.warning("bandwidth.no_token", why=str(failure))

    async def _fetch(self) -> _Token:
        asked_at = self._clock()
        credentials = self._credentials
        try:
            with exchange():
                async with self._session.post(
                    credentials.token_url,
                    data={"grant_type": "client_credentials"},
                    headers={
                        "Authorization": aiohttp.encode_basic_auth(credentials.client_id, credentials.client_secret)
                    },
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=_FETCH_SECONDS),
                ) as answer:
                    status, text, wait = answer.status, await answer.text(), answer.headers.get("Retry-After")
        except (NotReached, NoAnswer) as error:
            raise ProviderUnavailable(f"the token endpoint: {error}") from error
        if status != 200:
            asked = parse_retry_after(wait, now=datetime.now(UTC))
            raise ProviderUnavailable(f"the token endpoint: status {status}", retry_after=asked)
        return _token(text, asked_at=asked_at)


def _token(text: str, *, asked_at: float) -> _Token:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    fields = answer if isinstance(answer, dict) else {}
    value, seconds = fields.get("access_token"), fields.get("expires_in")
    # What no header field can hold would fail as a request of ours, over and over.
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ProviderUnavailable("the token endpoint: the answer has no token")
    if not isinstance(seconds, int) or seconds <= 0:
        raise ProviderUnavailable("the token endpoint: the answer does not say how long the token is good")
    good_for = max(seconds - _RENEW_BEFORE_SECONDS, seconds / 2)
    return _Token(value=value, renew_at=asked_at + good_for, expires_at=asked_at + seconds)
