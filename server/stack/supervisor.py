"""Keeps processes running: one that dies is started again, a little later each time."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import click

from server.stack.errors import StackError
from server.stack.processes import Process

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 10.0
# A process that ran this long is taken to be well: its next death starts the delays anew.
STEADY_SECONDS = 30.0
DEATHS_BEFORE_READY = 3
POLL_SECONDS = 0.05
STOP_SECONDS = 6.0


class Stopped(Exception):
    """The person asked to stop before everything was up."""


@dataclass
class _Watched:
    process: Process
    started: float
    deaths: int = 0
    due: float | None = None


class Supervisor:
    """Starts processes, watches them until it is told to stop, and stops them group by group."""

    def __init__(self) -> None:
        self._groups: list[list[_Watched]] = []
        self._stop = threading.Event()
        self._ready = False

    def listen_for_signals(self) -> None:
        """From now on Ctrl-C, SIGTERM and a closed terminal ask to stop, instead of ending this process."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup ignores SIGHUP for us; that stays.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: self._stop.set())

    def start(self, *processes: Process) -> None:
        """Start a group; groups stop in the reverse order, the processes of one together."""
        watched = [_Watched(process, time.monotonic()) for process in processes]
        self._groups.append(watched)
        for each in watched:
            each.process.start()

    def adopt(self, process: Process) -> None:
        """Watch a process that runs already, as a group of its own."""
        self._groups.append([_Watched(process, time.monotonic())])

    def wait_for(self, what: str, condition: Callable[[], bool], *, seconds: float) -> None:
        """Wait until the condition holds. Raises StackError when it takes too long or a process keeps dying."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise StackError(f"{what} did not come up within {seconds:.0f} s.")
            self._look_after_all()
            if self._stop.wait(POLL_SECONDS):
                raise Stopped

    def all_run(self) -> bool:
        """Whether every process runs now."""
        return all(each.due is None and each.process.exit_code() is None for group in self._groups for each in group)

    def run(self) -> None:
        """Watch until told to stop."""
        self._ready = True
        while not self._stop.wait(POLL_SECONDS):
            self._look_after_all()

    def stop(self) -> None:
        """Stop every group, the last started first; what does not end in time is killed, which is said."""
        for group in reversed(self._groups):
            for each in group:
                each.process.ask_to_stop()
            deadline = time.monotonic() + STOP_SECONDS
            for each in group:
                if not each.process.wait_stopped(until=deadline):
                    told = f"did not end within {STOP_SECONDS:.0f} s and was killed"
                    click.echo(f"{each.process.name} {told} (log: {each.process.log})", err=True)

    def _look_after_all(self) -> None:
        for group in self._groups:
            for each in group:
                self._look_after(each)

    def _look_after(self, each: _Watched) -> None:
        now = time.monotonic()
        if each.due is not None:
            if now >= each.due:
                each.due = None
                each.started = now
                each.process.start()
            return
        code = each.process.exit_code()
        if code is None:
            return
        each.deaths = 1 if now - each.started > STEADY_SECONDS else each.deaths + 1
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        name, log = each.process.name, each.process.log
        if not self._ready and each.deaths >= DEATHS_BEFORE_READY:
            raise StackError(f"{name} {how}: {each.process.last_log_line()} (log: {log})")
        delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** (each.deaths - 1))
        each.due = now + delay
        click.echo(f"{name} {how}; starting it again in {delay:.1f} s (log: {log})", err=True)
