"""What callbacks about calls are answered with, and the storage that the API under test has."""

from collections.abc import AsyncIterator
from datetime import timedelta

import grpc.aio
import pytest

from server.calls.parts import CallParts
from server.config import Settings
from server.db import Database
from server.notifications import Notifications
from server.providers.twilio.twiml import TwilioCallScripts
from server.storage import Storage, open_storage
from tests.calls.twilio import Twilio
from tests.factories import make_messaging_service
from tests.files.support import signer_of


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    """The API's storage."""
    storage = open_storage(settings.storage_url, signer_of(settings))
    yield storage
    await storage.aclose()


@pytest.fixture
def parts(db: Database, notifications: Notifications, storage: Storage, settings: Settings) -> CallParts:
    """What callbacks are answered with, as the API under test has it."""
    return CallParts(
        db=db,
        notifications=notifications,
        storage=storage,
        scripts=TwilioCallScripts(public_base_url=settings.public_base_url),
        unknown_caller_answer=settings.unknown_caller_answer,
        time_limit=timedelta(minutes=settings.maximum_call_minutes),
    )


@pytest.fixture
def twilio(channel: grpc.aio.Channel) -> Twilio:
    """Twilio, as the API under test knows it."""
    return Twilio(channel)


@pytest.fixture
async def messaging_service(db: Database) -> None:
    """A messaging service with two numbers."""
    await make_messaging_service(db)
