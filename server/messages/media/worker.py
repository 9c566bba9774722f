"""The media worker: claim, fetch, check, store, record. The last file of a message that is settled tells of them all.

A file is stored before it is recorded: a crash between the two leaves a file that nobody knows, and one more fetch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from psycopg.rows import class_row, scalar_row

from server.db import Database, Parameters, fetch_one
from server.messages.media import queries
from server.messages.media.types import MAX_BYTES, proven_type
from server.messages.media.urls import message_with_media
from server.messages.message import Message
from server.messages.messages import TRIES, TooManyChanges, event_parameters
from server.messages.retry import BACKOFF, GIVE_UP_AFTER
from server.notifications import Channel, Notifications
from server.providers.ports import Media, MediaFetcher, MediaRefused, ProviderUnavailable
from server.storage import Storage, StorageFailed, new_key

log = structlog.get_logger()

IMAGES_LAMBDA = "messages.message.images_lambda"

NOT_STORED = "MEDIA_NOT_STORED"

# Longer than fetching and storing may take, every redirect and every retry included.
LEASE = timedelta(minutes=5)

# Files that one process fetches at a time: each has a worker of its own, so that a slow one holds up no other. Each is
# in memory as a whole.
WORKERS = 8

# How many files a message names that are not stored; no carrier takes a message of more.
_TOLD = 10


@dataclass(frozen=True)
class Claim:
    """A leased file."""

    id: int
    message_id: int
    place: int
    url: str
    attempts: int
    created_at: datetime
    message_uuid: UUID
    bearer_id: int
    provider: str


@dataclass(frozen=True)
class File:
    """What is known of a file of a message."""

    id: int
    place: int
    storage_key: str | None
    error: str | None
    is_due: bool


class MediaWorker:
    """Stores the media of inbound messages, one after the other."""

    def __init__(
        self, db: Database, notifications: Notifications, fetchers: Mapping[str, MediaFetcher], storage: Storage
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._fetchers = fetchers
        self._storage = storage

    async def step(self) -> bool:
        """Claim a file that is due and see it through; whether there was one."""
        claim = await self._db.fetch_one(queries.CLAIM, {"lease": LEASE}, class_row(Claim))
        if claim is not None:
            await self._handle(claim)
        return claim is not None

    async def _handle(self, claim: Claim) -> None:
        """Store one file and record it. What fails here leaves the lease to run out."""
        began = datetime.now(UTC)
        try:
            outcome, reason = await self._store(claim)
        except Exception:
            log.exception("media.attempt_failed", message_uuid=str(claim.message_uuid), place=claim.place)
            return
        log.info(
            "media.attempted",
            message_uuid=str(claim.message_uuid),
            bearer_id=claim.bearer_id,
            provider=claim.provider,
            place=claim.place,
            attempt=claim.attempts,
            outcome=outcome,
            reason=reason,
            duration_ms=round((datetime.now(UTC) - began).total_seconds() * 1000, 1),
        )

    async def _store(self, claim: Claim) -> tuple[str, str | None]:
        """What came of it, and why where that is a refusal."""
        try:
            media = await self._fetch(claim)
            content_type = proven_type(media.content_type, media.data)
        except MediaRefused as refusal:
            return await self._refuse(claim, str(refusal))
        except ProviderUnavailable as failure:
            return await self._try_later(claim, failure)
        key = new_key("media", content_type)
        try:
            await self._storage.put(key, media.data)
        except StorageFailed as failure:
            # However long that takes: it is no fault of the file's.
            log.warning("media.storage_failed", message_uuid=str(claim.message_uuid), error=str(failure))
            await self._postpone(claim, retry_after=None)
            return "storage_failed", None
        file = File(claim.id, claim.place, storage_key=key, error=None, is_due=False)
        return await self._settle(claim, file, content_type), None

    async def _fetch(self, claim: Claim) -> Media:
        fetcher = self._fetchers.get(claim.provider)
        if fetcher is None:
            raise ProviderUnavailable(f"{claim.provider} is not configured any more")
        return await fetcher.fetch(claim.url, max_bytes=MAX_BYTES)

    async def _try_later(self, claim: Claim, failure: ProviderUnavailable) -> tuple[str, str | None]:
        if datetime.now(UTC) - claim.created_at > GIVE_UP_AFTER:
            return await self._refuse(claim, "could not be fetched within 24 hours")
        await self._postpone(claim, retry_after=failure.retry_after)
        return "unavailable", None

    async def _refuse(self, claim: Claim, reason: str) -> tuple[str, str | None]:
        file = File(claim.id, claim.place, storage_key=None, error=reason, is_due=False)
        return await self._settle(claim, file), reason

    async def _postpone(self, claim: Claim, *, retry_after: timedelta | None) -> None:
        delay = BACKOFF.delay(claim.attempts, retry_after)
        parameters = {"id": claim.id, "attempts": claim.attempts, "delay": delay}
        await self._db.execute(queries.POSTPONE, parameters)

    async def _settle(self, claim: Claim, settled: File, content_type: str | None = None) -> str:
        """Record a file, and if it is the last of its message, where they all are and the event.

        URLs are signed before the transaction, which must find the message and the other files as they were then.
        """
        parameters = {
            "id": claim.id,
            "message_id": claim.message_id,
            "attempts": claim.attempts,
            "storage_key": settled.storage_key,
            "error": settled.error,
            "content_type": content_type,
        }
        for _ in range(TRIES):
            files = await self._db.fetch_all(queries.FILES, parameters, class_row(File))
            message = await self._db.fetch_one(queries.MESSAGE, parameters, class_row(Message))
            assert message is not None, "messages are never deleted"
            others_due = sum(file.is_due for file in files if file.id != claim.id)
            news = None
            if others_due == 0:
                files = [settled if file.id == claim.id else file for file in files]
                news = await self._news(stored(message, files, now=datetime.now(UTC)))
            async with self._db.connection() as connection, connection.transaction():
                sequence = await fetch_one(connection, queries.LOCK, parameters, scalar_row)
                still_due = await fetch_one(connection, queries.COUNT_OTHERS_DUE, parameters, scalar_row)
                if (sequence, still_due) != (message.sequence, others_due):
                    continue
                if await fetch_one(connection, queries.SETTLE, parameters, scalar_row) is None:
                    return "settled_meanwhile"
                if news is not None:
                    await fetch_one(connection, queries.STORE, news, scalar_row)
            if news is not None:
                self._notifications.notify(Channel.OUTBOX)
            return "stored" if settled.error is None else "refused"
        raise TooManyChanges("the files kept changing")

    async def _news(self, message: Message) -> Parameters:
        """What STORE is given."""
        resource = await message_with_media(self._storage, message)
        return {**message.parameters(), **event_parameters(message, resource, event_type=IMAGES_LAMBDA)}


def stored(message: Message, files: Sequence[File], *, now: datetime) -> Message:
    """The message after the last of its files was settled: where they are, and which are not and why."""
    keys = [file.storage_key for file in files if file.storage_key is not None]
    changed = replace(message, stored_media=keys, sequence=message.sequence + 1, updated_at=now)
    reasons = [f"media_urls[{file.place}] {file.error}" for file in files if file.storage_key is None]
    if not reasons:
        return changed
    which = "Some media" if keys else "The media"
    told = reasons[:_TOLD] + ([f"and {len(reasons) - _TOLD} more"] if len(reasons) > _TOLD else [])
    description = f"{which} could not be stored: {'; '.join(told)}."
    return replace(changed, error_code=NOT_STORED, error_description=description)
