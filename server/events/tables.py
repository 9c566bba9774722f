"""The event log: one row an event, written with the change it tells, and the log's two ends."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, LargeBinary, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base


class EventRow(Base):
    """An event. It has no position until the relay has seen its transaction commit: readers follow positions."""

    __tablename__ = "events"
    __table_args__ = (
        # Also what keeps two writers from telling the same change of a resource.
        UniqueConstraint("resource_uuid", "sequence"),
        # The indexes of positions leave out what has none, so that an append does not write to them.
        Index("ix_events_unrelayed", "id", postgresql_where="position IS NULL"),
        Index("uq_events_position", "position", unique=True, postgresql_where="position IS NOT NULL"),
        Index("ix_events_bearer_id_position", "bearer_id", "position", postgresql_where="position IS NOT NULL"),
        CheckConstraint("sequence > 0", name="sequence_positive"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    event_id: Mapped[UUID] = mapped_column(unique=True)
    position: Mapped[int | None]
    bearer_id: Mapped[int] = mapped_column(ForeignKey("bearers.id"))
    type: Mapped[str]
    resource_uuid: Mapped[UUID]
    sequence: Mapped[int]
    # Where the event is delivered; None where neither request, conversation nor bearer names a URL.
    callback_url: Mapped[str | None]
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # A serialised commonservices.v1.Event without cursor: the resource as it was after the change.
    payload: Mapped[bytes] = mapped_column(LargeBinary)


class EventLogRow(Base):
    """The log's two ends, in its only row: the relay moves `last_position`, retention `oldest_position`."""

    __tablename__ = "event_log"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last_position: Mapped[int]
    # Every event after this position is kept.
    oldest_position: Mapped[int]
