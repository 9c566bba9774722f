"""Who may have a browser's call made: the provider by its signature, an API caller by a key, neither by the other's."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from commonservices.v1 import sdk_call_service_pb2_grpc
from google.api import httpbody_pb2
from psycopg.rows import tuple_row

from server.db import Database
from tests.calls.browsers import connect, json_body, nothing_is_left, token_row
from tests.calls.twilio import FORM, Script, Twilio
from tests.clients import Client, Metadata, credentials, refused
from tests.conftest import MakeClient
from tests.factories import RECEIVER, SERVICE_SID
from tests.messages.support import count

OTHER_CONTACT = "+12065550191"


@pytest.fixture
def sdk(channel: grpc.aio.Channel) -> "sdk_call_service_pb2_grpc.SdkCallServiceAsyncStub":
    """The service, without credentials."""
    return sdk_call_service_pb2_grpc.SdkCallServiceStub(channel)


@pytest.mark.usefixtures("messaging_service")
async def test_only_twilios_signature_makes_a_browsers_call(
    channel: grpc.aio.Channel,
    sdk: "sdk_call_service_pb2_grpc.SdkCallServiceAsyncStub",
    client: Client,
    db: Database,
) -> None:
    row = await token_row(client, db, phone_number=RECEIVER)
    form = httpbody_pb2.HttpBody(content_type=FORM, data=b"CallSid=CA1&From=client:a&CallStatus=ringing")

    refusals = [
        await refused(connect(Twilio(channel, auth_token="another account's"), row)),
        await refused(sdk.RespondToSdkCall(form)),
        await refused(sdk.RespondToSdkCall(form, metadata=(("x-twilio-signature", "nonsense"),))),
        await refused(sdk.RespondToSdkCall(httpbody_pb2.HttpBody(content_type=FORM, data=b"\xff\0=" * 1000))),
        await refused(sdk.RespondToSdkCall(httpbody_pb2.HttpBody(content_type=FORM, data=b"a=b&" * 250_000))),
    ]

    assert {(refusal.code, refusal.reason) for refusal in refusals} == {
        (grpc.StatusCode.PERMISSION_DENIED, "SIGNATURE_INVALID")
    }
    assert await nothing_is_left(db)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "CREDENTIALS_MISSING"),
        ((("authorization", "Basic YTpi"),), "CREDENTIALS_MISSING"),
        ((("authorization", "Bearer"),), "CREDENTIALS_MISSING"),
        ((("authorization", " bearer   "),), "CREDENTIALS_MISSING"),
        (credentials("csk_unknown"), "CREDENTIALS_INVALID"),
    ],
)
async def test_json_needs_an_api_key(
    sdk: "sdk_call_service_pb2_grpc.SdkCallServiceAsyncStub", db: Database, metadata: Metadata, reason: str
) -> None:
    body = json_body(To=RECEIVER, client_conversation_id="a")

    refusal = await refused(sdk.RespondToSdkCall(body, metadata=metadata))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert await nothing_is_left(db)


@pytest.mark.usefixtures("messaging_service")
async def test_key_that_was_revoked_is_not_saved_by_a_signature(twilio: Twilio, client: Client, db: Database) -> None:
    row = await token_row(client, db, phone_number=RECEIVER)

    unknown = await refused(connect(twilio.with_metadata(*credentials("csk_unknown")), row))
    providers_own = await connect(twilio.with_metadata(("authorization", "Basic QUMwOnRva2Vu")), row)
    with_key = await refused(connect(twilio.with_metadata(*client.metadata), row))

    assert unknown.reason == "CREDENTIALS_INVALID"
    assert providers_own.verbs == ["Dial/Number"]
    # Who shows a key speaks for its bearer, and speaks JSON.
    assert with_key.fields == ("body",)
    assert await count(db, "calls") == 1


@pytest.mark.usefixtures("messaging_service")
async def test_key_of_one_request_is_no_others(
    twilio: Twilio,
    sdk: "sdk_call_service_pb2_grpc.SdkCallServiceAsyncStub",
    client: Client,
    client_of: MakeClient,
    db: Database,
) -> None:
    other = await client_of()
    row = await token_row(client, db, phone_number=RECEIVER)
    body = json_body(To=OTHER_CONTACT, client_conversation_id="a", messaging_service_sid=SERVICE_SID)

    async def of_nobody() -> str:
        return (await refused(sdk.RespondToSdkCall(body))).reason

    async def of_provider() -> str:
        return (await connect(twilio, row)).verbs[0]

    async def of_other() -> str:
        return Script((await other.sdk_calls.RespondToSdkCall(body, metadata=other.metadata)).data).verbs[0]

    heard_by_all = await asyncio.gather(*(act() for _ in range(8) for act in (of_other, of_nobody, of_provider)))

    assert heard_by_all == ["Dial/Number", "CREDENTIALS_MISSING", "Dial/Number"] * 8
    owners = await db.fetch_all(
        "SELECT bearer_id, participant_number, count(*) FROM calls GROUP BY 1, 2 ORDER BY 1", {}, tuple_row
    )
    assert owners == [(client.bearer_id, RECEIVER, 8), (other.bearer_id, OTHER_CONTACT, 8)]


@pytest.mark.usefixtures("messaging_service")
async def test_repeated_request_id_makes_one_call(
    client: Client, sdk: "sdk_call_service_pb2_grpc.SdkCallServiceAsyncStub", db: Database
) -> None:
    asked: dict[str, Any] = {
        "To": RECEIVER,
        "client_conversation_id": "conversation-1",
        "messaging_service_sid": SERVICE_SID,
    }
    header = (*client.metadata, ("idempotency-key", "once"))

    first = await sdk.RespondToSdkCall(json_body(**asked, request_id="once"), metadata=client.metadata)
    again = await sdk.RespondToSdkCall(json_body(**asked), metadata=header)
    other = await refused(sdk.RespondToSdkCall(json_body(**asked, callback_url="https://a.example/"), metadata=header))

    assert again == first
    assert (other.code, other.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert [await count(db, table) for table in ("calls", "events")] == [1, 1]


@pytest.mark.parametrize("request_id", ["x" * 256, "a\0b", 1])
async def test_bad_request_id_of_a_call_is_named(
    client: Client, sdk: "sdk_call_service_pb2_grpc.SdkCallServiceAsyncStub", request_id: object
) -> None:
    body = json_body(To=RECEIVER, messaging_service_sid=SERVICE_SID, request_id=request_id)

    assert (await refused(sdk.RespondToSdkCall(body, metadata=client.metadata))).fields == ("request_id",)
