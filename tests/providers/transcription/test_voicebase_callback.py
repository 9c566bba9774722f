"""VoiceBase's callbacks: what they say, once the URL has proved them."""

import json
from typing import Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from server.providers.ports import CallbackMalformed, SignatureInvalid, SignedRequest
from server.providers.transcription.callback_url import CallbackUrls
from server.providers.transcription.voicebase_callback import VoiceBaseReportReader
from server.providers.transcription_ports import Transcript, TranscriptReport, Word

URLS = CallbackUrls([Fernet.generate_key().decode()])
REFERENCE = uuid4()
URL = URLS.url("https://api.example/api/v1/transcription_requests/webhook", REFERENCE)

# As documented in transcripts.md and callbacks.rst.
FINISHED: dict[str, Any] = {
    "mediaId": "bc14632d-e81b-4673-992d-5c5fb6573fb8",
    "status": "finished",
    "dateCreated": "2017-06-22T19:18:49Z",
    "dateFinished": "2017-06-22T19:19:27Z",
    "mediaContentType": "audio/x-wav",
    "length": 10031,
    "metadata": {},
    "transcript": {
        "confidence": 0.25,
        "words": [
            {"p": 1, "s": 2200, "c": 1.0, "e": 2350, "w": "agent", "m": "turn"},
            {"p": 2, "s": 2200, "c": 0.537, "e": 2300, "w": "Hello"},
            {"p": 3, "s": 2300, "c": 1.0, "e": 2300, "w": ".", "m": "punc"},
            {"p": 4, "s": 2400, "c": 0.1, "e": 2550, "w": "caller", "m": "turn"},
            {"p": 5, "s": 2400, "c": 0.975, "e": 2500, "w": "Hi"},
        ],
        "alternateFormats": [{"format": "dfxp", "contentType": "application/ttaf+xml", "data": "...."}],
    },
}
MEDIA_ID: str = FINISHED["mediaId"]


def read(body: object, *, url: str = URL) -> TranscriptReport:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return VoiceBaseReportReader(URLS).read(SignedRequest(url=url, body=data, headers={}))


def words(*told: object) -> dict[str, Any]:
    return FINISHED | {"transcript": {"words": list(told)}}


def test_finished_recording_has_its_words_with_punctuation_and_without_speakers() -> None:
    said = Transcript((Word("Hello.", 2200, 2300, 0.537), Word("Hi", 2400, 2500, 0.975)))

    assert read(FINISHED) == TranscriptReport(REFERENCE, MEDIA_ID, said, None)


def test_nothing_said_is_an_empty_transcript() -> None:
    assert read(words()).transcript == Transcript(())


@pytest.mark.parametrize(
    ("errors", "failure"),
    [
        ([{"error": "The media could not be decoded."}], ": The media could not be decoded."),
        ([{"error": "One."}, {"error": "Two\n\n."}, {"code": 3}, "four"], ": One. Two ."),
        ([], ""),
        ("none", ""),
        ([{"error": "x" * 1_000}], ": " + "x" * 454),
    ],
)
def test_failed_recording_says_why(errors: object, failure: str) -> None:
    report = read({"mediaId": MEDIA_ID, "status": "failed", "errors": errors})

    assert report == TranscriptReport(
        REFERENCE, MEDIA_ID, None, f"VoiceBase could not transcribe the recording{failure}"
    )


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"w": "Hi", "s": 0, "e": 1}, Word("Hi", 0, 1, None)),
        ({"w": " Hi ", "s": 0.4, "e": 1.6, "c": 1}, Word("Hi", 0, 2, 1.0)),
        ({"w": "Hi", "s": 0, "e": 1, "c": 7}, Word("Hi", 0, 1, None)),
        ({"w": "Hi", "s": 0, "e": 1, "c": "high"}, Word("Hi", 0, 1, None)),
    ],
)
def test_word_needs_its_text_and_times_alone(told: object, expected: Word) -> None:
    assert read(words(told)).transcript == Transcript((expected,))


def test_punctuation_of_nothing_and_words_of_nothing_are_none() -> None:
    report = read(words({"w": ".", "s": 0, "e": 0, "m": "punc"}, {"w": " ", "s": 0, "e": 0}))

    assert report.transcript == Transcript(())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        ({}, "mediaId must be a text; status must be a text"),
        ({"mediaId": 1, "status": None}, "mediaId must be a text; status must be a text"),
        ({"mediaId": "", "status": "finished"}, "mediaId must be a text; transcript.words must be a list"),
        (FINISHED | {"status": "running"}, "status must be finished or failed"),
        (FINISHED | {"transcript": None}, "transcript.words must be a list"),
        (FINISHED | {"transcript": {"words": {}}}, "transcript.words must be a list"),
        (words("Hi"), r"transcript.words\[0\]"),
        (words({"w": "Hi"}), r"transcript.words\[0\]"),
        (words({"w": 1, "s": 0, "e": 1}), r"transcript.words\[0\]"),
        (words({"w": "Hi", "s": 2, "e": 1}), r"transcript.words\[0\]"),
        (words({"w": "Hi", "s": -1, "e": 1}), r"transcript.words\[0\]"),
        (words({"w": "Hi", "s": 0, "e": float("inf")}), r"transcript.words\[0\]"),
        (words({"w": "Hi", "s": 0, "e": 10**400}), r"transcript.words\[0\]"),
        (words({"w": "Hi", "s": True, "e": 1}), r"transcript.words\[0\]"),
    ],
)
def test_what_is_wrong_is_named(body: object, why: str) -> None:
    with pytest.raises(CallbackMalformed, match=why):
        read(body)


def test_url_is_proved_before_the_body_is_read() -> None:
    with pytest.raises(SignatureInvalid):
        read(b"no JSON", url=URL[:-1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("wsecmp"), inner, max_size=6),
)


@given(
    st.dictionaries(st.sampled_from(["mediaId", "status", "transcript", "errors"]), JSON), st.lists(JSON, max_size=4)
)
def test_whatever_is_told_is_read_or_called_malformed(fields: dict[str, Any], told: list[Any]) -> None:
    for body in (fields, words(*told)):
        try:
            report = read(body)
        except CallbackMalformed:
            continue
        assert (report.transcript is None) != (report.failure is None)


def test_what_no_row_can_hold_is_replaced() -> None:
    failed = {"mediaId": MEDIA_ID, "status": "failed", "errors": [{"error": "no \0 sound \ud800"}]}

    assert read(words({"s": 0, "e": 1, "w": "a\0b\udfff"})).transcript == Transcript(
        (Word("a\ufffdb\ufffd", 0, 1, None),)
    )
    assert read(failed).failure == "VoiceBase could not transcribe the recording: no \ufffd sound \ufffd"
    with pytest.raises(CallbackMalformed, match="mediaId"):
        read(FINISHED | {"mediaId": "a\0b"})
