"""Media to send: what their servers say of them, asked for real."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from ipaddress import ip_network

import pytest
from aiohttp import web

from server.db import Database
from server.messages.media.limits import TIME_LIMIT, MediaLimits, MediaProblem
from tests.clients import Client
from tests.factories import create_message
from tests.messages.conftest import MakeWorker
from tests.messages.support import events_of, row_of
from tests.providers.servers import Sandbox, closed_port_url, listening

IMAGE_BYTES = 5 * 1024 * 1024
OTHER_BYTES = 500 * 1024

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Host:
    """A server that says of each of its files what it is told to."""

    def __init__(self) -> None:
        self.base_url = ""
        self.answers: dict[str, Answer] = {}
        self.asked: Counter[tuple[str, str]] = Counter()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer as told."""
        name = request.path.removeprefix("/")
        self.asked[request.method, name] += 1
        return await self.answers[name](request)

    def url(self, name: str, answer: Answer) -> str:
        """Where a file is that is answered for so."""
        self.answers[name] = answer
        return f"{self.base_url}/{name}"


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """The server."""
    running = Host()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", running.handle)
    async with listening(app) as base_url:
        running.base_url = base_url
        yield running


@pytest.fixture
async def limits() -> AsyncIterator[MediaLimits]:
    """One that may ask this machine."""
    limits = MediaLimits((ip_network("127.0.0.0/8"),))
    yield limits
    await limits.aclose()


