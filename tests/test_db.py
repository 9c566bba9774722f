"""The pool keeps its places, whatever becomes of a transaction."""

import asyncio
import logging
from collections.abc import AsyncIterator

import grpc
import pytest
import sqlalchemy.exc
from sqlalchemy import text

from server.db import Database
from server.rpc.errors import failure_of


@pytest.fixture
async def two(database_url: str) -> AsyncIterator[Database]:
    """A pool of two connections."""
    db = Database(database_url, max_size=2)
    await db.open()
    yield db
    await db.close()


async def test_transactions_whose_connection_breaks_cost_no_place(two: Database) -> None:
    for _ in range(4):
        with pytest.raises(sqlalchemy.exc.OperationalError):
            await _break_in_transaction(two)


async def test_transactions_that_are_cancelled_cost_no_place(two: Database) -> None:
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


async def test_statement_that_a_server_which_only_reads_refuses_is_to_be_tried_again(two: Database) -> None:
    with pytest.raises(sqlalchemy.exc.InternalError) as refused:
        await _run_in_transaction(two, "SET TRANSACTION READ ONLY", "CREATE TABLE written ()")

    assert _is_unavailable(refused.value)


@pytest.mark.parametrize("limit", ["transaction_timeout", "idle_in_transaction_session_timeout"])
async def test_transaction_that_the_server_ends_for_its_length_is_to_be_tried_again(two: Database, limit: str) -> None:
    with pytest.raises(sqlalchemy.exc.InternalError) as ended:
        await _run_in_transaction(two, f"SET LOCAL {limit} = 20", "SELECT pg_sleep(0.01)", "SELECT pg_sleep(5)")

    assert _is_unavailable(ended.value)


async def test_connection_tells_a_notice_once_however_often_it_was_lent(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sqlalchemy.dialects.postgresql")
    db = Database(database_url, max_size=1)
    await db.open()
    for _ in range(5):
        async with db.begin() as tx:
            await tx.execute(text("SELECT 1"))

    async with db.begin() as tx:
        await tx.execute(text("DO $$ BEGIN RAISE WARNING 'heard'; END $$"))
    await db.close()

    assert [record.getMessage() for record in caplog.records] == ["WARNING: heard"]


async def test_looking_for_broken_connections_ends_when_it_is_cancelled(two: Database) -> None:
    turns = 0
    while True:
        async with two.connection():
            pass
        looking = asyncio.create_task(two.drop_broken())
        for _ in range(turns):
            await asyncio.sleep(0)
        if looking.done():
            break
        looking.cancel()
        await asyncio.wait({looking})
        assert looking.cancelled(), f"went on after {turns} turns"
        turns += 1
    assert turns > 2


async def test_waiting_for_a_connection_ends_when_it_is_cancelled_as_there_is_one(database_url: str) -> None:
    db = Database(database_url, max_size=1)
    await db.open()
    try:
        for turns in range(30):
            waiting, given_back = await _held_up(db)
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            done, _ = await asyncio.wait({waiting}, timeout=10)
            assert done, f"went on after {turns} turns"
            assert waiting.cancelled()
            await given_back
    finally:
        await db.close()


async def _held_up(db: Database) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
    """Somebody who waits for the one connection, and keeps it; and who has it, and gives it back at this moment."""
    has_it, gives_back = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with db.connection():
            has_it.set()
            await gives_back.wait()

    async def wait() -> None:
        async with db.connection():
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await has_it.wait()
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    gives_back.set()
    return waiting, holding


def _is_unavailable(error: Exception) -> bool:
    failure = failure_of(error)
    return failure is not None and failure.code == grpc.StatusCode.UNAVAILABLE


async def _run_in_transaction(db: Database, *statements: str) -> None:
    async with db.begin() as tx:
        for statement in statements:
            await tx.execute(text(statement))
            await asyncio.sleep(0.1)


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
