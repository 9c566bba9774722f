"""gRPC handlers of API keys and bearers."""

from datetime import UTC, datetime
from typing import Any

import grpc.aio
from commonservices.v1 import (
    api_key_pb2,
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    bearer_pb2,
    bearer_service_pb2,
    bearer_service_pb2_grpc,
)
from google.protobuf import empty_pb2
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts import bearers, convert, keys
from server.accounts.bearers import EnableEndpoint, EndOfBearer
from server.caller import BearerType
from server.db import Database
from server.encryption import Cipher
from server.paging import Page
from server.rpc import answers, auth
from server.rpc.creates import Creates
from server.validation import FieldChecks, check, checking

Context = grpc.aio.ServicerContext[Any, Any]

_CHANGEABLE = ("bearer_name", "bearer_type", "callback_url", "username", "password")


class ApiKeyService(api_key_service_pb2_grpc.ApiKeyServiceServicer):
    """Keys, everybody's for an Admin and the caller's own for anyone."""

    def __init__(self, db: Database, cipher: Cipher) -> None:
        self._db = db
        self._creates = Creates(db, cipher)

    async def AdminListApiKeys(
        self, request: api_key_service_pb2.AdminListApiKeysRequest, context: Context
    ) -> api_key_service_pb2.ListApiKeysResponse:
        return await self._list(request, context, bearer_id=None)

    async def ListApiKeys(
        self, request: api_key_service_pb2.ListApiKeysRequest, context: Context
    ) -> api_key_service_pb2.ListApiKeysResponse:
        return await self._list(request, context, bearer_id=auth.caller().bearer_id)

    async def AdminCreateApiKey(
        self, request: api_key_service_pb2.AdminCreateApiKeyRequest, context: Context
    ) -> api_key_pb2.ApiKey:
        check(request)
        return await self._create(request, context, bearer_id=request.bearer_id)

    async def CreateApiKey(
        self, request: api_key_service_pb2.CreateApiKeyRequest, context: Context
    ) -> api_key_pb2.ApiKey:
        bearer_id = auth.caller().bearer_id
        with checking(request) as bad:
            if request.bearer_id not in (0, bearer_id):
                bad.add("bearer_id", "is not your own bearer; only an Admin makes keys for others")
        return await self._create(request, context, bearer_id=bearer_id)

    async def AdminDeleteApiKey(
        self, request: api_key_service_pb2.AdminDeleteApiKeyRequest, context: Context
    ) -> empty_pb2.Empty:
        async with self._db.begin() as tx:
            await keys.delete_key(tx, api_key_id=request.id, bearer_id=None)
        return empty_pb2.Empty()

    async def DeleteApiKey(self, request: api_key_service_pb2.DeleteApiKeyRequest, context: Context) -> empty_pb2.Empty:
        async with self._db.begin() as tx:
            await keys.delete_key(tx, api_key_id=request.id, bearer_id=auth.caller().bearer_id)
        return empty_pb2.Empty()

    async def _create(
        self,
        request: api_key_service_pb2.AdminCreateApiKeyRequest | api_key_service_pb2.CreateApiKeyRequest,
        context: Context,
        *,
        bearer_id: int,
    ) -> api_key_pb2.ApiKey:
        async def create(tx: AsyncSession) -> api_key_pb2.ApiKey:
            await bearers.get_bearer(tx, bearer_id=bearer_id, lock=True)
            row, token = await keys.create_key(tx, bearer_id=bearer_id)
            return convert.api_key_to_proto(row, token=token)

        return await self._creates.run(request, context, api_key_pb2.ApiKey, create)

    async def _list(
        self,
        request: api_key_service_pb2.AdminListApiKeysRequest | api_key_service_pb2.ListApiKeysRequest,
        context: Context,
        *,
        bearer_id: int | None,
    ) -> api_key_service_pb2.ListApiKeysResponse:
        check(request)
        async with self._db.begin() as tx:
            rows, next_page_token = await keys.list_keys(tx, bearer_id=bearer_id, page=Page(request))
        await answers.paged(context, request, next_page_token)
        return api_key_service_pb2.ListApiKeysResponse(
            api_keys=[convert.api_key_to_proto(row) for row in rows], next_page_token=next_page_token
        )


