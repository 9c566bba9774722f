"""Fetching media from Twilio: who gets the credentials, where it leads, and what came of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
import pytest
from aiohttp import web

from server.providers.ports import Media, MediaRefused, ProviderUnavailable
from server.providers.twilio.media import TwilioMediaFetcher
from tests.providers.file_server import breaking_off, file, running, status
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, closed_port_url, twilio_account

PATH = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/MM1/Media/ME1"
BASIC = aiohttp.encode_basic_auth(ACCOUNT_SID, AUTH_TOKEN)
LIMIT = 1000
PATIENT = timedelta(seconds=30)


@asynccontextmanager
async def fetching(base_url: str | None, *, patience: timedelta = PATIENT) -> AsyncIterator[TwilioMediaFetcher]:
    """A fetcher of an account at that base URL."""
    fetcher = TwilioMediaFetcher(twilio_account(base_url), timeout=patience)
    try:
        yield fetcher
    finally:
        await fetcher.aclose()


async def fetch(base_url: str, url: str | None = None, *, patience: timedelta = PATIENT) -> Media:
    """What comes of fetching a URL, of the base URL where no other is given."""
    async with fetching(base_url, patience=patience) as fetcher:
        return await fetcher.fetch(url or base_url + PATH, max_bytes=LIMIT)


async def test_file_is_fetched_with_the_accounts_credentials() -> None:
    async with running(file(b"data", "Image/PNG; name=photo.png")) as twilio:
        media = await fetch(twilio.base_url)

    assert media == Media(content_type="image/png", data=b"data")
    assert twilio.came == [(PATH, BASIC)]


async def test_credentials_do_not_follow_to_where_the_file_is() -> None:
    async with (
        running(file(b"data")) as cdn,
        running(status(307, Location=f"{cdn.base_url}/secret-address")) as twilio,
    ):
        media = await fetch(twilio.base_url)

    assert media.data == b"data"
    assert twilio.came == [(PATH, BASIC)]
    assert cdn.came == [("/secret-address", None)]


async def test_redirects_within_twilio_are_followed_without_credentials_too() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await (status(302, Location="/cdn/1") if request.path == PATH else file(b"data"))(request)

    async with running(answer) as twilio:
        media = await fetch(twilio.base_url)

    assert media.data == b"data"
    assert twilio.came == [(PATH, BASIC), ("/cdn/1", None)]


@pytest.mark.parametrize(
    "url",
    [
        "https://api.twilio.com.evil.example/x",
        "https://api.twilio.com@evil.example/x",
        "http://api.twilio.com/x",
        "https://api.twilio.com:444/x",
        "https://api.twilio.com",
        "https://[",
        "file:///etc/passwd",
        "",
    ],
)
async def test_url_that_is_not_twilios_is_refused(url: str) -> None:
    async with fetching(None) as fetcher:
        with pytest.raises(MediaRefused, match="is not at Twilio"):
            await fetcher.fetch(url, max_bytes=LIMIT)


async def test_other_server_than_the_configured_one_is_not_asked() -> None:
    async with running(file(b"data")) as stranger:
        with pytest.raises(MediaRefused):
            await fetch("http://127.0.0.1:1", stranger.base_url + PATH)

    assert stranger.came == []


@pytest.mark.parametrize("is_told", [True, False])
async def test_file_that_is_too_large_is_not_read_to_its_end(is_told: bool) -> None:
    ended = asyncio.Event()

    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        if is_told:
            response.content_length = 1 << 40
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
        finally:
            ended.set()

    async with running(large) as twilio:
        with pytest.raises(MediaRefused, match="is larger than 1000 bytes"):
            await fetch(twilio.base_url)
        async with asyncio.timeout(30):
            await ended.wait()


async def test_largest_file_is_taken() -> None:
    async with running(file(b"x" * LIMIT)) as twilio:
        assert len((await fetch(twilio.base_url)).data) == LIMIT
    async with running(file(b"x" * (LIMIT + 1))) as twilio:
        with pytest.raises(MediaRefused):
            await fetch(twilio.base_url)


@pytest.mark.parametrize("code", [404, 410])
async def test_file_that_is_gone_is_refused(code: int) -> None:
    async with running(status(code)) as twilio:
        with pytest.raises(MediaRefused, match="any more"):
            await fetch(twilio.base_url)


@pytest.mark.parametrize("code", [400, 401, 403, 429, 500, 502, 503])
async def test_other_failures_may_pass(code: int) -> None:
    async with running(status(code, Retry_After="7")) as twilio:
        with pytest.raises(ProviderUnavailable) as caught:
            await fetch(twilio.base_url)

    assert caught.value.retry_after == timedelta(seconds=7)


@pytest.mark.parametrize("location", ["", "/elsewhere", "ftp://cdn.example/x", "file:///etc/passwd", "http://["])
async def test_redirect_to_no_file_may_pass(location: str) -> None:
    async with running(status(307, Location=location)) as twilio:
        with pytest.raises(ProviderUnavailable):
            await fetch(twilio.base_url)

    assert len(twilio.came) <= 5


async def test_nobody_there_may_pass() -> None:
    with pytest.raises(ProviderUnavailable):
        await fetch(closed_port_url())


async def test_silence_may_pass() -> None:
    asked = asyncio.Event()

    async def never(_request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    async with running(never) as twilio:
        with pytest.raises(ProviderUnavailable):
            await fetch(twilio.base_url, patience=timedelta(milliseconds=100))

    assert asked.is_set()


async def test_file_that_breaks_off_may_come_whole_later() -> None:
    async with running(breaking_off) as twilio:
        with pytest.raises(ProviderUnavailable):
            await fetch(twilio.base_url)
