"""Workers that are cut off at a moment with a name: whoever counts turns of the event loop reaches none for sure."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from psycopg.rows import scalar_row

from server.db import Database
from server.storage import FolderStorage, UrlSigner
from tests.messages.support import until

# While somebody else is asked, once the file is stored, and while the transaction that records it is open.
ASKING, STORED, RECORDING = "asking", "stored", "recording"

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class CutOffStorage(FolderStorage):
    """A folder that stores files; where the moment is then, it never says that it has."""

    def __init__(self, folder: Path, signer: UrlSigner, moment: str) -> None:
        super().__init__(folder, signer)
        self.stored = asyncio.Event()
        self._moment = moment

    async def put(self, key: str, data: bytes) -> None:
        """Store a file."""
        await super().put(key, data)
        await self._say_so()

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store a file."""
        await super().put_stream(key, chunks)
        await self._say_so()

    async def _say_so(self) -> None:
        self.stored.set()
        if self._moment == STORED:
            await asyncio.Event().wait()


async def cut_off(
    moment: str,
    step: Coroutine[Any, Any, bool],
    *,
    db: Database,
    table: str,
    asked: Callable[[], bool],
    gate: asyncio.Event,
    stored: asyncio.Event | None = None,
) -> None:
    """Have a worker's step cancelled at a moment.

    Whoever is `asked` answers while the gate is open. What the step records changes a row of the table.
    """
    gate.clear()
    task = asyncio.create_task(step)
    await until(asked)
    async with _held(db, table) if moment == RECORDING else nullcontext():
        if moment != ASKING:
            gate.set()
        if moment == STORED:
            assert stored is not None, "the step stores something"
            async with asyncio.timeout(30):
                await stored.wait()
        if moment == RECORDING:
            await until(lambda: db.fetch_one(_WAITING, {}, scalar_row))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    gate.set()
    assert task.cancelled()


@asynccontextmanager
async def _held(db: Database, table: str) -> AsyncIterator[None]:
    """While the block lasts, whoever changes a row of a table waits."""
    async with db.connection() as connection, connection.transaction():
        await connection.execute(f"SELECT FROM {table} FOR UPDATE".encode())
        yield
