"""Object storage: files under keys, given out by URLs that expire.

A key is `kind/name.extension`, and the extension alone says what the file is: a folder has nowhere else to keep that.

obstore is called in threads of our own. Its coroutines end in a thread of Rust's, which aborts the process where it
comes back to an interpreter that has begun to exit.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import queue
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlencode, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

Result = TypeVar("Result")

# Every type that is kept, and the extension that stands for it: one for each, so that it can be read back.
_EXTENSIONS = {
    "application/json": "json",
    "application/octet-stream": "bin",
    "application/pdf": "pdf",
    "application/vnd.apple.pkpass": "pkpass",
    "audio/3gpp": "3ga",
    "audio/3gpp2": "3g2a",
    "audio/aac": "aac",
    "audio/ac3": "ac3",
    "audio/amr": "amr",
    "audio/basic": "au",
    "audio/l24": "l24",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "oga",
    "audio/vnd.rn-realaudio": "ra",
    "audio/vnd.wave": "wav",
    "audio/webm": "weba",
    "image/bmp": "bmp",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/tiff": "tiff",
    "image/webp": "webp",
    "text/calendar": "ics",
    "text/csv": "csv",
    "text/plain": "txt",
    "text/rtf": "rtf",
    "text/vcard": "vcf",
    "text/vtt": "vtt",
    "video/3gpp": "3gp",
    "video/3gpp2": "3g2",
    "video/h261": "h261",
    "video/h263": "h263",
    "video/h264": "h264",
    "video/mp4": "mp4",
    "video/mpeg": "mpg",
    "video/quicktime": "mov",
    "video/webm": "webm",
}
_TYPES = {extension: content_type for content_type, extension in _EXTENSIONS.items()}

KEPT_TYPES = frozenset(_EXTENSIONS)

# Files come from strangers, and a browser is to run none of them: what it does not show by itself it saves.
_SHOWN = re.compile(r"image/(?!.*xml).+|audio/.+|video/.+|text/plain|application/pdf")

_KEY = re.compile(r"[a-z]+/[A-Za-z0-9_-]+\.[a-z0-9]+")
_KEY_BYTES = 24

_THREADS = 16
# What is in memory of a file that is read.
_CHUNK_BYTES = 256 * 1024
# What is in memory of a file that arrives: chunks that wait, and parts of a bucket's upload, which may have 10,000.
_CHUNKS_WAITING = 4
_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 2

# A worker that stores a file has leased it for longer than all of this.
_BUCKET_TIMEOUT = timedelta(seconds=30)
_BUCKET_RETRIES = 2
_BUCKET_RETRY_TIMEOUT = timedelta(seconds=10)


class FileMissing(Exception):
    """There is no file with this key."""


class StorageFailed(Exception):
    """The folder or the bucket did not do what was asked; later it may."""


@dataclass(frozen=True)
class StoredFile:
    """A file that is there; its data are read as they are taken."""

    content_type: str
    chunks: AsyncGenerator[bytes, None]


def new_key(kind: str, content_type: str) -> str:
    """A key that nobody can guess, for a file of one of KEPT_TYPES."""
    return f"{kind}/{secrets.token_urlsafe(_KEY_BYTES)}.{_EXTENSIONS[content_type]}"


def disposition(content_type: str) -> str:
    """The Content-Disposition with which a file is given out."""
    return "inline" if _SHOWN.fullmatch(content_type) else "attachment"


class UrlSigner:
    """Makes and proves the URLs of files in a folder.

    The first encryption key signs and each one proves, so that keys can be rotated.
    """

    def __init__(self, public_base_url: str, encryption_keys: Sequence[str]) -> None:
        self._public_base_url = public_base_url
        self._secrets = [
            hmac.digest(base64.urlsafe_b64decode(key), b"commonservices file URLs", hashlib.sha256)
            for key in encryption_keys
        ]

    def url(self, key: str, *, until: datetime) -> str:
        """Where the file is until then."""
        expires = int(until.timestamp())
        query = urlencode({"expires": expires, "signature": _signature(self._secrets[0], key, expires)})
        return f"{self._public_base_url}/api/v1/files/{key}?{query}"

    def holds(self, key: str, *, expires: int, signature: str) -> bool:
        """Whether this service gave the URL out; whether it is still good is another question."""
        given = signature.encode()
        return any([hmac.compare_digest(_signature(secret, key, expires).encode(), given) for secret in self._secrets])


def _signature(secret: bytes, key: str, expires: int) -> str:
    digest = hmac.digest(secret, f"{key}\n{expires}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


class Storage(ABC):
    """Files in one place."""

    def __init__(self, store: LocalStore | S3Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")

    async def put(self, key: str, data: bytes) -> None:
        """Keep a file: all of it or nothing. Raises StorageFailed."""
        await self._run(partial(self._put, key, data))

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep a file as it arrives, however large: all of it or nothing. Raises StorageFailed, and what `chunks`
        raises."""
        pipe = _Pipe()
        storing = asyncio.create_task(self._run(partial(self._put_stream, key, pipe)))
        storing.add_done_callback(pipe.taker_left)
        try:
            async for chunk in chunks:
                await pipe.give(chunk)
                if storing.done():
                    break
        except Exception:
            pipe.cut()
            with suppress(_PipeCut, StorageFailed):
                await storing
            raise
        except BaseException:
            # The thread finds out; nobody waits for it.
            pipe.cut()
            raise
        pipe.end()
        await storing

    async def open(self, key: str) -> StoredFile:
        """A file, to be read. Raises FileMissing or StorageFailed."""
        if not _KEY.fullmatch(key) or _extension(key) not in _TYPES:
            raise FileMissing(key)
        chunks = iter(await self._run(partial(self._read, key)))
        return StoredFile(_TYPES[_extension(key)], self._chunks(chunks))

    @abstractmethod
    async def url(self, key: str, *, expires_in: timedelta) -> str:
        """Where whoever has this URL finds the file until it expires."""

    async def aclose(self) -> None:
        """Give the threads back."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @abstractmethod
    def _put(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def _put_stream(self, key: str, chunks: Iterable[bytes]) -> None: ...

    def _read(self, key: str) -> Iterator[bytes]:
        return obstore.get(self._store, key).stream(min_chunk_size=_CHUNK_BYTES)

    async def _chunks(self, chunks: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
        while chunk := await self._run(partial(next, chunks, b"")):
            yield chunk

    async def _run(self, call: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except FileNotFoundError as error:
            raise FileMissing(str(error)) from error
        except (BaseError, OSError) as error:
            raise StorageFailed(str(error)) from error


class FolderStorage(Storage):
    """A folder that every process reaches; its files are served by FileService."""

    def __init__(self, folder: Path, signer: UrlSigner) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__(LocalStore(folder))
        self._folder = folder
        self._signer = signer

    async def url(self, key: str, *, expires_in: timedelta) -> str:
        return self._signer.url(key, until=datetime.now(UTC) + expires_in)

    def _put(self, key: str, data: bytes) -> None:
        """obstore writes another file and renames it. What is recorded must be there after a power cut, too."""
        obstore.put(self._store, key, data, use_multipart=False)
        self._sync(key)

    def _put_stream(self, key: str, chunks: Iterable[bytes]) -> None:
        obstore.put(self._store, key, chunks, use_multipart=True, chunk_size=_PART_BYTES, max_concurrency=1)
        self._sync(key)

    def _sync(self, key: str) -> None:
        file = self._folder / key
        for path in (file, file.parent, self._folder):
            _sync(path)


class BucketStorage(Storage):
    """A bucket of an S3 service, which proves its URLs itself. Where it is and who we are say the AWS_* variables."""

    def __init__(self, bucket: str, prefix: str) -> None:
        super().__init__(
            S3Store(
                bucket,
                prefix=prefix or None,
                # An endpoint that is not https is one that the configuration names.
                client_options={"allow_http": True, "timeout": _BUCKET_TIMEOUT},
                retry_config={"max_retries": _BUCKET_RETRIES, "retry_timeout": _BUCKET_RETRY_TIMEOUT},
            )
        )

    async def url(self, key: str, *, expires_in: timedelta) -> str:
        assert isinstance(self._store, S3Store)
        # In a thread: credentials of a role are fetched when they have run out.
        return await self._run(partial(obstore.sign, self._store, "GET", key, expires_in))

    def _put(self, key: str, data: bytes) -> None:
        obstore.put(self._store, key, data, attributes=_attributes(key), use_multipart=False)

    def _put_stream(self, key: str, chunks: Iterable[bytes]) -> None:
        """obstore aborts the upload where it fails, so that no parts of it are left to be paid for."""
        obstore.put(
            self._store,
            key,
            chunks,
            attributes=_attributes(key),
            use_multipart=True,
            chunk_size=_PART_BYTES,
            max_concurrency=_PARTS_AT_ONCE,
        )


def open_storage(url: str, signer: UrlSigner) -> Storage:
    """What STORAGE_URL names: `file:///FOLDER`, which is made where it is missing, or `s3://BUCKET/PREFIX`."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return BucketStorage(parts.netloc, parts.path.strip("/"))
    return FolderStorage(Path(unquote(parts.path)), signer)


