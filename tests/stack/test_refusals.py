"""A start that cannot succeed says why in one sentence and ends with exit code 1."""

import os
import socket
from pathlib import Path

import pytest

from server.stack.processes import Process
from tests.stack.running import eventually, refused


def test_taken_port(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        said = refused(folder, COMMON_SERVICES_PORT=str(port))

    assert said == f"Error: Cannot listen on 127.0.0.1:{port} (COMMON_SERVICES_PORT): Address already in use."


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    said = refused(tmp_path / "file" / "data")

    assert said.startswith(f"Error: Cannot use the data folder {tmp_path}/file/data: ")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every folder")
def test_unreadable_folder(folder: Path) -> None:
    folder.mkdir(mode=0)

    said = refused(folder)

    assert said == f"Error: Cannot use the data folder {folder}: {folder}/logs: Permission denied."


def test_file_in_the_folder_that_cannot_be_used(folder: Path) -> None:
    (folder / "logs" / "sandbox.log").mkdir(parents=True)

    said = refused(folder)

    assert said == f"Error: {folder}/logs/sandbox.log: Is a directory"


def test_missing_envoy(folder: Path) -> None:
    said = refused(folder, ENVOY_BIN="/no/such/envoy")

    assert "/no/such/envoy" in said
    assert "ENVOY_BIN" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COMMON_SERVICES_PORT", "eighty"),
        ("COMMON_SERVICES_PORT", "65536"),
        ("EVENT_RETENTION_DAYS", "0"),
        ("PUBLIC_BASE_URL", "https://example.com/path"),
        ("ENCRYPTION_KEYS", "short"),
        ("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/99"),
        ("DATABASE_URL", "mysql://somewhere/else"),
        ("MAXIMUM_CALL_MINUTES", "241"),
        ("CONFERENCE_WELCOME_MESSAGE", "x" * 1001),
        ("UNKNOWN_CALLER_ANSWER", "x" * 1001),
        ("DELETE_PROVIDER_RECORDINGS", "perhaps"),
        ("VOICEBASE_API_BASE_URL", "https://apis.voicebase.com/v3"),
    ],
)
def test_bad_setting(folder: Path, name: str, value: str) -> None:
    said = refused(folder, **{name: value})

    assert said.startswith(f"Error: {name}: ")


def test_half_a_twilio_account(folder: Path) -> None:
    said = refused(folder, TWILIO_ACCOUNT_SID="AC" + "0" * 32)

    assert said.endswith("TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN must be set together, or neither")


def test_an_api_key_without_its_twilio_account(folder: Path) -> None:
    said = refused(folder, TWILIO_API_KEY_SID="SK" + "0" * 32)

    assert said.endswith("TWILIO_API_KEY_SID needs TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN")


def test_half_of_what_voice_needs(folder: Path) -> None:
    account = {"TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": "0" * 32}

    said = refused(folder, **account, TWILIO_API_KEY_SID="SK" + "0" * 32, DATABASE_URL="postgresql://x:y@127.0.0.1:1/z")

    assert said.endswith(
        "TWILIO_API_KEY_SID, TWILIO_API_KEY_SECRET and TWILIO_TWIML_APP_SID must be set together, or none of them"
    )


def test_half_a_bandwidth_account(folder: Path) -> None:
    said = refused(folder, BANDWIDTH_ACCOUNT_ID="9900000", BANDWIDTH_CLIENT_ID="CLI-1")

    assert "BANDWIDTH_CLIENT_SECRET, BANDWIDTH_CALLBACK_USERNAME" in said
    assert said.endswith("must be set together, or none of them")


@pytest.mark.parametrize(("name", "value"), [("TOKEN_URL", "api.bandwidth.com"), ("CLIENT_ID", "a:b")])
def test_bad_setting_of_a_bandwidth_account(folder: Path, name: str, value: str) -> None:
    said = refused(folder, BANDWIDTH_ACCOUNT_ID="9900000", **{f"BANDWIDTH_{name}": value})

    assert said.startswith(f"Error: BANDWIDTH_{name}: ")


def test_database_that_cannot_be_reached(folder: Path) -> None:
    said = refused(folder, DATABASE_URL="postgresql://someone:password@127.0.0.1:1/somewhere")

    assert said.startswith("Error: Cannot connect to the database: ")
    assert "password" not in said


def test_the_last_words_are_of_this_start(tmp_path: Path) -> None:
    log = tmp_path / "false.log"
    log.write_text("what an earlier one said\n")
    process = Process("test", ["/usr/bin/test", ""], log=log, folder=tmp_path)

    process.start()
    eventually(lambda: process.exit_code() is not None)

    assert process.exit_code() == 1
    assert process.last_log_line() == "it said nothing"
