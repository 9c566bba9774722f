"""Endpoints, the deliveries to them, and every attempt of each."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base


class WebhookEndpointRow(Base):
    """A bearer's callback URL, made when the first event goes there."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (UniqueConstraint("bearer_id", "url"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    bearer_id: Mapped[int] = mapped_column(ForeignKey("bearers.id"))
    url: Mapped[str]
    # Since when no attempt has succeeded; such an endpoint gets one attempt at a time.
    failing_since: Mapped[datetime | None]
    # Since it answered 410, or its bearer was deleted: nothing is sent there.
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WebhookDeliveryRow(Base):
    """One event on its way to one endpoint.

    A lane is the deliveries of one resource to one endpoint. Only its first pending delivery has `due_at`; the others
    wait for it with `due_at` null, so a claim never looks at them.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("event_id", "endpoint_id"),
        Index("ix_webhook_deliveries_due", "endpoint_id", "due_at", postgresql_where="due_at IS NOT NULL"),
        Index(
            "ix_webhook_deliveries_lane", "endpoint_id", "resource_uuid", "id", postgresql_where="status = 'pending'"
        ),
        Index("ix_webhook_deliveries_bearer_id_id", "bearer_id", "id"),
        Index(
            "ix_webhook_deliveries_dead_lettered",
            "bearer_id",
            "id",
            postgresql_where="status = 'dead_lettered'",
        ),
        CheckConstraint("status IN ('pending', 'delivered', 'dead_lettered')", name="status"),
        CheckConstraint("status = 'pending' OR due_at IS NULL", name="only_pending_is_due"),
        CheckConstraint("(status = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_has_time"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    uuid: Mapped[UUID] = mapped_column(unique=True, server_default=func.uuidv7())
    endpoint_id: Mapped[int] = mapped_column(ForeignKey("webhook_endpoints.id"))
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    bearer_id: Mapped[int] = mapped_column(ForeignKey("bearers.id"))
    event_type: Mapped[str]
    resource_uuid: Mapped[UUID]
    status: Mapped[str] = mapped_column(server_default="pending")
    # Counts claims: an attempt is recorded only while this is still its number.
    attempts: Mapped[int] = mapped_column(server_default="0")
    # The attempts of the current run of the retry schedule; a retry by hand begins a new run.
    attempts_in_run: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[datetime | None]
    last_response_status: Mapped[int | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]


class WebhookAttemptRow(Base):
    """One POST to an endpoint, kept."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[int] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    attempted_at: Mapped[datetime]
    duration_ms: Mapped[int]
    response_status: Mapped[int | None]
    response_body: Mapped[str | None]
    error: Mapped[str | None]