class _PipeCut(Exception):
    """The rest of the file does not come."""


class _Pipe:
    """Chunks from the event loop to a thread that takes them, few at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(_CHUNKS_WAITING)
        # None stands for the end.
        self._waiting: queue.SimpleQueue[bytes | _PipeCut | None] = queue.SimpleQueue()

    async def give(self, chunk: bytes) -> None:
        """Hand a chunk over once there is room for it, or nobody to take it."""
        await self._room.acquire()
        self._waiting.put(chunk)

    def end(self) -> None:
        """That was all."""
        self._waiting.put(None)

    def cut(self) -> None:
        """Nothing more comes, and it was not all."""
        self._waiting.put(_PipeCut())

    def taker_left(self, taker: "asyncio.Task[None]") -> None:
        """Let nobody wait for room any more."""
        self._room.release()
        if not taker.cancelled():
            # Whoever was cancelled does not ask how it ended.
            taker.exception()

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._waiting.get()) is not None:
            if isinstance(chunk, _PipeCut):
                raise chunk
            self._loop.call_soon_threadsafe(self._room.release)
            yield chunk


def _extension(key: str) -> str:
    return key.rpartition(".")[2]


def _attributes(key: str) -> dict[str, str]:
    content_type = _TYPES[_extension(key)]
    return {"Content-Type": content_type, "Content-Disposition": disposition(content_type)}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
