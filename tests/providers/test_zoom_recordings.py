"""Fetching recordings: who gets the token, where it leads, what arrives, and what came of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import jwt
import pytest
from aiohttp import web

from server.providers.ports import MediaRefused, ProviderUnavailable
from server.providers.zoom.recordings import ZoomRecordingFetcher
from tests.providers.servers import closed_port_url, listening

PATH = "/rec/webhook_download/L21e_1yuMexp6X9eZV2.nTUKh5G"
LOOPBACK = (ip_network("127.0.0.0/8"),)
ZOOMS_SECRET = "nobody but Zoom knows this secret of theirs"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def token(*, expires_in: timedelta = timedelta(hours=20)) -> str:
    """A download token like Zoom's, which says when its day is over."""
    claims = {"iss": "https://event.zoom.us", "exp": datetime.now(UTC) + expires_in}
    return jwt.encode(claims, ZOOMS_SECRET, algorithm="HS256")


GOOD = token()
EXPIRED = token(expires_in=timedelta(seconds=-1))


class Server:
    """A server that answers every request as it is told, and keeps what came."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.base_url = ""
        self.came: list[tuple[str, str | None]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.came.append((request.path, request.headers.get("Authorization")))
        return await self.answer(request)


@asynccontextmanager
async def running(answer: Answer) -> AsyncIterator[Server]:
    """A server on a port of its own."""
    server = Server(answer)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with listening(app) as base_url:
        server.base_url = base_url
        yield server


@asynccontextmanager
async def fetching(api_base_url: str, **over: Any) -> AsyncIterator[ZoomRecordingFetcher]:
    """A fetcher that may dial this machine."""
    fields: dict[str, Any] = {"api_base_url": api_base_url, "allowed_networks": LOOPBACK}
    fetcher = ZoomRecordingFetcher(**fields | over)
    try:
        yield fetcher
    finally:
        await fetcher.aclose()


async def fetch(api_base_url: str, url: str | None = None, *, download_token: str | None = GOOD, **over: Any) -> bytes:
    """The bytes of a URL, of the API's server where no other is given."""
    async with (
        fetching(api_base_url, **over) as fetcher,
        fetcher.open(url or api_base_url + PATH, download_token=download_token) as chunks,
    ):
        return b"".join([chunk async for chunk in chunks])


def file(data: bytes, content_type: str = "video/mp4") -> Answer:
    """The file itself."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, headers={"Content-Type": content_type})

    return answer


def status(code: int, **headers: str) -> Answer:
    """No file."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return answer


async def test_file_is_fetched_with_the_token_of_its_event() -> None:
    async with running(file(b"data", "Video/MP4; codecs=avc1")) as zoom:
        assert await fetch(zoom.base_url) == b"data"

    assert zoom.came == [(PATH, f"Bearer {GOOD}")]


async def test_file_is_fetched_without_a_token_where_none_came() -> None:
    async with running(file(b"data")) as zoom:
        assert await fetch(zoom.base_url, download_token=None) == b"data"

    assert zoom.came == [(PATH, None)]


async def test_file_elsewhere_than_at_the_api_is_fetched_too() -> None:
    async with running(file(b"data")) as web_server:
        assert await fetch("http://127.0.0.1:1", web_server.base_url + PATH) == b"data"

    assert web_server.came == [(PATH, f"Bearer {GOOD}")]


async def test_file_of_no_type_has_none() -> None:
    async def bare(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndata")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(bare, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await fetch(f"http://127.0.0.1:{port}") == b"data"


async def test_token_does_not_follow_to_where_the_file_is() -> None:
    async with (
        running(file(b"data")) as store,
        running(status(302, Location=f"{store.base_url}/replay?Signature=a%2Fb~_")) as zoom,
    ):
        assert await fetch(zoom.base_url) == b"data"

    assert zoom.came == [(PATH, f"Bearer {GOOD}")]
    assert store.came == [("/replay", None)]


async def test_token_does_not_come_back_from_elsewhere() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        led = {PATH: f"{there.base_url}/there"}.get(request.path)
        return await (file(b"data") if led is None else status(307, Location=led))(request)

    async with running(answer) as zoom, running(status(307, Location=f"{zoom.base_url}/back")) as there:
        assert await fetch(zoom.base_url) == b"data"

    assert zoom.came == [(PATH, f"Bearer {GOOD}"), ("/back", None)]
    assert there.came == [("/there", None)]


async def test_token_follows_within_the_place_it_is_for() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await (status(302, Location="/file.mp4") if request.path == PATH else file(b"data"))(request)

    async with running(answer) as zoom:
        assert await fetch(zoom.base_url) == b"data"

    assert zoom.came == [(PATH, f"Bearer {GOOD}"), ("/file.mp4", f"Bearer {GOOD}")]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file.mp4",
        "/rec/file.mp4",
        "//zoom.example/file.mp4",
        "file:///etc/passwd",
        "ftp://zoom.example/file.mp4",
        "https://",
        "https:///file.mp4",
        "https://[",
        "https://zoom.example:99999/file.mp4",
        f"https://{'z' * 64}.example/file.mp4",
        "https://zoom..example/file.mp4",
        "https://user@zoom.example/file.mp4",
        "https://user:password@zoom.example/file.mp4",
        "http://zoom.example/file.mp4",
    ],
)
async def test_url_that_is_no_place_on_the_web_is_refused(url: str) -> None:
    async with fetching("https://api.zoom.us") as fetcher:
        with pytest.raises(MediaRefused, match="is at no place on the web"):
            async with fetcher.open(url, download_token=GOOD):
                raise AssertionError("it is not opened")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_private_address_is_not_dialled(host: str) -> None:
    async with running(file(b"secret")) as inside:
        url = inside.base_url.replace("127.0.0.1", host) + PATH
        with pytest.raises(ProviderUnavailable):
            await fetch("http://127.0.0.1:1", url, allowed_networks=())

    assert inside.came == []


