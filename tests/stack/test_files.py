"""The files that describe a deployment say what the code says."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from server.__main__ import main
from server.config import LocalSettings, Settings
from tests.stack.running import ROOT

COMPOSE = ROOT / "docker-compose.yml"
# docker compose's own: it becomes part of DATABASE_URL.
COMPOSE_ONLY = {"POSTGRES_PASSWORD"}
# What an S3 client takes from its environment, passed on where it is set.
OF_A_BUCKET = {
    f"AWS_{name}" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "ENDPOINT_URL")
}


def _example_settings() -> list[str]:
    return re.findall(r"^(?:# )?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)


def _services() -> dict[str, Any]:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert isinstance(services, dict)
    return services


def _composer() -> list[str] | None:
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    standalone = shutil.which("docker-compose")
    return [standalone] if standalone else None


def test_env_example_has_every_setting_once() -> None:
    fields = {name.upper() for settings in (Settings, LocalSettings) for name in settings.model_fields}

    named = _example_settings()

    assert sorted(named) == sorted(fields | COMPOSE_ONLY)


def test_compose_sets_only_settings_and_lets_all_be_set() -> None:
    for name in ("migrate", "api", "worker"):
        assert set(_services()[name]["environment"]) == {field.upper() for field in Settings.model_fields} | OF_A_BUCKET


@pytest.mark.parametrize("name", [name for name, service in _services().items() if "build" in service])
def test_compose_commands_are_commands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in _services()[name].get("environment", {}):
        monkeypatch.setenv(setting, "made-up")
    command: click.Command = main
    arguments = list(_services()[name]["command"])
    while isinstance(command, click.Group):
        found, subcommand, arguments = command.resolve_command(click.Context(command), arguments)
        assert found is not None
        assert subcommand is not None
        command = subcommand

    command.make_context(command.name, arguments).close()


def test_compose_publishes_envoy_on_loopback_and_nothing_else() -> None:
    published = {name: service["ports"] for name, service in _services().items() if "ports" in service}

    assert published == {"envoy": ["127.0.0.1:${COMMON_SERVICES_PORT:-8080}:8080"]}


@pytest.mark.skipif(_composer() is None, reason="neither `docker compose` nor docker-compose is installed")
def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    required = ("POSTGRES_PASSWORD", "ENCRYPTION_KEYS", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN")
    (tmp_path / ".env").write_text("".join(f"{name}=made-up\n" for name in required))
    composer = _composer()
    assert composer is not None

    done = subprocess.run(
        [*composer, "--file", COMPOSE, "--env-file", tmp_path / ".env", "config", "--quiet"],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
