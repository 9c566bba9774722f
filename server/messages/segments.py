"""How a text goes out as SMS: its encoding, and the number of segments that carriers bill."""

import re

GSM_7 = "GSM-7"
UCS_2 = "UCS-2"

# 3GPP TS 23.038, 6.2.1: the default alphabet, and the characters that take an escape before them.
_DEFAULT = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = "\f^{}\\[~]|€"
_ESCAPE = "\x1b"

# A character outside the Basic Multilingual Plane is two units of UTF-16, the first of which is one of these.
_HIGH_SURROGATE = "\ud800"

_is_gsm_7 = re.compile(f"[{re.escape(_DEFAULT + _EXTENSION)}]*").fullmatch
_before_extension = re.compile(f"(?=[{re.escape(_EXTENSION)}])").sub
_before_astral = re.compile("(?=[\U00010000-\U0010ffff])").sub

# What a segment holds where the text is one, and where it is several, each with a header that joins them.
_SEPTETS = (160, 153)
_UNITS = (70, 67)


def measure(text: str) -> tuple[str, int]:
    """The encoding of a text, `GSM-7` or else `UCS-2`, and in how many segments it goes."""
    if _is_gsm_7(text) is not None:
        return GSM_7, _count(_before_extension(_ESCAPE, text), pair=_ESCAPE, holds=_SEPTETS)
    return UCS_2, _count(_before_astral(_HIGH_SURROGATE, text), pair=_HIGH_SURROGATE, holds=_UNITS)


def _count(units: str, *, pair: str, holds: tuple[int, int]) -> int:
    """The segments of a text written unit by unit; a `pair` begins two units that stay in one segment."""
    alone, joined = holds
    if len(units) <= alone:
        return 1
    count = start = 0
    while start < len(units):
        start += joined
        if units[start - 1 : start] == pair:
            start -= 1
        count += 1
    return count