async def test_redirect_to_a_private_address_is_not_dialled() -> None:
    async with running(file(b"secret")) as inside, running(status(302, Location=inside.base_url)) as zoom:
        with pytest.raises(ProviderUnavailable):
            await fetch(zoom.base_url, allowed_networks=())

    assert len(zoom.came) == 1
    assert inside.came == []


async def test_address_of_the_api_is_dialled_wherever_it_is() -> None:
    async with running(file(b"data")) as zoom:
        assert await fetch(zoom.base_url, allowed_networks=()) == b"data"


@pytest.mark.parametrize(
    "location", ["", "/elsewhere", "ftp://cdn.example/x", "file:///etc/passwd", "http://[", "https://a:b@cdn.example/"]
)
async def test_redirect_to_no_file_may_pass(location: str) -> None:
    async with running(status(307, Location=location)) as zoom:
        with pytest.raises(ProviderUnavailable, match="leads"):
            await fetch(zoom.base_url)

    assert len(zoom.came) <= 6


@pytest.mark.parametrize("code", [401, 403, 404])
@pytest.mark.parametrize("download_token", [GOOD, "opaque", "a.b.c", jwt.encode({"exp": 0}, ZOOMS_SECRET)[:-60]])
async def test_file_that_may_be_had_within_the_tokens_day_is_asked_for_again(code: int, download_token: str) -> None:
    async with running(status(code)) as zoom:
        with pytest.raises(ProviderUnavailable, match=f"status {code}"):
            await fetch(zoom.base_url, download_token=download_token)


@pytest.mark.parametrize("code", [401, 403, 404])
@pytest.mark.parametrize("download_token", [EXPIRED, None])
async def test_file_that_nothing_opens_any_more_is_refused(code: int, download_token: str | None) -> None:
    async with running(status(code)) as zoom:
        with pytest.raises(MediaRefused, match=f"status {code} and there is no token"):
            await fetch(zoom.base_url, download_token=download_token)


async def test_expired_token_that_is_taken_all_the_same_is_one() -> None:
    async with running(file(b"data")) as zoom:
        assert await fetch(zoom.base_url, download_token=EXPIRED) == b"data"


async def test_file_that_is_gone_is_refused() -> None:
    async with running(status(410)) as zoom:
        with pytest.raises(MediaRefused, match="any more"):
            await fetch(zoom.base_url)


@pytest.mark.parametrize("code", [204, 206, 304, 400, 429, 500, 502, 503])
@pytest.mark.parametrize("download_token", [GOOD, EXPIRED])
async def test_other_failures_may_pass(code: int, download_token: str) -> None:
    async with running(status(code, Retry_After="7")) as zoom:
        with pytest.raises(ProviderUnavailable, match=f"status {code}") as unavailable:
            await fetch(zoom.base_url, download_token=download_token)

    assert unavailable.value.retry_after == timedelta(seconds=7)


async def test_sign_in_page_is_no_recording() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        page = file(b"<html>Sign in</html>", "text/html; charset=utf-8")
        return await (status(302, Location="/signin") if request.path == PATH else page)(request)

    async with running(answer) as zoom:
        with pytest.raises(ProviderUnavailable, match="a page instead of the file"):
            await fetch(zoom.base_url)
        with pytest.raises(MediaRefused, match="no token that is good"):
            await fetch(zoom.base_url, download_token=EXPIRED)


async def test_nobody_there_may_pass() -> None:
    with pytest.raises(ProviderUnavailable):
        await fetch(closed_port_url())


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65_536)


async def test_file_arrives_in_parts_and_the_rest_of_it_stays_there() -> None:
    ended = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await endless(request)
        finally:
            ended.set()

    async with running(answer) as zoom, fetching(zoom.base_url) as fetcher:
        async with fetcher.open(zoom.base_url + PATH, download_token=GOOD) as chunks:
            read = 0
            async for chunk in chunks:
                assert 0 < len(chunk) <= 262_144
                read += len(chunk)
                if read > 10_000_000:
                    break
        async with asyncio.timeout(30):
            await ended.wait()


async def test_what_the_reader_of_a_file_raises_is_its_own() -> None:
    async with running(file(b"data")) as zoom, fetching(zoom.base_url) as fetcher:
        with pytest.raises(TimeoutError, match="the storage is slow"):
            async with fetcher.open(zoom.base_url + PATH, download_token=GOOD):
                raise TimeoutError("the storage is slow")


async def test_file_that_breaks_off_may_come_whole_later() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4", "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with running(broken) as zoom:
        with pytest.raises(ProviderUnavailable):
            await fetch(zoom.base_url)


@pytest.mark.parametrize("is_begun", [False, True])
async def test_silence_may_pass(is_begun: bool) -> None:
    asked = asyncio.Event()

    async def never(request: web.Request) -> web.StreamResponse:
        if is_begun:
            response = web.StreamResponse(headers={"Content-Type": "video/mp4", "Content-Length": "100"})
            await response.prepare(request)
            await response.write(b"half")
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    async with running(never) as zoom:
        with pytest.raises(ProviderUnavailable):
            await fetch(zoom.base_url, patience=timedelta(milliseconds=100))

    assert asked.is_set()


async def test_file_that_never_ends_does_not_hold_a_worker_for_ever() -> None:
    async with running(endless) as zoom:
        with pytest.raises(ProviderUnavailable):
            await fetch(zoom.base_url, longest=timedelta(milliseconds=200))
