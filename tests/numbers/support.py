"""Messaging services made and changed through the API."""

from collections.abc import Awaitable

from commonservices.v1 import messaging_service_pb2
from commonservices.v1 import messaging_service_service_pb2 as pb

from tests.clients import Client


def numbers(*spelled: str) -> list[pb.TwilioNumberAttributes]:
    """Numbers to add."""
    return [pb.TwilioNumberAttributes(phone_number=number) for number in spelled]


def new_service(**over: object) -> pb.AdminCreateMessagingServiceRequest:
    """A messaging service with two numbers."""
    given = {
        "name": "school",
        "global_customer_id": "customer",
        "twilio_messaging_sid": "MG1",
        "bandwidth_messaging_sid": "bw1",
        "twilio_numbers_attributes": numbers("+12065550101", "+12065550100"),
    }
    return pb.AdminCreateMessagingServiceRequest(**{**given, **over})  # type: ignore[arg-type]


async def create(admin: Client, **over: object) -> messaging_service_pb2.MessagingService:
    """Make one."""
    return await admin.messaging_services.AdminCreateMessagingService(new_service(**over), metadata=admin.metadata)


def update(admin: Client, uuid: str, **changes: object) -> Awaitable[messaging_service_pb2.MessagingService]:
    """Change one."""
    request = pb.UpdateMessagingServiceRequest(uuid=uuid, **changes)  # type: ignore[arg-type]
    return admin.messaging_services.UpdateMessagingService(request, metadata=admin.metadata)


async def get(client: Client, uuid: str) -> messaging_service_pb2.MessagingService:
    """Read one."""
    request = pb.GetMessagingServiceRequest(uuid=uuid)
    return await client.messaging_services.GetMessagingService(request, metadata=client.metadata)
