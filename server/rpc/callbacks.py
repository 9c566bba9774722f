"""Providers' callbacks at the edge: the raw request as the provider signed it."""

from collections.abc import Callable
from typing import Any, TypeVar

import grpc.aio
from google.api import httpbody_pb2

from server.errors import Challenged, FieldViolation, InvalidArgument, PermissionDenied
from server.providers.ports import CallbackMalformed, CredentialsMissing, SignatureInvalid, SignedRequest

Context = grpc.aio.ServicerContext[Any, Any]
Read = TypeVar("Read")


class CallbackSignatureInvalid(PermissionDenied):
    """The callback is not from the provider's account."""

    reason = "SIGNATURE_INVALID"


class CallbackCredentialsMissing(Challenged):
    """The callback came without credentials; its sender repeats it with them once it is asked for them."""

    reason = "CREDENTIALS_MISSING"
    challenge = 'Basic realm="callbacks"'


def signed_request(
    request: httpbody_pb2.HttpBody, context: Context, *, public_base_url: str, path: str
) -> SignedRequest:
    """The request as the provider sent it.

    The URL's base is configured, never taken from the Host header; `path` is what a native gRPC caller has signed.
    """
    headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    headers["content-type"] = request.content_type
    return SignedRequest(
        url=public_base_url + headers.get("x-envoy-original-path", path), body=request.data, headers=headers
    )


def read_callback(read: Callable[[SignedRequest], Read], request: SignedRequest) -> Read:
    """What the callback says, once its signature holds."""
    try:
        return read(request)
    except CredentialsMissing as error:
        raise CallbackCredentialsMissing("repeat the callback with basic authentication") from error
    except SignatureInvalid as error:
        message = "the callback's signature or credentials do not prove that the provider sent it"
        raise CallbackSignatureInvalid(message) from error
    except CallbackMalformed as error:
        raise InvalidArgument([FieldViolation("body", str(error))]) from error
