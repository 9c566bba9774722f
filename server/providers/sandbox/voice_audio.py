"""What a recording sounds like: WAV files of telephone quality, from what was said in a call and when.

A chunk `said` after the sound, which players leave alone, has the words: the sandbox's transcriber need not hear.
"""

import json
import math
import wave
from array import array
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Final
from zlib import crc32

# Samples in a second, each 16 bits.
RATE: Final = 8000
_SAMPLE_BYTES = 2
_SAID = b"said"
_RIFF_BYTES = 12
_CHUNK_HEADER_BYTES = 8

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


@dataclass(frozen=True)
class Passage:
    """What a file has from one of its seconds to another."""

    start: float
    end: float
    text: str
    channel: int


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
    passages = []
    for each in sorted(spoken, key=lambda each: each.at):
        words = array("h", speak(each.text))
        start = max(round(each.at * RATE), free[each.channel])
        cut = words[: max(samples - start, 0)]
        heard[each.channel][start : start + len(cut)] = cut
        free[each.channel] = start + len(words)
        if cut:
            passages.append(Passage(start / RATE, (start + len(cut)) / RATE, each.text, each.channel))
    said = json.dumps([asdict(passage) for passage in passages]).encode()
    return _with_chunk(_wav(heard), _SAID, said)


def passages_of(wav: bytes) -> list[Passage] | None:
    """What a file of the sandbox's says, None of any other."""
    at = _RIFF_BYTES
    while at + _CHUNK_HEADER_BYTES <= len(wav):
        name, size = wav[at : at + 4], int.from_bytes(wav[at + 4 : at + 8], "little")
        at += _CHUNK_HEADER_BYTES
        if name == _SAID:
            return [Passage(**each) for each in json.loads(wav[at : at + size])]
        at += size + size % 2
    return None


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


def _with_chunk(wav: bytes, name: bytes, content: bytes) -> bytes:
    """A file with one more chunk at its end; chunks have even lengths, and the file says its own."""
    chunk = name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
    length = len(wav) + len(chunk) - _CHUNK_HEADER_BYTES
    return wav[:4] + length.to_bytes(4, "little") + wav[8:] + chunk
