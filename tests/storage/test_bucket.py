"""Storage in a bucket, on a real S3 service."""

import os
import resource
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import aiohttp
import pytest
from cryptography.fernet import Fernet
from yarl import URL

from server.storage import FileMissing, Storage, StorageFailed, UrlSigner, new_key, open_storage
from tests.messages.support import until
from tests.storage.seaweed import ACCESS_KEY, REGION, SECRET_KEY, running_seaweed, unfinished_uploads
from tests.storage.streams import Lost, many, pieces

DAY = timedelta(days=1)
SIGNER = UrlSigner("https://api.example", [Fernet.generate_key().decode()])


@pytest.fixture(scope="session")
async def _endpoint(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with running_seaweed(tmp_path_factory.mktemp("seaweed")) as endpoint:
        yield endpoint


@pytest.fixture
def aws(_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The process's AWS_* variables: those of the service, and no others."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", _endpoint)
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    return monkeypatch


@pytest.fixture
async def storage(aws: pytest.MonkeyPatch) -> AsyncIterator[Storage]:
    """A folder of a bucket."""
    storage = open_storage("s3://school-files/some/folder", SIGNER)

    async def takes_files() -> bool:
        try:
            await storage.put("media/first.txt", b"")
        except StorageFailed:
            return False
        return True

    await until(takes_files)
    yield storage
    await storage.aclose()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody with a URL and nothing else."""
    async with aiohttp.ClientSession() as session:
        yield session


async def status(http: aiohttp.ClientSession, url: str) -> int:
    """What the service says to this URL as it is spelled."""
    async with http.get(URL(url, encoded=True)) as answer:
        return answer.status


async def test_file_is_read_as_it_was_put(storage: Storage) -> None:
    key, data = new_key("media", "image/png"), os.urandom(700_000)

    await storage.put(key, data)
    file = await storage.open(key)

    assert file.content_type == "image/png"
    assert b"".join([chunk async for chunk in file.chunks]) == data


@pytest.mark.parametrize("size", [0, 1, 20_000_000])
async def test_file_is_read_as_it_arrived(storage: Storage, http: aiohttp.ClientSession, size: int) -> None:
    key, data = new_key("recordings", "video/mp4"), os.urandom(size)

    await storage.put_stream(key, pieces(data))

    async with http.get(URL(await storage.url(key, expires_in=DAY), encoded=True)) as answer:
        assert (answer.status, await answer.read()) == (200, data)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-disposition"] == "inline"


async def test_file_whose_end_is_lost_leaves_nothing(storage: Storage, http: aiohttp.ClientSession) -> None:
    key, endpoint = new_key("recordings", "video/mp4"), os.environ["AWS_ENDPOINT_URL"]
    begun = 0

    async def lost() -> AsyncIterator[bytes]:
        nonlocal begun
        async for piece in pieces(b"x" * 40_000_000):
            yield piece
        begun = await unfinished_uploads(http, endpoint, "school-files")
        raise Lost

    with pytest.raises(Lost):
        await storage.put_stream(key, lost())

    with pytest.raises(FileMissing):
        await storage.open(key)
    assert (begun, await unfinished_uploads(http, endpoint, "school-files")) == (1, 0)


async def test_large_file_is_never_whole_in_memory(storage: Storage) -> None:
    await storage.put_stream("recordings/first.mp4", many(64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    await storage.put_stream("recordings/call.mp4", many(256))

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 96 * 1024


async def test_service_that_is_away_takes_no_more_than_it_must(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    away = open_storage("s3://school-files", SIGNER)

    with pytest.raises(StorageFailed):
        await away.put_stream("recordings/call.mp4", many(64))

    await away.aclose()


async def test_missing_file_is_missing(storage: Storage) -> None:
    with pytest.raises(FileMissing):
        await storage.open("media/nothing.png")


@pytest.mark.parametrize(
    ("content_type", "disposition"), [("image/png", "inline"), ("text/vcard", "attachment"), ("audio/mpeg", "inline")]
)
async def test_signed_url_gives_the_file_as_what_it_is(
    storage: Storage, http: aiohttp.ClientSession, content_type: str, disposition: str
) -> None:
    key = new_key("media", content_type)
    await storage.put(key, b"data")

    async with http.get(URL(await storage.url(key, expires_in=DAY), encoded=True)) as answer:
        assert (answer.status, await answer.read()) == (200, b"data")

    assert answer.headers["content-type"] == content_type
    assert answer.headers["content-disposition"] == disposition
    assert answer.url.path == f"/school-files/some/folder/{key}"
    assert answer.url.query["X-Amz-Expires"] == "86400"


@pytest.mark.parametrize(
    "tampered",
    [
        pytest.param(lambda url: f"{url[:-1]}{'0' if url[-1] != '0' else '1'}", id="signature"),
        pytest.param(lambda url: url.replace("X-Amz-Expires=86400", "X-Amz-Expires=96400"), id="time"),
        pytest.param(lambda url: url.replace("photo", "other"), id="name"),
        pytest.param(lambda url: url.replace(ACCESS_KEY, "another-key"), id="who signed"),
        pytest.param(lambda url: url.partition("?")[0], id="anonymous"),
    ],
)
async def test_tampered_and_anonymous_urls_are_refused(
    storage: Storage, http: aiohttp.ClientSession, tampered: Callable[[str], str]
) -> None:
    for key in ("media/photo.png", "media/other.png"):
        await storage.put(key, b"data")
    url = await storage.url("media/photo.png", expires_in=DAY)

    assert await status(http, url) == 200
    assert await status(http, tampered(url)) == 403


async def test_url_expires(storage: Storage, http: aiohttp.ClientSession) -> None:
    await storage.put("media/photo.png", b"data")
    url = await storage.url("media/photo.png", expires_in=timedelta(seconds=1))

    async def has_expired() -> bool:
        return await status(http, url) == 403

    await until(has_expired)


async def test_wrong_credentials_keep_nothing(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    stranger = open_storage("s3://school-files", SIGNER)

    with pytest.raises(StorageFailed):
        await stranger.put("media/photo.png", b"data")

    await stranger.aclose()


async def test_service_that_is_away_keeps_nothing(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    away = open_storage("s3://school-files", SIGNER)

    with pytest.raises(StorageFailed):
        await away.put("media/photo.png", b"data")
    with pytest.raises(StorageFailed):
        await away.open("media/photo.png")

    await away.aclose()
