"""A message as the API, the stream and webhooks show it."""

from collections.abc import Sequence

from commonservices.v1 import message_pb2 as pb

from server.clock import timestamp
from server.messages.message import Message
from server.messages.segments import measure


def message_to_proto(message: Message, media_file_urls: Sequence[str] = ()) -> pb.Message:
    """The one resource of every answer and event; `media_file_urls` are those of its stored media, signed."""
    is_sms = message.message_type == "sms" and message.message_body != ""
    encoding, segment_count = measure(message.message_body) if is_sms else (None, None)
    return pb.Message(
        id=message.id,
        sender_number=message.sender_number,
        receiver_number=message.receiver_number,
        message_body=message.message_body,
        provider=message.provider,
        message_type=message.message_type,
        provider_status=message.provider_status,
        media_urls=message.media_urls,
        media_file_urls=media_file_urls,
        message_sid=message.message_sid,
        message_uuid=str(message.message_uuid),
        client_conversation_id=message.client_conversation_id,
        internal_conversation_id=str(message.internal_conversation_id) if message.internal_conversation_id else None,
        global_id=str(message.global_id) if message.global_id else None,
        priority=message.priority,
        phone_number_type=message.phone_number_type,
        internal_status=message.internal_status,
        error_code=message.error_code,
        error_description=message.error_description,
        sent_at=timestamp(message.sent_at),
        delivered_at=timestamp(message.delivered_at),
        enqueued_at=timestamp(message.enqueued_at),
        failed_at=timestamp(message.failed_at),
        scheduled_at=timestamp(message.scheduled_at),
        callback_url=message.callback_url,
        created_at=timestamp(message.created_at),
        updated_at=timestamp(message.updated_at),
        direction=message.direction,
        encoding=encoding,
        segment_count=segment_count,
    )
