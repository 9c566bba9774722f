"""Fetches the media of messages to our numbers, which Bandwidth keeps for two days behind the account's credentials."""

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import aiohttp

from server.background import parse_retry_after
from server.providers.bandwidth.media_types import UNNAMED, named_type
from server.providers.bandwidth.oauth import AuthorizedSession, ClientCredentials
from server.providers.http import NoAnswer, NotReached, exchange, read_file
from server.providers.ports import Media, MediaRefused, ProviderUnavailable

# The account or its credentials are wrong, or there is too much to do: later it may be had.
_LATER = frozenset({401, 403, 408, 429})


class BandwidthMediaFetcher:
    """ports.MediaFetcher for one account; made inside a running event loop."""

    def __init__(
        self,
        *,
        credentials: ClientCredentials,
        api_base_url: str,
        connections: int = 10,
        timeout: timedelta = timedelta(seconds=15),
    ) -> None:
        self._origin = _origin(api_base_url)
        self._session = AuthorizedSession(credentials, connections=connections, timeout=timeout)

    async def fetch(self, url: str, *, max_bytes: int) -> Media:
        """The file. A URL elsewhere than at Bandwidth is refused: a callback must not choose who gets the token."""
        if _origin(url) != self._origin:
            raise MediaRefused("is not at Bandwidth")
        try:
            with exchange():
                async with self._session.request("GET", url) as answer:
                    _check_status(answer)
                    return Media(
                        content_type=_content_type(answer) or named_type(url),
                        data=await read_file(answer, max_bytes=max_bytes),
                    )
        except (NotReached, NoAnswer) as error:
            raise ProviderUnavailable(str(error)) from error

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._session.aclose()


def _origin(url: str) -> tuple[str, str] | None:
    """Whom a request for a URL goes to; None of what is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.scheme, parts.netloc


def _check_status(answer: aiohttp.ClientResponse) -> None:
    if answer.status == 200:
        return
    if answer.status >= 500 or answer.status in _LATER:
        wait = parse_retry_after(answer.headers.get("Retry-After"), now=datetime.now(UTC))
        raise ProviderUnavailable(f"status {answer.status}", retry_after=wait)
    raise MediaRefused(f"was answered with status {answer.status}")


def _content_type(answer: aiohttp.ClientResponse) -> str | None:
    said = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return None if said in ("", UNNAMED) else said
