"""`python -m server sandbox`: the local carrier, and what phones do with it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli.options import HOST_PORT, PATH, phone_number, sandbox_client, where
from server.cli.sandbox_video import video

if TYPE_CHECKING:
    from server.providers.sandbox.settings import BandwidthAccount, ZoomAccount


@click.group()
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


@sandbox.command()
@click.option("--from", "from_", required=True, metavar="PHONE", callback=phone_number)
@click.option("--to", required=True, metavar="NUMBER", callback=phone_number, help="One of the account's numbers.")
@click.option("--media", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.argument("text", default="")
@where
def text(from_: str, to: str, media: tuple[Path, ...], text: str, url: str | None, data_dir: Path) -> None:
    """Send TEXT from a phone to one of our numbers, as a parent would."""
    from server.providers.sandbox.client import SandboxClient, SandboxError, text_failure, text_lines

    if not text and not media:
        raise click.UsageError("A text, or --media, is needed.")
    try:
        sent = sandbox_client(SandboxClient, url, data_dir).text(from_=from_, to=to, body=text, media=media)
    except SandboxError as error:
        raise click.ClickException(str(error)) from error
    for line in text_lines(sent):
        click.echo(line)
    failure = text_failure(sent)
    if failure is not None:
        raise click.ClickException(failure)


@sandbox.command()
@click.argument("phone", required=False, callback=phone_number)
@click.option("--follow", is_flag=True, help="Keep printing messages as they come to their end.")
@where
def inbox(phone: str | None, follow: bool, url: str | None, data_dir: Path) -> None:
    """Print what phones, or PHONE, have received and sent, newest last."""
    from server.providers.sandbox.client import SandboxClient, SandboxError, inbox_line

    client = sandbox_client(SandboxClient, url, data_dir)
    try:
        for message in client.follow(phone=phone) if follow else client.messages(phone=phone):
            click.echo(inbox_line(message))
    except SandboxError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        # How --follow is meant to end.
        return


sandbox.add_command(video)
