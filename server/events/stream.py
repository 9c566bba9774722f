"""Subscriptions: where they begin and how they follow the log. A subscriber costs a position, never a queue."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime, timedelta

from server.db import Database
from server.errors import ResourceExhausted, Unavailable
from server.events import cursor, log
from server.events.cursor import CursorInvalid
from server.events.feed import Feed
from server.events.log import Batch, CursorExpired
from server.notifications import Channel, Notifications


class SubscriberTooSlow(ResourceExhausted):
    """The subscriber did not read in time."""

    reason = "SUBSCRIBER_TOO_SLOW"

    def __init__(self, position: int) -> None:
        super().__init__("the subscriber does not read; resume after cursor", cursor=cursor.encode(position))


class Streams:
    """The running streams of this process."""

    def __init__(self, db: Database, notifications: Notifications, feed: Feed) -> None:
        self._db = db
        self._feed = feed
        self._is_closed = False
        # Counts endings of keys: a stream that has not proven its own since does so.
        self._keys_ended = 0
        notifications.listen(Channel.API_KEYS, self._recheck)
        # What ended while nobody listened was not heard.
        notifications.on_connect(self._recheck)

    def close(self) -> None:
        """End all streams so that their subscribers resume at another process."""
        self._is_closed = True
        self._feed.interrupt()

    async def begin(self, *, after_cursor: str | None, from_start: bool, from_time: datetime | None) -> int:
        """The position that a stream follows: the newest event's when nothing is given."""
        ends = await log.ends(self._db)
        if after_cursor is not None:
            position = cursor.decode(after_cursor)
            if position > ends.last_position:
                raise CursorInvalid
            if position < ends.oldest_position:
                raise CursorExpired(ends.oldest_position)
            return position
        if from_start:
            return ends.oldest_position
        if from_time is not None:
            return max(ends.oldest_position, await log.first_at(self._db, from_time) - 1)
        return ends.last_position

    async def follow(
        self,
        *,
        after: int,
        owner_id: int | None,
        types: frozenset[str],
        heartbeat: timedelta,
        prove: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[Batch]:
        """The batches after a position: the first at once, then without events where there are none for `heartbeat`.

        `prove` raises when the subscriber may no longer listen; it is asked once a heartbeat and whenever a key ends.
        """
        time = asyncio.get_running_loop().time
        silence = heartbeat.total_seconds()
        beat_at = time()
        prove_at = time() + silence
        keys_ended = self._keys_ended
        with self._feed.joined():
            while True:
                if self._is_closed:
                    raise Unavailable("the server is stopping; resume with the last cursor")
                if keys_ended != self._keys_ended or time() >= prove_at:
                    keys_ended = self._keys_ended
                    prove_at = time() + silence
                    await prove()
                batch = await self._feed.read(after=after, owner_id=owner_id, types=types)
                if batch.events or time() >= beat_at:
                    yield batch
                    beat_at = time() + silence
                after = batch.position
                # What happened during the reading and the writing interrupted nobody who waits.
                is_current = not self._is_closed and keys_ended == self._keys_ended
                if not batch.events and is_current:
                    timeout = max(0.0, min(beat_at, prove_at) - time())
                    after = await self._feed.wait(after=after, owner_id=owner_id, timeout=timeout)

    def _recheck(self) -> None:
        self._keys_ended += 1
        self._feed.interrupt()
