"""Smallest valid things; a test sets only what it asserts."""

from collections.abc import Sequence
from typing import Any

from commonservices.v1 import message_pb2, message_service_pb2

from server.db import Database
from server.numbers import messaging_services
from tests.clients import Client

SENDER = "+12065550100"
RECEIVER = "+12065550190"
SERVICE_SID = "MG" + "1" * 32


async def make_messaging_service(
    db: Database,
    *,
    name: str = "school",
    global_customer_id: str = "customer",
    twilio_messaging_sid: str | None = SERVICE_SID,
    bandwidth_messaging_sid: str | None = None,
    provider: str = "twilio",
    is_k12_pool: bool = False,
    bearer_id: int | None = None,
    phone_numbers: Sequence[str] = (SENDER, "+12065550101"),
) -> messaging_services.MessagingService:
    """A messaging service with numbers to send from."""
    async with db.begin() as tx:
        return await messaging_services.create_messaging_service(
            tx,
            name=name,
            global_customer_id=global_customer_id,
            twilio_messaging_sid=twilio_messaging_sid,
            bandwidth_messaging_sid=bandwidth_messaging_sid,
            provider=provider,
            is_k12_pool=is_k12_pool,
            bearer_id=bearer_id,
            phone_numbers=phone_numbers,
        )


def new_message(**over: Any) -> message_service_pb2.NewMessage:
    """A text to one parent."""
    given: dict[str, Any] = {
        "sender_number": SENDER,
        "receiver_number": RECEIVER,
        "message_body": "School is closed tomorrow.",
        "client_conversation_id": "conversation-1",
    }
    return message_service_pb2.NewMessage(**{**given, **over})


async def create_message(client: Client, *, request_id: str = "", **over: Any) -> message_pb2.Message:
    """A message, accepted through the API."""
    request = message_service_pb2.CreateMessageRequest(message=new_message(**over), request_id=request_id)
    return await client.messages.CreateMessage(request, metadata=client.metadata)
