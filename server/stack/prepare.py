"""`python -m server.stack.prepare TOKEN_FILE [twilio] [bandwidth]`: what a database needs once, run by the supervisor.

The names are those of the providers that the sandbox plays.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from server import commands
from server.config import Settings
from server.migrations import migrate
from server.providers.sandbox.settings import (
    BANDWIDTH_APPLICATION_ID,
    BANDWIDTH_NUMBERS,
    MESSAGING_SERVICE_SID,
    OWNED_NUMBERS,
)
from server.stack.folder import write_private


async def _fill(settings: Settings, *, played: Sequence[str], admin: bool) -> str | None:
    if "twilio" in played:
        await commands.seed_local(
            settings,
            name="local",
            provider="twilio",
            numbers=OWNED_NUMBERS,
            twilio_messaging_sid=MESSAGING_SERVICE_SID,
        )
    if "bandwidth" in played:
        await commands.seed_local(
            settings,
            name="local-bandwidth",
            provider="bandwidth",
            numbers=BANDWIDTH_NUMBERS,
            bandwidth_messaging_sid=BANDWIDTH_APPLICATION_ID,
        )
    return await commands.create_admin(settings, name="admin") if admin else None


def main(token_file: str, *played: str) -> None:
    """Migrate and seed; the token file is written last, so its presence says that all of it is done."""
    settings, token_path = Settings(), Path(token_file)
    migrate(settings.database_url.get_secret_value())
    token = asyncio.run(_fill(settings, played=played, admin=not token_path.exists()))
    if token is not None:
        write_private(token_path, token)


if __name__ == "__main__":
    main(*sys.argv[1:])
