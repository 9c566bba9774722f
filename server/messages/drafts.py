"""A create request, checked and normalised: what is wrong with it is told all at once."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from commonservices.v1 import message_service_pb2

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
    client_conversation_id: str | None
    callback_url: str | None
    scheduled_at: datetime | None
    priority: str
    messaging_service_sid: str | None
    global_customer_id: str | None

    @property
    def message_type(self) -> str:
        """`mms` for long texts and media, else `sms`."""
        return "mms" if self.media_urls or len(self.message_body) > MMS_OVER_CHARACTERS else "sms"


def read_draft(request: message_service_pb2.CreateMessageRequest, *, now: datetime) -> Draft:
    """The draft of a request. Raises InvalidArgument naming every bad field."""
    given = request.message
    if not request.HasField("message"):
        # Of a message that is not there, its fields are not bad as well.
        raise InvalidArgument([FieldViolation("message", "is required")])
    with checking(request) as bad:
        if given.sender_number:
            sender_number = bad.phone_number("message.sender_number", given.sender_number)
        else:
            sender_number = None
            if not (given.messaging_service_sid or given.global_customer_id):
                bad.add(
                    "message.sender_number",
                    "name a sender_number, or a messaging_service_sid or global_customer_id to send from",
                )
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
        client_conversation_id=given.client_conversation_id or None,
        callback_url=callback_url,
        scheduled_at=scheduled_at if scheduled_at is not None and scheduled_at > now else None,
        priority=given.priority or "default",
        messaging_service_sid=given.messaging_service_sid or None,
        global_customer_id=given.global_customer_id or None,
    )
