"""Conversations: message threads of a bearer, found by the bearer's own id for them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Identity, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base


class ConversationRow(Base):
    """A conversation. Its callback_url takes precedence over the bearer's."""

    __tablename__ = "conversations"
    __table_args__ = (UniqueConstraint("bearer_id", "client_conversation_id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    bearer_id: Mapped[int] = mapped_column(ForeignKey("bearers.id"))
    client_conversation_id: Mapped[str]
    internal_conversation_id: Mapped[UUID] = mapped_column(unique=True, server_default=func.uuidv7())
    global_id: Mapped[UUID] = mapped_column(unique=True, server_default=func.uuidv7())
    callback_url: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
