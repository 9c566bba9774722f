"""A sandbox, a receiver of its callbacks and our adapter between them, new for each test."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from hypothesis import settings

from server.providers.twilio.adapter import TwilioMessageSender
from server.providers.twilio.client import TwilioClient
from tests.providers.servers import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Receiver,
    Sandbox,
    running_receiver,
    running_sandbox,
)

# Hypothesis times each example by default, and would call a busy machine a failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest.register_assert_rewrite("tests.providers.contract")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with running_sandbox() as running:
        yield running


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


@pytest.fixture
async def sender(sandbox: Sandbox, receiver: Receiver) -> AsyncIterator[TwilioMessageSender]:
    made = TwilioMessageSender(
        account_sid=ACCOUNT_SID,
        auth_token=AUTH_TOKEN,
        public_base_url=receiver.base_url,
        api_base_url=sandbox.base_url,
    )
    yield made
    await made.aclose()


@pytest.fixture
async def twilio(sandbox: Sandbox) -> AsyncIterator[TwilioClient]:
    """The official SDK's client."""
    client = TwilioClient(
        account_sid=ACCOUNT_SID,
        auth_token=AUTH_TOKEN,
        base_url=sandbox.base_url,
        connections=10,
        timeout=timedelta(seconds=5),
    )
    yield client
    await client.aclose()
