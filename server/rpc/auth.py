"""Who may call which RPC: read once from the descriptors' `access` option, asked at every call."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from commonservices.v1 import access_pb2
from google.protobuf import descriptor_pool

from server.caller import Caller
from server.errors import PermissionDenied, Unauthenticated

Authenticate = Callable[[str], Awaitable[Caller | None]]

_caller: ContextVar[Caller] = ContextVar("caller")

_KEY_SCHEME = "bearer"

_BY_KEY = (access_pb2.ACCESS_ADMIN, access_pb2.ACCESS_ANY_KEY, access_pb2.ACCESS_PROVIDER_OR_ANY_KEY)


class CredentialsMissing(Unauthenticated):
    """The request has no bearer token."""

    reason = "CREDENTIALS_MISSING"


class CredentialsInvalid(Unauthenticated):
    """The token is unknown or revoked; the two are not told apart."""

    reason = "CREDENTIALS_INVALID"


class RoleRequired(PermissionDenied):
    """The bearer's type may not do this."""

    reason = "ROLE_REQUIRED"


def caller() -> Caller:
    """The caller of the RPC that is being handled."""
    return _caller.get()


def caller_if_any() -> Caller | None:
    """The caller of the RPC that is being handled; None where a provider may call it and no key was given."""
    return _caller.get(None)


def access_of(method: str) -> "access_pb2.Access.ValueType":
    """Who may call `/package.Service/Method`. Methods without the option (health, reflection) are public by design of
    the services they belong to; ours all have it, which a test walks."""
    service_name, _, method_name = method.removeprefix("/").partition("/")
    service = descriptor_pool.Default().FindServiceByName(service_name)
    options = service.methods_by_name[method_name].GetOptions()
    return options.Extensions[access_pb2.access]


class Gate:
    """Lets a call through or raises."""

    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    async def enter(self, access: "access_pb2.Access.ValueType", authorization: str | None) -> Caller | None:
        """Prove the caller and remember it for `caller()`; None where credentials are not looked at."""
        if access in (access_pb2.ACCESS_PUBLIC, access_pb2.ACCESS_PROVIDER):
            return None
        # A provider may have credentials of its own in the header.
        if access == access_pb2.ACCESS_PROVIDER_OR_ANY_KEY and not _names_key(authorization):
            return None
        if authorization is None:
            raise CredentialsMissing("send the header Authorization: Bearer <token>")
        scheme, _, token = authorization.strip().partition(" ")
        token = token.strip()
        if scheme.lower() != _KEY_SCHEME or not token:
            raise CredentialsMissing("the Authorization header is not of the form: Bearer <token>")
        known = await self._authenticate(token)
        if known is None:
            raise CredentialsInvalid("the token is unknown or was revoked")
        if access == access_pb2.ACCESS_ADMIN and not known.is_admin:
            raise RoleRequired("only an Admin bearer may do this")
        if access not in _BY_KEY:
            raise RoleRequired("nobody may do this")
        _caller.set(known)
        return known


def _names_key(authorization: str | None) -> bool:
    return authorization is not None and authorization.strip().partition(" ")[0].lower() == _KEY_SCHEME
