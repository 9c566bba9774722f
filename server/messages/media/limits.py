"""What Twilio and the carriers behind it take of media to send, found out before a message is handed over.

Twilio tells of a file that it does not take only after it has taken the message. What cannot be found out in time is
left to it: a host that answers us late, or not at all, may answer Twilio.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

import aiohttp

from server.config import Network
from server.guard import guarded_connector
from server.messages.media.types import accepted_type

TOO_LARGE = "MEDIA_TOO_LARGE"
TYPE_NOT_ACCEPTED = "MEDIA_TYPE_NOT_ACCEPTED"

# Of all files of a message together.
TIME_LIMIT = timedelta(seconds=3)

# Of images that Twilio makes smaller where a carrier wants it, and of files that go out as they are. It says MB and KB:
# refused is what is more than either meaning.
_MAX_IMAGE_BYTES = 5 * 1024 * 1024
_MAX_OTHER_BYTES = 500 * 1024
_RESIZED = frozenset({"image/gif", "image/jpeg", "image/png"})

# What phones send and Twilio's page does not list for sending.
_ONLY_RECEIVED = frozenset({"image/webp", "text/plain"})

# What a server says of a file that it knows no type of.
_NO_TYPE = frozenset({"", "application/octet-stream", "binary/octet-stream"})

_MAX_REDIRECTS = 5
_LONGEST_TOLD = 100
_LENGTH = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes [0-9]+-[0-9]+/([0-9]{1,18})")
_HEADERS = {"user-agent": "CommonServices-Media/1", "accept-encoding": "identity"}


@dataclass(frozen=True)
class MediaProblem:
    """Why a message with these media is not worth sending: `error_code` and `error_description` of the message."""

    error_code: str
    error_description: str


@dataclass(frozen=True)
class _Described:
    """What a server says of a file; None where it says nothing, or nobody could be asked."""

    content_type: str | None = None
    size: int | None = None


class MediaLimits:
    """Asks the servers of media for types and sizes; made inside a running event loop."""

    def __init__(self, allowed_networks: Sequence[Network], *, time_limit: timedelta = TIME_LIMIT) -> None:
        self._time_limit = time_limit
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(allowed_networks),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
        )

    async def problem(self, media_urls: Sequence[str]) -> MediaProblem | None:
        """The first problem with a message's media; None where there is none that could be found out in time."""
        if not media_urls:
            return None
        described = [_Described()] * len(media_urls)
        asking = [asyncio.create_task(self._describe(url, described, place)) for place, url in enumerate(media_urls)]
        try:
            done, _late = await asyncio.wait(asking, timeout=self._time_limit.total_seconds())
            for task in done:
                task.result()
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return next((p for place, file in enumerate(described) if (p := problem_of(place, file))), None)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _describe(self, url: str, described: list[_Described], place: int) -> None:
        """Note what HEAD says, and where that is not all, what a request for the first byte says."""
        head = described[place] = await self._ask("HEAD", url)
        if head.content_type is None or head.size is None:
            begun = await self._ask("GET", url)
            described[place] = _Described(
                content_type=head.content_type or begun.content_type,
                size=begun.size if head.size is None else head.size,
            )

    async def _ask(self, method: str, url: str) -> _Described:
        headers = {"range": "bytes=0-0"} if method == "GET" else {}
        try:
            async with self._session.request(method, url, headers=headers, max_redirects=_MAX_REDIRECTS) as answer:
                # Of a file that is given whole all the same nothing is read.
                answer.close()
        except (aiohttp.ClientError, OSError, ValueError):
            return _Described()
        if answer.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return _Described()
        return _Described(content_type=_content_type(answer), size=_size(answer))


def problem_of(place: int, file: _Described) -> MediaProblem | None:
    """What is wrong with the file at a place of the message's media."""
    limit = _MAX_IMAGE_BYTES
    if file.content_type is not None:
        accepted = accepted_type(file.content_type)
        if accepted is None or accepted in _ONLY_RECEIVED:
            told = file.content_type[:_LONGEST_TOLD]
            return MediaProblem(TYPE_NOT_ACCEPTED, f"media_urls[{place}] is {told}, which carriers do not accept.")
        limit = _MAX_IMAGE_BYTES if accepted in _RESIZED else _MAX_OTHER_BYTES
    if file.size is not None and file.size > limit:
        return MediaProblem(TOO_LARGE, f"media_urls[{place}] has {file.size} bytes, of which {limit} are accepted.")
    return None


def _content_type(answer: aiohttp.ClientResponse) -> str | None:
    said = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return None if said in _NO_TYPE else said


def _size(answer: aiohttp.ClientResponse) -> int | None:
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        total = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        return None if total is None else int(total[1])
    # Compressed, it says nothing of the file.
    if "Content-Encoding" in answer.headers:
        return None
    length = _LENGTH.fullmatch(answer.headers.get("Content-Length", ""))
    return None if length is None else int(length[0])
