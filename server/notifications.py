"""LISTEN and NOTIFY. They only wake: what is due or new is always read from the tables.

A process listens on one connection of its own. Notifications that workers and handlers send are collected and go out as
one statement after the commit, so no hot transaction takes PostgreSQL's notify lock.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from enum import StrEnum

import psycopg
import structlog

from server.db import DATABASE_DOWN, Database

log = structlog.get_logger()

_RECONNECT_SECONDS = 0.5

# The first notification leaves at once; those that come within this leave together. Under load a wake-up for every
# create would cost as much as the create.
_GATHER_SECONDS = 0.01


class Channel(StrEnum):
    """What a process can be woken for."""

    MESSAGES_DEFAULT = "cs_messages_default"  # messages of the lane may be due
    MESSAGES_HIGH = "cs_messages_high"  # and of this one
    OUTBOX = "cs_outbox"  # events wait for the relay
    EVENTS = "cs_events"  # the log has grown
    DELIVERIES = "cs_deliveries"  # webhook deliveries may be due
    MEDIA = "cs_media"  # media of inbound messages are to be stored
    RECORDINGS = "cs_recordings"  # recordings of video calls are to be stored
    CALL_LEGS = "cs_call_legs"  # legs of calls are to be dialled, muted, held or hung up on
    CALL_RECORDINGS = "cs_call_recordings"  # recordings of calls are to be stored
    TRANSCRIPTS = "cs_transcripts"  # recordings are to be transcribed
    LINE_TYPES = "cs_line_types"  # numbers are to be looked up
    API_KEYS = "cs_api_keys"  # a key has ended, or its bearer's role has changed


class Notifications:
    """The process's ear and mouth; `run` lives as long as the process."""

    def __init__(self, url: str, db: Database) -> None:
        self._url = url
        self._db = db
        self._listeners: dict[Channel, list[Callable[[], None]]] = defaultdict(list)
        self._on_disconnect: list[Callable[[], None]] = []
        self._on_connect: list[Callable[[], None]] = []
        self._outgoing: set[Channel] = set()
        self._has_outgoing = asyncio.Event()

    def listen(self, channel: Channel, callback: Callable[[], None]) -> None:
        """Call back at each notification; to be said before `run`."""
        self._listeners[channel].append(callback)

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Call back whenever listening begins (again): notifications before that were not heard."""
        self._on_connect.append(callback)

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call back whenever listening ends."""
        self._on_disconnect.append(callback)

    def wake(self, channel: Channel) -> asyncio.Event:
        """An event that is set at each notification and at each reconnect; its one waiter clears it."""
        event = asyncio.Event()
        self.listen(channel, event.set)
        self.on_connect(event.set)
        return event

    def notify(self, *channels: Channel) -> None:
        """Wake the listeners of all processes soon; losing it costs them one poll interval."""
        self._outgoing.update(channels)
        self._has_outgoing.set()

    async def run(self) -> None:
        """Listen and send until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._send())

    async def _send(self) -> None:
        while True:
            await self._has_outgoing.wait()
            self._has_outgoing.clear()
            channels, self._outgoing = sorted(self._outgoing), set()
            try:
                await self._db.execute("SELECT pg_notify(c, '') FROM unnest(%s::text[]) AS c", (channels,))
            except DATABASE_DOWN as error:
                log.warning("notifications.unsent", channels=channels, error=str(error))
                await asyncio.sleep(_RECONNECT_SECONDS)
            await asyncio.sleep(_GATHER_SECONDS)

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, keepalives_idle=5, keepalives_interval=2, keepalives_count=2
                ) as connection:
                    for channel in self._listeners:
                        await connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
                    # What ended this connection has likely ended the pool's as well.
                    await self._db.drop_broken()
                    for callback in self._on_connect:
                        callback()
                    try:
                        async for notification in connection.notifies():
                            for listener in self._listeners[Channel(notification.channel)]:
                                listener()
                    finally:
                        for callback in self._on_disconnect:
                            callback()
            except DATABASE_DOWN as error:
                log.warning("notifications.disconnected", error=str(error))
            await asyncio.sleep(_RECONNECT_SECONDS)
