"""Zoom's webhooks to the API under test, and the storage that it has."""

from collections.abc import AsyncIterator

import grpc.aio
import pytest
from commonservices.v1 import zoom_request_service_pb2_grpc

from server.config import Settings
from server.storage import Storage, open_storage
from tests.files.support import signer_of
from tests.video.zoom import Zoom


@pytest.fixture
def zoom(channel: grpc.aio.Channel) -> Zoom:
    """Zoom, as the API under test knows it."""
    return Zoom(zoom_request_service_pb2_grpc.ZoomRequestServiceStub(channel))


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    """The API's storage."""
    storage = open_storage(settings.storage_url, signer_of(settings))
    yield storage
    await storage.aclose()
