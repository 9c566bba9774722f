"""What transcripts look like in each format, as readers of others' making understand them."""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any
from xml.etree import ElementTree

import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st
from pycaption import CaptionReadNoCaptions, DFXPReader, SRTReader, WebVTTReader

from server.calls import transcript_formats
from server.calls.transcript_formats import render
from server.providers.transcription_ports import Transcript, Word

# pycaption calls Beautiful Soup by old names.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated method:DeprecationWarning")

LINE = 42
CUE_MS = 6_000

TTML = {"tt": "http://www.w3.org/ns/ttml"}


@dataclass(frozen=True)
class Cue:
    """What a reader found: milliseconds, and lines."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def by_pycaption(reader: Any) -> Callable[[str], list[Cue]]:
    """The cues that pycaption reads."""

    def read(document: str) -> list[Cue]:
        captions = reader.read(document)
        [language] = captions.get_languages()
        return [
            Cue(caption.start // 1000, caption.end // 1000, tuple(caption.get_text().split("\n")))
            for caption in captions.get_captions(language)
        ]

    return read


def by_webvtt(captions: webvtt.WebVTT, decode: Callable[[str], str] = str) -> list[Cue]:
    """The cues that webvtt-py has read; of what is in them it leaves the signs as they are."""
    return [
        Cue(milliseconds(found.start), milliseconds(found.end), tuple(decode(found.raw_text).split("\n")))
        for found in captions.captions
    ]


def timed_tags(document: str) -> list[Cue]:
    """The paragraphs of a TTML document, as any reader of XML has them."""
    found = ElementTree.fromstring(document).findall("./tt:body/tt:div/tt:p", TTML)  # noqa: S314 made by us
    return [
        Cue(milliseconds(p.attrib["begin"]), milliseconds(p.attrib["end"]), tuple("\n".join(p.itertext()).split("\n")))
        for p in found
    ]


def milliseconds(time: str) -> int:
    """Of `01:02:03.004`."""
    hours, minutes, seconds, rest = map(int, re.split(r"[:.]", time))
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def plain(cues: list[Cue]) -> str:
    """The words of all cues."""
    return " ".join(line for cue in cues for line in cue.lines)


def said(*words: tuple[str, int, int]) -> Transcript:
    """A transcript of words, their starts and ends."""
    return Transcript(tuple(Word(text, start, end, None) for text, start, end in words))


GREETING = said(
    ("Hello,", 500, 900),
    ("this", 900, 1_100),
    ("is", 1_100, 1_300),
    ("Ms.", 1_300, 1_600),
    ("Rivera", 1_600, 2_100),
    ("from", 2_100, 2_300),
    ("the", 2_300, 2_400),
    ("school.", 2_400, 3_000),
    ("Is", 6_000, 6_200),
    ("5", 6_200, 6_500),
    ("<", 6_500, 6_700),
    ("6", 6_700, 6_900),
    ("&", 6_900, 7_100),
    ("so?", 7_100, 3_600_000 + 62_003),
)


def test_subrip() -> None:
    assert render(GREETING).srt == (
        "1\n00:00:00,500 --> 00:00:03,000\nHello, this is Ms. Rivera from the school.\n\n"
        "2\n00:00:06,000 --> 00:00:07,100\nIs 5 < 6 &\n\n"
        "3\n00:00:07,100 --> 01:01:02,003\nso?\n\n"
    )


def test_webvtt() -> None:
    assert render(GREETING).webvtt == (
        "WEBVTT\n"
        "\n00:00:00.500 --> 00:00:03.000\nHello, this is Ms. Rivera from the school.\n"
        "\n00:00:06.000 --> 00:00:07.100\nIs 5 &lt; 6 &amp;\n"
        "\n00:00:07.100 --> 01:01:02.003\nso?\n"
    )


def test_dfxp() -> None:
    assert render(GREETING).dfxp == (
        '<tt xmlns="http://www.w3.org/ns/ttml" xml:lang="en"><body><div>'
        '<p begin="00:00:00.500" end="00:00:03.000">Hello, this is Ms. Rivera from the school.</p>'
        '<p begin="00:00:06.000" end="00:00:07.100">Is 5 &lt; 6 &amp;</p>'
        '<p begin="00:00:07.100" end="01:01:02.003">so?</p>'
        "</div></body></tt>"
    )


def test_text() -> None:
    assert render(GREETING).text == "Hello, this is Ms. Rivera from the school. Is 5 < 6 & so?"


def test_formatted_text() -> None:
    assert render(GREETING).formatted_text == (
        "[00:00:00] Hello, this is Ms. Rivera from the school.\n\n[00:00:06] Is 5 < 6 &\n\n[00:00:07] so?"
    )


def test_nothing_said_makes_valid_files_of_nothing() -> None:
    nothing = Transcript(())

    assert transcript_formats.to_json(nothing) == []
    assert (render(nothing).srt, render(nothing).text) == ("", "")
    assert render(nothing).formatted_text == ""
    assert webvtt.from_string(render(nothing).webvtt).captions == []
    assert timed_tags(render(nothing).dfxp) == []
    with pytest.raises(CaptionReadNoCaptions):
        DFXPReader().read(render(nothing).dfxp)


def test_long_speech_is_shown_in_two_lines_at_a_time() -> None:
    words = (
        "We would like to talk about the homework that was not done on any day of the last week at all. " * 2
    ).split()
    quick = said(*((word, at * 50, at * 50 + 50) for at, word in enumerate(words)))

    first, *others = by_pycaption(SRTReader())(render(quick).srt)

    assert first.lines == ("We would like to talk about the homework", "that was not done on any day of the last")
    assert len(others) == 2


def test_cue_is_shown_no_longer_than_six_seconds() -> None:
    slow = said(*((f"{at}", at * 900, at * 900 + 500) for at in range(14)))

    assert [(cue.start_ms, cue.end_ms) for cue in timed_tags(render(slow).dfxp)] == [
        (0, 5_900),
        (6_300, 12_200),
    ]


def test_kept_form_is_compact() -> None:
    transcript = Transcript((Word("Hello,", 0, 400, 0.91234), Word("you", 500, 700, None)))

    assert transcript_formats.to_json(transcript) == [["Hello,", 0, 400, 0.912], ["you", 500, 700]]


SIGNS = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=60).filter(lambda word: word.split())
WORDS = st.one_of(
    st.sampled_from(
        ["Hello,", "school.", "-->", "<b>", "]]>", "NOTE", "WEBVTT", "STYLE", "1", "{\\an8}", "00:00:01.000"]
    ),
    st.text("abcdefgh'-.,", min_size=1, max_size=14),
    SIGNS,
)


@st.composite
def transcripts(draw: st.DrawFn, words: st.SearchStrategy[str] = WORDS) -> Transcript:
    """Words one after the other, or over each other as two people's are."""
    at = 0
    made: list[Word] = []
    for text in draw(st.lists(words, max_size=40)):
        at += draw(st.integers(0, 4_000))
        confidence = draw(st.none() | st.floats(0, 1).map(lambda value: round(value, 3)))
        made.append(Word(text, at, at + draw(st.integers(0, 8_000)), confidence))
    return Transcript(tuple(made))


