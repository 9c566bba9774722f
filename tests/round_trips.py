"""How often PostgreSQL is waited for, by libpq's own account of what goes over a connection."""

import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Any

from server.db import Database


@dataclass(frozen=True)
class Trace:
    """What went over the connection, message by message."""

    text: str

    @property
    def round_trips(self) -> int:
        """How often the server was waited for, BEGIN and COMMIT included."""
        return self.text.count("\tReadyForQuery\t")


@dataclass(frozen=True)
class Traced:
    """A database of one connection, of which all can be seen."""

    db: Database
    _file: IO[bytes]

    async def during(self, act: Awaitable[Any]) -> Trace:
        """All that an act sends and is answered."""
        async with self.db.connection() as connection:
            # Else each statement's fifth time would cost another, which prepares it.
            connection.prepare_threshold = None
            self._file.truncate(0)
            connection.pgconn.trace(self._file.fileno())
        try:
            await act
        finally:
            async with self.db.connection() as connection:
                connection.pgconn.untrace()
        self._file.seek(0)
        return Trace(self._file.read().decode(errors="replace"))


@asynccontextmanager
async def traced(database_url: str) -> AsyncIterator[Traced]:
    """The database, on a connection that is set up already."""
    db = Database(database_url, max_size=1)
    await db.open()
    async with db.begin():
        pass
    # Appended to, for libpq writes on where it was.
    with tempfile.TemporaryFile("a+b") as file:
        yield Traced(db, file)
    await db.close()
