"""Texts of providers, of which JSON can spell some that no row can hold."""


def legible(text: str) -> str:
    """The text with U+FFFD for what no row can hold: NUL, and halves of characters that JSON can escape."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", "\ufffd")
