"""An exchange of calls and the account's server, new for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.providers.sandbox_voice.engine import Engine, running_engine


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running_engine() as running:
        yield running
