"""A carrier's account with two messaging services, and what synchronises our numbers with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.db import Database
from server.numbers.sync import NumberSync
from tests.messages.wire import Wire, running_wire
from tests.numbers.account import Account, give_second_service, synchronising
from tests.providers.servers import running_sandbox


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Account]:
    give_second_service(tmp_path)
    async with running_sandbox(data_dir=tmp_path) as sandbox:
        yield Account(sandbox)


@pytest.fixture
async def sync(db: Database, account: Account) -> AsyncIterator[NumberSync]:
    async with synchronising(db, account.sandbox.base_url) as sync:
        yield sync


@pytest.fixture
async def wire(account: Account) -> AsyncIterator[Wire]:
    async with running_wire(account.sandbox.base_url) as wire:
        yield wire
