"""A worker process: everything that no request waits for. A new loop is one more line of its domain's function here, a
new domain one more function in `_BACKGROUND`."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from server import (
    idempotency,
    tables,  # noqa: F401 - rows refer to rows of all of them
)
from server.background import Pace, repeat
from server.calls.work import leg_work, recording_work
from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from server.events.relay import Relay
from server.events.retention import Retention
from server.messages import callbacks
from server.messages.media.limits import MediaLimits
from server.messages.media.work import media_work
from server.messages.messages import LANES
from server.messages.reconcile import CHECKS_PER_SECOND, Reconciler
from server.messages.send import SendWorker
from server.notifications import Channel, Notifications
from server.numbers.line_types import LOOKUPS_PER_SECOND, LineTypeWorker
from server.numbers.sync import NumberSync
from server.process import log_json, stop_on_signals
from server.providers import registry
from server.providers.ports import MessageSender
from server.storage import Storage, UrlSigner, open_storage
from server.video.work import video_work
from server.webhooks import deliveries, endpoints
from server.webhooks.deliver import Deliverer

log = structlog.get_logger()

# Connections of one process.
_CONNECTIONS = 16

_FORGET_REQUEST_IDS_EVERY = timedelta(minutes=1)

# How soon callbacks are deleted that are old enough.
_FORGET_CALLBACKS_EVERY = timedelta(hours=1)

# How soon after it has come due a message is asked about, or a number looked up that nobody was woken for.
_RECONCILE_EVERY = timedelta(seconds=10)
_LOOK_UP_EVERY = timedelta(seconds=10)

# How soon a synchronisation of numbers that has come due begins.
_LOOK_FOR_SYNC_EVERY = timedelta(minutes=1)

# Runs until it is cancelled, at whatever point.
Loop = Callable[[], Coroutine[Any, Any, None]]
# Runs until the event is set, and then finishes what is under way.
Work = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


class _Closing(Protocol):
    async def aclose(self) -> None: ...


Closing = TypeVar("Closing", bound=_Closing)


@dataclass(frozen=True)
class _Parts:
    """What the loops of a worker share."""

    settings: Settings
    db: Database
    notifications: Notifications
    cipher: Cipher
    storage: Storage
    senders: dict[str, MessageSender]
    resources: AsyncExitStack

    def closing(self, resource: Closing) -> Closing:
        """The resource, which is closed when the loops have ended."""
        self.resources.push_async_callback(resource.aclose)
        return resource


async def run_worker(settings: Settings) -> None:
    """Send, order events and deliver until SIGTERM or SIGINT, then finish what is under way."""
    log_json()
    stop = stop_on_signals()
    async with AsyncExitStack() as resources:
        parts = await _parts(settings, resources)
        loops: list[Loop] = [parts.notifications.run]
        for background in _BACKGROUND:
            loops += background(parts)
        work = _work(parts)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(loop()) for loop in loops]
            async with asyncio.TaskGroup() as working:
                for each in work:
                    working.create_task(each(stop))
                log.info("worker.working")
            for task in running:
                task.cancel()


async def _parts(settings: Settings, resources: AsyncExitStack) -> _Parts:
    url = settings.database_url.get_secret_value()
    keys = [key.get_secret_value() for key in settings.encryption_keys]
    db = Database(url, max_size=_CONNECTIONS)
    await db.open()
    resources.push_async_callback(db.close)
    storage = open_storage(settings.storage_url, UrlSigner(settings.public_base_url, keys))
    resources.push_async_callback(storage.aclose)
    senders = registry.message_senders(settings)
    for sender in senders.values():
        resources.push_async_callback(sender.aclose)
    return _Parts(settings, db, Notifications(url, db), Cipher(keys), storage, senders, resources)


def _work(parts: _Parts) -> list[Work]:
    """What is finished before the process ends: sends and deliveries under way."""
    networks = parts.settings.webhook_allowed_networks
    limits = {"twilio": parts.closing(MediaLimits(networks))}
    lanes = [
        SendWorker(parts.db, parts.notifications, parts.senders, priority=priority, media_limits=limits)
        for priority in LANES
    ]
    deliverer = parts.closing(Deliverer(parts.db, parts.notifications, parts.cipher, allowed_networks=networks))
    return [*(lane.run for lane in lanes), deliverer.run]


def _events(parts: _Parts) -> list[Loop]:
    relay = Relay(parts.db, parts.notifications, endpoints.fan_out)
    retention = Retention(parts.db, deliveries.release, keep=parts.settings.event_retention)
    forget = partial(idempotency.forget_old, parts.db)
    return [
        relay.run,
        retention.run,
        partial(repeat, forget, name="forget_request_ids", every=_FORGET_REQUEST_IDS_EVERY),
    ]


def _messages(parts: _Parts) -> list[Loop]:
    db, notifications = parts.db, parts.notifications
    reconciler = Reconciler(db, notifications, parts.senders, pace=Pace(CHECKS_PER_SECOND))
    fetchers = registry.media_fetchers(parts.settings)
    for fetcher in fetchers.values():
        parts.closing(fetcher)
    forget = partial(callbacks.forget_old, db)
    return [
        partial(repeat, reconciler.step, name="reconcile", every=_RECONCILE_EVERY),
        *media_work(db, notifications, fetchers, parts.storage),
        partial(repeat, forget, name="forget_callbacks", every=_FORGET_CALLBACKS_EVERY),
    ]


def _numbers(parts: _Parts) -> list[Loop]:
    lookup = parts.closing(registry.line_type_lookup(parts.settings))
    line_types = LineTypeWorker(parts.db, lookup, pace=Pace(LOOKUPS_PER_SECOND))
    used = parts.notifications.wake(Channel.LINE_TYPES)
    sync = NumberSync(parts.db, parts.closing(registry.number_directory(parts.settings)))
    return [
        partial(repeat, line_types.step, name="line_types", every=_LOOK_UP_EVERY, wake=used),
        partial(repeat, sync.step, name="sync_numbers", every=_LOOK_FOR_SYNC_EVERY),
    ]


def _video(parts: _Parts) -> list[Loop]:
    sessions = registry.video_sessions(parts.settings)
    fetcher = registry.recording_fetcher(parts.settings)
    for resource in (sessions, fetcher):
        if resource is not None:
            parts.closing(resource)
    return video_work(
        parts.db,
        parts.notifications,
        parts.storage,
        parts.cipher,
        sessions=sessions,
        fetcher=fetcher,
        keep_events=parts.settings.event_retention,
    )


def _calls(parts: _Parts) -> list[Loop]:
    shared = (parts.db, parts.notifications, parts.storage)
    voice = parts.closing(registry.voice_calls(parts.settings))
    return [
        *leg_work(*shared, voice=voice, time_limit=parts.settings.maximum_call_length),
        *recording_work(
            *shared,
            voice=voice,
            fetcher=parts.closing(registry.call_recording_fetcher(parts.settings)),
            transcriber=parts.closing(registry.transcriber(parts.settings)),
            public_base_url=parts.settings.public_base_url,
            time_limit=parts.settings.maximum_call_length,
            delete_provider_recordings=parts.settings.delete_provider_recordings,
        ),
    ]


# What runs beside the work; each is asked for its loops before any of them runs.
_BACKGROUND = (_events, _messages, _numbers, _video, _calls)
