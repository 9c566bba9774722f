"""The one place where an exception becomes a status: for gRPC a `google.rpc.Status` with details, for REST the
documented JSON body, which Envoy's Lua filter takes from the trailing header `x-error-body` as it is."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import sqlalchemy.exc
from google.protobuf import any_pb2, json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from server import errors
from server.db import DATABASE_DOWN

DOMAIN = "commonservices"

# Every violation is in the details, too.
_LONGEST_MESSAGE = 1000

Metadata = tuple[tuple[str, str | bytes], ...]

# gRPC code -> HTTP status, as google.rpc.Code documents it; UNAUTHENTICATED is 403 because the API is documented so. A
# challenge is 401, without which no caller answers it.
_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 403,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}

_CODES: dict[type[errors.DomainError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True)
class Failure:
    """What a caller is told of an error."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str] = field(default_factory=dict)
    violations: Sequence[errors.FieldViolation] = ()
    challenge: str | None = None

    @property
    def http_status(self) -> int:
        """The status of the REST answer."""
        return _HTTP_STATUS[self.code] if self.challenge is None else 401

    def details(self) -> list[Message]:
        """google.rpc details: ErrorInfo, and BadRequest when fields were bad."""
        details: list[Message] = [
            error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        ]
        if self.violations:
            details.append(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                        for v in self.violations
                    ]
                )
            )
        return details

    def status_proto(self) -> status_pb2.Status:
        """The `google.rpc.Status` of gRPC's status details."""
        packed = []
        for detail in self.details():
            any_detail = any_pb2.Any()
            any_detail.Pack(detail)
            packed.append(any_detail)
        return status_pb2.Status(code=self.code.value[0], message=self.short_message, details=packed)

    @property
    def short_message(self) -> str:
        """What fits beside the details in a header block. gRPC clients want it the same in both its places."""
        return self.message[:_LONGEST_MESSAGE]

    def rest_body(self) -> str:
        """The documented error body, in ASCII because it travels in a header."""
        details = [
            {"@type": f"type.googleapis.com/{d.DESCRIPTOR.full_name}"}
            | json_format.MessageToDict(d, preserving_proto_field_name=True)
            for d in self.details()
        ]
        error = {
            "code": self.http_status,
            "status": self.code.name,
            "message": self.short_message,
            "reason": self.reason,
            "details": details,
        }
        return json.dumps({"error": error}, separators=(",", ":"))


def failure_of(error: Exception) -> Failure | None:
    """What the caller is told; None for a fault of ours, of which nobody is told more than INTERNAL."""
    if isinstance(error, errors.DomainError):
        code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
        violations = error.violations if isinstance(error, errors.InvalidArgument) else ()
        challenge = error.challenge if isinstance(error, errors.Challenged) else None
        return Failure(code, error.reason, error.message, error.metadata, violations, challenge)
    if isinstance(error, DecodeError):
        return MALFORMED_REQUEST
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    if isinstance(cause, DATABASE_DOWN):
        return Failure(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "the database cannot do this now; try again")
    return None


METHOD_NOT_FOUND = Failure(grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_FOUND", "there is no such method")
MALFORMED_REQUEST = Failure(
    grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST", "the request is not a message of this method's type"
)
INTERNAL = Failure(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error")


class RpcStatus(grpc.Status):
    """What `abort_with_status` takes: it replaces trailing metadata set before, so everything is in here."""

    def __init__(self, failure: Failure, *, transcoded: bool) -> None:
        self.code = failure.code
        self.details = failure.short_message
        metadata: Metadata = (("grpc-status-details-bin", failure.status_proto().SerializeToString()),)
        if transcoded:
            metadata += (("x-http-code", str(failure.http_status)), ("x-error-body", failure.rest_body()))
        if failure.challenge is not None:
            metadata += (("www-authenticate", failure.challenge),)
        self.trailing_metadata = metadata
