"""Conferences end to end: a sandbox on a socket carries our scripts out, and its callbacks come back through Envoy."""

from collections.abc import AsyncIterator

import grpc.aio
import pytest
from pydantic import SecretStr

from server.api import running_api
from server.caller import BearerType
from server.calls.conferences.controls import ControlWorker
from server.calls.conferences.dial import DialWorker
from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from server.notifications import Notifications
from server.providers import registry
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID
from server.providers.voice_ports import VoiceCalls
from server.stack.ports import free_port
from server.storage import Storage
from tests.clients import Client, make_client
from tests.factories import SENDER, make_messaging_service
from tests.messages.wire import Wire, running_wire
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, Sandbox, running_sandbox
from tests.rest.front import Front, running_envoy, until_healthy

# Refuses at once: what webhooks do is not the matter here.
NOBODY = "http://127.0.0.1:9/"


@pytest.fixture(scope="session")
async def _sandbox() -> AsyncIterator[Sandbox]:
    async with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
async def _wire(_sandbox: Sandbox) -> AsyncIterator[Wire]:
    async with running_wire(_sandbox.base_url) as wire:
        yield wire


@pytest.fixture(scope="session")
async def _live(settings: Settings, _wire: Wire) -> AsyncIterator[tuple[Settings, Front, int]]:
    """A system whose provider is the sandbox, behind the wire, and its door."""
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
        yield live, front, api.port


@pytest.fixture
async def exchange(_sandbox: Sandbox, _live: tuple[Settings, Front, int], db: Database) -> AsyncIterator[Sandbox]:
    """The sandbox as on its first day, and a number of ours."""
    await until_healthy(_live[1], 1)
    await _sandbox.control("POST", "reset")
    await make_messaging_service(db, twilio_messaging_sid=MESSAGING_SERVICE_SID, phone_numbers=[SENDER])
    yield _sandbox
    # Nothing of this test may call back into the next.
    await _sandbox.control("POST", "reset")


@pytest.fixture
async def wire(_wire: Wire, exchange: Sandbox) -> AsyncIterator[Wire]:
    """What is between workers and the sandbox; it can hold requests and answers."""
    yield _wire
    _wire.cut()
    await _wire.closed()


@pytest.fixture
async def voice(_live: tuple[Settings, Front, int], exchange: Sandbox) -> AsyncIterator[VoiceCalls]:
    """The real adapter."""
    voice = registry.voice_calls(_live[0])
    yield voice
    await voice.aclose()


@pytest.fixture
def dialler(
    db: Database, notifications: Notifications, voice: VoiceCalls, storage: Storage, settings: Settings
) -> DialWorker:
    """A worker in this process."""
    return DialWorker(db, notifications, voice, storage, time_limit=settings.maximum_call_length)


@pytest.fixture
def controller(db: Database, notifications: Notifications, voice: VoiceCalls, storage: Storage) -> ControlWorker:
    """A worker in this process."""
    return ControlWorker(db, notifications, voice, storage)


@pytest.fixture
async def caller(
    _live: tuple[Settings, Front, int], exchange: Sandbox, db: Database, cipher: Cipher
) -> AsyncIterator[Client]:
    """An Application whose events nobody takes."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{_live[2]}") as channel:
        yield await make_client(channel, db, cipher, bearer_type=BearerType.APPLICATION, callback_url=NOBODY)
