"""The data folder: what the local stack keeps between runs, one run at a time."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from server.stack.errors import StackError


class DataFolder:
    """Files under one private folder; the secrets in it are readable by their owner alone."""

    def __init__(self, path: Path) -> None:
        """Make the folder and lock it for this process until it ends, however it ends."""
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StackError(f"Cannot use the data folder {path}: {error.filename}: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"Another `run` is using the data folder {path}; stop it first.") from None

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.path / "logs"

    @property
    def admin_token(self) -> Path:
        """The key of the administrator that the first start made."""
        return self.path / "admin_token"

    @property
    def sandbox_url(self) -> Path:
        """Where the sandbox of the present run is, for the commands that speak to it."""
        return self.path / "sandbox_url"

    @property
    def env(self) -> Path:
        """The settings of the processes of the present run, for a shell: `set -a; . .data/env`."""
        return self.path / "env"

    @property
    def sandbox_port(self) -> Path:
        """The port that the sandbox last had."""
        return self.path / "sandbox_port"

    def kept(self, name: str, make: Callable[[], str]) -> str:
        """The text of a private file that is made once."""
        path = self.path / name
        if not path.exists():
            write_private(path, make())
        return path.read_text()


def write_private(path: Path, text: str, *, owner: tuple[int, int] | None = None) -> None:
    """Write a file that only its owner may read; it appears complete or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        file.write(text)
    unfinished.rename(path)
