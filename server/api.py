"""An api process: every service of the API on one gRPC server. A new service is one row of `_SERVICES`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module

import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from sqlalchemy.ext.asyncio import AsyncSession

from server import tables  # noqa: F401 - rows refer to rows of all of them
from server.accounts.authentication import Authentication
from server.accounts.service import ApiKeyService, BearerService
from server.background import repeat
from server.calls.browsers.service import SdkCallService
from server.calls.call_service import CallService, VoicemailService
from server.calls.conferences.service import ConferenceCallService
from server.calls.parts import CallParts
from server.calls.recordings.transcription_service import TranscriptionRequestService
from server.calls.twilio_call_service import TwilioCallService
from server.config import Settings
from server.conversations import participants
from server.conversations.participant_service import ParticipantService
from server.conversations.service import ConversationService
from server.db import Database
from server.encryption import Cipher
from server.events.feed import Feed
from server.events.service import EventService
from server.events.stream import Streams
from server.files.service import FileService
from server.messages.bandwidth_service import BandwidthRequestService
from server.messages.media.lambda_service import LambdaRequestService
from server.messages.service import MessageService
from server.messages.twilio_service import TwilioRequestService
from server.notifications import Notifications
from server.numbers.customer_service import CustomerService
from server.numbers.service import MessagingServiceService
from server.process import log_json, stop_on_signals
from server.providers import registry
from server.rpc.auth import Gate
from server.rpc.edge import Edge
from server.rpc.status import StatusService
from server.storage import Storage, UrlSigner, open_storage
from server.video.service import VideoCallService
from server.video.zoom_service import ZoomRequestService
from server.webhooks import endpoints
from server.webhooks.service import WebhookDeliveryService

log = structlog.get_logger()

# Connections of one process. Hot requests hold one for a statement or two.
_CONNECTIONS = 10

# Envoy asks for the health every 0.5 s; after this it sends nothing new to a process that leaves.
_DRAIN_SECONDS = 2.0
_GRACE_SECONDS = 15.0

# How soon the use of keys is written down, of all keys at once.
_RECORD_KEY_USE_EVERY = timedelta(seconds=1)

_PACKAGE = "commonservices.v1"


class Api:
    """A gRPC server that is serving, and its health."""

    def __init__(
        self, server: grpc.aio.Server, port: int, health_service: health.aio.HealthServicer, streams: Streams
    ) -> None:
        self.port = port
        self._server = server
        self._health = health_service
        self._streams = streams

    async def drain(self) -> None:
        """Leave without failing a request: say so, wait until it is heard, then finish what is under way."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(_DRAIN_SECONDS)
        self._streams.close()
        await self._server.stop(_GRACE_SECONDS)


@dataclass(frozen=True)
class _Parts:
    """What services are made of."""

    settings: Settings
    db: Database
    notifications: Notifications
    cipher: Cipher
    signer: UrlSigner
    storage: Storage
    feed: Feed
    streams: Streams
    authentication: Authentication


async def _end_of_bearer(tx: AsyncSession, bearer_id: int) -> None:
    """What a bearer leaves when it is deleted: nothing is delivered to it, and its contacts' numbers are free."""
    await endpoints.disable_all(tx, bearer_id)
    await participants.end_pairings_of_bearer(tx, bearer_id)


def _call_parts(p: _Parts) -> CallParts:
    return CallParts(
        db=p.db,
        notifications=p.notifications,
        storage=p.storage,
        scripts=registry.call_scripts(p.settings),
        unknown_caller_answer=p.settings.unknown_caller_answer,
        time_limit=p.settings.maximum_call_length,
    )


