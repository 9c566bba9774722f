"""Starts `python -m server run` as a person would, and looks at the processes it made."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from server.stack.ports import free_port

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 60.0


class RunningStack:
    """A stack that is ready; `said` has every line it has printed so far."""

    def __init__(self, popen: subprocess.Popen[str], folder: Path) -> None:
        self.popen = popen
        self.folder = folder
        self.said: list[str] = []
        self._readers = [threading.Thread(target=self._read, args=(stream,)) for stream in (popen.stdout, popen.stderr)]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Iterator[str]) -> None:
        self.said.extend(line.rstrip() for line in stream)

    def line(self, start: str) -> str:
        """The first printed line that begins so, spaces before it aside; waits for it."""
        eventually(lambda: self._find(start) is not None or self.popen.poll() is not None)
        found = self._find(start)
        assert found is not None, self.said
        return found

    def _find(self, start: str) -> str | None:
        return next((line for line in self.said if line.lstrip().startswith(start)), None)

    @property
    def base_url(self) -> str:
        """What the ready line names."""
        return self.line("ready ").split()[1]

    def get(self, path: str, *, token: str | None = None) -> Any:
        """The JSON answer to a GET, the administrator's unless another token is given."""
        return self._call("GET", path, token=token)

    def post(self, path: str, body: object) -> Any:
        """The JSON answer to an administrator's POST."""
        return self._call("POST", path, body=json.dumps(body))

    def _call(self, method: str, path: str, *, token: str | None = None, body: str | None = None) -> Any:
        host = self.base_url.removeprefix("http://")
        headers = {"Authorization": f"Bearer {token or (self.folder / 'admin_token').read_text()}"}
        with closing(HTTPConnection(host, timeout=30)) as connection:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            assert answer.status in (200, 201), answer.read()
            return json.load(answer)

    def child(self, *words: str) -> int:
        """The process id of the supervisor's child whose command line has these words."""
        (pid,) = [pid for pid in children(self.popen.pid) if set(words) <= set(command_line(pid))]
        return pid

    def end(self, number: signal.Signals) -> int:
        """Send the signal, if it still runs, and wait for the supervisor's exit code."""
        self.popen.send_signal(number)
        # Each group of its processes has a grace of its own, one after the other.
        code = self.popen.wait(timeout=60)
        for reader in self._readers:
            reader.join()
        for stream in (self.popen.stdout, self.popen.stderr):
            assert stream is not None
            stream.close()
        return code


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Only what a test sets, whatever this process was started with."""
    system = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**system, "COMMON_SERVICES_DATA_DIR": str(folder), "COMMON_SERVICES_PORT": str(free_port()), **settings}


def start(folder: Path, **settings: str) -> RunningStack:
    """Start and do not wait."""
    popen = subprocess.Popen(
        [sys.executable, "-m", "server", "run"],
        cwd=ROOT,
        env=environment(folder, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return RunningStack(popen, folder)


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[RunningStack]:
    """A stack that is ready, and is stopped with Ctrl-C's signal if it still runs."""
    stack = start(folder, **settings)
    try:
        assert stack.base_url
        yield stack
    finally:
        stack.end(signal.SIGINT)


def refused(folder: Path, **settings: str) -> str:
    """What a start that cannot succeed says on standard error; it must be one line, with exit code 1."""
    done = subprocess.run(
        [sys.executable, "-m", "server", "run"],
        cwd=ROOT,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert done.stdout == ""
    return line


def children(pid: int) -> list[int]:
    """The processes that this one started and that run now."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [each for each in pids if runs(each) and _stat(each)[1:2] == [str(pid)]]


def descendants(pid: int) -> list[int]:
    """Children, their children, and so on."""
    direct = children(pid)
    return direct + [each for child in direct for each in descendants(child)]


def command_line(pid: int) -> list[str]:
    """The words of a process's command."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def runs(pid: int) -> bool:
    """Whether a process exists and is more than an entry that nobody has read yet."""
    return _stat(pid)[:1] not in ([], ["Z"])


def _stat(pid: int) -> list[str]:
    """State, parent, and so on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def eventually(condition: Callable[[], bool], *, seconds: float = START_SECONDS) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
