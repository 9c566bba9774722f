"""The pool keeps its places, whatever becomes of a transaction."""

import asyncio

import pytest
import sqlalchemy.exc
from sqlalchemy import text

from server.db import Database


@pytest.fixture
async def two(database_url: str) -> Database:
    """A pool of two connections."""
    return Database(database_url, max_size=2)


async def test_transactions_whose_connection_breaks_cost_no_place(two: Database) -> None:
    await two.open()

    for _ in range(4):
        with pytest.raises(sqlalchemy.exc.OperationalError):
            await _break_in_transaction(two)

    await two.close()


async def test_transactions_that_are_cancelled_cost_no_place(two: Database) -> None:
    await two.open()

    for _ in range(4):
        begun = asyncio.Event()
        sleeping = asyncio.create_task(_sleep_in_transaction(two, begun))
        await begun.wait()
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
    async with two.begin() as tx, two.connection() as connection:
        assert await tx.scalar(text("SELECT 1")) == 1
        assert connection.autocommit

    await two.close()


async def _sleep_in_transaction(db: Database, begun: asyncio.Event) -> None:
    async with db.begin() as tx:
        await tx.execute(text("SELECT 1"))
        asyncio.get_running_loop().call_soon(begun.set)
        await tx.execute(text("SELECT pg_sleep(60)"))


async def _break_in_transaction(db: Database) -> None:
    async with db.begin() as tx:
        pid = await tx.scalar(text("SELECT pg_backend_pid()"))
        async with db.connection() as connection:
            await connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        await tx.execute(text("SELECT 1"))
