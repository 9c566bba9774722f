"""What the sandbox's VoiceBase keeps of a recording, and the forms in which it tells of it.

As https://github.com/voicebase/voicebase-docs has them in docs/how-to-guides: hello-world.rst, callbacks.rst and
transcripts.md. These pages show no answer that is a failure; `errors` here is the sandbox's own.
"""

import re
import wave
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from server.providers.sandbox.answers import iso8601
from server.providers.sandbox.voice_audio import Passage, passages_of, seconds_of

Json = dict[str, Any]

ACCOUNT_ID = "c0000000-0000-4000-8000-000000000001"

# Of a file that says nothing of itself.
_UNKNOWN = "This recording was made elsewhere."
_WORD_SECONDS = 0.4
_CONFIDENCE = 0.93

_PUNCTUATED = re.compile(r"(.*?)([.,!?;:]*)", re.DOTALL)

# Who is on each channel where the configuration names nobody.
_SPEAKERS = ("Left", "Right")


class Undecodable(Exception):
    """The media is not a WAV file. The text says why."""


@dataclass(frozen=True)
class Callback:
    """Where it is told that a recording is finished, and with which of its sections (none is all)."""

    url: str
    method: str = "POST"
    include: tuple[str, ...] = ()


@dataclass
class Media:
    """A recording that was uploaded. Times are Unix seconds, `length` is milliseconds; `told` counts callbacks done."""

    id: str
    created: float
    content_type: str
    length: int
    callbacks: list[Json]
    metadata: Json
    words: list[Json]
    status: str = "accepted"
    finished: float | None = None
    failure: str | None = None
    told: int = 0
    # How this one is treated: what finishing waits for, and what becomes of its callbacks.
    delay: float = 0.0
    manner: str = "in-order"
    # What it will fail with, when it is looked at.
    will_fail: str | None = None

    def links(self) -> Json:
        """Where it is."""
        path = f"/v3/media/{self.id}"
        return {
            "self": {"href": path},
            "progress": {"href": f"{path}/progress"},
            "metadata": {"href": f"{path}/metadata"},
        }

    def shown(self, *sections: str) -> Json:
        """It as it is now; of what it has come to these sections, or all."""
        shown: Json = {
            "formatVersion": "3.0.0",
            "mediaId": self.id,
            "accountId": ACCOUNT_ID,
            "status": self.status,
            "dateCreated": iso8601(self.created),
            "mediaContentType": self.content_type,
            "length": self.length,
        }
        if self.finished is not None:
            shown["dateFinished"] = iso8601(self.finished)
        if not sections or "metadata" in sections:
            shown["metadata"] = self.metadata
        if self.status == "finished" and (not sections or "transcript" in sections):
            shown["transcript"] = {"confidence": _CONFIDENCE if self.words else 0.0, "words": self.words}
        if self.failure is not None:
            shown["errors"] = [{"error": self.failure}]
        return shown


def words_in(wav: bytes, *, speakers: tuple[str, ...]) -> tuple[int, list[Json]]:
    """The length in milliseconds, and the words with who says them where there are two channels. Raises Undecodable."""
    try:
        seconds = seconds_of(wav)
        with_channels = _channels(wav)
    except (wave.Error, EOFError) as error:
        raise Undecodable(f"The media could not be decoded: {error}") from error
    passages = passages_of(wav)
    if passages is None:
        passages = [Passage(0.0, min(seconds, _WORD_SECONDS * len(_UNKNOWN.split())), _UNKNOWN, 0)]
    words: list[Json] = []
    speaker = None
    for passage in sorted(passages, key=lambda each: each.start):
        if with_channels > 1 and passage.channel != speaker:
            speaker = passage.channel
            name = (speakers + _SPEAKERS[len(speakers) :])[passage.channel]
            start = round(passage.start * 1000)
            words.append({"p": len(words), "c": 1.0, "s": start, "e": start, "w": name, "m": "turn"})
        for word in _words(passage):
            words.append({"p": len(words), **word})
    return round(seconds * 1000), words


def _words(passage: Passage) -> list[Json]:
    """Each takes as long as its letters; what is cut off at the end is spoken faster than it was."""
    tokens = passage.text.split()
    letters = sum(len(token) + 1 for token in tokens)
    lasts = (passage.end - passage.start) * 1000 / letters if letters else 0.0
    at = passage.start * 1000
    words: list[Json] = []
    for token in tokens:
        found = _PUNCTUATED.fullmatch(token)
        assert found is not None, "every text is some text and what may follow it"
        word, punctuation = found.groups()
        end = at + (len(token) + 1) * lasts
        if word:
            words.append({"c": _CONFIDENCE, "s": round(at), "e": round(end), "w": word})
        if punctuation:
            words.append({"c": 1.0, "s": round(end), "e": round(end), "w": punctuation, "m": "punc"})
        at = end
    return words


def _channels(wav: bytes) -> int:
    with wave.open(BytesIO(wav)) as file:
        return int(file.getnchannels())
