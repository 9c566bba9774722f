"""What a person meets who types `make run` and sends through Bandwidth."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.providers.sandbox.settings import BANDWIDTH_NUMBERS
from tests.stack.running import ROOT, RunningStack, command_line, descendants, environment, eventually, running

PARENT = "+12065550190"


def _messages(stack: RunningStack, *, sender: str, receiver: str) -> list[Any]:
    found: list[Any] = stack.get(f"/api/v1/messages?from=%2B{sender[1:]}&to=%2B{receiver[1:]}")
    return found


def test_sandbox_plays_bandwidth_both_ways(folder: Path) -> None:
    number = BANDWIDTH_NUMBERS[0]
    text = {
        "global_customer_id": "local-bandwidth",
        "receiver_number": PARENT,
        "message_body": "School is closed tomorrow.",
    }
    with running(folder) as stack:
        assert stack.post("/api/v1/messages", {"message": text})["sender_number"] == number
        eventually(
            lambda: (
                [m.get("provider_status") for m in _messages(stack, sender=number, receiver=PARENT)]
                == ["message-delivered"]
            )
        )
        command = [sys.executable, "-m", "server", "sandbox", "text", f"--from={PARENT}", f"--to={number}", "Thank you"]
        subprocess.run(
            [*command, f"--data-dir={folder}"], cwd=ROOT, env=environment(folder), check=True, capture_output=True
        )
        (answer,) = _messages(stack, sender=PARENT, receiver=number)
        shown = [*stack.said, *(word for pid in descendants(stack.popen.pid) for word in command_line(pid))]

    secrets = [(folder / name).read_text() for name in ("bandwidth_client_secret", "bandwidth_callback_password")]
    assert (answer["direction"], answer["message_body"]) == ("inbound", "Thank you")
    assert not [line for line in shown for secret in secrets if secret in line]


@pytest.mark.parametrize("missing", ["BANDWIDTH_ACCOUNT_ID", "BANDWIDTH_CALLBACK_PASSWORD"])
def test_sandbox_says_what_it_lacks_to_play_bandwidth(tmp_path: Path, missing: str) -> None:
    names = ("ACCOUNT_ID", "CLIENT_ID", "CLIENT_SECRET", "CALLBACK_USERNAME", "CALLBACK_PASSWORD")
    account = {f"BANDWIDTH_{name}": "given" for name in names} | {missing: ""}
    command = [sys.executable, "-m", "server", "sandbox", "serve", "--listen=127.0.0.1:1", f"--data-dir={tmp_path}"]
    options = ["--account-sid=AC1", "--auth-token=token", "--bandwidth-callback-url=http://127.0.0.1:1/"]

    ended = subprocess.run(
        [*command, *options], cwd=ROOT, env=environment(tmp_path) | account, check=False, capture_output=True, text=True
    )

    assert ended.returncode == 2
    assert f"--bandwidth-callback-url needs {missing}\n" in ended.stderr
