"""A message as a value, and what may become of it: pure, with the time as an argument."""

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from operator import attrgetter
from uuid import UUID

from server.providers.ports import MessageReport, MessageStatus, OutboundMessage, ProviderError

# No report moves a message out of these.
FINAL = frozenset({MessageStatus.DELIVERED, MessageStatus.FAILED, MessageStatus.CANCELLED})

# Before any report.
NO_RANK = -1

OUTBOUND = "outbound"
INBOUND = "inbound"

GAVE_UP = "PROVIDER_UNAVAILABLE"

# What may have come between a message and its sending, and how its sender is told.
BEARER_DELETED = "BEARER_DELETED"
OPTED_OUT = "RECIPIENT_OPTED_OUT"
PAIRED_ELSEWHERE = "PHONE_NUMBER_PAIRED"
_NOT_TO_BE_SENT = {
    BEARER_DELETED: "The bearer was deleted before this message was sent.",
    OPTED_OUT: "The receiver opted out of messages from this sender before this one was sent.",
    PAIRED_ELSEWHERE: "Before this message was sent, its two numbers were paired in another conversation, to which the "
    "answers would go.",
}

# When the provider is asked about a message whose callbacks seem to have stopped.
FIRST_CHECK_AFTER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Message:
    """A row of `messages`, field by field, its conversation's ids, and its contact's line type."""

    id: int
    message_uuid: UUID
    bearer_id: int
    conversation_id: int | None
    direction: str
    provider: str
    messaging_service_id: int | None
    messaging_service_sid: str | None
    sender_number: str
    receiver_number: str
    message_body: str
    media_urls: list[str]
    stored_media: list[str]
    message_type: str
    priority: str
    callback_url: str | None
    internal_status: str
    provider_status: str | None
    provider_rank: int
    message_sid: str | None
    error_code: str | None
    error_description: str | None
    scheduled_at: datetime | None
    enqueued_at: datetime | None
    sent_at: datetime | None
    delivered_at: datetime | None
    failed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    sequence: int
    due_at: datetime | None
    attempts: int
    first_claimed_at: datetime | None
    in_doubt: bool
    check_at: datetime | None
    checks: int
    client_conversation_id: str | None
    internal_conversation_id: UUID | None
    global_id: UUID | None
    phone_number_type: str | None

    def parameters(self) -> dict[str, object]:
        """The fields by name, for a statement. (dataclasses.asdict copies every value deeply, which costs a tenth of a
        create.)"""
        return dict(zip(_NAMES, _values(self), strict=True))

    def outbound(self) -> OutboundMessage:
        """What a provider is asked to send."""
        return OutboundMessage(
            message_uuid=self.message_uuid,
            sender_number=self.sender_number,
            receiver_number=self.receiver_number,
            message_body=self.message_body,
            media_urls=tuple(self.media_urls),
            message_type=self.message_type,
            messaging_service_sid=self.messaging_service_sid,
            priority=self.priority,
        )


_NAMES = tuple(field.name for field in fields(Message))
_values = attrgetter(*_NAMES)


def reported(message: Message, report: MessageReport, *, now: datetime) -> Message | None:
    """The message after the provider's report; None where the report is late or repeated and says nothing new.

    A message without a sid takes the report's. The provider's status moves up in rank only, and a final status stays.
    """
    is_news = report.rank > message.provider_rank and message.internal_status not in FINAL
    if not is_news:
        return replace(_handed_over(message, report), updated_at=now) if message.message_sid is None else None
    status = report.internal_status
    changed = replace(
        _handed_over(message, report),
        check_at=None if status in FINAL else _next_check(message, now),
        provider_status=report.provider_status,
        provider_rank=report.rank,
        internal_status=status,
        updated_at=now,
    )
    if status in (MessageStatus.SENT, MessageStatus.DELIVERED):
        changed = replace(changed, sent_at=message.sent_at or now)
    if status is MessageStatus.DELIVERED:
        changed = replace(changed, delivered_at=now)
    if status is MessageStatus.FAILED:
        changed = replace(changed, failed_at=now)
    if report.error is not None:
        changed = replace(changed, error_code=report.error.code, error_description=_describe(report.error))
    return changed


def refused(message: Message, error: ProviderError, *, now: datetime) -> Message:
    """The message after the provider refused it for good."""
    return unsendable(message, error.code, _describe(error), now=now)


def given_up(message: Message, *, now: datetime) -> Message:
    """The message after the provider took nothing for too long."""
    description = "The messaging provider did not accept the message within 24 hours."
    return unsendable(message, GAVE_UP, description, now=now)


def not_to_be_sent(message: Message, error_code: str, *, now: datetime) -> Message:
    """The message after something came between it and its sending: BEARER_DELETED, OPTED_OUT or PAIRED_ELSEWHERE."""
    return unsendable(message, error_code, _NOT_TO_BE_SENT[error_code], now=now)


def unsendable(message: Message, error_code: str, error_description: str, *, now: datetime) -> Message:
    """The message after it was found out that it will never be sent."""
    return replace(
        _settled(message),
        internal_status=MessageStatus.FAILED,
        error_code=error_code,
        error_description=error_description,
        failed_at=now,
        updated_at=now,
    )


def cancelled(message: Message, *, now: datetime) -> Message:
    """The message after its sender cancelled it."""
    return replace(_settled(message), internal_status=MessageStatus.CANCELLED, updated_at=now)


def is_cancellable(message: Message) -> bool:
    """Whether it still waits for its scheduled time: it was never claimed."""
    return (
        message.scheduled_at is not None and message.attempts == 0 and message.internal_status == MessageStatus.PENDING
    )


def _handed_over(message: Message, report: MessageReport) -> Message:
    return replace(_settled(message), message_sid=report.message_sid)


def _next_check(message: Message, now: datetime) -> datetime:
    """What is planned stays while nothing was asked: a message has news in quick succession, and moving an indexed time
    with each would cost every index of the table a new entry."""
    if message.check_at is not None and message.checks == 0:
        return message.check_at
    return now + FIRST_CHECK_AFTER


def _settled(message: Message) -> Message:
    """With nothing more to do or to ask, and one more event to tell of it."""
    return replace(message, due_at=None, in_doubt=False, check_at=None, checks=0, sequence=message.sequence + 1)


def _describe(error: ProviderError) -> str:
    return f"There was an error with the messaging provider. For more details visit: {error.url}"
