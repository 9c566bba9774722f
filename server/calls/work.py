"""What a worker repeats for calls."""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

from server.background import repeat
from server.calls import recordings
from server.calls.recordings import RecordingWorker
from server.db import Database
from server.notifications import Channel, Notifications
from server.providers.voice_ports import CallRecordingFetcher
from server.storage import Storage

# How soon a recording is fetched that nobody was woken for.
_STORE_EVERY = timedelta(seconds=10)

Work = Callable[[], Coroutine[Any, Any, None]]


def call_work(
    db: Database,
    notifications: Notifications,
    storage: Storage,
    *,
    fetcher: CallRecordingFetcher,
    delete_provider_recordings: bool,
) -> list[Work]:
    """Loops to be run until they are cancelled; made before the notifications run."""
    work: list[Work] = []
    storing = RecordingWorker(db, notifications, fetcher, storage, delete_provider_copies=delete_provider_recordings)
    for _ in range(recordings.WORKERS):
        came = notifications.wake(Channel.CALL_RECORDINGS)
        work.append(partial(repeat, storing.step, name="store_call_recordings", every=_STORE_EVERY, wake=came))
    return work
