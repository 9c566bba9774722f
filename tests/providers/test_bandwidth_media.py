from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from server.providers.bandwidth.media import BandwidthMediaFetcher
from server.providers.ports import Media, MediaRefused, ProviderUnavailable
from tests.providers import bandwidth
from tests.providers.bandwidth import NUMBER
from tests.providers.servers import Receiver, closed_port_url, running_sandbox, scripted_vendor


@asynccontextmanager
async def fetcher_of(api_base_url: str, **over: Any) -> AsyncIterator[BandwidthMediaFetcher]:
    fetcher = BandwidthMediaFetcher(credentials=bandwidth.credentials(api_base_url, **over), api_base_url=api_base_url)
    yield fetcher
    await fetcher.aclose()


@pytest.fixture
async def texted(receiver: Receiver) -> AsyncIterator[tuple[str, str]]:
    """Bandwidth, and where it has a picture that somebody sent."""
    receiver.challenge = True
    async with running_sandbox(bandwidth=bandwidth.account(f"{receiver.base_url}/cb")) as sandbox:
        image = {"content_type": "image/png", "data": b64encode(b"a picture").decode()}
        text = {"from": "+14155550123", "to": NUMBER, "media": [image]}
        answer = await sandbox.control("POST", "texts", json=text)
        yield sandbox.base_url, answer["message"]["media_urls"][0]


async def test_picture_is_fetched_and_is_what_its_name_says(texted: tuple[str, str]) -> None:
    base_url, url = texted
    async with fetcher_of(base_url) as fetcher:
        assert await fetcher.fetch(url, max_bytes=9) == Media("image/png", b"a picture")


async def test_picture_that_is_too_large_is_refused(texted: tuple[str, str]) -> None:
    base_url, url = texted
    async with fetcher_of(base_url) as fetcher:
        with pytest.raises(MediaRefused, match="larger than 8 bytes"):
            await fetcher.fetch(url, max_bytes=8)


async def test_picture_that_is_gone_is_refused(texted: tuple[str, str]) -> None:
    base_url, url = texted
    async with fetcher_of(base_url) as fetcher:
        with pytest.raises(MediaRefused, match="status 404"):
            await fetcher.fetch(url.replace("/0/", "/1/"), max_bytes=9)


async def test_wrong_credentials_lose_no_picture(texted: tuple[str, str]) -> None:
    base_url, url = texted
    async with fetcher_of(base_url, client_secret="another") as fetcher:
        with pytest.raises(ProviderUnavailable):
            await fetcher.fetch(url, max_bytes=9)


@pytest.mark.parametrize(
    "elsewhere", ["{receiver}/file.png", "{receiver}@evil.example/", "file:///etc/passwd", "/a", "https://[::1/"]
)
async def test_token_goes_to_bandwidth_alone(texted: tuple[str, str], receiver: Receiver, elsewhere: str) -> None:
    base_url, _ = texted
    while not receiver.requests.empty():
        receiver.requests.get_nowait()
    async with fetcher_of(base_url) as fetcher:
        with pytest.raises(MediaRefused, match="not at Bandwidth"):
            await fetcher.fetch(elsewhere.format(receiver=receiver.base_url), max_bytes=9)

    assert receiver.requests.empty()


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (429, ProviderUnavailable),
        (500, ProviderUnavailable),
        (503, ProviderUnavailable),
        (302, MediaRefused),
        (400, MediaRefused),
        (410, MediaRefused),
    ],
)
async def test_answer_decides_whether_it_may_be_had_later(status: int, failure: type[Exception]) -> None:
    headers = {"Retry-After": "7", "Location": "https://evil.example/"}
    async with scripted_vendor(status, "why", headers) as url, fetcher_of(url) as fetcher:
        with pytest.raises(failure) as failed:
            await fetcher.fetch(f"{url}/api/v2/users/1/media/2/0/a.png", max_bytes=9)

    if isinstance(failed.value, ProviderUnavailable):
        assert failed.value.retry_after == timedelta(seconds=7)


async def test_type_that_is_named_counts_before_the_name() -> None:
    async with scripted_vendor(200, "{}") as url, fetcher_of(url) as fetcher:
        media = await fetcher.fetch(f"{url}/a.png", max_bytes=9)

    assert media == Media("application/json", b"{}")


async def test_unreachable_bandwidth_may_be_reached_later() -> None:
    async with fetcher_of(closed_port_url()) as fetcher:
        with pytest.raises(ProviderUnavailable):
            await fetcher.fetch(f"{closed_port_url()}/a.png", max_bytes=9)
