"""Messages: accept, read, cancel. Every change goes through `save`, with the event that tells it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from commonservices.v1 import event_pb2
from commonservices.v1 import message_pb2 as pb
from psycopg.rows import class_row, namedtuple_row, scalar_row

from server.caller import Caller
from server.db import Database, Parameters, violated_constraint
from server.encryption import Cipher
from server.errors import FailedPrecondition, NotFound, Unavailable
from server.events import outbox
from server.idempotency import RequestKey
from server.messages import convert, queries
from server.messages.drafts import Draft
from server.messages.message import NO_RANK, OUTBOUND, Message, cancelled, is_cancellable
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


class SenderNumberNotOwned(FailedPrecondition):
    """The sender number is not one of ours, or not of the messaging service that was named."""

    reason = "SENDER_NUMBER_NOT_OWNED"

    def __init__(self, sender_number: str) -> None:
        super().__init__(f"{sender_number} is not a number of the messaging service", sender_number=sender_number)


class NoSenderNumber(FailedPrecondition):
    """The messaging service that was named does not exist or has no number."""

    reason = "NO_SENDER_NUMBER"

    def __init__(self, **named: str) -> None:
        super().__init__("no messaging service of this name has a number to send from", **named)


class TooManyChanges(Unavailable):
    """Others kept changing the same thing."""


async def create_message(
    db: Database,
    notifications: Notifications,
    cipher: Cipher,
    *,
    caller: Caller,
    draft: Draft,
    request_key: RequestKey | None,
) -> tuple[pb.Message, bool]:
    """Accept a message; answers it, and whether it is the answer to an earlier request with the same request id."""
    for _ in range(TRIES):
        found: Any = await _resolve(db, caller=caller, draft=draft, request_key=request_key)
        if request_key is not None and found.response_encrypted is not None:
            request_key.check(found.fingerprint)
            return pb.Message.FromString(cipher.decrypt(found.response_encrypted)), True
        _check_sender(found, draft)
        message = _accepted(found, caller=caller, draft=draft)
        resource = convert.message_to_proto(message)
        parameters = {
            **message.parameters(),
            **_event_parameters(message, resource),
            "conversation_callback_url": draft.callback_url,
        }
        if request_key is not None:
            parameters |= request_key.parameters(cipher.encrypt(resource.SerializeToString()))
        statement = queries.insert(
            with_request_id=request_key is not None,
            with_new_conversation=draft.client_conversation_id is not None and found.conversation_id is None,
        )
        try:
            inserted = await db.fetch_one(statement, parameters, scalar_row)
        except psycopg.errors.UniqueViolation as error:
            if violated_constraint(error) != queries.CONVERSATION_IS_UNIQUE:
                raise
            continue
        if inserted is not None:
            notifications.notify(Channel.OUTBOX, *([LANES[message.priority]] if message.scheduled_at is None else []))
            return resource, False
    raise TooManyChanges("too many requests with this request id or conversation at once; try again")


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
        **_event_parameters(message, convert.message_to_proto(message)),
        **(more or {}),
        "seen_sequence": seen.sequence,
        "attempts": seen.attempts,
    }
    if await db.fetch_one(statement, parameters, scalar_row) is None:
        return False
    notifications.notify(Channel.OUTBOX)
    return True


async def _resolve(db: Database, *, caller: Caller, draft: Draft, request_key: RequestKey | None) -> Any:
    """The row of a RESOLVE statement."""
    parameters = {
        "bearer_id": caller.bearer_id,
        "client_conversation_id": draft.client_conversation_id,
        "request_id": request_key.request_id if request_key else None,
        "sender_number": draft.sender_number,
        "messaging_service_sid": draft.messaging_service_sid,
        "global_customer_id": draft.global_customer_id,
    }
    if draft.sender_number is not None:
        statement = queries.RESOLVE_BY_NUMBER
    elif draft.messaging_service_sid is not None:
        statement = queries.RESOLVE_BY_SERVICE
    else:
        statement = queries.RESOLVE_BY_CUSTOMER
    return await db.fetch_one(statement, parameters, namedtuple_row)


def _check_sender(found: Any, draft: Draft) -> None:
    """Raise unless there is a number to send from, and it is of the messaging service that was named."""
    named = {
        name: value
        for name, value in (
            ("messaging_service_sid", draft.messaging_service_sid),
            ("global_customer_id", draft.global_customer_id),
        )
        if value is not None
    }
    is_of_service = (
        found.phone_number is not None
        and draft.messaging_service_sid in (None, found.twilio_messaging_sid)
        and draft.global_customer_id in (None, found.global_customer_id)
    )
    if not is_of_service:
        raise NoSenderNumber(**named) if draft.sender_number is None else SenderNumberNotOwned(draft.sender_number)


def _accepted(found: Any, *, caller: Caller, draft: Draft) -> Message:
    """The message as it is accepted now."""
    in_conversation = draft.client_conversation_id is not None
    return Message(
        id=found.id,
        message_uuid=found.message_uuid,
        bearer_id=caller.bearer_id,
        conversation_id=found.conversation_id,
        direction=OUTBOUND,
        provider=found.provider,
        messaging_service_id=found.messaging_service_id,
        messaging_service_sid=found.twilio_messaging_sid,
        sender_number=found.phone_number,
        receiver_number=draft.receiver_number,
        message_body=draft.message_body,
        media_urls=draft.media_urls,
        stored_media=[],
        message_type=draft.message_type,
        priority=draft.priority,
        callback_url=draft.callback_url or found.conversation_callback_url or found.bearer_callback_url,
        internal_status=MessageStatus.PENDING,
        provider_status=None,
        provider_rank=NO_RANK,
        message_sid=None,
        error_code=None,
        error_description=None,
        scheduled_at=draft.scheduled_at,
        enqueued_at=found.now if draft.scheduled_at is None else None,
        sent_at=None,
        delivered_at=None,
        failed_at=None,
        created_at=found.now,
        updated_at=found.now,
        sequence=1,
        due_at=draft.scheduled_at or found.now,
        attempts=0,
        first_claimed_at=None,
        in_doubt=False,
        check_at=None,
        checks=0,
        phone_number_type=None,
        client_conversation_id=draft.client_conversation_id,
        internal_conversation_id=found.internal_conversation_id if in_conversation else None,
        global_id=found.global_id if in_conversation else None,
    )


def _event_parameters(message: Message, resource: pb.Message) -> Parameters:
    event: event_pb2.Event = outbox.new_event(
        event_type=STATUS_UPDATE,
        bearer_id=message.bearer_id,
        resource_uuid=message.message_uuid,
        sequence=message.sequence,
        occurred_at=resource.updated_at,
    )
    event.message.CopyFrom(resource)
    return outbox.parameters(event, callback_url=message.callback_url)
