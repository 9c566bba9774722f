"""The sending end to end: a sandbox carrier on a socket, whose signed callbacks come back through a real Envoy."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import grpc.aio
import pytest
from commonservices.v1 import twilio_request_service_pb2_grpc
from pydantic import SecretStr

from server.api import running_api
from server.config import Settings
from server.db import Database
from server.messages.reconcile import Reconciler
from server.messages.send import SendWorker
from server.notifications import Notifications
from server.providers import registry
from server.providers.ports import MessageSender
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID
from server.stack.ports import free_port
from tests.factories import make_messaging_service
from tests.messages.inbound import Texts
from tests.messages.reconciling import a_reconciler
from tests.messages.wire import Wire, running_wire
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, Sandbox, running_sandbox
from tests.rest.front import Front, running_envoy, until_healthy

# Makes a worker of a lane.
MakeWorker = Callable[..., SendWorker]


@pytest.fixture(scope="session")
async def _sandbox() -> AsyncIterator[Sandbox]:
    async with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
async def _wire(_sandbox: Sandbox) -> AsyncIterator[Wire]:
    async with running_wire(_sandbox.base_url) as wire:
        yield wire


@pytest.fixture(scope="session")
async def _live(settings: Settings, _wire: Wire) -> AsyncIterator[tuple[Settings, Front]]:
    """The settings and the door of a system whose carrier is the sandbox, behind the wire."""
    port = free_port()
    live = settings.model_copy(
        update={
            "public_base_url": f"http://127.0.0.1:{port}",
            "twilio_account_sid": ACCOUNT_SID,
            "twilio_auth_token": SecretStr(AUTH_TOKEN),
            "twilio_api_base_url": _wire.base_url,
        }
    )
    async with (
        running_api(live, listen="127.0.0.1:0") as api,
        running_envoy([f"127.0.0.1:{api.port}"], port=port) as front,
    ):
        await until_healthy(front, 1)
        yield live, front


@pytest.fixture
async def carrier(_sandbox: Sandbox, _live: tuple[Settings, Front], db: Database) -> AsyncIterator[Sandbox]:
    """The carrier as on its first day, and a messaging service of ours with its numbers."""
    await until_healthy(_live[1], 1)
    await _sandbox.control("POST", "reset")
    await make_messaging_service(db, twilio_messaging_sid=MESSAGING_SERVICE_SID)
    yield _sandbox
    # Nothing of this test may call back into the next.
    await _sandbox.control("POST", "reset")


@pytest.fixture
async def wire(_wire: Wire, carrier: Sandbox) -> AsyncIterator[Wire]:
    """What is between workers and the carrier; it can hold requests and answers."""
    yield _wire
    _wire.cut()
    await _wire.closed()


@pytest.fixture
def live(_live: tuple[Settings, Front], carrier: Sandbox) -> Settings:
    """The settings of workers that send through the carrier."""
    return _live[0]


@pytest.fixture
async def senders(live: Settings) -> AsyncIterator[dict[str, MessageSender]]:
    """The real adapters."""
    senders = registry.message_senders(live)
    yield senders
    for sender in senders.values():
        await sender.aclose()


@pytest.fixture
def make_worker(db: Database, notifications: Notifications, senders: dict[str, MessageSender]) -> MakeWorker:
    """Makes workers that are stepped."""

    def make(priority: str = "default", **over: Any) -> SendWorker:
        return SendWorker(db, notifications, senders, priority=priority, **over)

    return make


@pytest.fixture
def worker(make_worker: MakeWorker) -> SendWorker:
    """A worker of the default lane."""
    return make_worker()


@pytest.fixture
def reconciler(db: Database, notifications: Notifications, senders: dict[str, MessageSender]) -> Reconciler:
    """One that asks the carrier, as fast as it can."""
    return a_reconciler(db, notifications, senders)


@pytest.fixture
def texts(channel: grpc.aio.Channel) -> Texts:
    """Contacts' texts to our numbers, as Twilio posts them to the API under test."""
    return Texts(twilio_request_service_pb2_grpc.TwilioRequestServiceStub(channel))


@pytest.fixture
async def callback_http(live: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the public address."""
    async with aiohttp.ClientSession(live.public_base_url) as session:
        yield session
