"""Creates: one transaction, 201, and the first answer again where the request id is repeated."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncSession

from server import idempotency
from server.caller import Caller
from server.db import Database
from server.encryption import Cipher
from server.errors import FieldViolation, InvalidArgument
from server.idempotency import RequestKey
from server.rpc import answers, auth

Context = grpc.aio.ServicerContext[Any, Any]
Response = TypeVar("Response", bound=Message)

_HEADER = "idempotency-key"
_MAX_LENGTH = 255


def request_key(request: Any, context: Context, caller: Caller) -> RequestKey | None:
    """The request id in the body or in the header Idempotency-Key; None where neither is given."""
    return key_named(request.request_id, context, caller, fingerprint=lambda: idempotency.fingerprint_of(request))


def key_named(named: str, context: Context, caller: Caller, *, fingerprint: Callable[[], bytes]) -> RequestKey | None:
    """The same of a request that is no message with a request_id: what its body names, and what else it asks for, which
    is looked at only where there is an id."""
    header = next((str(v) for k, v in context.invocation_metadata() or () if k == _HEADER), "").strip()
    if header and named and header != named:
        raise InvalidArgument([FieldViolation("request_id", "differs from the header Idempotency-Key")])
    request_id = named or header
    if len(request_id) > _MAX_LENGTH:
        raise InvalidArgument([FieldViolation("Idempotency-Key", f"must be at most {_MAX_LENGTH} characters")])
    if not request_id:
        return None
    return RequestKey(caller.bearer_id, request_id, fingerprint())


class Creates:
    """Runs creates that are not hot; messages have a statement of their own."""

    def __init__(self, db: Database, cipher: Cipher) -> None:
        self._db = db
        self._cipher = cipher

    async def run(
        self,
        request: Any,
        context: Context,
        response_type: type[Response],
        create: Callable[[AsyncSession], Awaitable[Response]],
    ) -> Response:
        """Answer what `create` makes, or what it made at the first request with this request id."""
        return await self.run_once(request_key(request, context, auth.caller()), context, response_type, create)

    async def run_once(
        self,
        key: RequestKey | None,
        context: Context,
        response_type: type[Response],
        create: Callable[[AsyncSession], Awaitable[Response]],
    ) -> Response:
        """Answer what `create` makes, or what it made at the first request with this key."""
        async with self._db.begin() as tx:
            remembered = await idempotency.claim(tx, key) if key else None
            if remembered is not None:
                response = response_type.FromString(self._cipher.decrypt(remembered))
            else:
                response = await create(tx)
                if key:
                    encrypted = self._cipher.encrypt(response.SerializeToString())
                    await idempotency.remember(tx, key, encrypted)
        if remembered is not None:
            await answers.replayed(context)
        return response
