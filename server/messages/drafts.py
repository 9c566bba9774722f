"""A create request, checked and normalised: what is wrong with it is told all at once."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from commonservices.v1 import message_service_pb2

from server.conversations.keys import ConversationKey, read_conversation_key
from server.errors import FieldViolation, InvalidArgument
from server.validation import checking

MMS_OVER_CHARACTERS = 160
SCHEDULE_AT_MOST = timedelta(days=366)


@dataclass(frozen=True)
class Draft:
    """A message that may be accepted. None stands for what was not given."""

    sender_number: str | None
    receiver_number: str
    message_body: str
    media_urls: list[str]
    # The conversation it names; one by its id in the caller's system may have to be made.
    conversation: ConversationKey | None
    callback_url: str | None
    scheduled_at: datetime | None
    priority: str
    messaging_service_sid: str | None
    global_customer_id: str | None

    @property
    def message_type(self) -> str:
        """`mms` for long texts and media, else `sms`."""
        return "mms" if self.media_urls or len(self.message_body) > MMS_OVER_CHARACTERS else "sms"

    @property
    def client_conversation_id(self) -> str | None:
        """The conversation's id in the caller's system, if that is how it is named."""
        named = self.conversation
        return named.value if named is not None and named.name == "client_conversation_id" else None

    @property
    def conversation_field(self) -> str:
        """The field that tells its conversation: one of the ids, or what it is sent from."""
        if self.conversation is not None:
            return self.conversation.name
        if self.sender_number is not None:
            return "sender_number"
        return "messaging_service_sid" if self.messaging_service_sid is not None else "global_customer_id"

    @property
    def names_a_sender(self) -> bool:
        """Whether it says itself what it is sent from."""
        return any((self.sender_number, self.messaging_service_sid, self.global_customer_id))


_IDENTITIES = ("client_conversation_id", "messaging_service_sid", "global_customer_id")

# What is said of a message that nothing is known to be sent from.
SENDER_MISSING = FieldViolation(
    "message.sender_number",
    "name a sender_number, a messaging_service_sid or global_customer_id to send from, or a conversation that has one",
)


def read_draft(request: message_service_pb2.CreateMessageRequest, *, now: datetime) -> Draft:
    """The draft of a request. Raises InvalidArgument naming every bad field."""
    given = request.message
    if not request.HasField("message"):
        # Of a message that is not there, its fields are not bad as well.
        raise InvalidArgument([FieldViolation("message", "is required")])
    with checking(request) as bad:
        bad.identities(given, *_IDENTITIES, within="message")
        sender_number = bad.phone_number("message.sender_number", given.sender_number) if given.sender_number else None
        conversation = read_conversation_key(given, bad, within="message")
        if conversation is None and not any((sender_number, given.messaging_service_sid, given.global_customer_id)):
            bad.add(SENDER_MISSING.field, SENDER_MISSING.description)
        receiver_number = bad.phone_number("message.receiver_number", given.receiver_number)
        if sender_number is not None and sender_number == receiver_number:
            bad.add("message.receiver_number", "is the sender_number")
        if not given.message_body.strip() and not given.media_urls:
            bad.add("message.message_body", "is required unless there are media_urls")
        media_urls = [bad.http_url(f"message.media_urls[{i}]", url) for i, url in enumerate(given.media_urls)]
        callback_url = bad.http_url("message.callback_url", given.callback_url) if given.callback_url else None
        scheduled_at = None
        if given.HasField("scheduled_at"):
            scheduled_at = bad.time("message.scheduled_at", given.scheduled_at)
        if scheduled_at is not None and scheduled_at > now + SCHEDULE_AT_MOST:
            bad.add("message.scheduled_at", "is more than a year ahead")
    return Draft(
        sender_number=sender_number,
        receiver_number=receiver_number,
        message_body=given.message_body,
        media_urls=media_urls,
        conversation=conversation,
        callback_url=callback_url,
        scheduled_at=scheduled_at if scheduled_at is not None and scheduled_at > now else None,
        priority=given.priority or "default",
        messaging_service_sid=given.messaging_service_sid or None,
        global_customer_id=given.global_customer_id or None,
    )
