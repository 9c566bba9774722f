"""`python -m server.stack.prepare TOKEN_FILE [seed]`: what a database needs once, run by the supervisor."""

import asyncio
import sys
from pathlib import Path

from server import app
from server.config import Settings
from server.migrations import migrate
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID, OWNED_NUMBERS
from server.stack.folder import write_private


async def _fill(settings: Settings, *, seed: bool, admin: bool) -> str | None:
    if seed:
        await app.seed_local(settings, numbers=OWNED_NUMBERS, twilio_messaging_sid=MESSAGING_SERVICE_SID)
    return await app.create_admin(settings, name="admin") if admin else None


def main(token_file: str, *rest: str) -> None:
    """Migrate and seed; the token file is written last, so its presence says that all of it is done."""
    settings, token_path = Settings(), Path(token_file)
    migrate(settings.database_url.get_secret_value())
    token = asyncio.run(_fill(settings, seed="seed" in rest, admin=not token_path.exists()))
    if token is not None:
        write_private(token_path, token)


if __name__ == "__main__":
    main(*sys.argv[1:])
