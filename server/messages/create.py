"""Accepting a message: who it is from, to whom, in which conversation; then everything is written at once."""

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from commonservices.v1 import message_pb2 as pb
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, namedtuple_row, scalar_row

from server.caller import Caller
from server.conversations.keys import ConversationNotFound
from server.db import Database, fetch_one, violated_constraint
from server.encryption import Cipher
from server.errors import FailedPrecondition, InvalidArgument
from server.idempotency import RequestKey
from server.messages import convert, create_queries
from server.messages.drafts import SENDER_MISSING, Draft
from server.messages.message import NO_RANK, OUTBOUND, Message
from server.messages.messages import LANES, TRIES, TooManyChanges, event_parameters
from server.notifications import Channel, Notifications
from server.numbers import selection
from server.numbers.selection import NoSenderNumber, NumberPoolExhausted, PhoneNumberPaired, SenderNumberNotOwned
from server.providers.ports import MessageStatus

# Database.fetch_one, or the same inside a transaction.
Fetch = Callable[..., Awaitable[Any]]


class RecipientOptedOut(FailedPrecondition):
    """The receiver takes no messages of this messaging service."""

    reason = "RECIPIENT_OPTED_OUT"

    def __init__(self, receiver_number: str) -> None:
        super().__init__("the receiver has opted out of messages from this sender", receiver_number=receiver_number)


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
    create = _Create(cipher, caller=caller, draft=draft, request_key=request_key)
    for attempt in range(TRIES):
        try:
            if attempt == 0:
                accepted = await create.run(db.fetch_one)
            else:
                async with db.connection() as connection, connection.transaction():
                    accepted = await create.run(await _contact_locked(connection, draft))
        except psycopg.errors.UniqueViolation as error:
            if violated_constraint(error) not in create_queries.COLLISIONS:
                raise
            continue
        if accepted is not None:
            notifications.notify(*create.wakes)
            return accepted, not create.wakes
    raise TooManyChanges("too many requests with this request id or conversation at once; try again")


async def _contact_locked(connection: AsyncConnection[TupleRow], draft: Draft) -> Fetch:
    """How statements run in this transaction, which has the contact for itself."""
    await connection.execute(selection.LOCK_CONTACT.encode(), {"receiver_number": draft.receiver_number})

    async def fetch(query: str, parameters: Any, row: Any) -> Any:
        return await fetch_one(connection, query, parameters, row)

    return fetch


class _Create:
    """One create, of one or more tries."""

    def __init__(self, cipher: Cipher, *, caller: Caller, draft: Draft, request_key: RequestKey | None) -> None:
        self._cipher = cipher
        self._caller = caller
        self._draft = draft
        self._request_key = request_key
        # Who is to hear of the message; nobody where it was accepted before.
        self.wakes: tuple[Channel, ...] = ()

    async def run(self, fetch: Fetch) -> pb.Message | None:
        """Accept it; None where the request id was taken meanwhile."""
        draft, key = self._draft, self._request_key
        found = await self._resolve(fetch)
        if key is not None and found.response_encrypted is not None:
            key.check(found.fingerprint)
            return pb.Message.FromString(self._cipher.decrypt(found.response_encrypted))
        _check(found, draft)
        message = _accepted(found, caller=self._caller, draft=draft)
        resource = convert.message_to_proto(message)
        parameters = {
            **message.parameters(),
            **event_parameters(message, resource),
            "conversation_callback_url": draft.callback_url,
            "conversation_service_id": found.named_service_id or found.messaging_service_id,
        }
        if key is not None:
            parameters |= key.parameters(self._cipher.encrypt(resource.SerializeToString()))
        statement = create_queries.insert(
            with_request_id=key is not None,
            with_new_conversation=found.conversation_id is None,
            with_new_pairing=found.paired_conversation_id is None,
            with_line_type=not found.line_type_is_known,
        )
        if await fetch(statement, parameters, scalar_row) is None:
            return None
        self.wakes = (
            Channel.OUTBOX,
            *([LANES[message.priority]] if message.scheduled_at is None else []),
            *([] if found.line_type_is_known else [Channel.LINE_TYPES]),
        )
        return resource

    async def _resolve(self, fetch: Fetch) -> Any:
        draft = self._draft
        parameters = {
            "bearer_id": self._caller.bearer_id,
            "conversation_key": draft.conversation.parameter() if draft.conversation else None,
            "request_id": self._request_key.request_id if self._request_key else None,
            **selection.parameters(
                sender_number=draft.sender_number,
                receiver_number=draft.receiver_number,
                messaging_service_sid=draft.messaging_service_sid,
                global_customer_id=draft.global_customer_id,
            ),
        }
        statement = create_queries.resolve(draft.conversation_field, sender_given=draft.sender_number is not None)
        return await fetch(statement, parameters, namedtuple_row)


def _check(found: Any, draft: Draft) -> None:
    """Raise unless the conversation is there and there is a number to send from that the receiver takes messages of."""
    named = draft.conversation
    if named is not None and found.conversation_id is None and named.name != "client_conversation_id":
        raise ConversationNotFound(named)
    if draft.sender_number is not None:
        if found.phone_number is None or not _is_of_service(found, draft):
            raise SenderNumberNotOwned(draft.sender_number)
        if found.paired_conversation_id not in (None, found.conversation_id):
            raise PhoneNumberPaired(draft.sender_number)
    elif not _is_one_service(found, draft):
        raise NoSenderNumber(_named_service(draft), is_there=False)
    elif found.phone_number is None:
        if found.service_has_numbers:
            raise NumberPoolExhausted(draft.receiver_number)
        if not draft.names_a_sender and found.named_service_id is None:
            raise InvalidArgument([SENDER_MISSING])
        raise NoSenderNumber(_named_service(draft), is_there=True)
    if found.recipient_opted_out:
        raise RecipientOptedOut(draft.receiver_number)


def _is_one_service(found: Any, draft: Draft) -> bool:
    """Whether the messaging service that is named is there, and is the customer's where both are named."""
    if not _named_service(draft):
        return True
    return found.named_service_id is not None and draft.global_customer_id in (None, found.global_customer_id)


def _is_of_service(found: Any, draft: Draft) -> bool:
    """Whether the number that is named is one of the messaging service that is named, or of the pool."""
    if not _named_service(draft):
        return True
    return _is_one_service(found, draft) and (found.messaging_service_id == found.named_service_id or found.is_k12_pool)


def _named_service(draft: Draft) -> dict[str, str]:
    given = {"messaging_service_sid": draft.messaging_service_sid, "global_customer_id": draft.global_customer_id}
    return {name: value for name, value in given.items() if value is not None}


def _accepted(found: Any, *, caller: Caller, draft: Draft) -> Message:
    """The message as it is accepted now."""
    return Message(
        id=found.id,
        message_uuid=found.message_uuid,
        bearer_id=caller.bearer_id,
        conversation_id=found.conversation_id,
        direction=OUTBOUND,
        provider=found.provider,
        messaging_service_id=found.messaging_service_id,
        messaging_service_sid=found.messaging_service_sid,
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
        client_conversation_id=found.client_conversation_id or draft.client_conversation_id,
        internal_conversation_id=found.internal_conversation_id,
        global_id=found.global_id,
        phone_number_type=found.phone_number_type,
    )
