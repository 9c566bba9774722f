"""What a log line tells, and what it does not."""

from typing import Any

import orjson
import pytest
import sqlalchemy.exc
from sqlalchemy import text

from server.db import Database
from server.process import LOG_PROCESSORS


def fail_with(password: str) -> None:
    raise ValueError(f"{len(password)} characters")


def test_traceback_names_the_place_and_no_values() -> None:
    event: Any = {"event": "something.failed"}
    try:
        fail_with("a secret")
    except ValueError as error:
        event["exc_info"] = error

    for processor in LOG_PROCESSORS:
        event = processor(None, "error", event)

    assert b"a secret" not in event
    assert b"fail_with" in event
    assert orjson.loads(event)["level"] == "error"


async def test_failed_statement_tells_no_parameters(db: Database) -> None:
    with pytest.raises(sqlalchemy.exc.DBAPIError) as failed:
        async with db.begin() as tx:
            await tx.execute(text("SELECT 1 / :zero, :secret"), {"zero": 0, "secret": "a secret"})

    assert "a secret" not in str(failed.value)
