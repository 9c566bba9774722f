"""URLs of files, and what is said where there are none."""

from datetime import timedelta
from pathlib import Path

import pytest

from server.config import Settings
from server.errors import Unavailable
from server.file_urls import file_urls
from server.storage import FolderStorage, StorageFailed
from tests.files.support import signer_of


class Unsigned(FolderStorage):
    """One whose credentials cannot be had."""

    async def url(self, key: str, *, expires_in: timedelta) -> str:
        raise StorageFailed("no credentials")


async def test_urls_that_cannot_be_signed_are_asked_for_again(settings: Settings, tmp_path: Path) -> None:
    storage = Unsigned(tmp_path, signer_of(settings))

    assert await file_urls(storage, [None]) == {}
    with pytest.raises(Unavailable):
        await file_urls(storage, ["recordings/a.wav"])
    await storage.aclose()
