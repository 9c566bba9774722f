import pytest

from server.db import Database
from tests.events.support import EventLog, make_bearer, relay_for


@pytest.fixture
def log(database_url: str, db: Database) -> EventLog:
    return EventLog(database_url, db, relay_for(database_url, db))


@pytest.fixture
async def bearer_id(db: Database) -> int:
    return await make_bearer(db)
