"""What the edge says to callers that do not speak as they should."""

import grpc
import grpc.aio
import pytest
from commonservices.v1 import messaging_service_service_pb2

from tests.clients import Client, refusal


async def refused(channel: grpc.aio.Channel, method: str, raw: bytes, metadata: tuple[tuple[str, str], ...]) -> object:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(raw, metadata=metadata)
    answer = refusal(caught.value)
    return answer.code, answer.reason


async def test_bytes_that_are_no_message_are_refused(client: Client, channel: grpc.aio.Channel) -> None:
    answer = await refused(channel, "/commonservices.v1.MessageService/CreateMessage", b"\xff", client.metadata)

    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


@pytest.mark.parametrize(
    "method", ["/commonservices.v1.MessageService/Nothing", "/commonservices.v1.Nothing/Get", "/nothing"]
)
async def test_unknown_method_is_named_so(client: Client, channel: grpc.aio.Channel, method: str) -> None:
    answer = await refused(channel, method, b"", client.metadata)

    assert answer == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_FOUND")


async def test_error_of_many_fields_can_be_read(admin: Client) -> None:
    numbers = [messaging_service_service_pb2.TwilioNumberAttributes(phone_number="12") for _ in range(100)]
    request = messaging_service_service_pb2.AdminCreateMessagingServiceRequest(
        twilio_messaging_sid="MG", global_customer_id="c", twilio_numbers=numbers
    )

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.messaging_services.AdminCreateMessagingService(request, metadata=admin.metadata)

    assert len(refusal(caught.value).fields) == 50
