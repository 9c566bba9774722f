"""The composition root: settings in, wired processes out. The only place that knows every part."""

import asyncio
import logging
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import BinaryIO

import grpc.aio
import orjson
import structlog
from commonservices.v1 import (
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    bandwidth_request_service_pb2,
    bandwidth_request_service_pb2_grpc,
    bearer_service_pb2,
    bearer_service_pb2_grpc,
    conversation_service_pb2,
    conversation_service_pb2_grpc,
    customer_service_pb2,
    customer_service_pb2_grpc,
    event_service_pb2,
    event_service_pb2_grpc,
    file_service_pb2,
    file_service_pb2_grpc,
    lambda_request_service_pb2,
    lambda_request_service_pb2_grpc,
    message_service_pb2,
    message_service_pb2_grpc,
    messaging_service_service_pb2,
    messaging_service_service_pb2_grpc,
    status_service_pb2,
    status_service_pb2_grpc,
    twilio_request_service_pb2,
    twilio_request_service_pb2_grpc,
    video_call_service_pb2,
    video_call_service_pb2_grpc,
    webhook_delivery_service_pb2,
    webhook_delivery_service_pb2_grpc,
    zoom_request_service_pb2,
    zoom_request_service_pb2_grpc,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.tracebacks import ExceptionDictTransformer

from server import idempotency
from server.accounts import bearers, keys
from server.accounts.authentication import Authentication
from server.accounts.service import ApiKeyService, BearerService
from server.background import Pace, repeat
from server.caller import BearerType
from server.config import DatabaseSettings, Settings
from server.conversations import participants
from server.conversations.participant_service import ParticipantService
from server.conversations.service import ConversationService
from server.db import DATABASE_DOWN, Database
from server.encryption import Cipher
from server.events.feed import Feed
from server.events.relay import Relay
from server.events.retention import Retention
from server.events.service import EventService
from server.events.stream import Streams
from server.files.service import FileService
from server.messages import callbacks
from server.messages.bandwidth_service import BandwidthRequestService
from server.messages.lambda_service import LambdaRequestService
from server.messages.media import MediaWorker
from server.messages.media_limits import MediaLimits
from server.messages.messages import LANES
from server.messages.reconcile import CHECKS_PER_SECOND, Reconciler, Reconciliation, reconcile_all
from server.messages.send import SendWorker
from server.messages.service import MessageService
from server.messages.twilio_service import TwilioRequestService
from server.notifications import Channel, Notifications
from server.numbers import messaging_services
from server.numbers.customer_service import CustomerService
from server.numbers.line_types import LOOKUPS_PER_SECOND, LineTypeWorker
from server.numbers.service import MessagingServiceService
from server.numbers.sync import Changes, NumberSync
from server.providers import registry
from server.rpc.auth import Gate
from server.rpc.edge import Edge
from server.rpc.status import StatusService
from server.storage import Storage, UrlSigner, open_storage
from server.video.service import VideoCallService
from server.video.work import video_work
from server.video.zoom_service import ZoomRequestService
from server.webhooks import deliveries, endpoints
from server.webhooks.deliver import Deliverer
from server.webhooks.service import WebhookDeliveryService

log = structlog.get_logger()

# Connections of one process. Hot requests hold one for a statement or two.
_API_CONNECTIONS = 10
_WORKER_CONNECTIONS = 16

# Envoy asks for the health every 0.5 s; after this it sends nothing new to a process that leaves.
_DRAIN_SECONDS = 2.0
_GRACE_SECONDS = 15.0

_FORGET_EVERY_SECONDS = 60.0

# How soon callbacks of no message are deleted that are old enough.
_FORGET_CALLBACKS_EVERY = timedelta(hours=1)

# How soon after it has come due a message is asked about, or a number looked up that nobody was woken for.
_RECONCILE_EVERY = timedelta(seconds=10)
_LOOK_UP_EVERY = timedelta(seconds=10)

# How soon media are fetched that nobody was woken for.
_STORE_MEDIA_EVERY = timedelta(seconds=5)

# How soon a synchronisation of numbers that has come due begins.
_LOOK_FOR_SYNC_EVERY = timedelta(minutes=1)


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


@asynccontextmanager
async def running_api(settings: Settings, *, listen: str) -> AsyncIterator[Api]:
    """An api process's insides, serving on `listen` (port 0: any free one) until the block ends."""
    url = settings.database_url.get_secret_value()
    cipher = Cipher([key.get_secret_value() for key in settings.encryption_keys])
    db = Database(url, max_size=_API_CONNECTIONS)
    notifications = Notifications(url, db)
    signer = _url_signer(settings)
    storage = open_storage(settings.storage_url, signer)
    authentication = Authentication(db, notifications)
    server = grpc.aio.server(
        interceptors=[Edge(Gate(authentication.authenticate))],
        options=[
            # Every process has a port of its own: Envoy keeps one connection to each.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", 2 * 1024 * 1024),
            # Envoy's limit of header fields, 32 KiB, is to decide, with room for those it adds.
            ("grpc.max_metadata_size", 40 * 1024),
            ("grpc.absolute_max_metadata_size", 48 * 1024),
        ],
    )
    feed = Feed(db, notifications)
    streams = Streams(db, notifications, feed)
    event_service = EventService(db, streams, still_valid=authentication.is_still_valid)
    event_service_pb2_grpc.add_EventServiceServicer_to_server(event_service, server)
    _add_services(server, settings, db, notifications, cipher, storage)
    file_service_pb2_grpc.add_FileServiceServicer_to_server(FileService(storage, signer), server)
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    reflection.enable_server_reflection([*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = server.add_insecure_port(listen)
    await db.open()
    async with asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(notifications.run()),
            tasks.create_task(authentication.record_use()),
            tasks.create_task(feed.run()),
        ]
        await server.start()
        await health_service.set("", health_pb2.HealthCheckResponse.SERVING)
        log.info("api.serving", port=port)
        try:
            yield Api(server, port, health_service, streams)
        finally:
            await server.stop(0)
            for task in background:
                task.cancel()
    await storage.aclose()
    await db.close()


# What Envoy transcodes and reflection tells.
SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (api_key_service_pb2, "ApiKeyService"),
        (bandwidth_request_service_pb2, "BandwidthRequestService"),
        (bearer_service_pb2, "BearerService"),
        (conversation_service_pb2, "ConversationService"),
        (conversation_service_pb2, "ParticipantService"),
        (customer_service_pb2, "CustomerService"),
        (event_service_pb2, "EventService"),
        (file_service_pb2, "FileService"),
        (lambda_request_service_pb2, "LambdaRequestService"),
        (message_service_pb2, "MessageService"),
        (messaging_service_service_pb2, "MessagingServiceService"),
        (status_service_pb2, "StatusService"),
        (twilio_request_service_pb2, "TwilioRequestService"),
        (video_call_service_pb2, "VideoCallService"),
        (webhook_delivery_service_pb2, "WebhookDeliveryService"),
        (zoom_request_service_pb2, "ZoomRequestService"),
    )
)


