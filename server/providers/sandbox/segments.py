"""How a text is split on the air."""

import re

_GSM_7 = re.compile("[@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,\\-./0-9:;<=>?¡A-ZÄÖÑÜ§¿a-zäöñüà]*")
# Two characters on the air.
_GSM_7_EXTENSION = re.compile(r"[\f^{}\\\[~\]|€]")


def segments(body: str) -> int:
    """In how many parts a text goes out."""
    plain, extended = _GSM_7_EXTENSION.subn("", body)
    length, whole, part = len(plain) + 2 * extended, 160, 153
    if _GSM_7.fullmatch(plain) is None:
        length, whole, part = len(body.encode("utf-16-le")) // 2, 70, 67
    return 1 if length <= whole else -(-length // part)
