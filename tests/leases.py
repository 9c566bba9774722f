"""Leases of workers that are under way."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from tests.messages.support import until

# Long enough for a renewal that comes seconds late; it is due when a third of this is over.
LEASE = timedelta(seconds=6)


async def until_renewed(rows: Callable[[], Awaitable[list[dict[str, Any]]]]) -> None:
    """Wait until the lease of the one row that there is was renewed, and see that it had not run out before."""
    [before] = await rows()

    async def is_renewed() -> bool:
        [row] = await rows()
        return bool(row["due_at"] > before["due_at"])

    await until(is_renewed)
    [after] = await rows()
    assert after["due_at"] - before["due_at"] < LEASE
