"""Reconciling as processes do it: the command, and a worker."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.config import Settings
from server.db import Database
from server.messages.send import SendWorker
from tests.clients import Client
from tests.messages.reconciling import (
    fetches,
    make_checks_due,
    silent_messages,
    told,
)
from tests.messages.support import row_of, until
from tests.providers.servers import Sandbox, closed_port_url

ROOT = Path(__file__).parents[2]


async def test_command_settles_what_is_due_and_prints_it(
    client: Client, db: Database, carrier: Sandbox, live: Settings, worker: SendWorker
) -> None:
    await silent_messages(client, worker, carrier, "a", "b", "[sandbox:undelivered=30003]")
    await make_checks_due(db)
    [later] = await silent_messages(client, worker, carrier, "later")

    first = await run_server(live, "reconcile")
    waiting = await row_of(db, later)
    second = await run_server(live, "reconcile", "--all-older-than", "0")

    assert first == (
        0,
        [
            "checked  status     outcome  messages",
            "twilio   delivered  news     2",
            "twilio   failed     news     1",
            "",
            "still open  status      messages",
            "twilio      processing  1",
        ],
    )
    assert waiting.internal_status == "processing"
    assert second == (
        0,
        ["checked  status     outcome  messages", "twilio   delivered  news     1", "", "still open  status  messages"],
    )
    assert (await row_of(db, later)).internal_status == "delivered"
    assert await told(db, later) == ["pending", "processing", "delivered"]


async def test_command_leaves_alone_what_has_newer_news(
    client: Client, db: Database, carrier: Sandbox, live: Settings, worker: SendWorker
) -> None:
    await silent_messages(client, worker, carrier, "")

    code, lines = await run_server(live, "reconcile", "--all-older-than", "3600")

    assert (code, lines[0]) == (0, "checked  status  outcome  messages")
    assert await fetches(carrier) == 0


async def test_command_fails_where_a_provider_cannot_be_reached(
    client: Client, db: Database, carrier: Sandbox, live: Settings, worker: SendWorker
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    down = live.model_copy(update={"twilio_api_base_url": closed_port_url()})

    code, lines = await run_server(down, "reconcile", "--all-older-than", "0")

    assert code == 1
    assert "twilio   processing  unavailable  1" in lines
    assert (await row_of(db, message)).internal_status == "processing"


async def test_worker_process_reconciles_and_looks_line_types_up(
    client: Client, db: Database, carrier: Sandbox, live: Settings, worker: SendWorker
) -> None:
    [message] = await silent_messages(client, worker, carrier, "")
    await make_checks_due(db)

    async def settled() -> bool:
        row = await row_of(db, message)
        return (row.internal_status, row.phone_number_type) == ("delivered", "mobile")

    async with server_process(live, "worker") as process:
        await until(settled)
        process.terminate()
        assert await process.wait() == 0


@asynccontextmanager
async def server_process(settings: Settings, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m server …` with these settings."""
    environment = {
        **os.environ,
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "PUBLIC_BASE_URL": settings.public_base_url,
        "ENCRYPTION_KEYS": ",".join(key.get_secret_value() for key in settings.encryption_keys),
        "TWILIO_ACCOUNT_SID": settings.twilio_account_sid,
        "TWILIO_AUTH_TOKEN": settings.twilio_auth_token.get_secret_value(),
        "TWILIO_API_BASE_URL": str(settings.twilio_api_base_url),
        "STORAGE_URL": settings.storage_url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", *arguments),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def run_server(settings: Settings, *arguments: str) -> tuple[int | None, list[str]]:
    """The exit code of a command, and the lines it prints."""
    async with server_process(settings, *arguments) as process:
        output, _ = await process.communicate()
    return process.returncode, output.decode().splitlines()
