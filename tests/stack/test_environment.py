"""What a person meets who runs other commands beside `make run`, and runs it again."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from server.config import Settings
from server.stack.ports import HOST, answers
from tests.stack.running import ROOT, RunningStack, environment, eventually, running, start


def _with_settings(folder: Path, program: str) -> str:
    """What a shell says that has taken in the settings as the stack's output tells, and knows no more."""
    known = environment(folder)
    del known["COMMON_SERVICES_DATA_DIR"]
    done = subprocess.run(
        ["/bin/sh", "-euc", f'set -a; . "$0"; set +a; {program}', str(folder / "env")],
        cwd=ROOT,
        env=known,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_other_commands_take_the_settings_of_the_run(stack: RunningStack) -> None:
    assert stack.line("settings").endswith(
        f"{stack.folder}/env (for other commands: set -a; . {stack.folder}/env; set +a)"
    )

    synchronised = _with_settings(stack.folder, f"{sys.executable} -m server sync-numbers")
    asked = _with_settings(stack.folder, f"{sys.executable} -m server reconcile")
    _with_settings(stack.folder, f"{sys.executable} -m server sandbox inbox")

    assert synchronised == "0 added, 0 moved, 0 released, 0 restored\n"
    assert asked


def test_settings_come_through_the_shell_as_they_are(folder: Path) -> None:
    odd = """It's "odd":\n$HOME `date` \\ *"""

    with running(folder, UNKNOWN_SENDER_ANSWER=odd) as stack:
        names = {line.partition("=")[0] for line in (stack.folder / "env").read_text().splitlines() if "=" in line}
        shown = _with_settings(folder, 'printf %s "$UNKNOWN_SENDER_ANSWER"')
        stack.end(signal.SIGKILL)
    left = (folder / "env").exists()
    with running(folder) as second:
        again = (folder / "env").read_text()
        second.end(signal.SIGINT)

    assert shown == odd
    assert names <= {name.upper() for name in Settings.model_fields} | {"COMMON_SERVICES_DATA_DIR"}
    assert {"DATABASE_URL", "TWILIO_API_KEY_SECRET", "UNKNOWN_SENDER_ANSWER"} <= names
    assert left
    assert "odd" not in again
    assert not (folder / "env").exists()


def test_sandbox_keeps_its_port_while_nobody_else_has_it(folder: Path) -> None:
    with running(folder) as first:
        url = first.line("sandbox").split()[1]
    with running(folder) as second:
        assert second.line("sandbox").split()[1] == url
    with socket.create_server((HOST, int(url.rpartition(":")[2]))), running(folder) as third:
        assert third.line("sandbox").split()[1] != url


def test_ready_waits_for_the_sandbox_itself_where_another_program_has_taken_its_port(folder: Path) -> None:
    stack = start(folder)
    chosen = folder / "sandbox_port"
    try:
        eventually(lambda: chosen.exists() and bool(chosen.read_text()))
        with socket.create_server((HOST, int(chosen.read_text()))):
            stack.line("sandbox ended with exit code 1; starting it again in 0.2 s")
            assert not [line for line in stack.said if line.startswith("ready ")]

        assert stack.base_url
        assert answers(f"{HOST}:{chosen.read_text()}", "/sandbox/health")
    finally:
        stack.end(signal.SIGINT)


@pytest.mark.parametrize("missing", ["TWILIO_API_KEY_SECRET", "TWILIO_TWIML_APP_SID"])
def test_sandbox_says_what_it_lacks_for_browsers(tmp_path: Path, missing: str) -> None:
    names = ("TWILIO_API_KEY_SID", "TWILIO_API_KEY_SECRET", "TWILIO_TWIML_APP_SID")
    command = [sys.executable, "-m", "server", "sandbox", "serve", "--listen=127.0.0.1:1", f"--data-dir={tmp_path}"]
    options = ["--account-sid=AC1", "--auth-token=token", "--voice-app-url=http://127.0.0.1:1/"]

    ended = subprocess.run(
        [*command, *options],
        cwd=ROOT,
        env=environment(tmp_path) | dict.fromkeys(names, "given") | {missing: ""},
        check=False,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 2
    assert f"--voice-app-url needs {missing}\n" in ended.stderr