def _add_services(
    server: grpc.aio.Server,
    settings: Settings,
    db: Database,
    notifications: Notifications,
    cipher: Cipher,
    storage: Storage,
) -> None:
    status_service_pb2_grpc.add_StatusServiceServicer_to_server(StatusService(db), server)
    api_key_service_pb2_grpc.add_ApiKeyServiceServicer_to_server(ApiKeyService(db, cipher), server)
    bearer_service_pb2_grpc.add_BearerServiceServicer_to_server(
        BearerService(db, cipher, enable_endpoint=endpoints.enable, end_of_bearer=_end_of_bearer), server
    )
    messaging_service_service_pb2_grpc.add_MessagingServiceServiceServicer_to_server(
        MessagingServiceService(db, cipher, providers=registry.message_providers(settings)), server
    )
    customer_service_pb2_grpc.add_CustomerServiceServicer_to_server(CustomerService(db, cipher), server)
    conversation_service_pb2_grpc.add_ConversationServiceServicer_to_server(ConversationService(db, cipher), server)
    conversation_service_pb2_grpc.add_ParticipantServiceServicer_to_server(ParticipantService(db), server)
    message_service_pb2_grpc.add_MessageServiceServicer_to_server(
        MessageService(db, notifications, cipher, storage), server
    )
    lambda_request_service_pb2_grpc.add_LambdaRequestServiceServicer_to_server(
        LambdaRequestService(db, notifications), server
    )
    video_call_service_pb2_grpc.add_VideoCallServiceServicer_to_server(
        VideoCallService(db, notifications, cipher, storage, tokens=registry.video_tokens(settings)), server
    )
    webhook_delivery_service_pb2_grpc.add_WebhookDeliveryServiceServicer_to_server(
        WebhookDeliveryService(db, notifications), server
    )
    twilio_request_service_pb2_grpc.add_TwilioRequestServiceServicer_to_server(
        TwilioRequestService(
            db,
            notifications,
            registry.message_callback_reader(settings),
            registry.inbound_message_reader(settings),
            public_base_url=settings.public_base_url,
            unknown_sender_answer=settings.unknown_sender_answer,
        ),
        server,
    )
    bandwidth_request_service_pb2_grpc.add_BandwidthRequestServiceServicer_to_server(
        BandwidthRequestService(
            db,
            notifications,
            registry.message_events_reader(settings),
            public_base_url=settings.public_base_url,
            unknown_sender_answer=settings.unknown_sender_answer,
        ),
        server,
    )
    zoom_request_service_pb2_grpc.add_ZoomRequestServiceServicer_to_server(
        ZoomRequestService(
            db,
            notifications,
            storage,
            cipher,
            registry.video_event_reader(settings),
            public_base_url=settings.public_base_url,
        ),
        server,
    )


