"""The newest part of the log, read once for all subscribers of this process."""

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice

import structlog
from commonservices.v1 import event_pb2 as pb

from server.db import Database
from server.events import log as event_log
from server.events.log import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Batch, LoggedEvent
from server.notifications import Channel, Notifications

log = structlog.get_logger()

_PAGE = 500
_SCAN = 1_000
_POLL_SECONDS = 1.0
_BACK_OFF_SECONDS = 1.0


class Feed:
    """A bounded window of the log up to its head. Nothing is read while nobody subscribes."""

    def __init__(
        self, db: Database, notifications: Notifications, *, max_events: int = 10_000, max_bytes: int = 8 << 20
    ) -> None:
        self._db = db
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._grown = notifications.wake(Channel.EVENTS)
        # Every event after `_floor` up to `head` is in the window.
        self._window: list[LoggedEvent] = []
        self._bytes = 0
        self._floor = 0
        self.head = 0
        self._subscribers = 0
        self._wanted = asyncio.Event()
        self._stale = True
        self._waiting: defaultdict[int | None, set[asyncio.Future[int]]] = defaultdict(set)

    @property
    def subscribers(self) -> int:
        """How many subscribers there are now."""
        return self._subscribers

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Be a subscriber."""
        self._subscribers += 1
        if self._subscribers == 1:
            self._stale = True
            self._wanted.set()
            self._grown.set()
        try:
            yield
        finally:
            self._subscribers -= 1
            if not self._subscribers:
                self._wanted.clear()
                self._begin_at(self.head)

    async def run(self) -> None:
        """Follow the log until cancelled."""
        while True:
            await self._wanted.wait()
            self._grown.clear()
            try:
                await self._catch_up()
            except Exception:
                log.exception("feed.failed")
                await asyncio.sleep(_BACK_OFF_SECONDS)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._grown.wait()

    async def read(self, *, after: int, owner_id: int | None, types: frozenset[str]) -> Batch:
        """The next events, from memory where they are there; no owner and no types mean any."""
        if after < self._floor:
            return await event_log.read(self._db, after=after, until=self.head, owner_id=owner_id, types=types)
        return self._recent(after, owner_id, types)

    async def wait(self, *, after: int, owner_id: int | None, timeout: float) -> int:  # noqa: ASYNC109 not an error
        """Wait for something of the owner's after the position, an interruption or the time, and answer up to which
        position there is nothing."""
        if after < self.head:
            return after
        woken: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[owner_id]
        waiting.add(woken)
        try:
            await asyncio.wait((woken,), timeout=timeout)
        finally:
            waiting.discard(woken)
            if not waiting and self._waiting.get(owner_id) is waiting:
                del self._waiting[owner_id]
        return max(after, woken.result() if woken.done() else self.head)

    def interrupt(self) -> None:
        """Wake everyone who waits."""
        for owner_id in list(self._waiting):
            self._wake(owner_id, 0)

    async def _catch_up(self) -> None:
        if self._stale:
            ends = await event_log.ends(self._db)
            self._stale = False
            self._begin_at(ends.last_position)
            self.interrupt()
        full = True
        while full:
            events = await event_log.newer(self._db, after=self.head, limit=_PAGE)
            full = len(events) == _PAGE
            if events:
                self._append(events)

    def _append(self, events: list[LoggedEvent]) -> None:
        before = self.head
        self._window.extend(events)
        self._bytes += sum(event.size for event in events)
        self.head = events[-1].position
        dropped = 0
        while len(self._window) - dropped > self._max_events or self._bytes > self._max_bytes:
            self._bytes -= self._window[dropped].size
            self._floor = self._window[dropped].position
            dropped += 1
        del self._window[:dropped]
        for owner_id in {None, *(event.event.bearer_id for event in events)}:
            self._wake(owner_id, before)

    def _begin_at(self, position: int) -> None:
        self._window.clear()
        self._bytes = 0
        self._floor = self.head = position

    def _wake(self, owner_id: int | None, nothing_up_to: int) -> None:
        for woken in self._waiting.pop(owner_id, ()):
            if not woken.done():
                woken.set_result(nothing_up_to)

    def _recent(self, after: int, owner_id: int | None, types: frozenset[str]) -> Batch:
        start = bisect_right(self._window, after, key=lambda logged: logged.position)
        events: list[pb.Event] = []
        size = 0
        reached = after
        for logged in islice(self._window, start, start + _SCAN):
            event = logged.event
            if (owner_id is None or event.bearer_id == owner_id) and (not types or event.type in types):
                size += logged.size
                if len(events) == MAX_BATCH_EVENTS or (events and size > MAX_BATCH_BYTES):
                    break
                events.append(event)
            reached = logged.position
        return Batch(events, reached)
