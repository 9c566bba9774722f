"""Messages, which are their own send jobs, the raw callbacks about them, and the media of inbound ones."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Identity, Index, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base


class MessageRow(Base):
    """A message. While `due_at` is set there is something to do: send it, or find out whether it was sent."""

    __tablename__ = "messages"
    __table_args__ = (
        Index("ix_messages_due", "priority", "due_at", postgresql_where="due_at IS NOT NULL"),
        Index("ix_messages_numbers", "sender_number", "receiver_number", "id"),
        Index("ix_messages_conversation_id", "conversation_id", "id"),
        Index("ix_messages_check", "check_at", postgresql_where="check_at IS NOT NULL"),
        # A provider's copy belongs to one message: what makes adopting a copy safe.
        Index("uq_messages_message_sid", "provider", "message_sid", unique=True),
        CheckConstraint("priority IN ('default', 'high')", name="priority"),
        CheckConstraint("message_type IN ('sms', 'mms')", name="message_type"),
        CheckConstraint("direction IN ('outbound', 'inbound')", name="direction"),
        CheckConstraint("direction = 'outbound' OR message_sid IS NOT NULL", name="inbound_has_sid"),
        CheckConstraint(
            "internal_status IN ('pending', 'processing', 'sending', 'sent', 'delivered', 'failed', 'cancelled')",
            name="internal_status",
        ),
        CheckConstraint("internal_status <> 'cancelled' OR due_at IS NULL", name="cancelled_is_not_due"),
        CheckConstraint("NOT (in_doubt AND message_sid IS NOT NULL)", name="known_is_not_in_doubt"),
        CheckConstraint("message_sid IS NULL OR due_at IS NULL", name="sent_is_not_due"),
    )

    id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    message_uuid: Mapped[UUID] = mapped_column(unique=True)
    bearer_id: Mapped[int] = mapped_column(ForeignKey("bearers.id"))
    conversation_id: Mapped[int | None] = mapped_column(ForeignKey("conversations.id"))
    direction: Mapped[str] = mapped_column(server_default="outbound")
    provider: Mapped[str]
    # Whose number it is sent from or came to; null where the number is in no messaging service.
    messaging_service_id: Mapped[int | None] = mapped_column(ForeignKey("messaging_services.id"))
    # The service's sid at this provider.
    messaging_service_sid: Mapped[str | None]
    sender_number: Mapped[str]
    receiver_number: Mapped[str]
    message_body: Mapped[str]
    media_urls: Mapped[list[str]] = mapped_column(ARRAY(Text))
    # Where the media of an inbound message are kept: keys of our storage, or URLs of somebody else's.
    stored_media: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    message_type: Mapped[str]
    priority: Mapped[str]
    callback_url: Mapped[str | None]
    internal_status: Mapped[str]
    provider_status: Mapped[str | None]
    # The rank of provider_status: a report of a lower or equal rank is late or repeated. -1 before any.
    provider_rank: Mapped[int] = mapped_column(server_default="-1")
    message_sid: Mapped[str | None]
    error_code: Mapped[str | None]
    error_description: Mapped[str | None]
    scheduled_at: Mapped[datetime | None]
    enqueued_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # The number of events told of this message: also its version, which every change checks.
    sequence: Mapped[int]
    # When there is something to do; a claim moves it to the end of its lease.
    due_at: Mapped[datetime | None]
    # Counts claims: an outcome is recorded only while this is still its claim's.
    attempts: Mapped[int] = mapped_column(server_default="0")
    # When the first claim was: no copy at the provider is older.
    first_claimed_at: Mapped[datetime | None]
    # A claim was made whose outcome is not recorded: the provider may have the message.
    in_doubt: Mapped[bool] = mapped_column(server_default="false")
    # When the provider is to be asked for its status: set from the hand-over on until a final report.
    check_at: Mapped[datetime | None]
    # How often it was asked since its last news.
    checks: Mapped[int] = mapped_column(server_default="0")


class MessageCallbackRow(Base):
    """A provider's callback, as it came. Without `message_id` it waits for the message that will record its sid."""

    __tablename__ = "message_callbacks"
    __table_args__ = (
        Index("ix_message_callbacks_unmatched", "provider", "message_sid", postgresql_where="message_id IS NULL"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    message_id: Mapped[int | None] = mapped_column(ForeignKey("messages.id"))
    provider: Mapped[str]
    message_sid: Mapped[str]
    # What the callback reports, as read when its signature was proven.
    provider_status: Mapped[str]
    provider_rank: Mapped[int]
    internal_status: Mapped[str]
    error_code: Mapped[str | None]
    error_url: Mapped[str | None]
    recipient_opted_out: Mapped[bool] = mapped_column(server_default="false")
    body: Mapped[str]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class MediaFileRow(Base):
    """One of an inbound message's media. While `due_at` is set it is to be fetched and stored."""

    __tablename__ = "media_files"
    __table_args__ = (
        UniqueConstraint("message_id", "place"),
        Index("ix_media_files_due", "due_at", postgresql_where="due_at IS NOT NULL"),
        CheckConstraint("(due_at IS NULL) = (storage_key IS NOT NULL OR error IS NOT NULL)", name="settled"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id"))
    # From 0, as the provider numbers them.
    place: Mapped[int]
    url: Mapped[str]
    # What the provider said it is, then what it was found to be.
    content_type: Mapped[str]
    storage_key: Mapped[str | None]
    # Why it is not kept.
    error: Mapped[str | None]
    due_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
