"""A child process: in a session of its own, with its own log, ending when its parent ends, however that ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAUNCH = Path(__file__).with_name("launch.py")
LOG_KEPT_BYTES = 10_000_000


@dataclass(frozen=True)
class User:
    """Whom a process runs as."""

    uid: int
    gid: int


def launch_command(command: Sequence[str], *, user: User | None, death_signal: signal.Signals) -> list[str]:
    """The command line that runs `command` as that user and ends it when this process ends."""
    as_user = f"{user.uid}:{user.gid}" if user else "-"
    ours = [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), str(death_signal.value), as_user]
    return [*ours, *command]


@dataclass
class Process:
    """One program of the stack; it can be started again after it has ended.

    `death_signal` is what the kernel sends it when this process dies; `stop_signal` is how it is asked to end.
    """

    name: str
    command: Sequence[str]
    log: Path
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: User | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    _popen: subprocess.Popen[bytes] | None = None
    _log_before: int = 0

    def start(self) -> None:
        """Start it; whether the program could be executed shows in its exit code and log."""
        if self.log.exists() and self.log.stat().st_size > LOG_KEPT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._log_before = log.tell()
            self._popen = subprocess.Popen(  # noqa: S603 - the commands are our own
                launch_command(self.command, user=self.user, death_signal=self.death_signal),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                cwd=self.folder,
                # Ctrl-C reaches the whole foreground group; the order of stopping is the supervisor's.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of the running or last run."""
        assert self._popen is not None, "not started"
        return self._popen.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        assert self._popen is not None, "not started"
        return self._popen.poll()

    def ask_to_stop(self) -> None:
        """Send the stop signal, if it runs."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.send_signal(self.stop_signal)

    def wait_stopped(self, *, until: float) -> bool:
        """Wait until it has ended; after `until` (monotonic) it is killed. Answers whether it ended by itself."""
        if self._popen is None:
            return True
        try:
            self._popen.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            return False
        return True

    def last_log_line(self) -> str:
        """What it said last since it was started: the best short answer to why it ended."""
        with self.log.open("rb") as log:
            log.seek(max(self._log_before, self.log.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"
