import wave
from array import array
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.sandbox.voice_audio import RATE, Passage, Spoken, hum, passages_of, recording_wav, seconds_of


def channels_of(wav: bytes) -> "list[array[int]]":
    with wave.open(BytesIO(wav)) as file:
        assert (file.getframerate(), file.getsampwidth()) == (8000, 2)
        count = file.getnchannels()
        samples = array("h", file.readframes(file.getnframes()))
    return [samples[index::count] for index in range(count)]


def loud(samples: "array[int]", start: float, end: float) -> bool:
    return any(samples[round(start * RATE) : round(end * RATE)])


def test_words_are_heard_when_they_were_said() -> None:
    (heard,) = channels_of(recording_wav([Spoken(1.0, "hello"), Spoken(2.0, "bye")], seconds=3))

    assert [loud(heard, at, at + 0.2) for at in (0.0, 0.8, 1.0, 1.6, 2.0, 2.8)] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]


def test_two_people_are_heard_apart() -> None:
    wav = recording_wav([Spoken(0, "hello", channel=0), Spoken(1, "yes", channel=1)], seconds=2, channels=2)

    first, second = channels_of(wav)

    assert (loud(first, 0, 1), loud(first, 1, 2)) == (True, False)
    assert (loud(second, 0, 1), loud(second, 1, 2)) == (False, True)


def test_whoever_speaks_over_another_is_heard_after_them() -> None:
    words = hum("one") + hum("two")

    (heard,) = channels_of(recording_wav([Spoken(0, "one"), Spoken(0.01, "two")], seconds=2))

    assert heard[: len(words) // 2].tobytes() == words


def test_another_voice_is_heard() -> None:
    (heard,) = channels_of(recording_wav([Spoken(0, "hi")], seconds=1, speak=lambda _: b"\x01\x00" * RATE * 2))

    assert heard == array("h", [1] * RATE)


@given(
    st.floats(0, 5),
    st.lists(st.builds(Spoken, st.floats(0, 6), st.text(max_size=20), channel=st.integers(0, 1)), max_size=4),
)
def test_file_lasts_as_long_as_the_recording(seconds: float, spoken: list[Spoken]) -> None:
    assert seconds_of(recording_wav(spoken, seconds=seconds, channels=2)) == pytest.approx(seconds, abs=1 / RATE)


def test_file_says_what_is_heard_in_it_and_when() -> None:
    wav = recording_wav([Spoken(0.5, "hello", channel=1), Spoken(9, "late")], seconds=2, channels=2)

    (passage,) = passages_of(wav) or []

    assert passage == Passage(0.5, 0.5 + len(hum("hello")) / 2 / RATE, "hello", 1)
    assert int.from_bytes(wav[4:8], "little") == len(wav) - 8


@given(st.binary(max_size=200))
def test_any_other_file_says_nothing(content: bytes) -> None:
    assert passages_of(b"RIFF____WAVEdata" + len(content).to_bytes(4, "little") + content) is None
