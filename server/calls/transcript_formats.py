"""A transcript as it is kept, and the five formats it is shown in, all rendered from the one: pure.

Times are milliseconds from the recording's beginning.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from server.providers.transcription_ports import Transcript, Word

# A cue is read while it is heard: two lines as subtitles have them, for no longer than so, and none goes over a pause.
_LINE = 42
_LINES = 2
_CUE_MS = 6_000
_CUE_PAUSE_MS = 1_000

# A paragraph ends where somebody pauses longer, and at the latest at the next word after so long.
_PARAGRAPH_PAUSE_MS = 2_000
_PARAGRAPH_MS = 60_000

_TTML = "http://www.w3.org/ns/ttml"

# What XML 1.0 cannot hold.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Confidences are kept with so many digits.
_DIGITS = 3


@dataclass
class _Cue:
    """Words that are shown together, in lines; a word that is longer than a line has one of its own."""

    start_ms: int
    end_ms: int
    lines: list[str]

    def fits(self, spoken: str, most_lines: int) -> bool:
        """Whether the word can follow within so many lines."""
        return len(self.lines) < most_lines or self._fits_line(spoken)

    def add(self, spoken: str, end_ms: int) -> None:
        """Let the word follow."""
        self.end_ms = max(self.end_ms, end_ms)
        if self._fits_line(spoken):
            self.lines[-1] += f" {spoken}"
        else:
            self.lines.append(spoken)

    def _fits_line(self, spoken: str) -> bool:
        return len(self.lines[-1]) + 1 + len(spoken) <= _LINE


def to_json(transcript: Transcript) -> list[Any]:
    """How it is kept: `[text, start_ms, end_ms, confidence]` of each word, the confidence only where there is one."""
    return [
        [word.text, word.start_ms, word.end_ms] + ([] if word.confidence is None else [round(word.confidence, _DIGITS)])
        for word in transcript.words
    ]


def from_json(words: Sequence[Any]) -> Transcript:
    """What `to_json` made."""
    return Transcript(
        tuple(Word(word[0], word[1], word[2], confidence=word[3] if len(word) > 3 else None) for word in words)
    )


@dataclass(frozen=True)
class Rendered:
    """A transcript in the five formats: as the words alone, SubRip subtitles, W3C WebVTT, TTML 1 (as
    `application/ttaf+xml`), and paragraphs, each behind the time it begins at."""

    text: str
    srt: str
    webvtt: str
    dfxp: str
    formatted_text: str


def render(transcript: Transcript) -> Rendered:
    """The transcript in all formats: those with cues have the same. It takes a tenth of a second for two hours: not
    for an event loop."""
    spoken = list(_spoken(transcript))
    cues = _grouped(spoken, pause_ms=_CUE_PAUSE_MS, most_ms=_CUE_MS, most_lines=_LINES)
    paragraphs = _grouped(spoken, pause_ms=_PARAGRAPH_PAUSE_MS, most_ms=_PARAGRAPH_MS, most_lines=None)
    return Rendered(
        text=" ".join(each for each, _word in spoken),
        srt=_srt(cues),
        webvtt=_webvtt(cues),
        dfxp=_dfxp(cues),
        formatted_text=_formatted_text(paragraphs),
    )


def _srt(cues: Sequence[_Cue]) -> str:
    return "".join(
        # An arrow in the text would be read as a time.
        f"{number}\n{_time(cue.start_ms, ',')} --> {_time(cue.end_ms, ',')}\n"
        + "\n".join(line.replace("-->", "->") for line in cue.lines)
        + "\n\n"
        for number, cue in enumerate(cues, start=1)
    )


def _webvtt(cues: Sequence[_Cue]) -> str:
    shown = (
        f"\n{_time(cue.start_ms, '.')} --> {_time(cue.end_ms, '.')}\n"
        + "\n".join(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in cue.lines)
        + "\n"
        for cue in cues
    )
    return "WEBVTT\n" + "".join(shown)


def _dfxp(cues: Sequence[_Cue]) -> str:
    root = ElementTree.Element("tt", {"xmlns": _TTML, "xml:lang": "en"})
    division = ElementTree.SubElement(ElementTree.SubElement(root, "body"), "div")
    for cue in cues:
        times = {"begin": _time(cue.start_ms, "."), "end": _time(cue.end_ms, ".")}
        paragraph = ElementTree.SubElement(division, "p", times)
        first, *others = cue.lines
        paragraph.text = first
        for line in others:
            ElementTree.SubElement(paragraph, "br").tail = line
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False)


def _formatted_text(paragraphs: Sequence[_Cue]) -> str:
    return "\n\n".join(f"[{_time(each.start_ms, '.').partition('.')[0]}] {' '.join(each.lines)}" for each in paragraphs)


def _spoken(transcript: Transcript) -> Iterator[tuple[str, Word]]:
    """The words with their texts as they can be shown: on one line, and nothing that XML cannot hold."""
    for word in transcript.words:
        spoken = " ".join(_NOT_XML.sub("\ufffd", word.text).split())
        if spoken:
            yield spoken, word


def _grouped(words: Sequence[tuple[str, Word]], *, pause_ms: int, most_ms: int, most_lines: int | None) -> list[_Cue]:
    """The words in groups: a new one after a pause, and where a word would make the last too long."""
    groups: list[_Cue] = []
    for spoken, word in words:
        last = groups[-1] if groups else None
        # A word never begins before the one that is heard before it, nor ends before it begins.
        start_ms = max(word.start_ms, last.start_ms if last else 0)
        end_ms = max(word.end_ms, start_ms + 1)
        if (
            last is not None
            and start_ms - last.end_ms < pause_ms
            and end_ms - last.start_ms <= most_ms
            and (most_lines is None or last.fits(spoken, most_lines))
        ):
            last.add(spoken, end_ms)
        else:
            groups.append(_Cue(start_ms, end_ms, [spoken]))
    return groups


def _time(milliseconds: int, separator: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{separator}{milliseconds:03}"
