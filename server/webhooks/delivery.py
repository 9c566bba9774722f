"""A delivery and its attempts as values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class DeliveryStatus(StrEnum):
    """Spelled as documented."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD_LETTERED = "dead_lettered"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row of `webhook_deliveries`, with its event's public id and its endpoint's URL."""

    id: int
    uuid: UUID
    endpoint_id: int
    event_id: UUID
    bearer_id: int
    event_type: str
    resource_uuid: UUID
    url: str
    status: str
    attempts: int
    due_at: datetime | None
    last_response_status: int | None
    last_error: str | None
    created_at: datetime
    delivered_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of `webhook_attempts`."""

    number: int
    attempted_at: datetime
    duration_ms: int
    response_status: int | None
    response_body: str | None
    error: str | None
