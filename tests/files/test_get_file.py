"""Files given out by signed URLs, through Envoy as REST and as gRPC."""

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
import grpc
import grpc.aio
import pytest
from commonservices.v1 import file_service_pb2_grpc
from cryptography.fernet import Fernet
from google.api import httpbody_pb2

from server.config import Settings
from server.storage import Storage, UrlSigner, new_key
from tests.clients import Refusal, refused
from tests.files.support import path_of, request_of
from tests.messages.support import until
from tests.rest.front import Front

DAY = timedelta(days=1)
MB = 1_000_000
LARGE = 60 * MB
# Of 60 MB what may be on the way at one time, with all that else goes on.
HELD_AT_MOST = 20 * MB

# Bytes that Envoy has read from the api, and how often it stopped because a client had not taken what it had.
TAKEN = "cluster.api.upstream_cx_rx_bytes_total"
PAUSED = "cluster.api.upstream_flow_control_paused_reading_total"


async def read(front: Front, url: str) -> tuple[httpbody_pb2.HttpBody, Mapping[str, str]]:
    """The file through native gRPC, and the metadata that come before it."""
    async with grpc.aio.insecure_channel(front.target) as channel:
        call = file_service_pb2_grpc.FileServiceStub(channel).GetFile(request_of(url))
        parts = [part async for part in call]
        metadata = {key: value for key, value in await call.initial_metadata() if isinstance(value, str)}
    return httpbody_pb2.HttpBody(content_type=parts[0].content_type, data=b"".join(p.data for p in parts)), metadata


async def refused_by_both(front: Front, rest: aiohttp.ClientSession, url: str) -> tuple[int, Refusal]:
    """How REST and gRPC refuse the URL, once they agree."""
    async with rest.get(path_of(url)) as answer:
        error = (await answer.json())["error"]
    async with grpc.aio.insecure_channel(front.target) as channel:
        call = file_service_pb2_grpc.FileServiceStub(channel).GetFile(request_of(url))
        refusal = await refused(call.read())
    assert answer.status == error["code"]
    assert error["details"][0]["metadata"] == refusal.metadata
    assert (error["status"], error["reason"]) == (refusal.code.name, refusal.reason)
    assert answer.headers["content-type"] == "application/json"
    return answer.status, refusal


@pytest.mark.parametrize(
    ("content_type", "disposition"),
    [("image/png", "inline"), ("video/mp4", "inline"), ("text/plain", "inline"), ("text/vcard", "attachment")],
)
async def test_file_comes_whole_and_as_what_it_is(
    front: Front, rest: aiohttp.ClientSession, storage: Storage, content_type: str, disposition: str
) -> None:
    key = new_key("media", content_type)
    data = os.urandom(700_000)
    await storage.put(key, data)
    url = await storage.url(key, expires_in=DAY)

    async with rest.get(path_of(url)) as answer:
        body = await answer.read()
    file, metadata = await read(front, url)

    assert (answer.status, answer.headers["content-type"]) == (200, content_type)
    assert body == data
    assert (file.content_type, file.data) == (content_type, data)
    for said in (answer.headers, metadata):
        assert said["x-content-type-options"] == "nosniff"
        assert said["content-disposition"] == disposition
        assert said["cache-control"].startswith("private, max-age=")


async def test_file_may_be_cached_for_as_long_as_its_url_is_good(
    front: Front, rest: aiohttp.ClientSession, storage: Storage
) -> None:
    await storage.put("media/photo.png", b"photo")
    url = await storage.url("media/photo.png", expires_in=timedelta(minutes=5))

    async with rest.get(path_of(url)) as answer:
        await answer.read()
    _file, metadata = await read(front, url)

    for said in (answer.headers["cache-control"], metadata["cache-control"]):
        (age,) = re.fullmatch(r"private, max-age=(\d+)", said).groups()  # type: ignore[union-attr]
        assert 270 <= int(age) <= 300


async def test_refusal_is_not_cached_as_a_file_is(front: Front, rest: aiohttp.ClientSession, storage: Storage) -> None:
    url = await storage.url("media/gone.png", expires_in=DAY)

    async with rest.get(path_of(url)) as answer:
        assert (answer.status, answer.headers.get("cache-control")) == (404, None)


