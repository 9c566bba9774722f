"""`python -m server sandbox call`, `calls`, `phone` and `browser`: people on phones, and in browsers."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli.options import phone_number, sandbox_client, where

if TYPE_CHECKING:
    from server.providers.sandbox.client import Json
    from server.providers.sandbox.voice_client import CallClient


@click.command()
@click.option("--from", "from_", required=True, metavar="PHONE", callback=phone_number)
@click.option("--to", required=True, metavar="NUMBER", callback=phone_number, help="One of the account's numbers.")
@where
def call(from_: str, to: str, url: str | None, data_dir: Path) -> None:
    """Call one of our numbers from a phone, as a parent would: hear what is said, press keys, speak, hang up."""
    _talk(url, data_dir, lambda client: client.call(from_=from_, to=to))


@click.group()
def browser() -> None:
    """Browsers of staff, which call and are called with an access token, the `token` of a voice token."""


@browser.command("call")
@click.option("--token", required=True)
@where
def browser_call(token: str, url: str | None, data_dir: Path) -> None:
    """Call out: whom, the token says."""
    _talk(url, data_dir, lambda client: client.connect(token=token))


@browser.command()
@click.option("--token", required=True)
@click.option("--hangs-up-after", type=click.FloatRange(0, 3600), metavar="SECONDS", help="Default: never.")
@click.option("--pickup", type=click.Choice(["human", "no-answer", "busy"]))
@where
def register(token: str, hangs_up_after: float | None, pickup: str | None, url: str | None, data_dir: Path) -> None:
    """Be there to be called, and answer; again is another behaviour."""
    from server.providers.sandbox.client import SandboxError
    from server.providers.sandbox.voice_client import CallClient, phone_line

    try:
        client = sandbox_client(CallClient, url, data_dir)
        registered = client.register(token=token, pickup=pickup, hangs_up_after_ms=_ms(hangs_up_after))
    except SandboxError as error:
        raise click.ClickException(str(error)) from error
    click.echo(phone_line(f"client:{registered['identity']}", registered))


def _talk(url: str | None, data_dir: Path, begin: "Callable[[CallClient], Json]") -> None:
    """Take part in a call until it ends."""
    from server.providers.sandbox.client import POLL_SECONDS, SandboxError
    from server.providers.sandbox.voice_client import HELP, CallClient, Talk, people

    client = sandbox_client(CallClient, url, data_dir)
    try:
        made = begin(client)
        click.echo(f"{made['sid']}  {people(made)}")
        click.echo(HELP)
        talk = Talk(client, made)
        lines = _lines(seconds=POLL_SECONDS)
        try:
            while not talk.is_over:
                for line in talk.news():
                    click.echo(line)
                if (answer := talk.typed(next(lines))) is not None:
                    click.echo(answer)
        except KeyboardInterrupt:
            talk.hang_up()
            for line in talk.news():
                click.echo(line)
            return
        failure = talk.failure()
    except SandboxError as error:
        raise click.ClickException(str(error)) from error
    if failure is not None:
        raise click.ClickException(failure)


@click.command()
@where
def calls(url: str | None, data_dir: Path) -> None:
    """Print every call, newest last."""
    from server.providers.sandbox.client import SandboxError
    from server.providers.sandbox.voice_client import CallClient, call_line

    try:
        for each in sandbox_client(CallClient, url, data_dir).calls():
            click.echo(call_line(each))
    except SandboxError as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.argument("number", callback=phone_number)
@click.option("--pickup", type=click.Choice(["human", "machine", "no-answer", "busy", "unreachable"]))
@click.option("--answers-after", type=click.FloatRange(0, 3600), metavar="SECONDS", help="Of ringing. Default: 0.")
@click.option("--hangs-up-after", type=click.FloatRange(0, 3600), metavar="SECONDS", help="Default: never.")
@click.option(
    "--presses", multiple=True, metavar="KEYS", help="In the next menu; may be given again, for the ones after."
)
@click.option("--says", multiple=True, metavar="TEXT", help="To the next recording; may be given again.")
@where
def phone(
    number: str,
    pickup: str | None,
    answers_after: float | None,
    hangs_up_after: float | None,
    presses: tuple[str, ...],
    says: tuple[str, ...],
    url: str | None,
    data_dir: Path,
) -> None:
    """Say how the phone NUMBER behaves when it is called; without options a person answers, as usual."""
    from server.providers.sandbox.client import SandboxError
    from server.providers.sandbox.voice_client import CallClient, phone_line

    try:
        behaviour = sandbox_client(CallClient, url, data_dir).set_phone(
            number,
            pickup=pickup,
            answers_after_ms=_ms(answers_after),
            hangs_up_after_ms=_ms(hangs_up_after),
            presses=list(presses) or None,
            says=list(says) or None,
        )
    except SandboxError as error:
        raise click.ClickException(str(error)) from error
    click.echo(phone_line(number, behaviour))


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _lines(*, seconds: float) -> Iterator[str]:
    """What is typed, line by line; an empty one whenever nothing was for so long. Where the input ends is `hangup`.

    Not by a thread that reads: one that still waits for a line would hold the process back at its end.
    """
    typed = b""
    while True:
        line, newline, rest = typed.partition(b"\n")
        if newline:
            typed = rest
            yield line.decode(errors="replace")
        elif not select.select([sys.stdin], [], [], seconds)[0]:
            yield ""
        elif read := os.read(sys.stdin.fileno(), 4096):
            typed += read
        else:
            break
    yield "hangup"
    while True:
        time.sleep(seconds)
        yield ""
