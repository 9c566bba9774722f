"""Messages: read, cancel. Every change goes through `save`, with the event that tells it."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from commonservices.v1 import event_pb2
from commonservices.v1 import message_pb2 as pb
from psycopg.rows import class_row, scalar_row

from server.caller import Caller
from server.conversations.keys import ConversationKey, ConversationNotFound
from server.db import Database, Parameters
from server.errors import FailedPrecondition, NotFound, Unavailable
from server.events import outbox
from server.messages import convert, queries
from server.messages.message import Message, cancelled, is_cancellable
from server.notifications import Channel, Notifications
from server.paging import Page
from server.providers.ports import MessageStatus

STATUS_UPDATE = "messages.message.status_update"

# Whom a due message wakes, by its priority.
LANES = {"default": Channel.MESSAGES_DEFAULT, "high": Channel.MESSAGES_HIGH}

# How often a change is tried anew because another change of the same thing came between reading and writing.
TRIES = 10


class MessageNotFound(NotFound):
    """No such message, or another bearer's."""

    reason = "MESSAGE_NOT_FOUND"

    def __init__(self, message_uuid: str) -> None:
        super().__init__(f"no message {message_uuid}", message_uuid=message_uuid)


class MessageNotCancellable(FailedPrecondition):
    """The message does not wait for a scheduled time any more, or never did."""

    reason = "MESSAGE_NOT_CANCELLABLE"

    def __init__(self, message: Message) -> None:
        super().__init__(
            f"only a message that waits for its scheduled time can be cancelled; this one is {message.internal_status}",
            message_uuid=str(message.message_uuid),
            internal_status=message.internal_status,
        )


class TooManyChanges(Unavailable):
    """Others kept changing the same thing."""


async def get_message(db: Database, *, caller: Caller, message_uuid: UUID) -> Message:
    """A message of the caller's bearer; any for an Admin."""
    parameters = {"message_uuid": message_uuid, "bearer_id": caller.owner_id}
    message = await db.fetch_one(queries.GET if caller.is_admin else queries.GET_OWN, parameters, class_row(Message))
    if message is None:
        raise MessageNotFound(str(message_uuid))
    return message


async def list_messages(
    db: Database, *, caller: Caller, sender_number: str, receiver_number: str, page: Page
) -> tuple[Sequence[Message], str]:
    """A page of the messages from one number to another, newest first."""
    parameters = {
        "bearer_id": caller.owner_id,
        "sender_number": sender_number,
        "receiver_number": receiver_number,
        "after_id": page.after_id,
        "limit": page.limit,
    }
    query = queries.LIST if caller.is_admin else queries.LIST_OWN
    return page.cut(await db.fetch_all(query, parameters, class_row(Message)))


async def list_conversation_messages(
    db: Database, *, caller: Caller, conversation_id: int, page: Page
) -> tuple[Sequence[Message], str]:
    """A page of a conversation's messages in both directions, newest first."""
    owned = {"conversation_id": conversation_id, "owner_id": caller.owner_id}
    if await db.fetch_one(queries.OWNS_CONVERSATION, owned, scalar_row) is None:
        raise ConversationNotFound(ConversationKey("id", str(conversation_id)))
    parameters = {"conversation_id": conversation_id, "after_id": page.after_id, "limit": page.limit}
    return page.cut(await db.fetch_all(queries.LIST_OF_CONVERSATION, parameters, class_row(Message)))


async def cancel_message(
    db: Database, notifications: Notifications, *, caller: Caller, message_uuid: UUID, now: datetime
) -> None:
    """Cancel a message that waits for its time. Whoever writes first, this or a worker's claim, excludes the other."""
    for _ in range(TRIES):
        message = await get_message(db, caller=caller, message_uuid=message_uuid)
        if message.internal_status == MessageStatus.CANCELLED:
            return
        if not is_cancellable(message):
            raise MessageNotCancellable(message)
        if await save(db, notifications, cancelled(message, now=now), seen=message):
            return
    raise TooManyChanges("the message kept changing; try again")


async def save(
    db: Database,
    notifications: Notifications,
    message: Message,
    *,
    seen: Message,
    statement: str = queries.SAVE,
    more: Parameters | None = None,
) -> bool:
    """Write a change and its event; False if the message is no longer as it was `seen`.

    Raises psycopg.errors.UniqueViolation if the change records a sid that another message has.
    """
    parameters = {
        **message.parameters(),
        **event_parameters(message, convert.message_to_proto(message)),
        **(more or {}),
        "seen_sequence": seen.sequence,
        "attempts": seen.attempts,
    }
    if await db.fetch_one(statement, parameters, scalar_row) is None:
        return False
    notifications.notify(Channel.OUTBOX)
    return True


def event_parameters(message: Message, resource: pb.Message, *, event_type: str = STATUS_UPDATE) -> Parameters:
    """The parameters of `outbox.append_from` for the event that tells of the message as it is now."""
    event: event_pb2.Event = outbox.new_event(
        event_type=event_type,
        bearer_id=message.bearer_id,
        resource_uuid=message.message_uuid,
        sequence=message.sequence,
        occurred_at=resource.updated_at,
    )
    event.message.CopyFrom(resource)
    return outbox.parameters(event, callback_url=message.callback_url)
