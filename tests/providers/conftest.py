"""A sandbox, a receiver of its callbacks and our adapter between them, new for each test."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from hypothesis import settings

from server.providers.twilio.adapter import TwilioMessageSender
from server.providers.twilio.client import TwilioClient
from tests.providers.servers import Receiver, Sandbox, running_receiver, running_sandbox, twilio_account

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
    made = TwilioMessageSender(twilio_account(sandbox.base_url), public_base_url=receiver.base_url)
    yield made
    await made.aclose()


@pytest.fixture
async def twilio(sandbox: Sandbox) -> AsyncIterator[TwilioClient]:
    """The official SDK's client."""
    client = TwilioClient(twilio_account(sandbox.base_url), connections=10, timeout=timedelta(seconds=30))
    yield client
    await client.aclose()