async def test_empty_file_has_its_type_too(front: Front, rest: aiohttp.ClientSession, storage: Storage) -> None:
    await storage.put("media/empty.txt", b"")
    url = await storage.url("media/empty.txt", expires_in=DAY)

    async with rest.get(path_of(url)) as answer:
        body = await answer.read()
    file, _metadata = await read(front, url)

    assert (answer.status, answer.headers["content-type"], body) == (200, "text/plain", b"")
    assert (file.content_type, file.data) == ("text/plain", b"")


@pytest.mark.parametrize(
    "tampered",
    [
        pytest.param(lambda url: url.replace("signature=", "signature=A"), id="signature"),
        pytest.param(lambda url: f"{url[:-1]}{'A' if url[-1] != 'A' else 'E'}", id="end of signature"),
        pytest.param(lambda url: f"{url.partition('signature=')[0]}signature=%C3%A4", id="no signature"),
        pytest.param(lambda url: re.sub(r"(?<=expires=)\d+", lambda at: str(int(at[0]) + 1), url), id="later"),
        pytest.param(lambda url: url.replace("photo", "other"), id="name"),
        pytest.param(lambda url: url.replace("/media/", "/recordings/"), id="kind"),
    ],
)
async def test_tampered_url_is_refused(
    front: Front, rest: aiohttp.ClientSession, storage: Storage, tampered: Callable[[str], str]
) -> None:
    for key in ("media/photo.png", "media/other.png", "recordings/photo.png"):
        await storage.put(key, b"secret")
    url = tampered(await storage.url("media/photo.png", expires_in=DAY))

    status, refusal = await refused_by_both(front, rest, url)

    assert status == 403
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FILE_URL_INVALID")
    assert set(refusal.metadata) == {"kind", "name"}


async def test_url_is_good_until_it_expires(
    front: Front, rest: aiohttp.ClientSession, storage: Storage, signer: UrlSigner
) -> None:
    await storage.put("media/photo.png", b"data")
    now = datetime.now(UTC)

    async with rest.get(path_of(signer.url("media/photo.png", until=now + timedelta(minutes=1)))) as answer:
        assert answer.status == 200
    status, refusal = await refused_by_both(front, rest, signer.url("media/photo.png", until=now))

    assert (status, refusal.reason) == (403, "FILE_URL_INVALID")


async def test_url_without_signature_is_refused(rest: aiohttp.ClientSession, storage: Storage) -> None:
    await storage.put("media/photo.png", b"data")

    async with rest.get("/api/v1/files/media/photo.png") as answer:
        body = await answer.json()

    assert (answer.status, body["error"]["reason"]) == (403, "FILE_URL_INVALID")


async def test_key_of_another_service_signs_nothing(
    front: Front, rest: aiohttp.ClientSession, storage: Storage, settings: Settings
) -> None:
    await storage.put("media/photo.png", b"data")
    stranger = UrlSigner(settings.public_base_url, [Fernet.generate_key().decode()])

    _status, refusal = await refused_by_both(
        front, rest, stranger.url("media/photo.png", until=datetime.now(UTC) + DAY)
    )

    assert refusal.reason == "FILE_URL_INVALID"


async def test_file_that_is_gone_is_not_found(front: Front, rest: aiohttp.ClientSession, storage: Storage) -> None:
    url = await storage.url("media/gone.png", expires_in=DAY)

    status, refusal = await refused_by_both(front, rest, url)

    assert status == 404
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND")
    assert refusal.metadata == {"kind": "media", "name": "gone.png"}


async def test_file_that_cannot_be_read_now_may_be_later(
    front: Front, rest: aiohttp.ClientSession, storage: Storage, settings: Settings
) -> None:
    folder = Path(unquote(urlsplit(settings.storage_url).path)) / "media"
    folder.mkdir(exist_ok=True)
    (folder / "loop.png").symlink_to("loop.png")
    url = await storage.url("media/loop.png", expires_in=DAY)

    async with rest.get(path_of(url)) as answer:
        body = await answer.json()
    async with grpc.aio.insecure_channel(front.target) as channel:
        refusal = await refused(file_service_pb2_grpc.FileServiceStub(channel).GetFile(request_of(url)).read())
    (folder / "loop.png").unlink()

    assert (answer.status, body["error"]["reason"]) == (503, "UNAVAILABLE")
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


