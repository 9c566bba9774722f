"""What an image processor of the caller's own says: where it has stored the media of an inbound message."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from server.caller import Caller
from server.db import Database, fetch_one
from server.errors import FailedPrecondition
from server.messages import convert
from server.messages.media import queries
from server.messages.media.worker import IMAGES_LAMBDA, NOT_STORED
from server.messages.message import INBOUND, Message
from server.messages.messages import MessageNotFound, event_parameters
from server.notifications import Channel, Notifications


class MessageNotInbound(FailedPrecondition):
    """Only an inbound message has media files."""

    reason = "MESSAGE_NOT_INBOUND"

    def __init__(self, message_uuid: UUID) -> None:
        super().__init__("only an inbound message has media files", message_uuid=str(message_uuid))


async def store_images(
    db: Database,
    notifications: Notifications,
    *,
    caller: Caller,
    message_uuid: UUID,
    media_file_urls: Sequence[str],
    now: datetime,
) -> Message:
    """Show these in place of what was there, and fetch nothing more; an event tells it unless it was so before."""
    lock = queries.LOCK_BY_UUID if caller.is_admin else queries.LOCK_OWN_BY_UUID
    asked = {"message_uuid": message_uuid, "bearer_id": caller.owner_id}
    async with db.connection() as connection, connection.transaction():
        message = await fetch_one(connection, lock, asked, class_row(Message))
        if message is None:
            raise MessageNotFound(str(message_uuid))
        if message.direction != INBOUND:
            raise MessageNotInbound(message_uuid)
        changed = stored_elsewhere(message, media_file_urls, now=now)
        if changed is None:
            return message
        resource = convert.message_to_proto(changed, changed.stored_media)
        news = {**changed.parameters(), **event_parameters(changed, resource, event_type=IMAGES_LAMBDA)}
        await fetch_one(connection, queries.STORE, news, scalar_row)
        cancelled = {"message_id": message.id, "error": "was stored by an image processor"}
        await connection.execute(queries.CANCEL.encode(), cancelled)
    notifications.notify(Channel.OUTBOX)
    return changed


def stored_elsewhere(message: Message, media_file_urls: Sequence[str], *, now: datetime) -> Message | None:
    """The message once its media are there; None where they were before."""
    if message.stored_media == list(media_file_urls):
        return None
    changed = replace(message, stored_media=list(media_file_urls), sequence=message.sequence + 1, updated_at=now)
    return replace(changed, error_code=None, error_description=None) if message.error_code == NOT_STORED else changed
