"""Names and ids that callers give: none is blank, has white space around it or control characters in it, or is a step
in a path."""

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from commonservices.v1 import bearer_service_pb2, conversation_service_pb2, customer_service_pb2, message_service_pb2
from commonservices.v1 import messaging_service_service_pb2 as services_pb2

from server.validation import FieldChecks
from tests.clients import Client, refused
from tests.factories import new_message

BLANK = "must not be blank"
AROUND = "must not begin or end with white space"
WITHIN = "must not contain control characters"
STEP = "must not be . or .., which no path can name"

NAMES = {"client_conversation_id", "messaging_service_sid", "global_customer_id"}
OF_SERVICE = {"name", "twilio_messaging_sid", "bandwidth_messaging_sid", "global_customer_id"}
OF_CUSTOMER = {"customer_name", "business_profile_sid", "shaken_stir_product_sid"}


@pytest.mark.parametrize(
    ("value", "description"),
    [
        (" ", BLANK),
        ("\t\n", BLANK),
        ("\u00a0\u3000", BLANK),
        ("\u200b", BLANK),
        (" a", AROUND),
        ("a ", AROUND),
        ("a\n", AROUND),
        ("\u00a0a", AROUND),
        ("a\tb", WITHIN),
        ("a\r\nb", WITHIN),
        ("a\x7fb", WITHIN),
        ("a\u0085b", WITHIN),
        ("a\u2028b", WITHIN),
        (".", STEP),
        ("..", STEP),
    ],
)
def test_what_nobody_sees_is_refused(value: str, description: str) -> None:
    bad = FieldChecks([])

    bad.identities(conversation_service_pb2.NewParticipant(client_participant_id=value), "client_participant_id")

    assert [(v.field, v.description) for v in bad.violations] == [("client_participant_id", description)]


@pytest.mark.parametrize(
    "value", ["", "a b", "...", ".a", "Zürich № 7/b", "\N{WOMAN}\u200d\N{SCHOOL} Lee", "می\u200cخواهم", "'; --"]
)
def test_other_texts_are_names(value: str) -> None:
    bad = FieldChecks([])

    bad.identities(conversation_service_pb2.NewParticipant(client_participant_id=value), "client_participant_id")

    assert bad.violations == []


async def fields_of_refusal(call: Awaitable[object]) -> set[str]:
    """The fields that are refused for their blanks."""
    answer = await refused(call)
    assert answer.code == grpc.StatusCode.INVALID_ARGUMENT
    return set(answer.fields)


async def test_messages_and_conversations_have_none(client: Client) -> None:
    given = dict.fromkeys(NAMES, " ")
    message = message_service_pb2.CreateMessageRequest(message=new_message(**given))
    conversation = conversation_service_pb2.NewConversation(
        participants=[conversation_service_pb2.NewParticipant(role="moderator", client_participant_id=" ")], **given
    )
    create = conversation_service_pb2.CreateConversationRequest(conversation=conversation)
    update = conversation_service_pb2.UpdateConversationRequest(id=1, conversation=conversation)

    of_message = await fields_of_refusal(client.messages.CreateMessage(message, metadata=client.metadata))
    of_create = await fields_of_refusal(client.conversations.CreateConversation(create, metadata=client.metadata))
    of_update = await fields_of_refusal(client.conversations.UpdateConversation(update, metadata=client.metadata))

    assert of_message == {f"message.{name}" for name in NAMES}
    in_conversation = {*NAMES, "participants[0].client_participant_id"}
    assert of_create == of_update == {f"conversation.{name}" for name in in_conversation}


async def test_messaging_services_have_none(admin: Client) -> None:
    given: dict[str, Any] = dict.fromkeys(OF_SERVICE, " ")
    stub, metadata = admin.messaging_services, admin.metadata
    with_numbers = services_pb2.AdminCreateMessagingServiceRequest(**given)
    without = services_pb2.CreateMessagingServiceRequest(**given)
    update = services_pb2.UpdateMessagingServiceRequest(**given)

    assert await fields_of_refusal(stub.AdminCreateMessagingService(with_numbers, metadata=metadata)) == OF_SERVICE
    assert await fields_of_refusal(stub.CreateMessagingService(without, metadata=metadata)) == OF_SERVICE
    assert await fields_of_refusal(stub.UpdateMessagingService(update, metadata=metadata)) == OF_SERVICE


async def test_customers_have_none(admin: Client) -> None:
    given = dict.fromkeys(OF_CUSTOMER, " ")
    stub, metadata = admin.customers, admin.metadata
    create = customer_service_pb2.AdminCreateCustomerRequest(global_customer_id=" ", **given)
    update = customer_service_pb2.AdminUpdateCustomerRequest(global_customer_id="district", **given)

    of_create = await fields_of_refusal(stub.AdminCreateCustomer(create, metadata=metadata))
    of_update = await fields_of_refusal(stub.AdminUpdateCustomer(update, metadata=metadata))

    assert of_create == {"global_customer_id", *OF_CUSTOMER}
    assert of_update == OF_CUSTOMER


async def test_bearers_have_none(admin: Client) -> None:
    stub, metadata = admin.bearers, admin.metadata
    create = bearer_service_pb2.CreateBearerRequest(
        bearer_name=" ", bearer_type="User", callback_url="http://a.example/", username="user", password="password"
    )
    update = bearer_service_pb2.UpdateBearerRequest(id=admin.bearer_id, bearer_name=" ")
    update_own = bearer_service_pb2.UpdateCurrentBearerRequest(bearer_name=" ")

    assert await fields_of_refusal(stub.CreateBearer(create, metadata=metadata)) == {"bearer_name"}
    assert await fields_of_refusal(stub.UpdateBearer(update, metadata=metadata)) == {"bearer_name"}
    assert await fields_of_refusal(stub.UpdateCurrentBearer(update_own, metadata=metadata)) == {"bearer_name"}
