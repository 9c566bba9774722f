"""What a worker repeats for calls."""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

from server.background import repeat
from server.calls import recordings
from server.calls.recording_deletions import DeletionWorker
from server.calls.recordings import RecordingWorker
from server.calls.transcripts import CALLBACK_PATH, TranscriptWorker
from server.db import Database
from server.notifications import Channel, Notifications
from server.providers.transcription_ports import Transcriber
from server.providers.voice_ports import CallRecordingFetcher, VoiceCalls
from server.storage import Storage

# How soon a recording is fetched, or transcribed, that nobody was woken for, and a provider's copy deleted.
_STORE_EVERY = timedelta(seconds=10)
_TRANSCRIBE_EVERY = timedelta(seconds=10)
_DELETE_EVERY = timedelta(minutes=1)

Work = Callable[[], Coroutine[Any, Any, None]]


def call_work(
    db: Database,
    notifications: Notifications,
    storage: Storage,
    *,
    voice: VoiceCalls,
    fetcher: CallRecordingFetcher,
    transcriber: Transcriber,
    public_base_url: str,
    delete_provider_recordings: bool,
) -> list[Work]:
    """Loops to be run until they are cancelled; made before the notifications run."""
    work: list[Work] = []
    storing = RecordingWorker(db, notifications, fetcher, storage, delete_provider_copies=delete_provider_recordings)
    for _ in range(recordings.WORKERS):
        came = notifications.wake(Channel.CALL_RECORDINGS)
        work.append(partial(repeat, storing.step, name="store_call_recordings", every=_STORE_EVERY, wake=came))
    transcribing = TranscriptWorker(
        db, notifications, transcriber, storage, callback_url=public_base_url + CALLBACK_PATH
    )
    stored = notifications.wake(Channel.TRANSCRIPTS)
    # One: it has a whole recording in memory.
    work.append(partial(repeat, transcribing.step, name="transcribe", every=_TRANSCRIBE_EVERY, wake=stored))
    if delete_provider_recordings:
        deleting = DeletionWorker(db, voice)
        work.append(partial(repeat, deleting.step, name="delete_provider_recordings", every=_DELETE_EVERY))
    return work