def check_cues(cues: list[Cue], transcript: Transcript) -> None:
    """That times go forwards and cues are short, except where a word is long."""
    assert [cue.start_ms for cue in cues] == sorted(cue.start_ms for cue in cues)
    longest = max((word.end_ms - word.start_ms for word in transcript.words), default=0)
    for cue in cues:
        assert cue.start_ms < cue.end_ms
        assert cue.end_ms - cue.start_ms <= max(CUE_MS, longest, 1)
        assert len(cue.lines) <= 2
        assert all(len(line) <= LINE or " " not in line for line in cue.lines)


@given(transcripts())
def test_dfxp_has_all_words_once_in_their_order(transcript: Transcript) -> None:
    cues = timed_tags(render(transcript).dfxp)

    assert plain(cues) == render(transcript).text
    check_cues(cues, transcript)


@given(transcripts())
def test_webvtt_has_all_words_once_in_their_order(transcript: Transcript) -> None:
    cues = by_webvtt(webvtt.from_string(render(transcript).webvtt), html.unescape)

    assert plain(cues) == render(transcript).text
    check_cues(cues, transcript)


@given(transcripts())
def test_subrip_has_all_words_once_in_their_order(transcript: Transcript) -> None:
    document = render(transcript).srt
    cues = by_webvtt(webvtt.from_buffer(StringIO(document), format="srt")) if document else []

    assert plain(cues) == render(transcript).text.replace("-->", "->")
    check_cues(cues, transcript)


# pycaption drops what looks like markup, and white space around signs.
PROSE = st.text("abcdefghABC0123456789.,?!'", min_size=1, max_size=14).filter(lambda word: word.strip("0123456789"))


@pytest.mark.parametrize(
    ("shown", "reader"),
    [
        ("srt", SRTReader),
        ("webvtt", WebVTTReader),
        ("dfxp", DFXPReader),
    ],
)
@given(transcript=transcripts(PROSE))
def test_every_format_shows_the_same_cues(shown: str, reader: type[Any], transcript: Transcript) -> None:
    if not transcript.words:
        return

    cues = by_pycaption(reader())(getattr(render(transcript), shown))

    assert cues == timed_tags(render(transcript).dfxp)
    assert plain(cues) == " ".join(word.text for word in transcript.words)


@given(transcripts())
def test_paragraphs_have_all_words_once_in_their_order(transcript: Transcript) -> None:
    paragraphs = render(transcript).formatted_text.split("\n\n") if transcript.words else []

    found = [re.fullmatch(r"\[(\d\d:\d\d:\d\d)\] (.+)", paragraph, re.DOTALL) for paragraph in paragraphs]
    times = [match[1] for match in found if match]
    assert " ".join(match[2] for match in found if match) == render(transcript).text
    assert len(times) == len(paragraphs)
    assert times == sorted(times)


@given(transcripts())
def test_what_is_kept_is_what_was_said(transcript: Transcript) -> None:
    assert transcript_formats.from_json(transcript_formats.to_json(transcript)) == transcript


@given(st.text(max_size=200))
def test_whatever_a_word_holds_files_stay_whole(text: str) -> None:
    transcript = said((text, 0, 500), ("end", 600, 700))

    assert timed_tags(render(transcript).dfxp)[-1].lines[-1].endswith("end")
    assert plain(by_webvtt(webvtt.from_string(render(transcript).webvtt))).endswith("end")
    assert "\n\n" not in render(transcript).formatted_text
