"""What commands share: shapes of options, and the way to a running sandbox."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from server.providers.sandbox.client import SandboxClient

ClientKind = TypeVar("ClientKind", bound="SandboxClient")

HOST_PORT = "HOST:PORT"
PATH = click.Path(path_type=Path)


def where(command: click.decorators.FC) -> click.decorators.FC:
    """The two ways of finding a running sandbox."""
    by_url = click.option("--sandbox", "url", metavar="URL", help="Default: the one that `run` has started.")
    by_folder = click.option(
        "--data-dir", type=PATH, default=".data", envvar="COMMON_SERVICES_DATA_DIR", show_default=True, show_envvar=True
    )
    return by_url(by_folder(command))


def sandbox_client(kind: "type[ClientKind]", url: str | None, data_dir: Path) -> "ClientKind":
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


def phone_number(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The number as the API reads it."""
    from server.validation import e164

    if value is None:
        return None
    number = e164(value)
    if number is None:
        raise click.BadParameter("It is not a possible phone number; give E.164, such as +12065550100.")
    return number
