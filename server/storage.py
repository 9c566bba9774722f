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
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
        content_type = _TYPES[_extension(key)]
        attributes = {"Content-Type": content_type, "Content-Disposition": disposition(content_type)}
        obstore.put(self._store, key, data, attributes=attributes, use_multipart=False)


def open_storage(url: str, signer: UrlSigner) -> Storage:
    """What STORAGE_URL names: `file:///FOLDER`, which is made where it is missing, or `s3://BUCKET/PREFIX`."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return BucketStorage(parts.netloc, parts.path.strip("/"))
    return FolderStorage(Path(unquote(parts.path)), signer)


def _extension(key: str) -> str:
    return key.rpartition(".")[2]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
