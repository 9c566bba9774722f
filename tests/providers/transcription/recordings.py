"""Recordings as Twilio makes them: speech at 8 kHz, of 16 bits or u-law, one channel or two."""

from io import BytesIO

import numpy
import soundfile

from server.providers.sandbox.voice_audio import Spoken, recording_wav
from server.providers.sandbox.voice_speech import speak
from server.providers.transcription_ports import Transcript

ABSENT = "Your child was absent today."
CALL_BACK = "Please call us back tomorrow morning."


def one_channel(*, seconds: float = 8) -> bytes:
    """Both sentences, one after the other."""
    return recording_wav([Spoken(0.5, ABSENT), Spoken(4, CALL_BACK)], seconds=seconds, speak=speak)


def two_channels() -> bytes:
    """The second sentence on the other channel."""
    spoken = [Spoken(4, CALL_BACK, channel=1), Spoken(0.5, ABSENT)]
    return recording_wav(spoken, seconds=8, channels=2, speak=speak)


def silence(seconds: float = 4) -> bytes:
    """Nobody says anything."""
    return recording_wav([], seconds=seconds)


def encoded(wav: bytes, *, format: str = "WAV", subtype: str = "ULAW", rate: int | None = None) -> bytes:
    """The same sound as another kind of file, or labelled with another rate."""
    samples, own_rate = soundfile.read(BytesIO(wav), dtype="int16", always_2d=True)
    written = BytesIO()
    soundfile.write(written, samples, rate or own_rate, format=format, subtype=subtype)
    return written.getvalue()


def noise(seconds: float) -> bytes:
    """A line that hisses."""
    rustle = numpy.random.default_rng(0).normal(0, 300, round(seconds * 8_000)).astype("int16")
    written = BytesIO()
    soundfile.write(written, rustle, 8_000, format="WAV", subtype="PCM_16")
    return written.getvalue()


def plain(transcript: Transcript) -> str:
    """Its words alone, in lower case."""
    kept = "".join(" " if sign.isspace() else sign for sign in " ".join(word.text for word in transcript.words))
    return "".join(sign for sign in kept.lower() if sign.isalnum() or sign == " ")
