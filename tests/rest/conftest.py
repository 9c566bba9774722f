"""Envoy, in front of the API under test and in front of a stand-in."""

from collections.abc import AsyncIterator

import aiohttp
import grpc.aio
import pytest

from server.api import Api
from tests.rest.front import Front, running_envoy, until_healthy
from tests.rest.stand_in import StandIn, serving_stand_in

AUTHORIZATION = {"authorization": "Bearer anybody's"}


@pytest.fixture(scope="session")
async def _front(_api: Api) -> AsyncIterator[Front]:
    async with running_envoy([f"127.0.0.1:{_api.port}"]) as front:
        await until_healthy(front, 1)
        yield front


@pytest.fixture
async def front(_front: Front, api: Api) -> Front:
    """Envoy in front of the API under test, whose database is empty."""
    await until_healthy(_front, 1)
    return _front


@pytest.fixture(scope="session")
async def _stand_in() -> AsyncIterator[StandIn]:
    async with serving_stand_in() as stand_in:
        yield stand_in


@pytest.fixture
def stand_in(_stand_in: StandIn) -> StandIn:
    """An api server that has no answers yet."""
    _stand_in.answers.clear()
    _stand_in.streams.clear()
    return _stand_in


@pytest.fixture(scope="session")
async def _edge(_stand_in: StandIn) -> AsyncIterator[Front]:
    async with running_envoy([_stand_in.target]) as front:
        await until_healthy(front, 1)
        yield front


@pytest.fixture
async def edge(_edge: Front) -> Front:
    """Envoy in front of the stand-in."""
    # While a test that is not a coroutine runs, nothing answers Envoy's health checks.
    await until_healthy(_edge, 1)
    return _edge


@pytest.fixture
async def rest(edge: Front) -> AsyncIterator[aiohttp.ClientSession]:
    """A REST client of the stand-in, with credentials."""
    async with aiohttp.ClientSession(edge.url, headers=AUTHORIZATION) as session:
        yield session


@pytest.fixture
async def native(edge: Front) -> AsyncIterator[grpc.aio.Channel]:
    """A gRPC client of the stand-in, through Envoy."""
    async with grpc.aio.insecure_channel(edge.target) as channel:
        yield channel
