"""Rows of numbers as the API shows them."""

from commonservices.v1 import messaging_service_pb2 as pb

from server.numbers.messaging_services import MessagingService


def messaging_service_to_proto(service: MessagingService) -> pb.MessagingService:
    """A messaging service with its numbers."""
    return pb.MessagingService(
        id=service.row.id,
        name=service.row.name,
        bandwidth_messaging_sid=service.row.bandwidth_messaging_sid,
        twilio_messaging_sid=service.row.twilio_messaging_sid,
        global_customer_id=service.customer.global_customer_id,
        uuid=str(service.row.uuid),
        twilio_numbers=[pb.TwilioNumber(id=n.id, phone_number=n.phone_number) for n in service.numbers],
    )
