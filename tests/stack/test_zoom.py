"""What a person meets who types `make run` and calls by video."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.stack.running import ROOT, RunningStack, command_line, descendants, environment, eventually, running

NAMES = ("SDK_KEY", "SDK_SECRET", "API_KEY", "API_SECRET", "WEBHOOK_SECRET_TOKEN")


def _video(stack: RunningStack, *words: str) -> list[str]:
    """The lines of `sandbox video …`."""
    done = subprocess.run(
        [sys.executable, "-m", "server", "sandbox", "video", *words, f"--data-dir={stack.folder}"],
        cwd=ROOT,
        env=environment(stack.folder),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done
    return done.stdout.splitlines()


def test_sandbox_plays_zoom_from_the_first_join_to_the_recording(folder: Path) -> None:
    with running(folder) as stack:
        call = stack.post("/api/v1/video_calls", {"video_call": {"session_name": "Algebra", "host_username": "Ada"}})
        path = f"/api/v1/video_calls/{call['shunkan_ido_session_key']}"
        joined = _video(stack, "join", "--token", call["host_token"], "--name", "Ada")
        live: Any = stack.get(path)
        _video(stack, "record", "start")
        _video(stack, "end")
        eventually(
            lambda: [each["internal_status"] for each in stack.get(path)["video_call_recordings"]] == ["stored"] * 3
        )
        over = stack.get(path)
        with urlopen(over["video_call_recordings"][0]["recording_url"], timeout=30) as recording:  # noqa: S310 ours
            recorded = recording.read()
        shown = [*stack.said, *(word for pid in descendants(stack.popen.pid) for word in command_line(pid))]

    secrets = [(folder / f"zoom_{name.lower()}").read_text() for name in NAMES]
    assert re.fullmatch(
        r"session.started posted to http://\S+/api/v1/zoom_requests/webhook, which answered 200", joined[1]
    )
    assert (live["internal_status"], live["provider_status"]) == ("in_progress", "session.started")
    assert (over["internal_status"], over["recording_status"]) == ("finished", "completed")
    assert recorded[4:8] == b"ftyp"
    assert not [line for line in shown for secret in secrets if secret in line]


@pytest.mark.parametrize("missing", ["ZOOM_SDK_KEY", "ZOOM_WEBHOOK_SECRET_TOKEN"])
def test_sandbox_says_what_it_lacks_to_play_zoom(tmp_path: Path, missing: str) -> None:
    account = {f"ZOOM_{name}": "given" for name in NAMES} | {missing: ""}
    command = [sys.executable, "-m", "server", "sandbox", "serve", "--listen=127.0.0.1:1", f"--data-dir={tmp_path}"]
    options = ["--account-sid=AC1", "--auth-token=token", "--zoom-webhook-url=http://127.0.0.1:1/"]

    ended = subprocess.run(
        [*command, *options], cwd=ROOT, env=environment(tmp_path) | account, check=False, capture_output=True, text=True
    )

    assert ended.returncode == 2
    assert f"--zoom-webhook-url needs {missing}\n" in ended.stderr
