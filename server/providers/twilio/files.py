"""Opens the files that Twilio keeps of an account, which it leads to places of its own."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

import aiohttp

from server.background import parse_retry_after
from server.providers.ports import MediaRefused, ProviderUnavailable
from server.providers.twilio.account import TwilioAccount

_TWILIO = "https://api.twilio.com"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Twilio's own, and one or two of the store behind it.
_MOST_REDIRECTS = 4


class TwilioFiles:
    """The files of one account, fetched with `session`, which is closed with it. `gone` are the statuses that say of a
    file that it will never be had."""

    def __init__(self, account: TwilioAccount, session: aiohttp.ClientSession, *, gone: Collection[int]) -> None:
        self._base_url = account.api_base_url or _TWILIO
        self._credentials = {"Authorization": aiohttp.encode_basic_auth(account.sid, account.auth_token)}
        self._session = session
        self._gone = gone

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer that has the file. Raises MediaRefused or ProviderUnavailable, and what the session raises.

        A URL elsewhere than at Twilio is refused: a callback must not choose who gets the auth token.
        """
        if not url.startswith(f"{self._base_url}/"):
            raise MediaRefused("is not at Twilio")
        answer = await self._follow(url)
        try:
            yield answer
        finally:
            answer.close()

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._session.close()

    async def _follow(self, url: str) -> aiohttp.ClientResponse:
        """Go where Twilio leads. The credentials are for Twilio alone, and not for where it has put the file."""
        headers: Mapping[str, str] = self._credentials
        for _ in range(1 + _MOST_REDIRECTS):
            answer = await self._session.get(url, headers=headers, allow_redirects=False)
            if answer.status == HTTPStatus.OK:
                return answer
            answer.close()
            if answer.status not in _REDIRECTS:
                raise self._failure(answer)
            url = self._next(url, answer.headers.get("Location", ""))
            headers = {}
        raise ProviderUnavailable("leads nowhere")

    def _next(self, url: str, location: str) -> str:
        try:
            followed = urljoin(url, location)
            scheme = urlsplit(followed).scheme
        except ValueError as error:
            raise ProviderUnavailable("leads to what is no URL") from error
        if scheme not in ("https", urlsplit(self._base_url).scheme):
            raise ProviderUnavailable("leads to no place on the web")
        return followed

    def _failure(self, answer: aiohttp.ClientResponse) -> MediaRefused | ProviderUnavailable:
        """Only that the file is gone is final: credentials and limits are put right, and the store has its bad days."""
        if answer.status in self._gone:
            return MediaRefused("is not at Twilio any more")
        wait = parse_retry_after(answer.headers.get("Retry-After"), now=datetime.now(UTC))
        return ProviderUnavailable(f"status {answer.status}", retry_after=wait)