def says(content_type: str | None, size: int | None, *, head: int = 200, ranges: bool = True) -> Answer:
    """A file of a type and a size, None of which is said; HEAD is answered with a status, and so are ranges or not."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD" and head != 200:
            return web.Response(status=head)
        response = web.StreamResponse(headers={} if content_type is None else {"Content-Type": content_type})
        if content_type is None:
            # Without this aiohttp's server says application/octet-stream.
            response.headers["Content-Type"] = ""
        if request.method == "GET" and ranges and size is not None:
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes 0-0/{size}"
            response.content_length = 1
            await response.prepare(request)
            await response.write(b"x")
            return response
        if size is not None:
            response.content_length = size
        await response.prepare(request)
        for _ in range((size or 10 * IMAGE_BYTES) // 65_536 if request.method == "GET" else 0):
            await response.write(b"x" * 65_536)
        return response

    return answer


@pytest.mark.parametrize("asked_by", [{}, {"head": 405}, {"head": 403, "ranges": False}])
@pytest.mark.parametrize(
    ("content_type", "limit"),
    [
        ("image/jpeg", IMAGE_BYTES),
        ("image/jpg; charset=x", IMAGE_BYTES),
        ("IMAGE/PNG", IMAGE_BYTES),
        ("image/gif", IMAGE_BYTES),
        ("image/heic", OTHER_BYTES),
        ("video/mp4", OTHER_BYTES),
        ("audio/mpeg", OTHER_BYTES),
        ("application/pdf", OTHER_BYTES),
        ("text/x-vcard", OTHER_BYTES),
    ],
)
async def test_largest_file_is_accepted_and_no_larger(
    host: Host, limits: MediaLimits, content_type: str, limit: int, asked_by: dict[str, int]
) -> None:
    largest = host.url("largest", says(content_type, limit, **asked_by))  # type: ignore[arg-type]
    larger = host.url("larger", says(content_type, limit + 1, **asked_by))  # type: ignore[arg-type]

    assert await limits.problem([largest]) is None
    assert await limits.problem([largest, larger]) == MediaProblem(
        "MEDIA_TOO_LARGE", f"media_urls[1] has {limit + 1} bytes, of which {limit} are accepted."
    )


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "application/zip", "image/webp", "text/plain"])
async def test_type_that_carriers_do_not_take_is_refused(host: Host, limits: MediaLimits, content_type: str) -> None:
    good = host.url("good", says("image/png", 1))
    bad = host.url("bad", says(f"{content_type}; charset=utf-8", 1))

    assert await limits.problem([good, good, bad]) == MediaProblem(
        "MEDIA_TYPE_NOT_ACCEPTED", f"media_urls[2] is {content_type}, which carriers do not accept."
    )


async def test_first_problem_is_told(host: Host, limits: MediaLimits) -> None:
    urls = [host.url(str(n), says("image/png", IMAGE_BYTES + n)) for n in range(3)]

    problem = await limits.problem(urls)

    assert problem is not None
    assert problem.error_description.startswith("media_urls[1] has")


@pytest.mark.parametrize("content_type", [None, "application/octet-stream", "binary/octet-stream"])
async def test_file_of_no_type_is_left_to_the_provider_unless_none_may_be_so_large(
    host: Host, limits: MediaLimits, content_type: str | None
) -> None:
    assert await limits.problem([host.url("a", says(content_type, IMAGE_BYTES))]) is None
    problem = await limits.problem([host.url("b", says(content_type, IMAGE_BYTES + 1))])
    assert problem is not None
    assert problem.error_code == "MEDIA_TOO_LARGE"


async def test_file_of_no_length_is_left_to_the_provider(host: Host, limits: MediaLimits) -> None:
    assert await limits.problem([host.url("a", says("image/png", None))]) is None


@pytest.mark.parametrize("code", [401, 403, 404, 416, 429, 500, 503])
async def test_file_that_is_not_given_to_us_is_left_to_the_provider(host: Host, limits: MediaLimits, code: int) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, text="<html>", content_type="text/html")

    assert await limits.problem([host.url("a", answer)]) is None


@pytest.mark.parametrize(
    "url", [closed_port_url(), "http://nothing.invalid/a", "http://[", "https://127.0.0.1:1/a", ""]
)
async def test_host_that_is_not_there_is_left_to_the_provider(limits: MediaLimits, url: str) -> None:
    assert await limits.problem([url]) is None


async def test_compressed_length_says_nothing(host: Host, limits: MediaLimits) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "image/png", "Content-Encoding": "gzip", "Content-Length": str(IMAGE_BYTES * 2)}
        return web.Response(headers=headers)

    assert await limits.problem([host.url("a", answer)]) is None


async def test_message_without_media_asks_nobody(limits: MediaLimits) -> None:
    assert await limits.problem([]) is None


async def test_redirects_are_followed(host: Host, limits: MediaLimits) -> None:
    async def moved(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/there")

    host.url("there", says("text/html", 1))

    problem = await limits.problem([host.url("here", moved)])

    assert problem is not None
    assert problem.error_code == "MEDIA_TYPE_NOT_ACCEPTED"


async def test_redirects_without_end_are_left_to_the_provider(host: Host, limits: MediaLimits) -> None:
    async def again(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/round")

    assert await limits.problem([host.url("round", again)]) is None
    assert sum(host.asked.values()) <= 12


async def test_private_address_is_not_asked(host: Host) -> None:
    public_only = MediaLimits(())

    assert await public_only.problem([host.url("a", says("text/html", 1))]) is None

    assert host.asked == {}
    await public_only.aclose()


async def test_redirect_to_a_private_address_is_not_followed(host: Host) -> None:
    async def moved(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(inside)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", host.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.2", 0).start()
    address, port = runner.addresses[0][:2]
    inside = f"http://{address}:{port}/inside"
    host.url("inside", says("text/html", 1))
    one_address = MediaLimits((ip_network("127.0.0.1/32"),))

    assert await one_address.problem([host.url("outside", moved)]) is None

    assert {name for _method, name in host.asked} == {"outside"}
    await one_address.aclose()
    await runner.cleanup()


async def test_what_is_known_in_time_counts(host: Host) -> None:
    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    async def only_head(request: web.Request) -> web.StreamResponse:
        return await (says("text/html", None) if request.method == "HEAD" else never)(request)

    local = (ip_network("127.0.0.0/8"),)
    hasty, patient = MediaLimits(local, time_limit=timedelta(milliseconds=100)), MediaLimits(local)
    silent, half = host.url("silent", never), host.url("half", only_head)
    began = time.monotonic()

    assert await hasty.problem([silent]) is None
    assert time.monotonic() - began < TIME_LIMIT.total_seconds()
    assert await patient.problem([silent, half]) == MediaProblem(
        "MEDIA_TYPE_NOT_ACCEPTED", "media_urls[1] is text/html, which carriers do not accept."
    )

    await hasty.aclose()
    await patient.aclose()


async def test_files_are_asked_for_at_once(host: Host, limits: MediaLimits) -> None:
    all_there = asyncio.Event()

    async def together(request: web.Request) -> web.StreamResponse:
        if host.asked.total() == 10:
            all_there.set()
        await all_there.wait()
        return await says("image/png", 1)(request)

    assert await limits.problem([host.url(str(n), together) for n in range(10)]) is None
    assert all_there.is_set()


async def test_message_with_media_that_carriers_refuse_is_not_handed_over(
    client: Client,
    carrier: Sandbox,
    db: Database,
    make_worker: MakeWorker,
    host: Host,
    limits: MediaLimits,
) -> None:
    page = await create_message(client, media_urls=[host.url("page", says("text/html", 10))])
    picture = await create_message(client, media_urls=[host.url("picture", says("image/png", 10))])

    await make_worker(media_limits={"twilio": limits}).run_once()

    [taken] = await carrier.taken()
    assert taken["media_urls"] == list(picture.media_urls)
    row = await row_of(db, page)
    assert (row.internal_status, row.error_code, row.message_sid) == ("failed", "MEDIA_TYPE_NOT_ACCEPTED", None)
    assert row.error_description == "media_urls[0] is text/html, which carriers do not accept."
    assert [m.message.internal_status for m in await events_of(db, page)] == ["pending", "failed"]
