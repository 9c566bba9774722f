"""Rows of numbers as the API shows them."""

from commonservices.v1 import customer_pb2
from commonservices.v1 import messaging_service_pb2 as pb

from server.clock import timestamp
from server.numbers.messaging_services import MessagingService
from server.numbers.tables import CustomerRow, TwilioNumberRow


def messaging_service_to_proto(service: MessagingService) -> pb.MessagingService:
    """A messaging service with its numbers."""
    return pb.MessagingService(
        id=service.row.id,
        name=service.row.name,
        bandwidth_messaging_sid=service.row.bandwidth_messaging_sid,
        twilio_messaging_sid=service.row.twilio_messaging_sid,
        global_customer_id=service.customer.global_customer_id,
        uuid=str(service.row.uuid),
        twilio_numbers=[_twilio_number_to_proto(number) for number in service.numbers],
        provider=service.row.provider,
        is_k12_pool=service.row.is_k12_pool,
        bearer_id=service.row.bearer_id,
    )


def customer_to_proto(row: CustomerRow) -> customer_pb2.Customer:
    """A customer."""
    return customer_pb2.Customer(
        id=row.id,
        global_customer_id=row.global_customer_id,
        customer_name=row.customer_name,
        state=row.state,
        number_pool=row.number_pool,
        business_profile_sid=row.business_profile_sid,
        shaken_stir_product_sid=row.shaken_stir_product_sid,
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
    )


def _twilio_number_to_proto(row: TwilioNumberRow) -> pb.TwilioNumber:
    return pb.TwilioNumber(
        id=row.id,
        phone_number=row.phone_number,
        state_code=row.state_code,
        phone_number_sid=row.phone_number_sid,
        released_at=timestamp(row.released_at),
    )
