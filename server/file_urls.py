"""Where stored files are found, for a while: what the API, its events and its webhooks show of them."""

from collections.abc import Iterable
from datetime import timedelta

from server.errors import Unavailable
from server.storage import Storage, StorageFailed

# How long URLs are good for in events and in resources.
GOOD_FOR = timedelta(hours=24)


async def file_urls(storage: Storage, keys: Iterable[str | None], *, good_for: timedelta = GOOD_FOR) -> dict[str, str]:
    """A URL for each storage key, signed now; none of None, which a file has until it is stored.

    No transaction is open meanwhile: a bucket's signature may need the network. Raises Unavailable.
    """
    try:
        return {key: await storage.url(key, expires_in=good_for) for key in keys if key is not None}
    except StorageFailed as error:
        raise Unavailable("the URLs of files cannot be signed now; try again") from error
