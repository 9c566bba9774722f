import sys
from pathlib import Path

import pytest

from server.stack.processes import Process
from server.stack.supervisor import Supervisor
from tests.stack.running import eventually

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
OBEDIENT = "import time; print(flush=True); time.sleep(600)"


def process(name: str, program: str, folder: Path) -> Process:
    return Process(name, [sys.executable, "-c", program], log=folder / name, folder=folder)


def test_who_does_not_end_when_it_is_asked_to_is_killed_and_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = Supervisor()
    processes = [process("obedient", OBEDIENT, tmp_path), process("deaf", DEAF, tmp_path)]
    supervisor.start(*processes)
    eventually(lambda: all(each.log.read_text() for each in processes))

    supervisor.stop()

    assert [each.exit_code() for each in processes] == [-15, -9]
    assert capsys.readouterr().err == f"deaf did not end within 6 s and was killed (log: {tmp_path / 'deaf'})\n"