# The module that the service is generated in, its name, and how it is made.
_SERVICES: tuple[tuple[str, str, Callable[[_Parts], object]], ...] = (
    ("api_key_service", "ApiKeyService", lambda p: ApiKeyService(p.db, p.cipher)),
    (
        "bandwidth_request_service",
        "BandwidthRequestService",
        lambda p: BandwidthRequestService(
            p.db,
            p.notifications,
            registry.message_events_reader(p.settings),
            public_base_url=p.settings.public_base_url,
            unknown_sender_answer=p.settings.unknown_sender_answer,
        ),
    ),
    (
        "bearer_service",
        "BearerService",
        lambda p: BearerService(p.db, p.cipher, enable_endpoint=endpoints.enable, end_of_bearer=_end_of_bearer),
    ),
    ("call_service", "CallService", lambda p: CallService(p.db, p.storage)),
    ("call_service", "VoicemailService", lambda p: VoicemailService(p.db, p.storage)),
    (
        "conference_call_service",
        "ConferenceCallService",
        lambda p: ConferenceCallService(
            p.db,
            p.notifications,
            p.cipher,
            p.storage,
            welcome_message=p.settings.conference_welcome_message,
            time_limit=p.settings.maximum_call_length,
        ),
    ),
    ("conversation_service", "ConversationService", lambda p: ConversationService(p.db, p.cipher)),
    ("conversation_service", "ParticipantService", lambda p: ParticipantService(p.db)),
    ("customer_service", "CustomerService", lambda p: CustomerService(p.db, p.cipher)),
    (
        "event_service",
        "EventService",
        lambda p: EventService(p.db, p.streams, still_valid=p.authentication.is_still_valid),
    ),
    ("file_service", "FileService", lambda p: FileService(p.storage, p.signer)),
    ("lambda_request_service", "LambdaRequestService", lambda p: LambdaRequestService(p.db, p.notifications)),
    ("message_service", "MessageService", lambda p: MessageService(p.db, p.notifications, p.cipher, p.storage)),
    (
        "messaging_service_service",
        "MessagingServiceService",
        lambda p: MessagingServiceService(p.db, p.cipher, providers=registry.message_providers(p.settings)),
    ),
    (
        "sdk_call_service",
        "SdkCallService",
        lambda p: SdkCallService(
            _call_parts(p),
            p.cipher,
            registry.voice_callback_reader(p.settings),
            registry.voice_tokens(p.settings),
            public_base_url=p.settings.public_base_url,
        ),
    ),
    ("status_service", "StatusService", lambda p: StatusService(p.db)),
    (
        "transcription_request_service",
        "TranscriptionRequestService",
        lambda p: TranscriptionRequestService(
            p.db,
            p.notifications,
            p.storage,
            registry.transcript_report_reader(p.settings),
            public_base_url=p.settings.public_base_url,
        ),
    ),
    (
        "twilio_call_service",
        "TwilioCallService",
        lambda p: TwilioCallService(
            _call_parts(p), registry.voice_callback_reader(p.settings), public_base_url=p.settings.public_base_url
        ),
    ),
    (
        "twilio_request_service",
        "TwilioRequestService",
        lambda p: TwilioRequestService(
            p.db,
            p.notifications,
            registry.message_callback_reader(p.settings),
            registry.inbound_message_reader(p.settings),
            public_base_url=p.settings.public_base_url,
            unknown_sender_answer=p.settings.unknown_sender_answer,
        ),
    ),
    (
        "video_call_service",
        "VideoCallService",
        lambda p: VideoCallService(
            p.db, p.notifications, p.cipher, p.storage, tokens=registry.video_tokens(p.settings)
        ),
    ),
    ("webhook_delivery_service", "WebhookDeliveryService", lambda p: WebhookDeliveryService(p.db, p.notifications)),
    (
        "zoom_request_service",
        "ZoomRequestService",
        lambda p: ZoomRequestService(
            p.db,
            p.notifications,
            p.storage,
            p.cipher,
            registry.video_event_reader(p.settings),
            public_base_url=p.settings.public_base_url,
        ),
    ),
)

# What Envoy transcodes and reflection tells. The gate asks the descriptors for access: stubs alone do not load all.
SERVICES = tuple(
    import_module(f"{_PACKAGE}.{module}_pb2").DESCRIPTOR.services_by_name[name].full_name
    for module, name, _make in _SERVICES
)


@asynccontextmanager
async def running_api(settings: Settings, *, listen: str) -> AsyncIterator[Api]:
    """An api process's insides, serving on `listen` (port 0: any free one) until the block ends."""
    parts = _parts(settings)
    server = grpc.aio.server(
        interceptors=[Edge(Gate(parts.authentication.authenticate))],
        options=[
            # Every process has a port of its own: Envoy keeps one connection to each.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", 2 * 1024 * 1024),
            # Envoy's limit of header fields, 32 KiB, is to decide, with room for those it adds.
            ("grpc.max_metadata_size", 40 * 1024),
            ("grpc.absolute_max_metadata_size", 48 * 1024),
        ],
    )
    for module, name, make in _SERVICES:
        generated = import_module(f"{_PACKAGE}.{module}_pb2_grpc")
        getattr(generated, f"add_{name}Servicer_to_server")(make(parts), server)
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    reflection.enable_server_reflection([*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = server.add_insecure_port(listen)
    async with _opened(parts), asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(parts.notifications.run()),
            tasks.create_task(
                repeat(parts.authentication.record_use, name="record_key_use", every=_RECORD_KEY_USE_EVERY)
            ),
            tasks.create_task(parts.feed.run()),
        ]
        await server.start()
        await health_service.set("", health_pb2.HealthCheckResponse.SERVING)
        log.info("api.serving", port=port)
        try:
            yield Api(server, port, health_service, parts.streams)
        finally:
            await server.stop(0)
            for task in background:
                task.cancel()


@asynccontextmanager
async def _opened(parts: _Parts) -> AsyncIterator[None]:
    """Closes what is open whatever ends the process: it would wait for the pool's tasks, which no cancellation ends."""
    await parts.db.open()
    try:
        yield
    finally:
        try:
            await parts.storage.aclose()
        finally:
            await parts.db.close()


def _parts(settings: Settings) -> _Parts:
    url = settings.database_url.get_secret_value()
    keys = [key.get_secret_value() for key in settings.encryption_keys]
    db = Database(url, max_size=_CONNECTIONS)
    notifications = Notifications(url, db)
    feed = Feed(db, notifications)
    signer = UrlSigner(settings.public_base_url, keys)
    return _Parts(
        settings=settings,
        db=db,
        notifications=notifications,
        cipher=Cipher(keys),
        signer=signer,
        storage=open_storage(settings.storage_url, signer),
        feed=feed,
        streams=Streams(db, notifications, feed),
        authentication=Authentication(db, notifications),
    )


async def serve_api(settings: Settings, *, listen: str) -> None:
    """Serve until SIGTERM or SIGINT, then leave without failing a request."""
    log_json()
    stop = stop_on_signals()
    async with running_api(settings, listen=listen) as api:
        await stop.wait()
        await api.drain()
