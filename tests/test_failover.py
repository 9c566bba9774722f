"""Processes whose database only reads for a while, as a server does that is yet to be promoted."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import LiteralString

import grpc
import grpc.aio
import orjson
import psycopg
import pytest
from commonservices.v1 import api_key_service_pb2 as pb
from pydantic import SecretStr

from server.api import running_api
from server.caller import BearerType
from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from server.migrations import migrate
from server.stack.postgres import LocalPostgres
from tests.clients import Client, make_client, refused
from tests.conftest import make_postgres
from tests.events.support import an_event, append

ROOT = Path(__file__).parent.parent

# Where a server finds this when it starts, it follows others, and takes no writes, until it is promoted.
_STAND_BY = b"COPY (SELECT) TO PROGRAM 'cat > standby.signal'"
_LAST_USED_AT = "SELECT max(last_used_at) FROM api_keys"
_CONNECTED = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'failing')"
_DISCONNECTED = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'failing')"
_POSITION = "SELECT max(position) FROM events"


class Server:
    """A PostgreSQL of the test's own."""

    def __init__(self, postgres: LocalPostgres, db: Database) -> None:
        self.db = db
        self._postgres = postgres

    @property
    def database_url(self) -> str:
        """Where it is, whatever it does now."""
        return self._postgres.database_url

    async def stand_by(self) -> None:
        """Start again as a server that only reads."""
        async with self.db.connection() as connection:
            await connection.execute(_STAND_BY)
        self._postgres.stop()
        self._postgres.start()
        assert await self.answers("SELECT pg_is_in_recovery()") is True

    async def promote(self) -> None:
        """Take writes again."""
        assert await self.answers("SELECT pg_promote()") is True

    async def answers(self, query: LiteralString) -> object:
        """The one value of a statement, on a connection that knows no other state of the server."""
        async with await psycopg.AsyncConnection.connect(self.database_url, autocommit=True) as connection:
            row = await (await connection.execute(query)).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    postgres = make_postgres(tmp_path_factory)
    with postgres as url:
        migrate(url)
        db = Database(url, max_size=4)
        await db.open()
        yield Server(postgres, db)
        await db.close()


@pytest.fixture
def own_settings(settings: Settings, server: Server, tmp_path: Path) -> Settings:
    """Of processes on that server."""
    url = SecretStr(server.database_url)
    return settings.model_copy(update={"database_url": url, "storage_url": (tmp_path / "files").as_uri()})


@asynccontextmanager
async def calling(settings: Settings, db: Database, cipher: Cipher) -> AsyncIterator[Client]:
    """An Application's client of an API with these settings."""
    async with (
        running_api(settings, listen="127.0.0.1:0") as api,
        grpc.aio.insecure_channel(f"127.0.0.1:{api.port}") as channel,
    ):
        yield await make_client(channel, db, cipher, bearer_type=BearerType.APPLICATION, callback_url=None)


@asynccontextmanager
async def working(settings: Settings, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m server worker` with these settings."""
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
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", "worker"), cwd=ROOT, env=environment, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110 only PostgreSQL knows
            await asyncio.sleep(0.05)


async def fail(settings: Settings, *, when: Callable[[], Awaitable[object]]) -> None:
    """End an API by an error."""
    async with running_api(settings, listen="127.0.0.1:0"):
        await until(when)
        raise ZeroDivisionError


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    """What became of a call."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_api_reads_and_refuses_writes_until_the_server_takes_them(
    server: Server, own_settings: Settings, cipher: Cipher
) -> None:
    async with calling(own_settings, server.db, cipher) as client:

        async def is_listed() -> bool:
            asked = client.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=client.metadata)
            return await code_of(asked) == grpc.StatusCode.OK

        await server.stand_by()
        await until(is_listed)
        refusal = await refused(client.api_keys.CreateApiKey(pb.CreateApiKeyRequest(), metadata=client.metadata))
        # Meanwhile the key's use is to be written down, and the process to listen.
        await asyncio.sleep(2)
        await server.promote()
        await client.api_keys.CreateApiKey(pb.CreateApiKeyRequest(), metadata=client.metadata)
        await until(lambda: server.answers(_LAST_USED_AT))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


async def test_api_that_fails_leaves_no_connection(server: Server, own_settings: Settings) -> None:
    url = SecretStr(f"{server.database_url}?application_name=failing")
    failing = own_settings.model_copy(update={"database_url": url})

    with pytest.raises(ExceptionGroup):
        await fail(failing, when=lambda: server.answers(_CONNECTED))

    await until(lambda: server.answers(_DISCONNECTED))


async def test_worker_waits_until_the_server_takes_writes(
    server: Server, own_settings: Settings, cipher: Cipher, tmp_path: Path
) -> None:
    async with calling(own_settings, server.db, cipher) as client, server.db.connection() as connection:
        await append(connection, an_event(client.bearer_id))
    await server.stand_by()
    log = tmp_path / "worker.log"

    def failed() -> set[str]:
        lines = [orjson.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        return {line.get("step", line["event"]) for line in lines}

    async def everything_has_failed() -> bool:
        assert process.returncode is None, log.read_text()
        return failed() >= {"notifications.disconnected", "relay.failed", "forget_request_ids"}

    async with working(own_settings, log) as process:
        await until(everything_has_failed)
        await server.promote()
        await until(lambda: server.answers(_POSITION))
        process.terminate()
        code = await process.wait()

    assert code == 0
