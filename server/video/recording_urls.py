"""Where the stored recordings of a call are found, for a while."""

from collections.abc import Iterable
from datetime import timedelta

from server.errors import Unavailable
from server.storage import Storage, StorageFailed

GOOD_FOR = timedelta(hours=24)


async def recording_urls(storage: Storage, keys: Iterable[str | None]) -> dict[str, str]:
    """A URL for each storage key, signed now; none of None, which a recording has until it is stored."""
    try:
        return {key: await storage.url(key, expires_in=GOOD_FOR) for key in keys if key is not None}
    except StorageFailed as error:
        raise Unavailable("the URLs of recordings cannot be signed now; try again") from error
