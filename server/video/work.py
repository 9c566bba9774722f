"""What a worker repeats for video calls."""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

from server.background import repeat
from server.db import Database
from server.encryption import Cipher
from server.notifications import Channel, Notifications
from server.providers.video_ports import RecordingFetcher, VideoSessions
from server.storage import Storage
from server.video import retention
from server.video.endings import EndingWorker
from server.video.expiry import Expiry
from server.video.recordings import WORKERS, RecordingWorker

# How soon a session is ended whose time has come, a recording is fetched that nobody was woken for, a call expires, and
# an event of Zoom's is forgotten.
_END_EVERY = timedelta(seconds=1)
_STORE_EVERY = timedelta(seconds=10)
_EXPIRE_EVERY = timedelta(seconds=30)
_FORGET_EVERY = timedelta(minutes=5)

Work = Callable[[], Coroutine[Any, Any, None]]


def video_work(
    db: Database,
    notifications: Notifications,
    storage: Storage,
    cipher: Cipher,
    *,
    sessions: VideoSessions | None,
    fetcher: RecordingFetcher | None,
    keep_events: timedelta,
) -> list[Work]:
    """Loops to be run until they are cancelled; made before the notifications run. `sessions` and `fetcher` are None
    where Zoom is not configured."""
    expiry = Expiry(db, notifications, storage)
    forget = partial(retention.forget_old, db, keep=keep_events)
    work: list[Work] = [
        partial(repeat, expiry.step, name="expire_video_calls", every=_EXPIRE_EVERY),
        partial(repeat, forget, name="forget_zoom_events", every=_FORGET_EVERY),
    ]
    if sessions is not None:
        endings = EndingWorker(db, notifications, sessions, storage)
        work.append(partial(repeat, endings.step, name="end_video_sessions", every=_END_EVERY))
    if fetcher is not None:
        recordings = RecordingWorker(db, notifications, fetcher, storage, cipher)
        for _ in range(WORKERS):
            came = notifications.wake(Channel.RECORDINGS)
            work.append(partial(repeat, recordings.step, name="store_recordings", every=_STORE_EVERY, wake=came))
    return work
