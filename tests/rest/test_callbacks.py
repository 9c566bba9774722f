"""Callbacks through Envoy: Twilio signs the URL that it called and the body's bytes, Bandwidth shows a password."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest
from commonservices.v1 import message_service_pb2
from pydantic import SecretStr
from twilio.request_validator import RequestValidator

from server.api import running_api
from server.config import Settings
from server.db import Database
from tests.clients import Client
from tests.conftest import PUBLIC_BASE_URL, TWILIO_AUTH_TOKEN
from tests.factories import create_message, make_messaging_service
from tests.messages.support import count
from tests.rest.front import Front, running_envoy, until_healthy

GOLDEN = Path(__file__).parent.parent / "golden" / "rest"
INBOUND = "/api/v1/twilio_requests/inbound"
BANDWIDTH = "/webhooks/bandwidth/messages_updates"
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


@pytest.fixture(scope="module")
async def _with_bandwidth(settings: Settings) -> AsyncIterator[Front]:
    configured = settings.model_copy(
        update={
            "bandwidth_account_id": "account",
            "bandwidth_client_id": "CLI-1",
            "bandwidth_client_secret": SecretStr("secret"),
            "bandwidth_callback_username": "bandwidth",
            "bandwidth_callback_password": SecretStr("password"),
        }
    )
    async with (
        running_api(configured, listen="127.0.0.1:0") as api,
        running_envoy([f"127.0.0.1:{api.port}"]) as front,
    ):
        yield front


@pytest.fixture
async def with_bandwidth(_with_bandwidth: Front, db: Database) -> Front:
    """Envoy in front of an API that has an account at Bandwidth."""
    await until_healthy(_with_bandwidth, 1)
    return _with_bandwidth


async def post(front: Front, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, object]:
    """Status and JSON of the answer to a callback."""
    async with aiohttp.ClientSession() as session, session.post(front.url + path, data=body, headers=headers) as answer:
        return answer.status, await answer.json()


def golden(name: str) -> object:
    parsed: object = json.loads((GOLDEN / f"{name}.json").read_text())
    return parsed


async def test_signed_text_that_lacks_what_it_must_say_is_refused_by_name(front: Front, db: Database) -> None:
    form = {"Body": "STOP"}
    signature = RequestValidator(TWILIO_AUTH_TOKEN).compute_signature(PUBLIC_BASE_URL + INBOUND, form)
    headers = {"x-twilio-signature": signature, "content-type": "application/x-www-form-urlencoded"}

    status, body = await post(front, INBOUND, urlencode(form).encode(), headers)

    assert (status, body) == (400, golden("inbound_malformed"))
    assert await count(db, "messages") == 0


@pytest.mark.parametrize(
    ("credentials", "body", "status", "answer"),
    [
        (None, b"[]", 401, "callback_credentials_missing"),
        (None, b"{", 401, "callback_credentials_missing"),
        (("bandwidth", "another"), b"[]", 403, "signature_invalid"),
        (("bandwidth", "password"), b"{", 400, "callback_not_json"),
        (("bandwidth", "password"), b'[{"type": "message-sent"}]', 400, "callback_without_message"),
    ],
)
async def test_bandwidths_callback_is_asked_for_its_password_and_then_read(
    with_bandwidth: Front, db: Database, credentials: tuple[str, str] | None, body: bytes, status: int, answer: str
) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    if credentials is not None:
        headers["authorization"] = aiohttp.encode_basic_auth(*credentials)

    assert await post(with_bandwidth, BANDWIDTH, body, headers) == (status, golden(answer))
    assert await count(db, "message_callbacks") == 0
