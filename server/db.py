"""PostgreSQL: one pool of psycopg connections for a process.

Hot statements run on the psycopg connection itself, in autocommit, one round trip each; everything else goes through
SQLAlchemy sessions on connections borrowed from the same pool. The notes of the measurements behind this are in
`docs/decisions/0002-one-pool-two-ways.md`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from typing import Any, ClassVar, TypeVar, cast

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.errors import Diagnostic, IdleInTransactionSessionTimeout, ReadOnlySqlTransaction, TransactionTimeout
from psycopg.rows import BaseRowFactory, TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests
from sqlalchemy import BigInteger, DateTime, MetaData, NullPool
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeEngine

Row = TypeVar("Row")
Parameters = Mapping[str, object]

# How long a request waits for a connection before it answers UNAVAILABLE.
_POOL_TIMEOUT_SECONDS = 5.0

# What a database that is down, restarting, out of connections or only to be read from raises; other errors of
# statements are faults of ours. psycopg counts as internal errors that a server follows another for a while, and that
# one is told to end transactions which take too long.
DATABASE_DOWN = (
    psycopg.OperationalError,
    ReadOnlySqlTransaction,
    IdleInTransactionSessionTimeout,
    TransactionTimeout,
    PoolTimeout,
    PoolClosed,
    TooManyRequests,
)


class Base(DeclarativeBase):
    """The tables' common metadata: names of constraints are part of the schema, and every time has its zone."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[type, TypeEngine[Any]]] = {
        datetime: DateTime(timezone=True),
        # The API's ids are uint32: one that is too large for a column would be a fault instead of not found.
        int: BigInteger(),
    }


class _Connection(AsyncConnection[TupleRow]):
    """One that SQLAlchemy cannot close while it has it: whatever became of it, `Database.begin` gives it back.

    The pool does not notice how SQLAlchemy ends a connection that is broken or whose statement was cancelled, and each
    would cost it a place for good.
    """

    is_lent = False

    async def close(self) -> None:
        if not self.is_lent:
            await super().close()

    def add_notice_handler(self, callback: Callable[[Diagnostic], None]) -> None:
        """Once each: SQLAlchemy, to whom every connection that it borrows is a new one, brings its own every time."""
        with suppress(ValueError):
            self.remove_notice_handler(callback)
        super().add_notice_handler(callback)


# The connection that the session being opened is to use.
_lent: ContextVar[_Connection] = ContextVar("lent")


async def _borrow() -> _Connection:
    return _lent.get()


class Database:
    """The pool. `open` it inside the running loop; it connects in the background and outlives a server's restart."""

    def __init__(self, url: str, *, max_size: int) -> None:
        self._pool = AsyncConnectionPool(
            conninfo=url,
            connection_class=_Connection,
            min_size=min(2, max_size),
            max_size=max_size,
            timeout=_POOL_TIMEOUT_SECONDS,
            reconnect_timeout=60.0,
            kwargs={"autocommit": True},
            reset=_back_to_autocommit,
            open=False,
        )
        self._engine = create_async_engine(
            "postgresql+psycopg://",
            poolclass=NullPool,
            async_creator=_borrow,
            pool_reset_on_return=None,
            # An error's text is logged: numbers and secrets are among the parameters.
            hide_parameters=True,
        )
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)

    async def open(self) -> None:
        """Start the pool without waiting for a connection: a database that is down is a 503, not a crash."""
        await self._pool.open(wait=False)

    async def drop_broken(self) -> None:
        """Replace the pool's connections that do not answer, so that no request has to find out."""
        # In a task of its own: `check` takes a cancellation for a broken connection and goes on, and its caller, who
        # was to end, with it.
        check = asyncio.create_task(self._pool.check())
        await asyncio.wait({check})
        await check

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
        await self._pool.close()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """One transaction in an ORM session; it commits when the block ends and rolls back when it raises."""
        async with self._connection() as connection:
            await connection.set_autocommit(False)
            connection.is_lent = True
            try:
                async with self._sessions.begin() as tx:
                    _lent.set(connection)
                    await tx.connection()
                    yield tx
            finally:
                connection.is_lent = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """A bare psycopg connection in autocommit."""
        async with self._connection() as connection:
            yield connection

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        """One of the pool's. The pool waits for it by asyncio.wait_for, which before Python 3.12 forgets a cancellation
        that comes at the moment at which there is one: whoever was to end would go on."""
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        cancelled_before = task.cancelling()
        async with self._pool.connection() as connection:
            if task.cancelling() > cancelled_before:
                raise asyncio.CancelledError
            yield connection

    async def fetch_one(self, query: str, parameters: Parameters, row: BaseRowFactory[Row]) -> Row | None:
        """Run one statement as its own transaction and answer its first row."""
        async with self._connection() as connection, connection.cursor(row_factory=row) as cursor:
            await cursor.execute(_trusted(query), parameters)
            return await cursor.fetchone()

    async def fetch_all(self, query: str, parameters: Parameters, row: BaseRowFactory[Row]) -> list[Row]:
        """Run one statement as its own transaction and answer all its rows."""
        async with self._connection() as connection, connection.cursor(row_factory=row) as cursor:
            await cursor.execute(_trusted(query), parameters)
            return await cursor.fetchall()

    async def execute(self, query: str, parameters: Parameters | Sequence[object] = ()) -> int:
        """Run one statement as its own transaction and answer how many rows it touched."""
        async with self._connection() as connection:
            cursor = await connection.execute(_trusted(query), parameters)
            return cursor.rowcount


async def fetch_one(
    connection: AsyncConnection[TupleRow], query: str, parameters: Parameters, row: BaseRowFactory[Row]
) -> Row | None:
    """Run one statement in whatever transaction the connection is, and answer its first row."""
    async with connection.cursor(row_factory=row) as cursor:
        await cursor.execute(_trusted(query), parameters)
        return await cursor.fetchone()


async def driver_connection(tx: AsyncSession) -> AsyncConnection[TupleRow]:
    """The psycopg connection under a session, inside its transaction, for statements that are also used without one."""
    raw = await (await tx.connection()).get_raw_connection()
    connection = raw.driver_connection
    assert isinstance(connection, AsyncConnection)
    return connection


async def _back_to_autocommit(connection: AsyncConnection[TupleRow]) -> None:
    await connection.set_autocommit(True)


def _trusted(query: str) -> sql.SQL:
    """Statements are our own constants, assembled at import; values are always parameters."""
    return sql.SQL(cast("Any", query))


def violated_constraint(error: BaseException) -> str | None:
    """The name of the constraint behind an IntegrityError of psycopg or SQLAlchemy."""
    cause = getattr(error, "orig", error)
    return cause.diag.constraint_name if isinstance(cause, psycopg.IntegrityError) else None
