"""A world of webhooks and a receiver for each test."""

from collections.abc import AsyncIterator

import pytest

from server.db import Database
from server.encryption import Cipher
from server.notifications import Notifications
from server.webhooks.deliver import Deliverer
from tests.webhooks.receiver import Receiver, running_receiver
from tests.webhooks.support import Bearer, Webhooks


@pytest.fixture
def webhooks(db: Database, notifications: Notifications, cipher: Cipher) -> Webhooks:
    """Bearers, events and deliveries."""
    return Webhooks(db, notifications, cipher)


@pytest.fixture
async def bearer(webhooks: Webhooks) -> Bearer:
    """Whose events are delivered."""
    return await webhooks.make_bearer()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A real HTTP server."""
    async with running_receiver() as running:
        yield running


@pytest.fixture
async def deliverer(webhooks: Webhooks) -> AsyncIterator[Deliverer]:
    """A worker that may deliver to this machine."""
    async with webhooks.deliverer() as running:
        yield running
