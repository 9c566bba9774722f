"""What the sandbox's phones say aloud: speech of telephone quality, always the same for the same words."""

import subprocess
import sys
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.providers.sandbox.voice_audio import RATE, Spoken, hum, recording_wav, seconds_of
from server.providers.sandbox.voice_speech import speak

# As where the extra `local` is not installed.
WITHOUT_A_VOICE = """
import sys
sys.modules["hibari"] = None
from server.providers.sandbox.voice_audio import hum
from server.providers.sandbox.voice_speech import speak
assert speak("Hello there") == hum("Hello there")
assert speak("Goodbye") == hum("Goodbye")
"""


def test_words_are_spoken_as_fast_as_people_speak() -> None:
    samples = array("h", speak("Please call us back tomorrow morning."))

    assert 1.5 < len(samples) / RATE < 4
    assert 5_000 < max(samples) <= 32_767
    assert samples.tobytes() != hum("Please call us back tomorrow morning.")


def test_same_words_sound_the_same() -> None:
    assert speak("Good morning.") == speak("Good morning.")


def test_words_that_the_voice_cannot_pronounce_are_hummed() -> None:
    assert speak("日本語, он") == hum("日本語, он")
    assert speak("") == b""


def test_book_is_not_spoken_to_its_end() -> None:
    book = "Good morning. " * 100

    assert speak(book) == speak(book[:1_000])


@pytest.mark.parametrize(
    "text", ["Let’s talk.", "¹", "$1,000.50 at 10:30", "9" * 500, "9,999" + ",999" * 30, "a-b-c", "?!", "\x1b~", "café"]
)
def test_every_sign_of_a_text_is_taken(text: str) -> None:
    assert speak(text)


@settings(max_examples=50)
@given(st.text(max_size=40) | st.text("0123456789,.-$%: ", max_size=60))
def test_whatever_is_said_makes_whole_samples(text: str) -> None:
    assert len(speak(text)) % 2 == 0


def test_recording_is_made_of_speech() -> None:
    wav = recording_wav([Spoken(0.5, "Hello, who is this?")], seconds=4, speak=speak)

    assert seconds_of(wav) == 4


def test_phones_hum_where_there_is_no_voice_and_the_sandbox_says_so() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_VOICE], check=True, capture_output=True, text=True, timeout=60
    )

    assert ended.stdout.count("sandbox.phones_hum") == 1


def test_voice_keeps_no_mark_to_be_known_by(tmp_path: Path) -> None:
    program = "from server.providers.sandbox.voice_speech import speak; print(len(speak('Hello')))"

    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={"HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert int(ended.stdout) > 0
    assert list(tmp_path.iterdir()) == []
