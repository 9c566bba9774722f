"""Bearers and their API keys."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Identity, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base


class BearerRow(Base):
    """A bearer. A deleted one keeps its row, because its resources name it, but none of its credentials."""

    __tablename__ = "bearers"
    __table_args__ = (
        CheckConstraint("bearer_type IN ('Admin', 'Application', 'User')", name="bearer_type"),
        CheckConstraint(
            "deleted_at IS NOT NULL OR (password_encrypted IS NOT NULL AND signing_secret_encrypted IS NOT NULL)",
            name="live_has_credentials",
        ),
        CheckConstraint(
            "(previous_signing_secret_encrypted IS NULL) = (previous_signing_secret_expires_at IS NULL)",
            name="previous_secret_expires",
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    bearer_name: Mapped[str]
    bearer_type: Mapped[str]
    # None: the bearer was made by the create-admin command and has not named one yet.
    callback_url: Mapped[str | None]
    username: Mapped[str]
    password_encrypted: Mapped[bytes | None] = mapped_column(LargeBinary)
    signing_secret_encrypted: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_signing_secret_encrypted: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_signing_secret_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]


class ApiKeyRow(Base):
    """An API key: the SHA-256 of a random 256-bit token, and its first characters to recognise it by."""

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint("octet_length(token_hash) = 32", name="token_hash_is_sha256"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    bearer_id: Mapped[int] = mapped_column(ForeignKey("bearers.id"), index=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    token_prefix: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
