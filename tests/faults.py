"""Faults that nobody foresaw, and what a database raises that is away."""

from collections.abc import AsyncIterator

import psycopg
import sqlalchemy.exc

from server.storage import FolderStorage

DATABASE_AWAY = (
    psycopg.OperationalError("the connection is lost"),
    sqlalchemy.exc.OperationalError("UPDATE", None, psycopg.OperationalError("the connection is lost")),
)


class FaultyStorage(FolderStorage):
    """One that fails while it stores, in the way it is told to."""

    fault: Exception = RuntimeError("nobody foresaw this")

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        raise self.fault
