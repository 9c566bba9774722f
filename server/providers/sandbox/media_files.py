"""The bytes of inbound media: files beside the journal, which names them."""

from pathlib import Path


class MediaFiles:
    """Files by sid in one folder; a folder of None keeps them in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._kept: dict[str, bytes] = {}

    def put(self, sid: str, data: bytes) -> None:
        """Keep a file."""
        if self._folder is None:
            self._kept[sid] = data
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / sid).write_bytes(data)

    def get(self, sid: str) -> bytes:
        """A file that was kept."""
        return self._kept[sid] if self._folder is None else (self._folder / sid).read_bytes()

    def drop(self, sid: str) -> None:
        """Forget a file that was kept."""
        if self._folder is None:
            del self._kept[sid]
        else:
            (self._folder / sid).unlink()
