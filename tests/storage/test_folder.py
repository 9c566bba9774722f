"""Storage in a local folder, and the URLs of its files."""

import asyncio
import os
import resource
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from server.storage import (
    KEPT_TYPES,
    FileMissing,
    Storage,
    StorageFailed,
    UrlSigner,
    disposition,
    new_key,
    open_storage,
)
from tests.messages.support import until
from tests.storage.streams import Lost, lost_after, many, pieces

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
UNTIL = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
SIGNER = UrlSigner("https://api.example", [NEW])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet, with a name that a URL must escape."""
    return tmp_path / "made as needed" / "files"


@pytest.fixture
async def storage(folder: Path) -> AsyncIterator[Storage]:
    """The storage in it."""
    storage = open_storage(folder.as_uri(), SIGNER)
    yield storage
    await storage.aclose()


@pytest.mark.parametrize("content_type", sorted(KEPT_TYPES))
async def test_file_is_read_as_it_was_put(storage: Storage, content_type: str) -> None:
    key, data = new_key("media", content_type), os.urandom(600_000)

    await storage.put(key, data)
    file = await storage.open(key)

    assert file.content_type == content_type
    assert b"".join([chunk async for chunk in file.chunks]) == data


@pytest.mark.parametrize("size", [0, 1, 20_000_000])
async def test_file_is_read_as_it_arrived(storage: Storage, size: int) -> None:
    key, data = new_key("recordings", "video/mp4"), os.urandom(size)

    await storage.put_stream(key, pieces(data))
    file = await storage.open(key)

    assert file.content_type == "video/mp4"
    assert b"".join([chunk async for chunk in file.chunks]) == data


async def test_file_whose_end_is_lost_is_not_there(storage: Storage, folder: Path) -> None:
    await storage.put("recordings/other.mp4", b"data")

    with pytest.raises(Lost):
        await storage.put_stream("recordings/call.mp4", lost_after(b"x" * 20_000_000))

    assert _names(folder / "recordings") == ["other.mp4"]


async def test_file_that_nobody_waits_for_any_more_is_not_there(storage: Storage, folder: Path) -> None:
    await storage.put("recordings/other.mp4", b"data")
    given = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x" * 10_000_000
        given.set()
        await asyncio.Event().wait()

    storing = asyncio.create_task(storage.put_stream("recordings/call.mp4", stuck()))
    await given.wait()
    storing.cancel()
    await asyncio.gather(storing, return_exceptions=True)

    # Stored after it, by the same threads.
    await asyncio.gather(*(storage.put(f"recordings/{number}.txt", b"") for number in range(16)))
    await until(lambda: all("#" not in name for name in _names(folder / "recordings")))
    assert not (folder / "recordings" / "call.mp4").exists()


async def test_folder_that_cannot_be_written_takes_no_more_than_it_must(storage: Storage, folder: Path) -> None:
    (folder / "recordings").write_text("a file where the folder should be")
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1_000_000

    with pytest.raises(StorageFailed):
        await storage.put_stream("recordings/call.mp4", endless())

    assert taken < 100


async def test_large_file_is_never_whole_in_memory(storage: Storage) -> None:
    await storage.put_stream("recordings/first.mp4", many(64))
    before = _most_memory()

    await storage.put_stream("recordings/call.mp4", many(512))

    assert _most_memory() - before < 64 * 1024


def test_folder_is_made_for_its_owner_alone(folder: Path) -> None:
    open_storage(folder.as_uri(), SIGNER)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_file_is_there_whole_or_not_at_all(storage: Storage, folder: Path) -> None:
    versions = [bytes([number]) * 2_000_000 for number in range(8)]
    await storage.put("media/photo.png", versions[0])

    async def read() -> bytes:
        return b"".join([chunk async for chunk in (await storage.open("media/photo.png")).chunks])

    async with asyncio.TaskGroup() as tasks:
        for version in versions:
            tasks.create_task(storage.put("media/photo.png", version))
        seen = [tasks.create_task(read()) for _ in range(40)]

    assert {task.result() for task in seen} <= set(versions)
    assert [path.name for path in (folder / "media").iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    "key",
    [
        "media/nothing.png",
        "media/photo",
        "media/photo.exe",
        "media/../media/photo.png",
        "media//photo.png",
        "/media/photo.png",
        "../files/media/photo.png",
        "media/photo.png/",
        "media/photo.png\n",
        "media",
        "",
    ],
)
async def test_key_that_names_no_file_of_ours_is_missing(storage: Storage, key: str) -> None:
    await storage.put("media/photo.png", b"data")

    with pytest.raises(FileMissing):
        await storage.open(key)


async def test_folder_that_cannot_be_written_keeps_nothing(storage: Storage, folder: Path) -> None:
    (folder / "media").write_text("a file where the folder should be")

    with pytest.raises(StorageFailed):
        await storage.put("media/photo.png", b"data")


async def test_url_names_the_file_until_it_expires(storage: Storage) -> None:
    before = datetime.now(UTC)
    url = urlsplit(await storage.url("media/photo.png", expires_in=timedelta(hours=24)))
    query = parse_qs(url.query)
    expires = int(query["expires"][0])

    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://api.example/api/v1/files/media/photo.png"
    assert 0 <= expires - int((before + timedelta(hours=24)).timestamp()) <= 5
    assert SIGNER.holds("media/photo.png", expires=expires, signature=query["signature"][0])


def test_first_key_signs_and_every_key_proves() -> None:
    before, during, after = (UrlSigner("https://api.example", keys) for keys in ([OLD], [NEW, OLD], [NEW]))
    old, new = (signature(signer.url("media/photo.png", until=UNTIL)) for signer in (before, during))
    expires = int(UNTIL.timestamp())

    assert old != new == signature(after.url("media/photo.png", until=UNTIL))
    assert during.holds("media/photo.png", expires=expires, signature=old)
    assert during.holds("media/photo.png", expires=expires, signature=new)
    assert not after.holds("media/photo.png", expires=expires, signature=old)


@given(key=st.text(), expires=st.integers(0, 2**32 - 1), forged=st.text())
def test_no_other_signature_holds(key: str, expires: int, forged: str) -> None:
    good = signature(SIGNER.url("media/photo.png", until=UNTIL))
    is_good = (key, expires) == ("media/photo.png", int(UNTIL.timestamp()))

    assert SIGNER.holds(key, expires=expires, signature=good) == is_good
    assert not SIGNER.holds("media/photo.png", expires=int(UNTIL.timestamp()), signature=forged)


def test_keys_cannot_be_guessed() -> None:
    keys = {new_key("media", "image/png") for _ in range(1000)}

    assert len(keys) == 1000
    assert {len(key) for key in keys} == {len("media/.png") + 32}


def test_only_what_a_browser_shows_by_itself_is_shown() -> None:
    for content_type in ("text/html", "image/svg+xml", "application/xml", "text/xml", "application/xhtml+xml"):
        assert disposition(content_type) == "attachment"
    assert disposition("image/jpeg") == "inline"


def test_process_that_was_storing_ends_as_it_should(folder: Path) -> None:
    program = (
        "import asyncio, sys; from server.storage import UrlSigner, open_storage\n"
        "async def main():\n"
        "    storage = open_storage(sys.argv[1], UrlSigner('', []))\n"
        "    await storage.put('media/photo.png', b'x' * 5_000_000)\n"
        "    asyncio.create_task(storage.put('media/other.png', b'x' * 5_000_000))\n"
        "    await asyncio.sleep(0)\n"
        "asyncio.run(main())"
    )

    codes = [subprocess.run([sys.executable, "-c", program, folder.as_uri()], check=False).returncode for _ in range(5)]

    assert codes == [0] * 5


def test_process_that_ends_while_a_file_arrives_ends(folder: Path) -> None:
    program = (
        "import asyncio, sys; from server.storage import UrlSigner, open_storage\n"
        "async def stuck():\n"
        "    yield b'x' * 5_000_000\n"
        "    await asyncio.Event().wait()\n"
        "async def main():\n"
        "    storage = open_storage(sys.argv[1], UrlSigner('', []))\n"
        "    asyncio.create_task(storage.put_stream('recordings/call.mp4', stuck()))\n"
        "    await storage.put('recordings/other.mp4', b'x')\n"
        "asyncio.run(main())"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program, folder.as_uri()], check=False, timeout=30, capture_output=True
    )

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert _names(folder / "recordings") == ["other.mp4"]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _most_memory() -> int:
    """The most that this process ever had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def signature(url: str) -> str:
    return parse_qs(urlsplit(url).query)["signature"][0]
