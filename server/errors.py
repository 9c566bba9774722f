"""The kinds of failure a caller can cause or must know of.

A concrete error is a subclass beside its domain that names the fact, its documented `ErrorReason` and the metadata that
goes with it; `rpc/errors.py` alone turns a kind into a status code.
"""

from dataclasses import dataclass
from typing import ClassVar


class DomainError(Exception):
    """A fact that the caller is told: `reason` is a value of `ErrorReason`, `metadata` its documented keys."""

    reason: ClassVar[str]

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata


class NotFound(DomainError):
    """No such thing, or not the caller's: the two are not told apart."""


class FailedPrecondition(DomainError):
    """The thing exists, but is not in a state for this."""


class AlreadyExists(DomainError):
    """A unique value is taken."""


class PermissionDenied(DomainError):
    """The caller is known, but may not do this."""


class Unauthenticated(DomainError):
    """The caller is not known."""


class Challenged(Unauthenticated):
    """The caller is not known, and says who it is only when asked to: REST answers 401 and WWW-Authenticate."""

    challenge: ClassVar[str]


class ResourceExhausted(DomainError):
    """A limit of the caller's is reached."""


class OutOfRange(DomainError):
    """The position asked for is no longer, or not yet, there."""


class Unavailable(DomainError):
    """A part this service needs cannot be reached now; the same request may be sent again."""

    reason = "UNAVAILABLE"


@dataclass(frozen=True)
class FieldViolation:
    """One bad field: its path in the request as the caller spelled it, and what is wrong with it."""

    field: str
    description: str


class InvalidArgument(DomainError):
    """Fields that are missing or wrong: all of them at once."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: list[FieldViolation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations
