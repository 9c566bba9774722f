"""What a person meets who types `make run`."""

import os
import pwd
import signal
import stat
import subprocess
import sys
from http.client import HTTPException
from pathlib import Path

import psycopg
import pytest

from server.config import DatabaseSettings
from server.providers.sandbox.settings import BANDWIDTH_NUMBERS, OWNED_NUMBERS
from server.stack.ports import answers, free_port
from server.stack.postgres import LocalPostgres, binaries
from tests.stack.running import (
    ROOT,
    RunningStack,
    children,
    command_line,
    descendants,
    environment,
    eventually,
    refused,
    running,
    runs,
    start,
)


def _private(path: Path) -> bool:
    return stat.S_IMODE(path.stat().st_mode) == 0o600


def test_ready_means_that_rest_answers_through_envoy(stack: RunningStack) -> None:
    assert stack.get("/api/v1/status") == {"message": "OK"}


def test_every_process_runs_when_it_is_ready(stack: RunningStack) -> None:
    started = [command_line(pid) for pid in descendants(stack.popen.pid)]

    assert sum("api" in words for words in started) == 2
    assert sum("worker" in words for words in started) == 1
    assert sum("sandbox" in words for words in started) == 1


def test_secrets_are_readable_by_their_owner_alone(stack: RunningStack) -> None:
    accounts = ("twilio_account_sid", "twilio_auth_token", "twilio_api_key_sid", "twilio_api_key_secret")
    for name in ("admin_token", "encryption_key", *accounts, "postgres.pgpass", "env"):
        assert _private(stack.folder / name), name
    assert stat.S_IMODE(stack.folder.stat().st_mode) == 0o700


def test_no_secret_is_printed_or_on_a_command_line(stack: RunningStack) -> None:
    names = ("admin_token", "encryption_key", "twilio_auth_token", "twilio_api_key_secret")
    secrets = [(stack.folder / name).read_text() for name in names]
    secrets.append((stack.folder / "postgres.pgpass").read_text().strip().rpartition(":")[2])
    stack.line("logs")

    shown = [*stack.said, *(word for pid in descendants(stack.popen.pid) for word in command_line(pid))]

    assert not [line for line in shown for secret in secrets if secret in line]


def test_the_printed_admin_token_is_an_administrators(stack: RunningStack) -> None:
    assert stack.line("admin token").endswith(str(stack.folder / "admin_token"))
    assert stack.get("/api/v1/admin/bearers")


def test_the_sandboxs_numbers_are_the_first_messaging_services(stack: RunningStack) -> None:
    first, second = stack.get("/api/v1/messaging_services")

    assert (first["name"], first["provider"]) == ("local", "twilio")
    assert [number["phone_number"] for number in first["twilio_numbers"]] == list(OWNED_NUMBERS)
    assert (second["name"], second["provider"]) == ("local-bandwidth", "bandwidth")
    assert [number["phone_number"] for number in second["twilio_numbers"]] == list(BANDWIDTH_NUMBERS)


def test_a_person_plays_the_parent(stack: RunningStack) -> None:
    assert (stack.folder / "sandbox_url").read_text() in stack.line("sandbox")

    texted = _sandbox(stack.folder, "text", "--from", "+14155550123", "--to", OWNED_NUMBERS[0], "We will be late.")

    assert texted.returncode == 0, (texted.stderr, stack.said)
    sent, posted = texted.stdout.splitlines()
    assert sent.endswith(f"+14155550123 -> {OWNED_NUMBERS[0]}  received  We will be late.")
    assert posted.startswith(f"posted to {stack.base_url}/api/v1/twilio_requests/inbound, which answered 20")
    (received,) = stack.get(f"/api/v1/messages?from=%2B14155550123&to=%2B{OWNED_NUMBERS[0][1:]}")
    assert received["message_body"] == "We will be late."
    # Nobody has a conversation with this phone.
    eventually(lambda: len(_sandbox(stack.folder, "inbox", "+14155550123").stdout.splitlines()) == 2)


def _sandbox(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", "sandbox", *words],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        text=True,
    )


