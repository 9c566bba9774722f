"""What the sandbox's phones say aloud, and Twilio in its calls: English speech that a transcriber understands.

The voice, its model with it, comes with the extra `local`. Without it, and of what it cannot pronounce, words are
hummed, a tone for each.
"""

import os
import re
import threading
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Final

import structlog

from server.providers.sandbox.voice_audio import RATE, hum

if TYPE_CHECKING:
    from hibari import Hibari

log = structlog.get_logger(__name__)

_VOICE_RATE: Final = 24_000
_LARGEST: Final = 32_767
# The voice breathes by chance; the same words are to sound the same.
_SEED = 0

# A minute or two of speech, which is seconds of work.
_LONGEST = 1_000

_NOT_PROSE = re.compile(r"[^A-Za-z0-9 \n.,:;?!'\"()$%&+-]+")
# A phone's, which is read digit by digit.
_LONG_NUMBER = re.compile(r"\d[\d,]{7,}")

_one_at_a_time = threading.Lock()


def speak(text: str) -> bytes:
    """Words as samples: 16 bits little-endian, RATE, mono. Of more than 1,000 characters the first are spoken.

    It takes some hundredths of the time that is spoken; the first words take a second more, in which the voice loads.
    """
    text = text[:_LONGEST]
    with _one_at_a_time:
        voice = _voice()
        speech = b"" if voice is None else _speech(voice, _plain(text))
    return speech or hum(text)


def _plain(text: str) -> str:
    """What the voice was made for: English letters, the signs of prose, and numbers that have a name. Others it fails
    at. Nothing where there is nothing to pronounce."""
    letters = unicodedata.normalize("NFKD", text.replace("’", "'")).encode("ascii", "ignore").decode()
    prose = _LONG_NUMBER.sub(lambda number: " ".join(re.findall(r"\d", number[0])), _NOT_PROSE.sub(" ", letters))
    return prose if re.search(r"[A-Za-z0-9]", prose) else ""


def _speech(voice: "Hibari", text: str) -> bytes:
    import numpy
    import soxr

    spoken = numpy.asarray(voice(text, seed=_SEED), dtype=numpy.float32)
    if spoken.size == 0:
        return b""
    samples = numpy.clip(soxr.resample(spoken, _VOICE_RATE, RATE), -1, 1) * _LARGEST
    said: bytes = samples.round().astype("<i2").tobytes()
    return said


@cache
def _voice() -> "Hibari | None":
    # It would report to its maker what it does.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        from hibari import Hibari
    except ModuleNotFoundError as error:
        log.warning("sandbox.phones_hum", why="the extra 'local' is not installed", missing=error.name)
        return None
    return Hibari(threads=1)
