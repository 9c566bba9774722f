"""What a recording's file is to be: a WAV that is whole and not too large. It is looked at while it passes by."""

from collections.abc import AsyncIterator

# Four hours, the longest that a call may last, of two channels of 16 bits at 8 kHz are 461 MB.
MAX_BYTES = 512 * 1024 * 1024

# What comes before the sound is told in less.
_MOST_HEADER_BYTES = 64 * 1024

_RIFF_BYTES = 12
_CHUNK_HEADER_BYTES = 8
_FORMAT_BYTES = 16

# A length that was not known when the header was written: 0, or all of what 32 bits hold, rounded or not.
_UNKNOWN_FROM = 0x7FFF0000


class NotKept(Exception):
    """The file will never do. The text says why, of `the recording`."""


class Truncated(Exception):
    """The file ended before its sound did."""


class WavCheck:
    """Follows one file: `take` each piece as it passes by, then `end`."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._length = 0
        # The file's beginning, until its sound begins.
        self._header: bytearray | None = bytearray()
        self._sound_at = 0
        self._sound_bytes = 0
        self._bytes_per_second = 0
        # What its header says; set once the sound has begun.
        self.channels: int | None = None

    def take(self, piece: bytes) -> None:
        """See the next piece. Raises NotKept as soon as it is known."""
        self._length += len(piece)
        if self._length > self._max_bytes:
            raise NotKept(f"is larger than {self._max_bytes} bytes")
        if self._header is not None:
            self._header += piece
            self._read_header(self._header)

    def end(self) -> None:
        """That was all. Raises NotKept or Truncated."""
        if self._header is not None:
            raise Truncated
        if 0 < self._sound_bytes < _UNKNOWN_FROM and self._length < self._sound_at + self._sound_bytes:
            raise Truncated

    @property
    def duration(self) -> int | None:
        """Whole seconds of sound that passed by; None where the header has no rate."""
        if not self._bytes_per_second:
            return None
        heard = self._length - self._sound_at
        if 0 < self._sound_bytes < _UNKNOWN_FROM:
            heard = min(heard, self._sound_bytes)
        return round(heard / self._bytes_per_second)

    def _read_header(self, header: bytearray) -> None:
        """Go from chunk to chunk up to the sound. Nothing is kept of the header once that is found."""
        if not _may_be_wav(header):
            raise NotKept("is no WAV file")
        at = _RIFF_BYTES
        while at + _CHUNK_HEADER_BYTES <= len(header):
            name, size = bytes(header[at : at + 4]), int.from_bytes(header[at + 4 : at + 8], "little")
            at += _CHUNK_HEADER_BYTES
            if name == b"data":
                if self.channels is None:
                    raise NotKept("is a WAV file that does not say what its sound is")
                self._sound_at, self._sound_bytes = at, size
                self._header = None
                return
            if name == b"fmt " and at + _FORMAT_BYTES <= len(header):
                self.channels = int.from_bytes(header[at + 2 : at + 4], "little")
                self._bytes_per_second = int.from_bytes(header[at + 8 : at + 12], "little")
            # Chunks begin at even places.
            at += size + size % 2
        if len(header) > _MOST_HEADER_BYTES:
            raise NotKept("is a WAV file without sound")


def _may_be_wav(header: bytearray) -> bool:
    """Whether what there is of it is the beginning of a WAV file."""
    return b"RIFF".startswith(header[:4]) and b"WAVE".startswith(header[8:_RIFF_BYTES])


async def checked(chunks: AsyncIterator[bytes], check: WavCheck) -> AsyncIterator[bytes]:
    """The file, as it arrives. Raises NotKept or Truncated, and what `chunks` raises."""
    async for chunk in chunks:
        check.take(chunk)
        yield chunk
    check.end()
