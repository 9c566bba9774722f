"""What is no WAV, not whole or too large is found while it passes by, in whatever pieces."""

import itertools
import struct
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.calls.recordings.wav import NotKept, Truncated, WavCheck, checked
from tests.calls.recorded import wav


def check_of(*pieces: bytes, max_bytes: int = 1_000_000) -> WavCheck:
    """A file that passed by as a whole."""
    check = WavCheck(max_bytes=max_bytes)
    for piece in pieces:
        check.take(piece)
    check.end()
    return check


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


def chunk(name: bytes, data: bytes, *, size: int | None = None) -> bytes:
    """A chunk of a file, padded to an even place."""
    return name + struct.pack("<I", len(data) if size is None else size) + data + b"\0" * (len(data) % 2)


FORMAT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16))


def file_of(*chunks: bytes) -> bytes:
    """A file of these chunks."""
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@given(
    tenths=st.integers(0, 30),
    channels=st.sampled_from([1, 2]),
    places=st.lists(st.integers(0, 100_000), max_size=20),
)
def test_length_and_channels_are_read_in_whatever_pieces_it_comes(
    tenths: int, channels: int, places: list[int]
) -> None:
    check = check_of(*cut(wav(tenths / 10, channels=channels), places))

    assert (check.duration, check.channels) == (round(tenths / 10), channels)


@given(end=st.integers(0, 2 * 8000 * 2 + 43), places=st.lists(st.integers(0, 100_000), max_size=5))
def test_file_that_ends_anywhere_before_its_sound_does_is_truncated(end: int, places: list[int]) -> None:
    with pytest.raises(Truncated):
        check_of(*cut(wav(2)[:end], places))


@given(data=st.binary(min_size=1, max_size=200), places=st.lists(st.integers(0, 200), max_size=5))
def test_other_files_are_refused_or_unfinished(data: bytes, places: list[int]) -> None:
    with pytest.raises((NotKept, Truncated)):
        check_of(*cut(data, places))


@pytest.mark.parametrize("data", [b"ID3\x04", b"<html>", b"RIFX", b"R", b"RIFF\0\0\0\0AVI ", b"\0" * 12])
def test_what_is_no_wav_is_refused_at_its_first_bytes(data: bytes) -> None:
    check = WavCheck(max_bytes=1_000_000)

    if data == b"R":
        check.take(data)
        data = b"IFE!"
    with pytest.raises(NotKept, match="is no WAV file"):
        check.take(data)


def test_file_may_be_as_large_as_the_limit_and_no_larger() -> None:
    data = wav(2)

    assert check_of(data, max_bytes=len(data)).duration == 2
    with pytest.raises(NotKept, match=f"is larger than {len(data) - 1} bytes"):
        check_of(data, max_bytes=len(data) - 1)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_sound_whose_length_was_unknown_when_it_began_lasts_to_the_end(size: int) -> None:
    assert check_of(file_of(FORMAT, chunk(b"data", bytes(48_000), size=size))).duration == 3


def test_what_else_is_in_the_file_is_not_sound() -> None:
    data = file_of(chunk(b"LIST", b"odd"), FORMAT, chunk(b"fact", b"1234"), chunk(b"data", bytes(16_000)))

    assert check_of(data, chunk(b"LIST", bytes(64_000))).duration == 1


def test_file_that_says_nothing_of_its_sound_is_refused() -> None:
    with pytest.raises(NotKept, match="does not say what its sound is"):
        check_of(file_of(chunk(b"data", bytes(100))))


def test_file_without_sound_is_refused_however_long_it_is() -> None:
    check = WavCheck(max_bytes=10**9)
    check.take(file_of(FORMAT) + b"LIST" + struct.pack("<I", 0x7FFFFFFF))
    check.take(bytes(64_000))

    with pytest.raises(NotKept, match="without sound"):
        check.take(bytes(2_000))


async def test_pieces_pass_unchanged_and_a_short_file_raises_at_its_end() -> None:
    async def arriving(data: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]

    whole = wav(1)
    passed = [piece async for piece in checked(arriving(whole), WavCheck(max_bytes=100_000))]
    assert b"".join(passed) == whole

    short = checked(arriving(whole[:-1]), WavCheck(max_bytes=100_000))
    assert b"".join([await anext(short) for _ in range(17)]) == whole[:-1]
    with pytest.raises(Truncated):
        await anext(short)
