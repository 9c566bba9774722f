"""Messages to our numbers: each is kept once, told once, and where nobody knows its sender, answered once a day."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import namedtuple_row, scalar_row

from server.db import Database, Parameters, fetch_one
from server.errors import Unavailable
from server.messages import convert, inbound_queries
from server.messages.drafts import MMS_OVER_CHARACTERS
from server.messages.keywords import keyword_of
from server.messages.message import INBOUND, NO_RANK, OUTBOUND, Message
from server.messages.messages import LANES, STATUS_UPDATE, event_parameters
from server.notifications import Channel, Notifications
from server.providers.ports import InboundMessage, Keyword, MessageStatus
from server.validation import e164

_EVENTS = {"sms": "messages.message.inbound_sms", "mms": "messages.message.inbound_mms"}

_RECEIVED = "received"

# A sender is answered once in so long.
ANSWERED_ONCE_IN = timedelta(days=1)


class NobodyToReceive(Unavailable):
    """There is no bearer that the message could belong to: it stays with the provider, who tries again."""


async def receive_message(
    db: Database,
    notifications: Notifications,
    *,
    provider: str,
    message: InboundMessage,
    unknown_sender_answer: str,
    now: datetime,
) -> None:
    """Keep a message that a provider brought, in its conversation or for the owner of the number it came to.

    One that was brought before, or is at the same moment, changes nothing. Raises NobodyToReceive while there is no
    Admin at all.
    """
    asked = {
        "provider": provider,
        "sender_number": _spelled(message.sender_number),
        "receiver_number": _spelled(message.receiver_number),
        "answered_since": now - ANSWERED_ONCE_IN,
    }
    found: Any = await db.fetch_one(inbound_queries.RESOLVE, asked, namedtuple_row)
    if found.bearer_id is None:
        raise NobodyToReceive("there is no Admin to keep the message for")
    keyword = message.keyword or keyword_of(message.message_body)
    received = _received(found, message, provider=provider, now=now)
    statement = inbound_queries.insert(keyword=keyword, with_media=bool(message.media))
    inserted = {
        **_parameters(received, event_type=_EVENTS[received.message_type]),
        "media_content_types": [media.content_type for media in message.media],
    }
    if _may_be_answered(found, received, keyword=keyword):
        answer = _answer(found, received, text=unknown_sender_answer)
        answered = {
            **_parameters(answer, event_type=STATUS_UPDATE),
            "now": now,
            "answered_since": asked["answered_since"],
        }
        async with db.connection() as connection, connection.transaction():
            if await fetch_one(connection, statement, inserted, scalar_row) is not None:
                await fetch_one(connection, inbound_queries.ANSWER, answered, scalar_row)
        notifications.notify(LANES[answer.priority])
    else:
        await db.fetch_one(statement, inserted, scalar_row)
    notifications.notify(Channel.OUTBOX, *([Channel.MEDIA] if message.media else []))


def _spelled(number: str) -> str:
    """In E.164, as numbers are stored; a short code or a name as it came."""
    return e164(number) or number


def _may_be_answered(found: Any, received: Message, *, keyword: Keyword | None) -> bool:
    """Whether it is an unknown sender's who can be answered, and has not said anything that the carrier answers."""
    return (
        found.conversation_id is None
        and found.messaging_service_id is not None
        and not found.has_opted_out
        and not found.was_answered
        and keyword is None
        and e164(received.sender_number) == received.sender_number
    )


def _received(found: Any, message: InboundMessage, *, provider: str, now: datetime) -> Message:
    """The message as it is kept."""
    return Message(
        id=found.id,
        message_uuid=found.message_uuid,
        bearer_id=found.bearer_id,
        conversation_id=found.conversation_id,
        direction=INBOUND,
        provider=provider,
        messaging_service_id=found.messaging_service_id,
        messaging_service_sid=found.messaging_service_sid,
        sender_number=found.contact,
        receiver_number=found.phone_number,
        message_body=message.message_body,
        media_urls=[media.url for media in message.media],
        stored_media=[],
        message_type="mms" if message.media else "sms",
        priority="default",
        callback_url=found.callback_url,
        internal_status=MessageStatus.DELIVERED,
        provider_status=_RECEIVED,
        provider_rank=NO_RANK,
        message_sid=message.message_sid,
        error_code=None,
        error_description=None,
        scheduled_at=None,
        enqueued_at=None,
        sent_at=None,
        delivered_at=now,
        failed_at=None,
        created_at=now,
        updated_at=now,
        sequence=1,
        due_at=None,
        attempts=0,
        first_claimed_at=None,
        in_doubt=False,
        check_at=None,
        checks=0,
        client_conversation_id=found.client_conversation_id,
        internal_conversation_id=found.internal_conversation_id,
        global_id=found.global_id,
        phone_number_type=found.phone_number_type,
    )


def _answer(found: Any, received: Message, *, text: str) -> Message:
    """The message that is to be sent back."""
    return replace(
        received,
        id=found.answer_id,
        message_uuid=found.answer_uuid,
        direction=OUTBOUND,
        provider=found.service_provider,
        messaging_service_sid=found.answer_service_sid,
        sender_number=received.receiver_number,
        receiver_number=received.sender_number,
        message_body=text,
        media_urls=[],
        message_type="mms" if len(text) > MMS_OVER_CHARACTERS else "sms",
        internal_status=MessageStatus.PENDING,
        provider_status=None,
        message_sid=None,
        enqueued_at=received.created_at,
        delivered_at=None,
        due_at=received.created_at,
    )


def _parameters(message: Message, *, event_type: str) -> Parameters:
    """What a statement that inserts the message and its first event is given."""
    resource = convert.message_to_proto(message)
    return {**message.parameters(), **event_parameters(message, resource, event_type=event_type)}
