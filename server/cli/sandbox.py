"""`python -m server sandbox`: the local carrier, and what phones do with it."""

from pathlib import Path

import click

from server.cli.options import phone_number, sandbox_client, where
from server.cli.sandbox_calls import browser, call, calls, phone
from server.cli.sandbox_serve import serve
from server.cli.sandbox_video import video


@click.group()
def sandbox() -> None:
    """The local carrier."""


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


for command in (serve, browser, call, calls, phone, video):
    sandbox.add_command(command)
