"""What a recording sounds like: WAV files of telephone quality, from what was said in a call and when."""

import math
import wave
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Final
from zlib import crc32

# Samples in a second, each 16 bits.
RATE: Final = 8000
_SAMPLE_BYTES = 2

# How long a word lasts of which nothing but its letters are known, the pause after it included.
_LETTER_SECONDS = 0.06
_PAUSE_SECONDS = 0.08
_LOUDNESS = 8000
_LOWEST_HERTZ, _HERTZ = 180, 120


@dataclass(frozen=True)
class Spoken:
    """Words that begin `at` seconds after the recording did, or when what is before them on their channel is said."""

    at: float
    text: str
    channel: int = 0


def hum(text: str) -> bytes:
    """Words as somebody hums them: a tone for each, as long as the word and always the same. 16 bits, RATE, mono."""
    samples = array("h")
    for word in text.split():
        hertz = _LOWEST_HERTZ + crc32(word.lower().encode()) % _HERTZ
        step = 2 * math.pi * hertz / RATE
        length = round(len(word) * _LETTER_SECONDS * RATE)
        samples.extend(round(_LOUDNESS * math.sin(step * at)) for at in range(length))
        samples.frombytes(bytes(round(_PAUSE_SECONDS * RATE) * _SAMPLE_BYTES))
    return samples.tobytes()


def recording_wav(
    spoken: Iterable[Spoken], *, seconds: float, channels: int = 1, speak: Callable[[str], bytes] = hum
) -> bytes:
    """A file of that length, silent where nobody speaks; what is said at its end is cut off.

    Two channels are heard apart, of one everybody is heard one after the other. `speak` makes samples of words: 16
    bits, RATE, mono.
    """
    samples = round(seconds * RATE)
    heard = [array("h", bytes(samples * _SAMPLE_BYTES)) for _ in range(channels)]
    free = [0] * channels
    for each in sorted(spoken, key=lambda each: each.at):
        words = array("h", speak(each.text))
        start = max(round(each.at * RATE), free[each.channel])
        cut = words[: max(samples - start, 0)]
        heard[each.channel][start : start + len(cut)] = cut
        free[each.channel] = start + len(words)
    return _wav(heard)


def seconds_of(wav: bytes) -> float:
    """How long a file lasts. Raises wave.Error where it is none."""
    with wave.open(BytesIO(wav)) as file:
        return float(file.getnframes() / file.getframerate())


def _wav(heard: "list[array[int]]") -> bytes:
    frames = array("h", bytes(sum(len(channel) for channel in heard) * _SAMPLE_BYTES))
    for index, channel in enumerate(heard):
        frames[index :: len(heard)] = channel
    written = BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(len(heard))
        file.setsampwidth(_SAMPLE_BYTES)
        file.setframerate(RATE)
        file.writeframes(frames.tobytes())
    return written.getvalue()
