"""What VoiceBase v3 says of a recording, in answers and callbacks alike.

{"mediaId": "…", "status": "finished", "transcript": {"words": [
    {"p": 0, "s": 2200, "e": 2350, "c": 1.0, "w": "agent", "m": "turn"},      who speaks now
    {"p": 1, "s": 2200, "e": 2300, "c": 0.5, "w": "Hello"},                   times in milliseconds
    {"p": 2, "s": 2300, "e": 2300, "c": 1.0, "w": ".", "m": "punc"}]}}
"""

import json
from dataclasses import dataclass
from typing import Any, TypeGuard

from server.providers.text import legible
from server.providers.transcription_ports import Transcript, Word

# No documented answer shows how a failure is told; what is said is passed on so far.
_UNEXPLAINED = "VoiceBase could not transcribe the recording"
_LONGEST_FAILURE = 500

_PUNCTUATION = "punc"

_LONGEST_MS = 7 * 86_400_000


class MediaMalformed(Exception):
    """The JSON is not what VoiceBase documents. The text names every field that is wrong."""


@dataclass(frozen=True)
class VoiceBaseMedia:
    """A recording: with neither a transcript nor a failure it is worked on."""

    media_id: str
    transcript: Transcript | None
    failure: str | None


def parse_media(body: bytes | str) -> VoiceBaseMedia:
    """What is said of a recording. Raises MediaMalformed."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MediaMalformed("the body is not JSON") from error
    if not isinstance(fields, dict):
        raise MediaMalformed("the body is not a JSON object")
    problems: list[str] = []
    media_id, status = fields.get("mediaId"), fields.get("status")
    if not isinstance(media_id, str) or not media_id or media_id != legible(media_id):
        problems.append("mediaId must be a text")
    if not isinstance(status, str):
        problems.append("status must be a text")
    transcript = _transcript(fields.get("transcript"), problems) if status == "finished" else None
    if problems:
        raise MediaMalformed("; ".join(problems))
    assert isinstance(media_id, str), "or there were problems"
    return VoiceBaseMedia(media_id, transcript, _failure(fields) if status == "failed" else None)


def error_text(body: str) -> str | None:
    """The words of an error as VoiceBase forms it; None where the body is not VoiceBase's."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("errors"), list):
        return None
    return _failure(fields)


def _failure(fields: dict[str, Any]) -> str:
    errors = fields.get("errors")
    told = [each.get("error") for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []
    words = " ".join(" ".join(legible(each).split()) for each in told if isinstance(each, str))
    return f"{_UNEXPLAINED}: {words}"[:_LONGEST_FAILURE] if words else _UNEXPLAINED


def _transcript(value: Any, problems: list[str]) -> Transcript:
    told = value.get("words") if isinstance(value, dict) else None
    if not isinstance(told, list):
        problems.append("transcript.words must be a list")
        return Transcript(())
    words: list[Word] = []
    for index, each in enumerate(told):
        if not _is_word(each):
            problems.append(f"transcript.words[{index}] must have w, a text, and s and e, milliseconds in that order")
            return Transcript(())
        text, kind = legible(each["w"]).strip(), each.get("m")
        if kind == _PUNCTUATION and words:
            last = words[-1]
            words[-1] = Word(last.text + text, last.start_ms, last.end_ms, last.confidence)
        elif kind is None and text:
            words.append(Word(text, round(each["s"]), round(each["e"]), _confidence(each.get("c"))))
    return Transcript(tuple(words))


def _is_word(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("w"), str):
        return False
    start, end = value.get("s"), value.get("e")
    # Neither infinity nor what is not a number is in between.
    return _is_number(start) and _is_number(end) and 0 <= start <= end <= _LONGEST_MS


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _confidence(value: Any) -> float | None:
    return float(value) if _is_number(value) and 0 <= value <= 1 else None
