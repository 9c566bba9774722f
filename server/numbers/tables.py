"""Customers, their messaging services, the phone numbers of those, and what is known of anybody's number."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base


class CustomerRow(Base):
    """Whom messages are sent for, known by its id in the callers' systems."""

    __tablename__ = "customers"
    __table_args__ = (
        CheckConstraint("number_pool IN ('dedicated', 'k12')", name="number_pool"),
        CheckConstraint("number_pool <> 'k12' OR state IS NOT NULL", name="k12_has_state"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    global_customer_id: Mapped[str] = mapped_column(unique=True)
    customer_name: Mapped[str | None]
    state: Mapped[str | None]
    number_pool: Mapped[str] = mapped_column(server_default="dedicated")
    business_profile_sid: Mapped[str | None]
    shaken_stir_product_sid: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MessagingServiceRow(Base):
    """A customer's sending identity at the providers."""

    __tablename__ = "messaging_services"
    __table_args__ = (
        CheckConstraint("provider IN ('twilio', 'bandwidth')", name="provider"),
        CheckConstraint(
            "CASE provider WHEN 'twilio' THEN twilio_messaging_sid ELSE bandwidth_messaging_sid END IS NOT NULL",
            name="sid_of_provider",
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    uuid: Mapped[UUID] = mapped_column(unique=True, server_default=func.uuidv7())
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"), index=True)
    name: Mapped[str] = mapped_column(unique=True)
    # Who carries its messages: a name in providers/registry.py.
    provider: Mapped[str] = mapped_column(server_default="twilio")
    twilio_messaging_sid: Mapped[str | None] = mapped_column(unique=True)
    bandwidth_messaging_sid: Mapped[str | None] = mapped_column(unique=True)
    is_k12_pool: Mapped[bool] = mapped_column(server_default="false")
    # Whose the messages of unknown senders are; the oldest Admin bearer's where null.
    bearer_id: Mapped[int | None] = mapped_column(ForeignKey("bearers.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TwilioNumberRow(Base):
    """A number of ours. The lowest id of a service is its first number; one without a service sends nothing."""

    __tablename__ = "twilio_numbers"
    __table_args__ = (
        Index("ix_twilio_numbers_messaging_service_id", "messaging_service_id", "id"),
        Index("ix_twilio_numbers_state_code", "state_code", "messaging_service_id"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    messaging_service_id: Mapped[int | None] = mapped_column(ForeignKey("messaging_services.id"))
    phone_number: Mapped[str] = mapped_column(unique=True)
    state_code: Mapped[str | None]
    phone_number_sid: Mapped[str | None]
    # Since when the provider's account does not have it: no new pairing uses it.
    released_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class NumberSyncRow(Base):
    """When a provider's numbers are to be synchronised next, and what the last time found."""

    __tablename__ = "number_syncs"

    provider: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    added: Mapped[int] = mapped_column(server_default="0")
    moved: Mapped[int] = mapped_column(server_default="0")
    released: Mapped[int] = mapped_column(server_default="0")
    restored: Mapped[int] = mapped_column(server_default="0")
    error: Mapped[str | None]


class OptOutRow(Base):
    """Somebody who has said whether they take messages of a messaging service: none while `opted_out_at` is set."""

    __tablename__ = "opt_outs"
    __table_args__ = (
        CheckConstraint("source IN ('keyword', 'provider')", name="source"),
        CheckConstraint("opted_out_at IS NOT NULL OR opted_in_at IS NOT NULL", name="was_said"),
    )

    messaging_service_id: Mapped[int] = mapped_column(ForeignKey("messaging_services.id"), primary_key=True)
    phone_number: Mapped[str] = mapped_column(primary_key=True)
    # A word of theirs, or the provider's refusal to send to them.
    source: Mapped[str]
    opted_out_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    # When they last asked for messages: a refusal of one that was sent before is out of date.
    opted_in_at: Mapped[datetime | None]


class NumberOptOutRow(Base):
    """What they have said to one of our numbers, which holds for it wherever it goes."""

    __tablename__ = "number_opt_outs"
    __table_args__ = (
        CheckConstraint("source IN ('keyword', 'provider')", name="source"),
        CheckConstraint("opted_out_at IS NOT NULL OR opted_in_at IS NOT NULL", name="was_said"),
    )

    twilio_number: Mapped[str] = mapped_column(primary_key=True)
    phone_number: Mapped[str] = mapped_column(primary_key=True)
    # Whom the number spoke for then, of which `opt_outs` says what holds; null where for nobody.
    messaging_service_id: Mapped[int | None] = mapped_column(ForeignKey("messaging_services.id"))
    source: Mapped[str]
    opted_out_at: Mapped[datetime | None]
    opted_in_at: Mapped[datetime | None]


class LineTypeRow(Base):
    """What a provider's lookup says of a number. While `due_at` is set it is to be looked up."""

    __tablename__ = "line_types"
    __table_args__ = (Index("ix_line_types_due", "due_at", postgresql_where="due_at IS NOT NULL"),)

    phone_number: Mapped[str] = mapped_column(primary_key=True)
    # Null before the first lookup, and where the provider knows none.
    line_type: Mapped[str | None]
    looked_up_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")


class UnknownSenderAnswerRow(Base):
    """When an unknown sender was last answered."""

    __tablename__ = "unknown_sender_answers"

    phone_number: Mapped[str] = mapped_column(primary_key=True)
    answered_at: Mapped[datetime]
