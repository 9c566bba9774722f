"""Conversations: message threads of a bearer, who is in them, and which pair of numbers names which."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base


class ConversationRow(Base):
    """A conversation. Its callback_url takes precedence over the bearer's."""

    __tablename__ = "conversations"
    __table_args__ = (
        UniqueConstraint("bearer_id", "client_conversation_id"),
        Index("ix_conversations_bearer_id", "bearer_id", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    bearer_id: Mapped[int] = mapped_column(ForeignKey("bearers.id"))
    # Null where a message without one began it.
    client_conversation_id: Mapped[str | None]
    internal_conversation_id: Mapped[UUID] = mapped_column(unique=True, server_default=func.uuidv7())
    global_id: Mapped[UUID] = mapped_column(unique=True, server_default=func.uuidv7())
    callback_url: Mapped[str | None]
    # What it sends from where a message names nothing.
    messaging_service_id: Mapped[int | None] = mapped_column(ForeignKey("messaging_services.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ParticipantRow(Base):
    """Somebody in a conversation."""

    __tablename__ = "participants"
    __table_args__ = (
        UniqueConstraint("conversation_id", "role", "phone_number"),
        UniqueConstraint("conversation_id", "role", "client_participant_id"),
        CheckConstraint("role IN ('moderator', 'contact')", name="role"),
        CheckConstraint("role = 'moderator' OR phone_number IS NOT NULL", name="contact_has_number"),
        CheckConstraint("phone_number IS NOT NULL OR client_participant_id IS NOT NULL", name="is_known"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"))
    role: Mapped[str]
    phone_number: Mapped[str | None]
    client_participant_id: Mapped[str | None]
    # The number of ours that talks to a contact; it stays when the pairing is deactivated, and is tried first again.
    twilio_number: Mapped[str | None]
    pairing_deactivated_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PairingRow(Base):
    """An active pairing: what the contact writes to our number belongs to this conversation, and to no other.

    The primary key is what keeps two conversations with a contact from one number, whatever comes at once. A contact
    that was written to from several numbers has several.
    """

    __tablename__ = "pairings"

    twilio_number: Mapped[str] = mapped_column(primary_key=True)
    phone_number: Mapped[str] = mapped_column(primary_key=True, index=True)
    participant_id: Mapped[int] = mapped_column(ForeignKey("participants.id"), index=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
