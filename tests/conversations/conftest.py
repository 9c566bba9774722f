"""What conversations send from."""

import pytest

from server.api import Api
from server.db import Database
from tests.factories import make_messaging_service


@pytest.fixture(autouse=True)
async def _service(api: Api, db: Database) -> None:
    await make_messaging_service(db)
