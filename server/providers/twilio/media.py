"""Fetches the media of messages to our numbers from Twilio's Media resource, which leads to a place of its own."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

import aiohttp

from server.providers.http import NoAnswer, NotReached, exchange, open_session, read_file, retry_after
from server.providers.ports import Media, MediaRefused, ProviderUnavailable
from server.providers.twilio.account import TwilioAccount

_TWILIO = "https://api.twilio.com"

_GONE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Twilio's own, and one or two of the store behind it.
_MOST_REDIRECTS = 4


class TwilioMediaFetcher:
    """ports.MediaFetcher for one account; made inside a running event loop."""

    def __init__(
        self,
        account: TwilioAccount,
        *,
        connections: int = 10,
        timeout: timedelta = timedelta(seconds=15),
    ) -> None:
        self._base_url = account.api_base_url or _TWILIO
        self._credentials = {"Authorization": aiohttp.encode_basic_auth(account.sid, account.auth_token)}
        self._session = open_session(connections=connections, timeout=timeout)

    async def fetch(self, url: str, *, max_bytes: int) -> Media:
        """The file. A URL elsewhere than at Twilio is refused: a callback must not choose who gets the auth token."""
        if not url.startswith(f"{self._base_url}/"):
            raise MediaRefused("is not at Twilio")
        try:
            with exchange():
                return await self._follow(url, max_bytes=max_bytes)
        except (NotReached, NoAnswer) as error:
            raise ProviderUnavailable(str(error)) from error

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._session.close()

    async def _follow(self, url: str, *, max_bytes: int) -> Media:
        """Go where Twilio leads. The credentials are for Twilio alone, and not for where it has put the file."""
        headers = self._credentials
        for _ in range(1 + _MOST_REDIRECTS):
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status not in _REDIRECTS:
                    _check_status(answer)
                    return Media(content_type=answer.content_type, data=await read_file(answer, max_bytes=max_bytes))
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


def _check_status(answer: aiohttp.ClientResponse) -> None:
    """Only that the file is gone is final: credentials and limits are put right, and the store has its bad days."""
    if answer.status in _GONE:
        raise MediaRefused("is not at Twilio any more")
    if answer.status != HTTPStatus.OK:
        wait = retry_after(answer.headers.get("Retry-After"), now=datetime.now(UTC))
        raise ProviderUnavailable(f"status {answer.status}", retry_after=wait)
