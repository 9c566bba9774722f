"""Fetches recordings from where Zoom has them, with the token that came with their event."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import aiohttp
import jwt
from yarl import URL

from server.background import parse_retry_after
from server.config import Network
from server.guard import guarded_connector
from server.providers.http import NoAnswer, NotReached, exchange, read_stream
from server.providers.ports import MediaRefused, ProviderFailure, ProviderUnavailable

_CONNECT_SECONDS = 5

# To the store, perhaps by way of another.
_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# Said while the token is not good, and of files that are not there yet.
_DENIED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})

# No file of a recording is a page: a token that is not good may lead to the sign-in, which is answered 200.
_PAGE = "text/html"


class ZoomRecordingFetcher:
    """video_ports.RecordingFetcher; made inside a running event loop.

    A recording is wherever its event says, which is signed. Addresses that are not public are not dialled all the same,
    but for the API's own and the networks that are allowed: a stolen secret must not open this network.
    """

    def __init__(
        self,
        *,
        api_base_url: str,
        allowed_networks: Sequence[Network],
        patience: timedelta = timedelta(seconds=30),
        longest: timedelta = timedelta(hours=2),
    ) -> None:
        self._api = URL(api_base_url)
        timeout = aiohttp.ClientTimeout(
            total=longest.total_seconds(), connect=_CONNECT_SECONDS, sock_read=patience.total_seconds()
        )
        self._at_api = _open_session(aiohttp.TCPConnector(limit=0), timeout)
        self._elsewhere = _open_session(guarded_connector(allowed_networks), timeout)

    @asynccontextmanager
    async def open(self, url: str, *, download_token: str | None) -> AsyncIterator[AsyncIterator[bytes]]:
        """The file, as it arrives. Its size is the caller's to limit, whoever leaves early leaves the rest unread."""
        try:
            with exchange():
                answer = await self._follow(url, download_token)
        except (NotReached, NoAnswer) as error:
            raise ProviderUnavailable(str(error)) from error
        try:
            yield read_stream(answer)
        finally:
            answer.close()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._at_api.close()
        await self._elsewhere.close()

    async def _follow(self, url: str, download_token: str | None) -> aiohttp.ClientResponse:
        """Go where Zoom leads. The token is for the place that the event named, and not for where the file is kept."""
        at = self._place(url)
        if at is None:
            raise MediaRefused("is at no place on the web")
        named = at.origin()
        token = download_token
        for _ in range(1 + _MOST_REDIRECTS):
            session = self._at_api if at.origin() == self._api.origin() else self._elsewhere
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            answer = await session.get(at, headers=headers, allow_redirects=False)
            if answer.status == HTTPStatus.OK and _content_type(answer) != _PAGE:
                return answer
            answer.close()
            if answer.status not in _REDIRECTS:
                raise _failure(answer, download_token)
            leads_to = self._place(answer.headers.get("Location", ""), base=at)
            if leads_to is None:
                raise ProviderUnavailable("leads to no place on the web")
            at = leads_to
            if at.origin() != named:
                token = None
        raise ProviderUnavailable("leads nowhere")

    def _place(self, url: str, *, base: URL | None = None) -> URL | None:
        """A URL that may be asked: with https, or as the API is, and without credentials of its own."""
        try:
            place = URL(url) if base is None else base.join(URL(url))
            # What the resolver does with the name, which it would fail of in no way of aiohttp's.
            (place.raw_host or "").encode("idna")
            allowed = place.scheme in ("https", self._api.scheme) and place.raw_user is None
            return place if allowed and place.origin().host else None
        except ValueError:
            return None


def _open_session(connector: aiohttp.BaseConnector, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=timeout,
        headers={"Accept-Encoding": "identity"},
    )


def _failure(answer: aiohttp.ClientResponse, download_token: str | None) -> ProviderFailure:
    """What an answer without the file means.

    Once given up a recording is lost, so that is done only where asking again cannot help: the file is gone, or Zoom
    wants a token and there is none, or its day is over. A page instead of the file is another way to want one.
    """
    described = f"status {answer.status}"
    if answer.status == HTTPStatus.GONE:
        return MediaRefused("is not at Zoom any more")
    wants_token = answer.status == HTTPStatus.OK or answer.status in _DENIED
    if wants_token and (download_token is None or _has_expired(download_token, now=datetime.now(UTC))):
        return MediaRefused(f"was answered with {described} and there is no token that is good")
    wait = parse_retry_after(answer.headers.get("Retry-After"), now=datetime.now(UTC))
    return ProviderUnavailable(
        "a page instead of the file" if answer.status == HTTPStatus.OK else described, retry_after=wait
    )


def _has_expired(download_token: str, *, now: datetime) -> bool:
    """Whether the token itself says that its day is over; one that says nothing may be good."""
    try:
        expiry = jwt.decode(download_token, options={"verify_signature": False}).get("exp")
    except jwt.InvalidTokenError:
        return False
    return isinstance(expiry, int | float) and expiry <= now.timestamp()


def _content_type(answer: aiohttp.ClientResponse) -> str | None:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower() or None
