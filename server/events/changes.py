"""Changes of what is told of: hold it, change it, compare what is shown of it, and tell of it where that is another.

URLs of files are signed outside the transaction, for a bucket's signature may need the network. Where one is found to
be missing, which most resources have none of, the change is made anew with it.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database
from server.errors import Unavailable
from server.file_urls import file_urls
from server.storage import Storage

# How often a change is made anew because files were stored between signing and holding.
_TRIES = 10


class WithFiles(Protocol):
    """Something that is told of, with the rows that it is shown from."""

    @property
    def storage_keys(self) -> Iterable[str]:
        """Those of its files that are stored."""


Resource = TypeVar("Resource", bound=WithFiles)

# URLs of files by their storage keys.
Urls = Mapping[str, str]


class _Unsigned(Exception):
    """Files have no URL yet, by their storage keys."""

    def __init__(self, keys: Collection[str]) -> None:
        super().__init__("files without a URL")
        self.keys = keys


async def change_and_tell(
    db: Database,
    storage: Storage,
    *,
    hold: Callable[[AsyncSession], Awaitable[Resource]],
    change: Callable[[AsyncSession, Resource], Awaitable[Resource]],
    show: Callable[[Resource, Urls], object],
    tell: Callable[[AsyncSession, Resource, Urls], Awaitable[object]],
    new_keys: Iterable[str],
) -> tuple[Resource, bool]:
    """What is held, as `change` leaves it, in one transaction; and whether what is shown of it is another than before,
    which is told then.

    `show` keeps nothing of the rows, which change. `new_keys` are storage keys that the change gives to files. Each of
    the four may be run again. Raises Unavailable, and what they raise.
    """
    urls = await file_urls(storage, new_keys)
    for _ in range(_TRIES):
        try:
            async with db.begin() as tx:
                held = await hold(tx)
                _check(held, urls)
                before = show(held, urls)
                changed = await change(tx, held)
                _check(changed, urls)
                is_news = show(changed, urls) != before
                if is_news:
                    await tell(tx, changed, urls)
        except _Unsigned as unsigned:
            urls |= await file_urls(storage, unsigned.keys)
            continue
        return changed, is_news
    raise Unavailable("files keep being stored; try again")


def _check(resource: WithFiles, urls: Urls) -> None:
    if missing := [key for key in resource.storage_keys if key not in urls]:
        raise _Unsigned(missing)
