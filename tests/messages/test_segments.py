"""Encoding and segments of a text, against a slow oracle that packs one character after the other."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.messages.segments import measure

# 3GPP TS 23.038, table 6.2.1 row by row, None for the escape; an independent copy, with every code at its place.
DEFAULT_TABLE = (
    *("@", "£", "$", "¥", "è", "é", "ù", "ì", "ò", "Ç", "\n", "Ø", "ø", "\r", "Å", "å"),
    *("Δ", "_", "Φ", "Γ", "Λ", "Ω", "Π", "Ψ", "Σ", "Θ", "Ξ", None, "Æ", "æ", "ß", "É"),
    *(" ", "!", '"', "#", "¤", "%", "&", "'", "(", ")", "*", "+", ",", "-", ".", "/"),
    *("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", ":", ";", "<", "=", ">", "?"),
    *("¡", "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M", "N", "O"),
    *("P", "Q", "R", "S", "T", "U", "V", "W", "X", "Y", "Z", "Ä", "Ö", "Ñ", "Ü", "§"),
    *("¿", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o"),
    *("p", "q", "r", "s", "t", "u", "v", "w", "x", "y", "z", "ä", "ö", "ñ", "ü", "à"),
)
EXTENSION_TABLE = {0x0A: "\f", 0x14: "^", 0x28: "{", 0x29: "}", 0x2F: "\\", 0x3C: "[", 0x3D: "~", 0x3E: "]", 0x40: "|"}
EXTENSION_TABLE[0x65] = "€"
ALPHABET = {character for character in DEFAULT_TABLE if character is not None} | set(EXTENSION_TABLE.values())

GSM_7_TEXTS = st.text(st.sampled_from(sorted(ALPHABET)), min_size=1, max_size=700)
ANY_TEXTS = st.text(min_size=1, max_size=300)
# Lengths about the limits, of what takes one unit and what takes two.
LONG_TEXTS = st.lists(
    st.tuples(st.sampled_from(["a", "€", "~", "ü", "中", "\U0001f600"]), st.integers(min_value=1, max_value=170)),
    min_size=1,
    max_size=5,
).map(lambda runs: "".join(character * count for character, count in runs))


def oracle(text: str) -> tuple[str, int]:
    """Pack the characters one by one, each whole, into as few segments as their order allows."""
    if set(text) <= ALPHABET:
        encoding, alone, joined = "GSM-7", 160, 153
        sizes = [2 if character in EXTENSION_TABLE.values() else 1 for character in text]
    else:
        encoding, alone, joined = "UCS-2", 70, 67
        sizes = [len(character.encode("utf-16-be")) // 2 for character in text]
    if sum(sizes) <= alone:
        return encoding, 1
    segments, room = 1, joined
    for size in sizes:
        if size > room:
            segments, room = segments + 1, joined
        room -= size
    return encoding, segments


@settings(deadline=None)
@given(GSM_7_TEXTS | ANY_TEXTS | LONG_TEXTS)
def test_measure_agrees_with_packing_character_by_character(text: str) -> None:
    assert measure(text) == oracle(text)


def test_alphabet_is_gsm_7_and_nothing_else_is() -> None:
    everything = {chr(code) for code in range(0x11000) if not 0xD800 <= code < 0xE000}

    assert {character for character in everything if measure(character)[0] == "GSM-7"} == ALPHABET


@settings(deadline=None)
@given(ANY_TEXTS | LONG_TEXTS)
def test_segments_never_shrink_as_a_text_of_one_encoding_grows(text: str) -> None:
    measured = [measure(text[:length]) for length in range(1, len(text) + 1)]

    for before, now in pairwise(measured):
        if before[0] == now[0]:
            assert before[1] <= now[1] <= before[1] + 1
        else:
            assert (before[0], now[0]) == ("GSM-7", "UCS-2")


@pytest.mark.parametrize(
    ("text", "encoding", "segment_count"),
    [
        ("School is closed tomorrow.", "GSM-7", 1),
        ("a" * 160, "GSM-7", 1),
        ("a" * 161, "GSM-7", 2),
        ("a" * 153 * 2, "GSM-7", 2),
        ("a" * (153 * 2 + 1), "GSM-7", 3),
        ("ñ" * 160, "GSM-7", 1),
        ("€", "GSM-7", 1),
        ("€" * 80, "GSM-7", 1),
        ("€" * 80 + "a", "GSM-7", 2),
        # 76 pairs and no half of one: 152 septets of 153.
        ("€" * 152, "GSM-7", 2),
        ("€" * 153, "GSM-7", 3),
        # The escape would be the last septet of the first segment.
        ("a" * 152 + "€" + "a" * 151, "GSM-7", 2),
        ("a" * 152 + "€" + "a" * 152, "GSM-7", 3),
        ("`", "UCS-2", 1),
        ("ç", "UCS-2", 1),
        ("it’s", "UCS-2", 1),
        ("中" * 70, "UCS-2", 1),
        ("中" * 71, "UCS-2", 2),
        ("中" * 67 * 2, "UCS-2", 2),
        ("中" * (67 * 2 + 1), "UCS-2", 3),
        ("\U0001f600" * 35, "UCS-2", 1),
        ("\U0001f600" * 36, "UCS-2", 2),
        # 33 pairs and no half of one: 66 units of 67.
        ("\U0001f600" * 66, "UCS-2", 2),
        ("\U0001f600" * 67, "UCS-2", 3),
        # An extension character takes one unit there.
        ("中" + "€" * 69, "UCS-2", 1),
        ("\x1b", "UCS-2", 1),
    ],
)
def test_known_texts(text: str, encoding: str, segment_count: int) -> None:
    assert measure(text) == oracle(text) == (encoding, segment_count)