class BearerService(bearer_service_pb2_grpc.BearerServiceServicer):
    """Bearers, any for an Admin and the caller's own for anyone."""

    def __init__(
        self,
        db: Database,
        cipher: Cipher,
        *,
        enable_endpoint: EnableEndpoint,
        end_of_bearer: EndOfBearer,
    ) -> None:
        self._db = db
        self._cipher = cipher
        self._creates = Creates(db, cipher)
        self._enable_endpoint = enable_endpoint
        self._end_of_bearer = end_of_bearer

    async def CreateBearer(
        self, request: bearer_service_pb2.CreateBearerRequest, context: Context
    ) -> bearer_pb2.Bearer:
        with checking(request) as bad:
            bad.identities(request, "bearer_name")
            callback_url = bad.http_url("callback_url", request.callback_url)

        async def create(tx: AsyncSession) -> bearer_pb2.Bearer:
            row, secret = await bearers.create_bearer(
                tx,
                cipher=self._cipher,
                bearer_name=request.bearer_name,
                bearer_type=BearerType(request.bearer_type),
                callback_url=callback_url,
                username=request.username,
                password=request.password,
            )
            return convert.bearer_to_proto(row, signing_secret=secret)

        return await self._creates.run(request, context, bearer_pb2.Bearer, create)

    async def ListBearers(
        self, request: bearer_service_pb2.ListBearersRequest, context: Context
    ) -> bearer_service_pb2.ListBearersResponse:
        check(request)
        async with self._db.begin() as tx:
            rows, next_page_token = await bearers.list_bearers(tx, page=Page(request))
        await answers.paged(context, request, next_page_token)
        return bearer_service_pb2.ListBearersResponse(
            bearers=[convert.bearer_to_proto(row) for row in rows], next_page_token=next_page_token
        )

    async def GetBearer(self, request: bearer_service_pb2.GetBearerRequest, context: Context) -> bearer_pb2.Bearer:
        async with self._db.begin() as tx:
            return convert.bearer_to_proto(await bearers.get_bearer(tx, bearer_id=request.id))

    async def UpdateBearer(
        self, request: bearer_service_pb2.UpdateBearerRequest, context: Context
    ) -> bearer_pb2.Bearer:
        with checking(request) as bad:
            changes = _changes(request, bad)
        return await self._update(request.id, changes)

    async def DeleteBearer(self, request: bearer_service_pb2.DeleteBearerRequest, context: Context) -> empty_pb2.Empty:
        async with self._db.begin() as tx:
            await bearers.delete_bearer(tx, bearer_id=request.id, end_of_bearer=self._end_of_bearer)
        return empty_pb2.Empty()

    async def GetCurrentBearer(
        self, request: bearer_service_pb2.GetCurrentBearerRequest, context: Context
    ) -> bearer_pb2.Bearer:
        async with self._db.begin() as tx:
            return convert.bearer_to_proto(await bearers.get_bearer(tx, bearer_id=auth.caller().bearer_id))

    async def UpdateCurrentBearer(
        self, request: bearer_service_pb2.UpdateCurrentBearerRequest, context: Context
    ) -> bearer_pb2.Bearer:
        with checking(request) as bad:
            changes = _changes(request, bad)
        return await self._update(auth.caller().bearer_id, changes)

    async def RotateSigningSecret(
        self, request: bearer_service_pb2.RotateSigningSecretRequest, context: Context
    ) -> bearer_pb2.SigningSecret:
        async with self._db.begin() as tx:
            secret, previous_expires_at = await bearers.rotate_signing_secret(
                tx, cipher=self._cipher, bearer_id=auth.caller().bearer_id, now=datetime.now(UTC)
            )
        return convert.signing_secret_to_proto(secret, previous_expires_at)

    async def _update(self, bearer_id: int, changes: dict[str, str]) -> bearer_pb2.Bearer:
        async with self._db.begin() as tx:
            row = await bearers.update_bearer(
                tx,
                cipher=self._cipher,
                bearer_id=bearer_id,
                changes=changes,
                enable_endpoint=self._enable_endpoint,
            )
            return convert.bearer_to_proto(row)


def _changes(
    request: bearer_service_pb2.UpdateBearerRequest | bearer_service_pb2.UpdateCurrentBearerRequest, bad: FieldChecks
) -> dict[str, str]:
    """The fields that the request sets."""
    bad.identities(request, "bearer_name")
    changes = {field.name: value for field, value in request.ListFields() if field.name in _CHANGEABLE}
    if "callback_url" in changes:
        bad.http_url("callback_url", changes["callback_url"])
    return changes
