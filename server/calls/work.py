"""What a worker repeats for calls."""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

from server.background import repeat
from server.calls.checks import CheckWorker
from server.calls.conferences import controls, dial
from server.calls.conferences.controls import ControlWorker
from server.calls.conferences.dial import DialWorker
from server.calls.recordings import worker as recordings
from server.calls.recordings.checks import RecordingCheckWorker
from server.calls.recordings.deletions import DeletionWorker
from server.calls.recordings.transcripts import CALLBACK_PATH, TranscriptWorker
from server.calls.recordings.worker import RecordingWorker
from server.db import Database
from server.notifications import Channel, Notifications
from server.providers.transcription_ports import Transcriber
from server.providers.voice_ports import CallRecordingFetcher, VoiceCalls
from server.storage import Storage

# How soon a recording is fetched, or transcribed, that nobody was woken for, one asked for that was not told of, and a
# provider's copy deleted.
_STORE_EVERY = timedelta(seconds=10)
_TRANSCRIBE_EVERY = timedelta(seconds=10)
_FIND_EVERY = timedelta(seconds=10)
_DELETE_EVERY = timedelta(minutes=1)

# How soon a leg is dialled, or changed, whose delay is over or that nobody was woken for, and one asked about.
_DIAL_EVERY = timedelta(seconds=1)
_CONTROL_EVERY = timedelta(seconds=1)
_CHECK_EVERY = timedelta(seconds=10)

Work = Callable[[], Coroutine[Any, Any, None]]


def leg_work(
    db: Database, notifications: Notifications, storage: Storage, *, voice: VoiceCalls, time_limit: timedelta
) -> list[Work]:
    """Loops that see to the legs of calls, which last `time_limit` at most; to be run until they are cancelled, made
    before the notifications run."""
    dialling = DialWorker(db, notifications, voice, storage, time_limit=time_limit)
    controlling = ControlWorker(db, notifications, voice, storage)
    checking = CheckWorker(db, notifications, voice, storage)
    work: list[Work] = [partial(repeat, checking.step, name="check_legs", every=_CHECK_EVERY)]
    for _ in range(dial.WORKERS):
        wanted = notifications.wake(Channel.CALL_LEGS)
        work.append(partial(repeat, dialling.step, name="dial_legs", every=_DIAL_EVERY, wake=wanted))
    for _ in range(controls.WORKERS):
        wanted = notifications.wake(Channel.CALL_LEGS)
        work.append(partial(repeat, controlling.step, name="control_legs", every=_CONTROL_EVERY, wake=wanted))
    return work


def recording_work(
    db: Database,
    notifications: Notifications,
    storage: Storage,
    *,
    voice: VoiceCalls,
    fetcher: CallRecordingFetcher,
    transcriber: Transcriber,
    public_base_url: str,
    time_limit: timedelta,
    delete_provider_recordings: bool,
) -> list[Work]:
    """Loops that see to recordings and what was said in them; the same as of `leg_work`."""
    finding = RecordingCheckWorker(db, notifications, voice, storage, time_limit=time_limit)
    work: list[Work] = [partial(repeat, finding.step, name="check_recordings", every=_FIND_EVERY)]
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
