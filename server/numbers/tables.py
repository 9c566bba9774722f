"""Customers, their messaging services, and the phone numbers of those."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Identity, func
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base


class CustomerRow(Base):
    """Whom messages are sent for, known by its id in the callers' systems."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    global_customer_id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MessagingServiceRow(Base):
    """A customer's sending identity at the providers."""

    __tablename__ = "messaging_services"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    uuid: Mapped[UUID] = mapped_column(unique=True, server_default=func.uuidv7())
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"), index=True)
    name: Mapped[str] = mapped_column(unique=True)
    # Who carries its messages: a name in providers/registry.py.
    provider: Mapped[str] = mapped_column(server_default="twilio")
    twilio_messaging_sid: Mapped[str] = mapped_column(unique=True)
    bandwidth_messaging_sid: Mapped[str | None] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TwilioNumberRow(Base):
    """A number that messages can be sent from. The lowest id of a service is its first number."""

    __tablename__ = "twilio_numbers"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    messaging_service_id: Mapped[int] = mapped_column(ForeignKey("messaging_services.id"), index=True)
    phone_number: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
