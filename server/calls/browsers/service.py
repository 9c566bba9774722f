"""gRPC handlers of calls from a browser."""

from datetime import UTC, datetime
from typing import Any

import grpc.aio
from commonservices.v1 import sdk_call_service_pb2, sdk_call_service_pb2_grpc
from google.api import httpbody_pb2
from sqlalchemy.ext.asyncio import AsyncSession

from server.caller import Caller
from server.calls.browsers import direct_calls
from server.calls.browsers.drafts import read_sdk_call, read_voice_token
from server.calls.browsers.voice_tokens import VoiceNotConfigured, create_voice_token
from server.calls.parts import CallParts
from server.encryption import Cipher
from server.notifications import Channel
from server.providers.voice_ports import VoiceCallbackReader, VoiceTokens
from server.rpc import auth
from server.rpc.auth import CredentialsMissing
from server.rpc.callbacks import read_callback, signed_request
from server.rpc.creates import Creates, key_named

Context = grpc.aio.ServicerContext[Any, Any]

_PATH = "/api/v1/sdk_calls/response"


class SdkCallService(sdk_call_service_pb2_grpc.SdkCallServiceServicer):
    """Tokens for browsers, and what is dialled for them."""

    def __init__(
        self,
        parts: CallParts,
        cipher: Cipher,
        reader: VoiceCallbackReader,
        tokens: VoiceTokens | None,
        *,
        public_base_url: str,
    ) -> None:
        self._parts = parts
        self._creates = Creates(parts.db, cipher)
        self._reader = reader
        self._tokens = tokens
        self._public_base_url = public_base_url

    async def CreateVoiceToken(
        self, request: sdk_call_service_pb2.CreateVoiceTokenRequest, context: Context
    ) -> sdk_call_service_pb2.CreateVoiceTokenResponse:
        draft = read_voice_token(request)
        if self._tokens is None:
            raise VoiceNotConfigured
        caller, tokens = auth.caller(), self._tokens

        async def create(tx: AsyncSession) -> sdk_call_service_pb2.CreateVoiceTokenResponse:
            now = datetime.now(UTC)
            row = await create_voice_token(tx, caller=caller, draft=draft, now=now)
            token = tokens.sign(identity=row.identity, voice_token_uuid=row.uuid, issued_at=now, ttl=draft.ttl)
            return sdk_call_service_pb2.CreateVoiceTokenResponse(identity=row.identity, token=token)

        return await self._creates.run(request, context, sdk_call_service_pb2.CreateVoiceTokenResponse, create)

    async def RespondToSdkCall(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        caller = auth.caller_if_any()
        if caller is not None:
            return await self._make_call(request, context, caller)
        if request.content_type.partition(";")[0].strip().lower() == "application/json":
            # A provider posts a form: this is an API caller, who is not to look for the fault in a signature.
            raise CredentialsMissing("send the header Authorization: Bearer <token>")
        signed = signed_request(request, context, public_base_url=self._public_base_url, path=_PATH)
        call = read_callback(self._reader.read_incoming_call, signed)
        return _twiml(await direct_calls.answer_browser(self._parts, call))

    async def _make_call(
        self, request: httpbody_pb2.HttpBody, context: Context, caller: Caller
    ) -> httpbody_pb2.HttpBody:
        draft = read_sdk_call(request.data)

        async def create(tx: AsyncSession) -> httpbody_pb2.HttpBody:
            now = datetime.now(UTC)
            return _twiml(await direct_calls.make_call(tx, self._parts, caller=caller, draft=draft, now=now))

        key = key_named(draft.request_id or "", context, caller, fingerprint=draft.fingerprint)
        answer = await self._creates.run_once(key, context, httpbody_pb2.HttpBody, create)
        self._parts.notifications.notify(Channel.OUTBOX)
        return answer


def _twiml(script: bytes) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type="text/xml", data=script)
