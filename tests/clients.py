"""Callers of the API: typed stubs that send a bearer's token."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc.aio
import pytest
from commonservices.v1 import (
    api_key_service_pb2_grpc,
    bearer_service_pb2_grpc,
    call_service_pb2_grpc,
    conference_call_service_pb2_grpc,
    conversation_service_pb2_grpc,
    customer_service_pb2_grpc,
    event_service_pb2_grpc,
    message_service_pb2_grpc,
    messaging_service_service_pb2_grpc,
    sdk_call_service_pb2_grpc,
    video_call_service_pb2_grpc,
    webhook_delivery_service_pb2_grpc,
)
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from server.accounts import bearers, keys
from server.caller import BearerType
from server.db import Database
from server.encryption import Cipher

CALLBACK_URL = "http://callbacks.example/hook"

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Client:
    """A bearer's stubs. Every call is given `client.metadata`."""

    bearer_id: int
    token: str
    signing_secret: str
    api_keys: "api_key_service_pb2_grpc.ApiKeyServiceAsyncStub"
    bearers: "bearer_service_pb2_grpc.BearerServiceAsyncStub"
    messaging_services: "messaging_service_service_pb2_grpc.MessagingServiceServiceAsyncStub"
    customers: "customer_service_pb2_grpc.CustomerServiceAsyncStub"
    calls: "call_service_pb2_grpc.CallServiceAsyncStub"
    voicemails: "call_service_pb2_grpc.VoicemailServiceAsyncStub"
    conversations: "conversation_service_pb2_grpc.ConversationServiceAsyncStub"
    participants: "conversation_service_pb2_grpc.ParticipantServiceAsyncStub"
    messages: "message_service_pb2_grpc.MessageServiceAsyncStub"
    sdk_calls: "sdk_call_service_pb2_grpc.SdkCallServiceAsyncStub"
    video_calls: "video_call_service_pb2_grpc.VideoCallServiceAsyncStub"
    conference_calls: "conference_call_service_pb2_grpc.ConferenceCallServiceAsyncStub"
    events: "event_service_pb2_grpc.EventServiceAsyncStub"
    deliveries: "webhook_delivery_service_pb2_grpc.WebhookDeliveryServiceAsyncStub"

    @property
    def metadata(self) -> Metadata:
        """The credentials."""
        return credentials(self.token)


def credentials(token: str) -> Metadata:
    """The metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)


async def make_client(
    channel: grpc.aio.Channel,
    db: Database,
    cipher: Cipher,
    *,
    bearer_type: BearerType,
    callback_url: str | None,
) -> Client:
    """A new bearer with a key, and its client."""
    async with db.begin() as tx:
        bearer, secret = await bearers.create_bearer(
            tx,
            cipher=cipher,
            bearer_name=f"a {bearer_type}",
            bearer_type=bearer_type,
            callback_url=callback_url or CALLBACK_URL,
            username="callback-user",
            password="callback-password",
        )
        _key, token = await keys.create_key(tx, bearer_id=bearer.id)
    return client_with(channel, bearer_id=bearer.id, token=token, signing_secret=secret)


def client_with(channel: grpc.aio.Channel, *, bearer_id: int, token: str, signing_secret: str = "") -> Client:
    """The client of a token."""
    return Client(
        bearer_id=bearer_id,
        token=token,
        signing_secret=signing_secret,
        api_keys=api_key_service_pb2_grpc.ApiKeyServiceStub(channel),
        bearers=bearer_service_pb2_grpc.BearerServiceStub(channel),
        messaging_services=messaging_service_service_pb2_grpc.MessagingServiceServiceStub(channel),
        customers=customer_service_pb2_grpc.CustomerServiceStub(channel),
        calls=call_service_pb2_grpc.CallServiceStub(channel),
        voicemails=call_service_pb2_grpc.VoicemailServiceStub(channel),
        conversations=conversation_service_pb2_grpc.ConversationServiceStub(channel),
        participants=conversation_service_pb2_grpc.ParticipantServiceStub(channel),
        messages=message_service_pb2_grpc.MessageServiceStub(channel),
        sdk_calls=sdk_call_service_pb2_grpc.SdkCallServiceStub(channel),
        video_calls=video_call_service_pb2_grpc.VideoCallServiceStub(channel),
        conference_calls=conference_call_service_pb2_grpc.ConferenceCallServiceStub(channel),
        events=event_service_pb2_grpc.EventServiceStub(channel),
        deliveries=webhook_delivery_service_pb2_grpc.WebhookDeliveryServiceStub(channel),
    )


@dataclass(frozen=True)
class Refusal:
    """How a call was refused, as its status details tell."""

    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str]
    fields: tuple[str, ...]


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Read the status details of an error."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an aio error has what it needs
    assert status is not None, "every error of ours has details"
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(bad_request.DESCRIPTOR):
            detail.Unpack(bad_request)
    return Refusal(
        code=error.code(),
        reason=info.reason,
        metadata=dict(info.metadata),
        fields=tuple(v.field for v in bad_request.field_violations),
    )


async def refused(call: Awaitable[object]) -> Refusal:
    """Wait for a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal(caught.value)


# Time enough for a notification, and less than a process remembers a key without one.
SOON_SECONDS = 8.0


async def until_refused(call: Callable[[], Awaitable[object]], reason: str) -> None:
    """Call until it is refused for this reason, sooner than it would be had nobody said so."""
    async with asyncio.timeout(SOON_SECONDS):
        while True:
            try:
                await call()
            except grpc.aio.AioRpcError as error:
                if refusal(error).reason == reason:
                    return
                raise