@pytest.mark.parametrize("name", ["..%2Foutside.png", "%2Fetc%2Fhostname.png", "%2e%2e%2Foutside.png"])
async def test_nothing_outside_the_folder_is_given_out(
    rest: aiohttp.ClientSession, settings: Settings, signer: UrlSigner, name: str
) -> None:
    folder = Path(unquote(urlsplit(settings.storage_url).path))
    (folder.parent / "outside.png").write_bytes(b"secret")
    (folder / "outside.png").write_bytes(b"secret")
    # Even where the name is signed, which no name of ours is.
    url = signer.url(f"media/{unquote(name)}", until=datetime.now(UTC) + DAY).replace(unquote(name), name)

    async with rest.get(path_of(url)) as answer:
        body = await answer.json()

    assert (answer.status, body["error"]["reason"]) == (404, "FILE_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", "/api/v1/files/media/photo.png?expires=1&signature=a"),
        ("POST", "/api/v1/files/media/photo.png?expires=1&signature=a"),
        ("GET", "/api/v1/files/media"),
        ("GET", "/api/v1/files/media/photo.png/more"),
    ],
)
async def test_other_methods_and_paths_are_not_there(rest: aiohttp.ClientSession, method: str, path: str) -> None:
    async with rest.request(method, path) as answer:
        body = await answer.text()

    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert method == "HEAD" or json.loads(body)["error"]["reason"] == "ENDPOINT_NOT_FOUND"


async def test_expiry_that_is_no_time_is_malformed(rest: aiohttp.ClientSession) -> None:
    async with rest.get("/api/v1/files/media/photo.png?expires=soon&signature=a") as answer:
        body = await answer.json()

    assert (answer.status, body["error"]["reason"]) == (400, "MALFORMED_REQUEST")


@pytest.fixture
async def large(settings: Settings, storage: Storage) -> tuple[str, str]:
    """The URL and the hash of a file of 60 MB."""
    folder = Path(unquote(urlsplit(settings.storage_url).path)) / "recordings"
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256()
    with (folder / "large.mp3").open("wb") as file:
        for _ in range(LARGE // MB):
            part = os.urandom(MB)
            digest.update(part)
            file.write(part)
    return path_of(await storage.url("recordings/large.mp3", expires_in=DAY)), digest.hexdigest()


async def test_large_file_passes_through_in_pieces(
    front: Front, rest: aiohttp.ClientSession, large: tuple[str, str]
) -> None:
    path, expected = large
    envoy_before, ours_before = await envoy_memory(front), our_memory()
    most_envoy = most_ours = 0
    digest, size = hashlib.sha256(), 0

    async with rest.get(path) as answer:
        async for part in answer.content.iter_chunked(MB):
            digest.update(part)
            size += len(part)
            if size // (5 * MB) > (size - len(part)) // (5 * MB):
                most_envoy = max(most_envoy, await envoy_memory(front))
                most_ours = max(most_ours, our_memory())

    assert (size, digest.hexdigest()) == (LARGE, expected)
    assert most_envoy - envoy_before < HELD_AT_MOST
    assert most_ours - ours_before < HELD_AT_MOST


async def test_client_that_does_not_read_is_not_read_for(front: Front, large: tuple[str, str]) -> None:
    path, _expected = large
    host, _, port = front.target.rpartition(":")
    taken_before, paused_before = await counted(front, TAKEN), await counted(front, PAUSED)
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)

    writer.write(f"GET {path} HTTP/1.1\r\nhost: any\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")

    async def paused() -> bool:
        return await counted(front, PAUSED) > paused_before

    await until(paused)
    taken = await counted(front, TAKEN) - taken_before
    writer.transport.abort()

    assert head.startswith(b"HTTP/1.1 200")
    assert taken < HELD_AT_MOST


async def test_stream_of_files_is_no_stream_of_events(front: Front, storage: Storage) -> None:
    await storage.put("media/photo.png", b"data")
    url = path_of(await storage.url("media/photo.png", expires_in=DAY))

    async with (
        aiohttp.ClientSession(front.url, headers={"accept": "text/event-stream"}) as session,
        session.get(url) as answer,
    ):
        assert await answer.read() == b"data"
        assert answer.headers["content-type"] == "image/png"


async def envoy_memory(front: Front) -> int:
    """Bytes that Envoy has allocated."""
    async with aiohttp.ClientSession() as session, session.get(f"{front.admin_url}/memory") as answer:
        return int(json.loads(await answer.read())["allocated"])


async def counted(front: Front, name: str) -> int:
    """A counter of Envoy's."""
    async with aiohttp.ClientSession() as session, session.get(f"{front.admin_url}/stats?filter=^{name}$") as answer:
        return int((await answer.text()).rpartition(":")[2])


def our_memory() -> int:
    """Bytes of this process, which the API is part of, that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
