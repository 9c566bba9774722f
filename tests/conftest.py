"""What most tests stand on: a real PostgreSQL of this test process, an API serving on a socket, and callers."""

import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from ipaddress import ip_network
from typing import Protocol

import grpc.aio
import pytest
from cryptography.fernet import Fernet
from psycopg.errors import DeadlockDetected
from pydantic import SecretStr

from server.api import Api, running_api
from server.caller import BearerType
from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from server.migrations import migrate
from server.notifications import Notifications
from server.stack.postgres import LocalPostgres
from tests.clients import Client, make_client

PUBLIC_BASE_URL = "http://shunkan_ido"
TWILIO_AUTH_TOKEN = "SKXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"
TWILIO_API_KEY_SID = "SK" + "0" * 32
TWILIO_API_KEY_SECRET = "an-api-key-secret-of-forty-characters---"
TWILIO_TWIML_APP_SID = "AP" + "0" * 32
ZOOM_SDK_KEY = "a-video-sdk-key"
ZOOM_SDK_SECRET = "a-video-sdk-secret-of-forty-characters--"
ZOOM_WEBHOOK_SECRET_TOKEN = "a-webhook-secret-token"

_EMPTY = """
TRUNCATE voicemails, transcripts, call_recordings, call_legs, conference_calls, calls, voice_tokens, call_opt_outs,
         call_number_opt_outs, webhook_attempts, webhook_deliveries, webhook_endpoints, zoom_events,
         video_call_recordings, video_call_stays, video_call_participants, video_sessions, video_calls,
         message_callbacks, media_files, messages, pairings, participants, conversations, events, idempotency_keys,
         opt_outs, number_opt_outs, line_types, unknown_sender_answers, number_syncs, twilio_numbers,
         messaging_services, customers, api_keys, bearers, event_log;
INSERT INTO event_log (id, last_position, oldest_position) VALUES (1, 0, 0);
"""


class MakeClient(Protocol):
    """Makes a bearer of a type with a key, and a client that calls with it."""

    def __call__(
        self, bearer_type: BearerType = BearerType.APPLICATION, *, callback_url: str | None = None
    ) -> Awaitable[Client]: ...


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database of this test process alone; what tests write need not outlive a power cut."""
    with make_postgres(tmp_path_factory) as url:
        migrate(url)
        yield url


def make_postgres(tmp_path_factory: pytest.TempPathFactory) -> LocalPostgres:
    """A PostgreSQL of the caller's own, to be started, stopped and started again."""
    # A short path of our own: PostgreSQL runs as another user where this is root, and must reach it.
    folder = tmp_path_factory.mktemp("postgres")
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.getuid() and str(parent).startswith("/tmp/"):  # noqa: S108 pytest's own folders
            parent.chmod(0o755)
    settings = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}
    return LocalPostgres(folder / "server", settings=settings)


@pytest.fixture(scope="session")
def settings(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of the processes under test; the provider is never reached without a sandbox of the test's own."""
    return Settings(
        database_url=SecretStr(database_url),
        public_base_url=PUBLIC_BASE_URL,
        encryption_keys=(SecretStr(Fernet.generate_key().decode()),),
        twilio_account_sid="AC" + "0" * 32,
        twilio_auth_token=SecretStr(TWILIO_AUTH_TOKEN),
        twilio_api_base_url="http://127.0.0.1:9",
        twilio_api_key_sid=TWILIO_API_KEY_SID,
        twilio_api_key_secret=SecretStr(TWILIO_API_KEY_SECRET),
        twilio_twiml_app_sid=TWILIO_TWIML_APP_SID,
        zoom_sdk_key=ZOOM_SDK_KEY,
        zoom_sdk_secret=SecretStr(ZOOM_SDK_SECRET),
        zoom_api_key="a-video-api-key",
        zoom_api_secret=SecretStr("a-video-api-secret-of-forty-characters--"),
        zoom_webhook_secret_token=SecretStr(ZOOM_WEBHOOK_SECRET_TOKEN),
        zoom_api_base_url="http://127.0.0.1:9",
        storage_url=tmp_path_factory.mktemp("files").as_uri(),
        webhook_allowed_networks=(ip_network("127.0.0.0/8"),),
    )


@pytest.fixture(scope="session")
def cipher(settings: Settings) -> Cipher:
    """The encryption of the API under test."""
    return Cipher([key.get_secret_value() for key in settings.encryption_keys])


@pytest.fixture(scope="session")
async def _open_db(database_url: str) -> AsyncIterator[Database]:
    db = Database(database_url, max_size=10)
    await db.open()
    yield db
    await db.close()


@pytest.fixture
async def db(_open_db: Database) -> Database:
    """The database, empty but for the schema."""
    # Requests that the test before has left are seen through: their locks and these may be in each other's way.
    while True:
        try:
            async with _open_db.connection() as connection:
                await connection.execute(_EMPTY)
        except DeadlockDetected:
            continue
        return _open_db


@pytest.fixture
def notifications(db: Database, database_url: str) -> Notifications:
    """A process's notifications, not running: workers under test are stepped, not woken."""
    return Notifications(database_url, db)


@pytest.fixture(scope="session")
async def _api(settings: Settings) -> AsyncIterator[Api]:
    async with running_api(settings, listen="127.0.0.1:0") as api:
        yield api


@pytest.fixture
def api(_api: Api, db: Database) -> Api:
    """An API on an empty database."""
    return _api


@pytest.fixture
async def channel(api: Api) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to the API, without credentials."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{api.port}") as channel:
        yield channel


@pytest.fixture
def client_of(channel: grpc.aio.Channel, db: Database, cipher: Cipher) -> MakeClient:
    """Makes callers."""

    async def make(bearer_type: BearerType = BearerType.APPLICATION, *, callback_url: str | None = None) -> Client:
        return await make_client(channel, db, cipher, bearer_type=bearer_type, callback_url=callback_url)

    return make


@pytest.fixture
async def admin(client_of: MakeClient) -> Client:
    """An Admin's client."""
    return await client_of(BearerType.ADMIN)


@pytest.fixture
async def client(client_of: MakeClient) -> Client:
    """An Application's client."""
    return await client_of(BearerType.APPLICATION)
