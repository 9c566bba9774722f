"""Recordings of calls and conferences: what is heard while one runs, its file, and what the account is told of it."""

import asyncio
import json
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from server.providers.sandbox.answers import API_VERSION, rfc2822
from server.providers.sandbox.voice_audio import RATE, Spoken, recording_wav, seconds_of
from server.providers.sandbox.voice_lines import Ear
from server.providers.sandbox.voice_progress import Stream, Teller
from server.providers.sandbox.voice_records import (
    NotFound,
    NotInProgress,
    Recording,
    RecordingStatus,
    StatusCallback,
)
from server.providers.sandbox.voice_time import Clock, speech_seconds

# Makes samples of words, as `voice_audio.hum` does.
Speak = Callable[[str], bytes]

# Longer silences are cut to this: simulated time may run so fast that what an hour is would fill the disk.
_SILENCE_KEPT = 10.0

# From the end of a recording until its file is there.
_PROCESSING = 1.0

_SAMPLE_BYTES = 2


class Tape:
    """A recording that runs. `is_trimmed` keeps no silence at all."""

    def __init__(self, recording: Recording, *, clock: Clock, is_trimmed: bool) -> None:
        self.recording = recording
        self.spoken: list[Spoken] = []
        self._clock = clock
        self._silence_kept = 0.0 if is_trimmed else _SILENCE_KEPT
        self._read_at = clock.reading()
        self._at = 0.0
        self._ends = [0.0] * recording.channels

    def ear(self, channel: int) -> Ear:
        """What hears for one channel."""
        return lambda text: self.hear(text, channel=channel)

    def hear(self, text: str, *, channel: int) -> float:
        """Somebody says something now; answers for about how many seconds."""
        if channel >= self.recording.channels:
            channel = 0
        lasts = speech_seconds(text)
        at = self._position()
        self.spoken.append(Spoken(at, text, channel))
        self._ends[channel] = max(at, self._ends[channel]) + lasts
        return lasts

    def seconds(self) -> float:
        """About how long it has become."""
        return max(self._position(), *self._ends)

    def _position(self) -> float:
        reading = self._clock.reading()
        self._at += min(reading - self._read_at, self._silence_kept)
        self._read_at = reading
        return self._at