def _url_signer(settings: Settings) -> UrlSigner:
    return UrlSigner(settings.public_base_url, [key.get_secret_value() for key in settings.encryption_keys])


async def _end_of_bearer(tx: AsyncSession, bearer_id: int) -> None:
    """What a bearer leaves when it is deleted: nothing is delivered to it, and its contacts' numbers are free."""
    await endpoints.disable_all(tx, bearer_id)
    await participants.end_pairings_of_bearer(tx, bearer_id)


async def serve_api(settings: Settings, *, listen: str) -> None:
    """Serve until SIGTERM or SIGINT, then leave without failing a request."""
    _log_json()
    stop = _stop_on_signals()
    async with running_api(settings, listen=listen) as api:
        await stop.wait()
        await api.drain()


async def run_worker(settings: Settings) -> None:
    """Send, order events and deliver until SIGTERM or SIGINT, then finish what is under way."""
    _log_json()
    stop = _stop_on_signals()
    url = settings.database_url.get_secret_value()
    db = Database(url, max_size=_WORKER_CONNECTIONS)
    notifications = Notifications(url, db)
    senders = registry.message_senders(settings)
    media_limits = {"twilio": MediaLimits(settings.webhook_allowed_networks)}
    lanes = [SendWorker(db, notifications, senders, priority=priority, media_limits=media_limits) for priority in LANES]
    cipher = Cipher([key.get_secret_value() for key in settings.encryption_keys])
    deliverer = Deliverer(db, notifications, cipher, allowed_networks=settings.webhook_allowed_networks)
    relay = Relay(db, notifications, endpoints.fan_out)
    retention = Retention(db, deliveries.release, keep=settings.event_retention)
    forget_callbacks = partial(callbacks.forget_unmatched, db)
    reconciler = Reconciler(db, notifications, senders, pace=Pace(CHECKS_PER_SECOND))
    lookup = registry.line_type_lookup(settings)
    line_types = LineTypeWorker(db, lookup, pace=Pace(LOOKUPS_PER_SECOND))
    number_used = notifications.wake(Channel.LINE_TYPES)
    directory = registry.number_directory(settings)
    number_sync = NumberSync(db, directory)
    storage = open_storage(settings.storage_url, _url_signer(settings))
    fetchers = registry.media_fetchers(settings)
    media = MediaWorker(db, notifications, fetchers, storage)
    media_came = notifications.wake(Channel.MEDIA)
    sessions = registry.video_sessions(settings)
    recordings = registry.recording_fetcher(settings)
    video = video_work(
        db,
        notifications,
        storage,
        cipher,
        sessions=sessions,
        fetcher=recordings,
        keep_events=settings.event_retention,
    )
    await db.open()
    try:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(notifications.run()),
                tasks.create_task(relay.run()),
                tasks.create_task(retention.run()),
                tasks.create_task(_forget_request_ids(db)),
                tasks.create_task(repeat(forget_callbacks, name="forget_callbacks", every=_FORGET_CALLBACKS_EVERY)),
                tasks.create_task(repeat(reconciler.step, name="reconcile", every=_RECONCILE_EVERY)),
                tasks.create_task(repeat(line_types.step, name="line_types", every=_LOOK_UP_EVERY, wake=number_used)),
                tasks.create_task(repeat(number_sync.step, name="sync_numbers", every=_LOOK_FOR_SYNC_EVERY)),
                tasks.create_task(repeat(media.step, name="store_media", every=_STORE_MEDIA_EVERY, wake=media_came)),
                *(tasks.create_task(each()) for each in video),
            ]
            async with asyncio.TaskGroup() as work:
                for lane in lanes:
                    work.create_task(lane.run(stop))
                work.create_task(deliverer.run(stop))
                log.info("worker.working")
            for task in background:
                task.cancel()
    finally:
        await deliverer.aclose()
        await lookup.aclose()
        await directory.aclose()
        for fetcher in fetchers.values():
            await fetcher.aclose()
        if sessions is not None:
            await sessions.aclose()
        if recordings is not None:
            await recordings.aclose()
        await storage.aclose()
        for sender in senders.values():
            await sender.aclose()
        for limits in media_limits.values():
            await limits.aclose()
        await db.close()


