"""Envoy in front of the API, and the storage that both share with the test."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from server.api import Api
from server.config import Settings
from server.storage import Storage, UrlSigner, open_storage
from tests.files.support import signer_of
from tests.rest.front import Front, running_envoy, until_healthy


@pytest.fixture(scope="session")
async def _front(_api: Api) -> AsyncIterator[Front]:
    async with running_envoy([f"127.0.0.1:{_api.port}"]) as front:
        await until_healthy(front, 1)
        yield front


@pytest.fixture
async def front(_front: Front, api: Api) -> Front:
    """Envoy in front of the API under test."""
    await until_healthy(_front, 1)
    return _front


@pytest.fixture
async def rest(front: Front) -> AsyncIterator[aiohttp.ClientSession]:
    """A REST client without credentials."""
    async with aiohttp.ClientSession(front.url) as session:
        yield session


@pytest.fixture
def signer(settings: Settings) -> UrlSigner:
    """What the API signs with."""
    return signer_of(settings)


@pytest.fixture
async def storage(settings: Settings, signer: UrlSigner) -> AsyncIterator[Storage]:
    """The API's storage."""
    storage = open_storage(settings.storage_url, signer)
    yield storage
    await storage.aclose()
