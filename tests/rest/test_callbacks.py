"""Twilio's callbacks through Envoy: the signature is over the URL that Twilio called and over the body's bytes."""

from urllib.parse import urlencode

import aiohttp
import pytest
from commonservices.v1 import message_service_pb2
from twilio.request_validator import RequestValidator

from server.db import Database
from tests.clients import Client
from tests.conftest import PUBLIC_BASE_URL, TWILIO_AUTH_TOKEN
from tests.factories import create_message, make_messaging_service
from tests.rest.front import Front

FORM = {"MessageSid": "SM" + "1" * 32, "MessageStatus": "delivered", "Added": "a b+c&ü"}


@pytest.mark.parametrize(("token", "status"), [(TWILIO_AUTH_TOKEN, 200), ("another account's", 403)])
async def test_only_a_signed_callback_changes_the_message(
    front: Front, db: Database, client: Client, token: str, status: int
) -> None:
    await make_messaging_service(db)
    message = await create_message(client)
    path = f"/api/v1/twilio_requests/webhook_message_updates?message_uuid={message.message_uuid}&added=a%20b+c"
    signature = RequestValidator(token).compute_signature(PUBLIC_BASE_URL + path, FORM)
    headers = {"x-twilio-signature": signature, "content-type": "application/x-www-form-urlencoded"}

    async with aiohttp.ClientSession() as session:
        answer = await session.post(front.url + path, data=urlencode(FORM), headers=headers)
        body = await answer.read()
    request = message_service_pb2.GetMessageRequest(uuid=message.message_uuid)
    after = await client.messages.GetMessage(request, metadata=client.metadata)

    assert answer.status == status
    assert after.provider_status == ("delivered" if status == 200 else "")
    assert (body == b"<Response/>") == (status == 200)