async def _forget_request_ids(db: Database) -> None:
    """Delete request ids that are no longer remembered, in small batches, until cancelled."""
    while True:
        try:
            while await idempotency.forget_old(db):
                pass
        except DATABASE_DOWN as error:
            log.warning("request_ids.not_forgotten", error=str(error))
        await asyncio.sleep(_FORGET_EVERY_SECONDS)


async def create_admin(settings: DatabaseSettings, *, name: str) -> str:
    """Make an Admin bearer with a key, and answer the token. Its callback URL and password are set through the API."""
    async with _session(settings) as (db, cipher), db.begin() as tx:
        bearer, _secret = await bearers.create_bearer(
            tx,
            cipher=cipher,
            bearer_name=name,
            bearer_type=BearerType.ADMIN,
            callback_url=None,
            username="admin",
            password=secrets.token_urlsafe(32),
        )
        _row, token = await keys.create_key(tx, bearer_id=bearer.id)
    return token


async def sync_numbers(settings: Settings) -> Changes:
    """Bring our numbers to what the provider's account has, now. Raises NotSynchronised."""
    async with _session(settings) as (db, _cipher):
        directory = registry.number_directory(settings)
        try:
            return await NumberSync(db, directory).sync_now()
        finally:
            await directory.aclose()


async def reconcile(settings: Settings, *, older_than: timedelta | None) -> Reconciliation:
    """Ask the providers now about every message that is due for it; with `older_than`, about every message without a
    final status that had no news for so long."""
    _log_json(to=sys.stderr.buffer)
    async with _session(settings) as (db, _cipher):
        senders = registry.message_senders(settings)
        # Nobody is woken by these, for they are not run: the relay looks by itself.
        notifications = Notifications(settings.database_url.get_secret_value(), db)
        reconciler = Reconciler(db, notifications, senders, pace=Pace(CHECKS_PER_SECOND))
        try:
            return await reconcile_all(reconciler, db, older_than=older_than)
        finally:
            for sender in senders.values():
                await sender.aclose()


async def seed_local(
    settings: DatabaseSettings,
    *,
    name: str,
    provider: str,
    numbers: Sequence[str],
    twilio_messaging_sid: str | None = None,
    bandwidth_messaging_sid: str | None = None,
) -> None:
    """Make the customer and the messaging service of this name with these numbers, if they are not there."""
    async with _session(settings) as (db, _cipher):
        try:
            async with db.begin() as tx:
                await messaging_services.create_messaging_service(
                    tx,
                    name=name,
                    global_customer_id=name,
                    provider=provider,
                    twilio_messaging_sid=twilio_messaging_sid,
                    bandwidth_messaging_sid=bandwidth_messaging_sid,
                    phone_numbers=numbers,
                )
        except messaging_services.MessagingServiceExists:
            log.info("local.seeded_already", name=name)


@asynccontextmanager
async def _session(settings: DatabaseSettings) -> AsyncIterator[tuple[Database, Cipher]]:
    """A database for one command."""
    db = Database(settings.database_url.get_secret_value(), max_size=1)
    await db.open()
    try:
        yield db, Cipher([key.get_secret_value() for key in settings.encryption_keys])
    finally:
        await db.close()


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


# One JSON object a line. A traceback comes without local variables: they hold bodies, numbers and secrets.
LOG_PROCESSORS: tuple[structlog.typing.Processor, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
    structlog.processors.JSONRenderer(serializer=lambda value, **_: orjson.dumps(value, default=str)),
)


def _log_json(*, to: BinaryIO | None = None) -> None:
    """Log to standard output, or elsewhere where that is for what a command prints."""
    structlog.configure(
        processors=LOG_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.BytesLoggerFactory(to),
        cache_logger_on_first_use=True,
    )
