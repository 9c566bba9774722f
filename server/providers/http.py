"""What every provider's HTTP has in common: a pool with timeouts, two ways to go without an answer, and files."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta

import aiohttp

from server.providers.ports import MediaRefused, ProviderUnavailable

# Includes the wait for a free connection of the pool.
_CONNECT_SECONDS = 5

_CHUNK_BYTES = 65_536
_STREAM_CHUNK_BYTES = 262_144


class NotReached(Exception):
    """No connection came about, so nothing was sent."""


class NoAnswer(Exception):
    """The request was, or may have been, sent; no answer that can be read came back."""


def open_session(*, connections: int, timeout: timedelta, longest: timedelta | None = None) -> aiohttp.ClientSession:
    """A pool of connections, which holds nobody longer than `timeout` and the wait for a connection; with `longest`,
    nobody whose file goes on arriving longer than that."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(
            total=(longest or timeout + timedelta(seconds=_CONNECT_SECONDS)).total_seconds(),
            connect=_CONNECT_SECONDS,
            sock_read=timeout.total_seconds(),
        ),
        connector=aiohttp.TCPConnector(limit=connections),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


@contextmanager
def exchange() -> Iterator[None]:
    """Around a request and the reading of its answer. Raises NotReached or NoAnswer; their texts hold no URL."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise NotReached(type(error).__name__) from error
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
        raise NoAnswer(type(error).__name__) from error


async def read_file(answer: aiohttp.ClientResponse, *, max_bytes: int) -> bytes:
    """The body of an answer. Raises MediaRefused as soon as it is known to be larger."""
    data = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
        data += chunk
        if len(data) > max_bytes:
            raise MediaRefused(f"is larger than {max_bytes} bytes")
    return bytes(data)


async def read_stream(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body of an answer as it arrives. Raises ProviderUnavailable where it breaks off."""
    while True:
        try:
            with exchange():
                chunk = await answer.content.read(_STREAM_CHUNK_BYTES)
        except (NotReached, NoAnswer) as error:
            raise ProviderUnavailable(str(error)) from error
        if not chunk:
            return
        yield chunk
