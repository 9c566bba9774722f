"""What a worker repeats for inbound media."""

from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from server.background import repeat
from server.db import Database
from server.messages.media.worker import WORKERS, MediaWorker
from server.notifications import Channel, Notifications
from server.providers.ports import MediaFetcher
from server.storage import Storage

# How soon media are fetched that nobody was woken for.
_STORE_EVERY = timedelta(seconds=5)

Work = Callable[[], Coroutine[Any, Any, None]]


def media_work(
    db: Database, notifications: Notifications, fetchers: Mapping[str, MediaFetcher], storage: Storage
) -> list[Work]:
    """Loops to be run until they are cancelled; made before the notifications run."""
    storing = MediaWorker(db, notifications, fetchers, storage)
    work: list[Work] = []
    for _ in range(WORKERS):
        came = notifications.wake(Channel.MEDIA)
        work.append(partial(repeat, storing.step, name="store_media", every=_STORE_EVERY, wake=came))
    return work
