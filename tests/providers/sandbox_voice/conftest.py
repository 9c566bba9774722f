"""An exchange of calls or a whole sandbox, and the account's server, new for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.providers.sandbox_voice.account import Account, running_account, voice_app
from tests.providers.sandbox_voice.engine import Engine, running_engine
from tests.providers.servers import Sandbox, running_sandbox


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running_engine() as running:
        yield running


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    async with running_account() as running:
        yield running


@pytest.fixture
async def sandbox(account: Account) -> AsyncIterator[Sandbox]:
    """One whose numbers and browsers ask the account at `/voice` and `/app`."""
    async with running_sandbox(
        voice_url=account.url("/voice"),
        voice_status_url=account.url("/status"),
        voice_app=voice_app(account),
        voicebase_token="voicebase-token",
    ) as running:
        yield running
