"""Fetching recordings from Twilio: who gets the credentials, what is taken for a recording, and what came of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from server.providers.ports import MediaRefused, ProviderUnavailable
from server.providers.twilio.recordings import TwilioCallRecordingFetcher
from tests.providers.file_server import breaking_off, file, running, status
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, closed_port_url, twilio_account

PATH = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/RE1"
BASIC = aiohttp.encode_basic_auth(ACCOUNT_SID, AUTH_TOKEN)
WAV = "audio/x-wav"


@asynccontextmanager
async def fetching(base_url: str | None, **over: Any) -> AsyncIterator[TwilioCallRecordingFetcher]:
    fetcher = TwilioCallRecordingFetcher(twilio_account(base_url), **over)
    try:
        yield fetcher
    finally:
        await fetcher.aclose()


async def fetch(base_url: str, url: str | None = None, **over: Any) -> bytes:
    """All of a recording, at the base URL where no other is given."""
    async with fetching(base_url, **over) as fetcher, fetcher.open(url or base_url + PATH) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("content_type", ["audio/x-wav", "audio/wav", "Audio/WAVE; rate=8000", "audio/vnd.wave"])
async def test_recording_is_fetched_with_the_accounts_credentials(content_type: str) -> None:
    async with running(file(b"RIFF" * 200_000, content_type)) as twilio:
        data = await fetch(twilio.base_url)

    assert data == b"RIFF" * 200_000
    assert twilio.came == [(PATH, BASIC)]


async def test_credentials_do_not_follow_to_where_the_recording_is() -> None:
    async with (
        running(file(b"data", WAV)) as store,
        running(status(307, Location=f"{store.base_url}/secret-address")) as twilio,
    ):
        data = await fetch(twilio.base_url)

    assert data == b"data"
    assert twilio.came == [(PATH, BASIC)]
    assert store.came == [("/secret-address", None)]


@pytest.mark.parametrize(
    "url", ["https://api.twilio.com.evil.example/x", "https://api.twilio.com@evil.example/x", "http://api.twilio.com/x"]
)
async def test_url_that_is_not_twilios_is_refused(url: str) -> None:
    async with fetching(None) as fetcher:
        with pytest.raises(MediaRefused, match="is not at Twilio"):
            async with fetcher.open(url):
                raise AssertionError("it was opened")


async def test_recording_arrives_in_pieces_and_what_is_left_is_not_read() -> None:
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": WAV})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
        finally:
            ended.set()

    async with running(endless) as twilio, fetching(twilio.base_url) as fetcher:
        async with fetcher.open(twilio.base_url + PATH) as chunks:
            first = await anext(chunks)

        assert first.strip(b"x") == b""
        async with asyncio.timeout(30):
            await ended.wait()


@pytest.mark.parametrize("content_type", ["audio/mpeg", "video/mp4", "application/octet-stream"])
async def test_file_that_is_no_wav_is_refused(content_type: str) -> None:
    async with running(file(b"data", content_type)) as twilio:
        with pytest.raises(MediaRefused, match=f"is {content_type}, not a WAV file"):
            await fetch(twilio.base_url)


@pytest.mark.parametrize(
    "content_type", ["text/html; charset=utf-8", "application/json", "application/xml", "text/plain"]
)
async def test_page_instead_of_the_file_may_pass(content_type: str) -> None:
    async with running(file(b"sorry", content_type)) as twilio:
        with pytest.raises(ProviderUnavailable, match="instead of the file"):
            await fetch(twilio.base_url)


async def test_recording_that_is_gone_is_refused() -> None:
    async with running(status(410)) as twilio:
        with pytest.raises(MediaRefused, match="any more"):
            await fetch(twilio.base_url)


@pytest.mark.parametrize("code", [204, 400, 401, 403, 404, 429, 500, 502, 503])
async def test_other_failures_may_pass(code: int) -> None:
    async with running(status(code, Retry_After="7")) as twilio:
        with pytest.raises(ProviderUnavailable) as caught:
            await fetch(twilio.base_url)

    assert caught.value.retry_after == timedelta(seconds=7)


@pytest.mark.parametrize("location", ["", "/elsewhere", "ftp://store.example/x", "file:///etc/passwd", "http://["])
async def test_redirect_to_no_file_may_pass(location: str) -> None:
    async with running(status(307, Location=location)) as twilio:
        with pytest.raises(ProviderUnavailable):
            await fetch(twilio.base_url)

    assert len(twilio.came) <= 5


async def test_nobody_there_may_pass() -> None:
    with pytest.raises(ProviderUnavailable):
        await fetch(closed_port_url())


async def test_recording_that_breaks_off_may_come_whole_later() -> None:
    async with running(breaking_off) as twilio:
        with pytest.raises(ProviderUnavailable):
            await fetch(twilio.base_url)


@pytest.mark.parametrize("begins", [True, False])
async def test_silence_may_pass(begins: bool) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": WAV})
        if begins:
            await response.prepare(request)
            await response.write(b"RIFF")
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    async with running(silent) as twilio:
        with pytest.raises(ProviderUnavailable):
            await fetch(twilio.base_url, patience=timedelta(milliseconds=200))


async def test_recording_that_goes_on_arriving_is_given_all_its_time_and_no_more() -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": WAV})
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.01)

    async with running(slow) as twilio, asyncio.timeout(60):
        with pytest.raises(ProviderUnavailable):
            await fetch(twilio.base_url, patience=timedelta(seconds=50), longest=timedelta(milliseconds=500))