def test_the_printed_psql_line_connects(stack: RunningStack) -> None:
    password, psql, url = stack.line("database").split()[1:]

    done = subprocess.run(
        [binaries() / psql, url, "-Atc", "SELECT current_database()"],
        env=dict([password.split("=")]),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "common_services\n"


def test_postgres_is_not_run_by_root(stack: RunningStack) -> None:
    postgres = stack.child(str(binaries() / "postgres"))

    owner = Path(f"/proc/{postgres}").stat().st_uid

    assert owner == (os.getuid() or pwd.getpwnam("nobody").pw_uid)


@pytest.mark.parametrize("words", [["worker"], ["api"], ["sandbox"], ["--config-path"], ["-D"]])
def test_a_process_that_dies_is_started_again_and_said_so(stack: RunningStack, words: list[str]) -> None:
    pid = next(pid for pid in descendants(stack.popen.pid) if set(words) <= set(command_line(pid)))
    said = len(stack.said)

    os.kill(pid, signal.SIGKILL)

    eventually(lambda: len(stack.said) > said)
    assert "was ended by signal 9; starting it again in 0." in stack.said[said]
    eventually(lambda: _is_whole(stack))
    assert not runs(pid)


def _is_whole(stack: RunningStack) -> bool:
    """Every process runs, the sandbox answers, and so many requests succeed that each api process has answered some."""
    sandbox = (stack.folder / "sandbox_url").read_text().removeprefix("http://")
    try:
        return (
            len(children(stack.popen.pid)) == 6
            and answers(sandbox, "/sandbox/health")
            and all(stack.get("/api/v1/admin/bearers") for _ in range(20))
        )
    except (OSError, HTTPException, AssertionError):
        return False


def test_second_run_on_the_same_folder_is_refused(stack: RunningStack) -> None:
    said = refused(stack.folder)

    assert said == f"Error: Another `run` is using the data folder {stack.folder}; stop it first."


def test_killing_the_supervisor_leaves_no_orphan_and_ctrl_c_none_either(folder: Path) -> None:
    with running(folder) as first:
        bearers = first.get("/api/v1/admin/bearers")
        killed = descendants(first.popen.pid)
        first.end(signal.SIGKILL)
    eventually(lambda: not [pid for pid in killed if runs(pid)])

    with running(folder) as second:
        assert second.get("/api/v1/admin/bearers") == bearers
        assert _sandbox(folder, "inbox").returncode == 0
        stopped = descendants(second.popen.pid)
        code = second.end(signal.SIGINT)
    assert code == 0
    assert not [line for line in second.said if "was killed" in line]
    assert _sandbox(folder, "inbox").stderr.startswith(f"Error: No sandbox runs on the data folder {folder} ")
    assert not [pid for pid in stopped if runs(pid)]


def test_ctrl_c_loses_no_callback(folder: Path) -> None:
    # The carrier was told this address, so the second start must have it too.
    port = str(free_port())
    with running(folder, COMMON_SERVICES_PORT=port) as first:
        numbers = {"sender_number": OWNED_NUMBERS[0], "receiver_number": "+12065550190"}
        uuids = [
            first.post("/api/v1/messages", {"message": {**numbers, "message_body": text}})["message_uuid"]
            for text in map(str, range(60))
        ]
        first.end(signal.SIGINT)

    with running(folder, COMMON_SERVICES_PORT=port) as second:
        states = {uuid: "" for uuid in uuids}

        def _all_delivered() -> bool:
            for uuid in [uuid for uuid, state in states.items() if state != "delivered"]:
                states[uuid] = second.get(f"/api/v1/messages/{uuid}")["internal_status"]
            return set(states.values()) == {"delivered"}

        # A send that the stop cut off is in doubt until its lease ends.
        eventually(_all_delivered, seconds=90)


def test_a_stop_before_it_is_ready_leaves_nothing(folder: Path) -> None:
    stack = start(folder)
    eventually(lambda: len(descendants(stack.popen.pid)) > 2)
    started = descendants(stack.popen.pid)

    code = stack.end(signal.SIGTERM)

    assert code == 0
    eventually(lambda: not [pid for pid in started if runs(pid)])


def test_a_given_database_is_used_and_filled(folder: Path, tmp_path: Path) -> None:
    with (
        LocalPostgres(tmp_path / "server", settings={"fsync": "off"}) as url,
        running(folder, DATABASE_URL=url) as stack,
    ):
        assert stack.get("/api/v1/admin/bearers")
        assert not [pid for pid in descendants(stack.popen.pid) if "postgres" in command_line(pid)[0]]
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT count(*) FROM bearers").fetchone()
    assert row == (1,)


def test_create_admin_prints_a_token_that_works(stack: RunningStack) -> None:
    _, _, url = stack.line("database").split()[1:]
    password = (stack.folder / "postgres.pgpass").read_text().strip().rpartition(":")[2]
    made = {
        "DATABASE_URL": url.replace("@", f":{password}@"),
        "ENCRYPTION_KEYS": (stack.folder / "encryption_key").read_text(),
    }
    assert set(made) == {name.upper() for name in DatabaseSettings.model_fields}

    done = subprocess.run(
        [sys.executable, "-m", "server", "create-admin", "second"],
        cwd=ROOT,
        env=environment(stack.folder, **made),
        capture_output=True,
        text=True,
        check=True,
    )

    assert stack.get("/api/v1/admin/bearers", token=done.stdout.strip())
