"""Files that arrive a piece at a time."""

from collections.abc import AsyncIterator

PIECE = 300_000


class Lost(Exception):
    """The rest of a file was lost on its way."""


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """The data as they arrive."""
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


async def lost_after(data: bytes) -> AsyncIterator[bytes]:
    """These data, and no end."""
    async for piece in pieces(data):
        yield piece
    raise Lost


async def many(number: int) -> AsyncIterator[bytes]:
    """So many pieces of a megabyte, none of them kept by the one who sends them."""
    for count in range(number):
        yield bytes([count % 256]) * 1024 * 1024