class Tapes:
    """All recordings. With a folder they and their files are kept in it, and are there again after a restart."""

    def __init__(self, teller: Teller, clock: Clock, *, folder: Path | None, speak: Speak) -> None:
        self._teller = teller
        self._clock = clock
        self._folder = folder
        self._speak = speak
        self._recordings: dict[str, Recording] = {}
        self._files: dict[str, bytes] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            kept = [_read(file) for file in folder.glob("RE*.json")]
            self._recordings = {each.sid: each for each in sorted(kept, key=lambda each: each.start_time)}

    def start(
        self,
        source: str,
        *,
        base_url: str,
        channels: int,
        callback: StatusCallback | None,
        stream: Stream,
        call_sid: str | None = None,
        conference_sid: str | None = None,
        is_trimmed: bool = False,
    ) -> Tape:
        """Begin to record."""
        recording = Recording(
            sid=f"RE{secrets.token_hex(16)}",
            source=source,
            channels=channels,
            start_time=self._clock.now(),
            base_url=base_url,
            call_sid=call_sid,
            conference_sid=conference_sid,
        )
        self._recordings[recording.sid] = recording
        self._tell(recording, callback, stream)
        return Tape(recording, clock=self._clock, is_trimmed=is_trimmed)

    def stop(self, tape: Tape, *, callback: StatusCallback | None, stream: Stream, is_absent: bool = False) -> None:
        """End a recording; its file is there a moment later, and none where it is absent. The account is told then.

        Its duration is an estimate until then, and grows where what was said takes longer to speak.
        """
        recording = tape.recording
        recording.ended = self._clock.now()
        recording.duration = 0 if is_absent else max(1, math.ceil(tape.seconds()))
        recording.status = RecordingStatus.ABSENT if is_absent else RecordingStatus.PROCESSING
        if is_absent:
            self._save(recording)
            self._tell(recording, callback, stream)
        else:
            self._teller.start(self._process(tape, callback, stream))

    def url(self, recording: Recording) -> str:
        """RecordingUrl, which has the file with and without `.wav`."""
        accounts = f"{recording.base_url}/{API_VERSION}/Accounts/{self._teller.account_sid}"
        return f"{accounts}/Recordings/{recording.sid}"

    def get(self, sid: str) -> Recording:
        """One recording. Raises NotFound."""
        recording = self._recordings.get(sid)
        if recording is None:
            raise NotFound(f"recording {sid}")
        return recording

    def newest_first(self) -> list[Recording]:
        """All recordings."""
        return list(self._recordings.values())[::-1]

    def file(self, sid: str) -> bytes:
        """The file of a completed recording. Raises NotFound, NotInProgress."""
        recording = self.get(sid)
        if recording.status is not RecordingStatus.COMPLETED:
            raise NotInProgress(f"recording {sid} is {recording.status}")
        return self._files[sid] if self._folder is None else _wav(self._folder, sid).read_bytes()

    def delete(self, sid: str) -> None:
        """Forget a recording and its file. Raises NotFound."""
        self.get(sid)
        del self._recordings[sid]
        self._files.pop(sid, None)
        if self._folder is not None:
            _json(self._folder, sid).unlink(missing_ok=True)
            _wav(self._folder, sid).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all."""
        for sid in list(self._recordings):
            self.delete(sid)

    async def _process(self, tape: Tape, callback: StatusCallback | None, stream: Stream) -> None:
        recording = tape.recording
        await self._clock.sleep(_PROCESSING)
        wav = await asyncio.to_thread(
            _sound, tape.spoken, least=recording.duration or 0, channels=recording.channels, speak=self._speak
        )
        if recording.sid not in self._recordings:
            # Deleted before it was there.
            return
        if self._folder is None:
            self._files[recording.sid] = wav
        else:
            _wav(self._folder, recording.sid).write_bytes(wav)
        recording.duration = round(seconds_of(wav))
        recording.status = RecordingStatus.COMPLETED
        self._save(recording)
        self._tell(recording, callback, stream)

    def _save(self, recording: Recording) -> None:
        if self._folder is not None:
            _json(self._folder, recording.sid).write_text(json.dumps(asdict(recording)), encoding="utf-8")

    def _tell(self, recording: Recording, callback: StatusCallback | None, stream: Stream) -> None:
        if callback is not None and recording.status in callback.events:
            stream.tell(callback.webhook, self._fields(recording))

    def _fields(self, recording: Recording) -> dict[str, str]:
        fields = {
            "AccountSid": self._teller.account_sid,
            "ErrorCode": str(recording.error_code or 0),
            "RecordingChannels": str(recording.channels),
            "RecordingSid": recording.sid,
            "RecordingSource": recording.source,
            "RecordingStartTime": rfc2822(recording.start_time) or "",
            "RecordingStatus": recording.status.value,
            "RecordingTrack": "both",
            "RecordingUrl": self.url(recording),
        }
        if recording.duration is not None:
            fields["RecordingDuration"] = str(recording.duration)
        if recording.call_sid is not None:
            fields["CallSid"] = recording.call_sid
        if recording.conference_sid is not None:
            fields["ConferenceSid"] = recording.conference_sid
        return fields


def _sound(spoken: Sequence[Spoken], *, least: int, channels: int, speak: Speak) -> bytes:
    """The file, of whole seconds, in which all is said to its end. Speaking is work: it is done in a thread."""
    samples = {text: speak(text) for text in {each.text for each in spoken}}
    ends = [0.0] * channels
    for each in spoken:
        lasts = len(samples[each.text]) / _SAMPLE_BYTES / RATE
        ends[each.channel] = max(each.at, ends[each.channel]) + lasts
    seconds = max(least, *(math.ceil(end) for end in ends))
    return recording_wav(spoken, seconds=seconds, channels=channels, speak=samples.__getitem__)


def _read(file: Path) -> Recording:
    kept = json.loads(file.read_text(encoding="utf-8"))
    return Recording(**{**kept, "status": RecordingStatus(kept["status"])})


def _json(folder: Path, sid: str) -> Path:
    return folder / f"{sid}.json"


def _wav(folder: Path, sid: str) -> Path:
    return folder / f"{sid}.wav"
