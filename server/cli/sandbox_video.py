"""`python -m server sandbox video`: people in sessions of Zoom's Video SDK."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli.options import sandbox_client, where

if TYPE_CHECKING:
    from server.providers.sandbox.client import Json
    from server.providers.sandbox.zoom_client import VideoClient


@click.group()
def video() -> None:
    """People in sessions of Zoom's Video SDK. Where one alone could be meant, SESSION and USER may be left out."""


def _act(url: str | None, data_dir: Path, act: "Callable[[VideoClient], Json]", *, did: str) -> None:
    """Have somebody do something, and print what came of it."""
    from server.providers.sandbox.client import SandboxError
    from server.providers.sandbox.zoom_client import VideoClient, act_failure, act_lines

    try:
        done = act(sandbox_client(VideoClient, url, data_dir))
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
@where
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
@where
def leave(user: str | None, url: str | None, data_dir: Path) -> None:
    """Leave as USER, an id or a name; the last who leaves ends the session."""
    _act(url, data_dir, lambda client: client.leave(user=user), did="left")


@video.command()
@click.argument("session", required=False)
@where
def end(session: str | None, url: str | None, data_dir: Path) -> None:
    """End SESSION, an id or a name, for everybody in it, as a host does."""
    _act(url, data_dir, lambda client: client.end(session=session), did="ended")


@video.command()
@click.argument("act", type=click.Choice(["start", "pause", "resume", "stop"]))
@click.argument("session", required=False)
@where
def record(act: str, session: str | None, url: str | None, data_dir: Path) -> None:
    """Record SESSION, an id or a name, as a host does; its files come when it has ended."""
    did = {"start": "started", "pause": "paused", "resume": "resumed", "stop": "stopped"}[act]
    _act(url, data_dir, lambda client: client.record(act=act, session=session), did=f"{did} the recording of")


@video.command()
@where
def sessions(url: str | None, data_dir: Path) -> None:
    """Print every session, who is or was in it, and what was recorded, newest last."""
    from server.providers.sandbox.client import SandboxError
    from server.providers.sandbox.zoom_client import VideoClient, session_lines

    try:
        for session in sandbox_client(VideoClient, url, data_dir).sessions():
            for line in session_lines(session):
                click.echo(line)
    except SandboxError as error:
        raise click.ClickException(str(error)) from error
