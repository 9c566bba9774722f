"""Request ids: a create repeated with the same id within 24 hours answers the first result again."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from google.protobuf.message import Message
from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, func, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base, Database, Parameters, driver_connection
from server.errors import AlreadyExists

# When a request id was used that is remembered, in SQL: then or later.
REMEMBERED_SINCE: LiteralString = "now() - interval '24 hours'"

_FORGOTTEN_AT_ONCE = 1000

# The claim of a request id. An id that was forgotten is taken over; one in use by a transaction in flight makes this
# wait for that transaction's end. Touches no row where the id is remembered.
CLAIM: LiteralString = f"""
INSERT INTO idempotency_keys (bearer_id, request_id, fingerprint, response_encrypted)
VALUES (%(bearer_id)s, %(request_id)s, %(fingerprint)s, %(response_encrypted)s)
ON CONFLICT (bearer_id, request_id) DO UPDATE
SET fingerprint = excluded.fingerprint, response_encrypted = excluded.response_encrypted, created_at = now()
WHERE idempotency_keys.created_at < {REMEMBERED_SINCE}
"""

_FORGET = f"""
DELETE FROM idempotency_keys WHERE (bearer_id, request_id) IN (
    SELECT bearer_id, request_id FROM idempotency_keys WHERE created_at < {REMEMBERED_SINCE}
    ORDER BY created_at LIMIT {_FORGOTTEN_AT_ONCE} FOR UPDATE SKIP LOCKED
)
"""


class IdempotencyKeyRow(Base):
    """A create that carried a request id, and its answer, encrypted because it may hold a token."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint_is_sha256"),)

    bearer_id: Mapped[int] = mapped_column(ForeignKey("bearers.id"), primary_key=True)
    request_id: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    response_encrypted: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class RequestIdReused(AlreadyExists):
    """The request id was used for another request."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        super().__init__("this request id was used for a request with another body", request_id=request_id)


@dataclass(frozen=True)
class RequestKey:
    """A bearer's request id and the fingerprint of what it was used for."""

    bearer_id: int
    request_id: str
    fingerprint: bytes

    def check(self, fingerprint: bytes) -> None:
        """Raise RequestIdReused unless the remembered request was this one."""
        if fingerprint != self.fingerprint:
            raise RequestIdReused(self.request_id)

    def parameters(self, response_encrypted: bytes) -> Parameters:
        """The parameters of CLAIM."""
        return {
            "bearer_id": self.bearer_id,
            "request_id": self.request_id,
            "fingerprint": self.fingerprint,
            "response_encrypted": response_encrypted,
        }


def fingerprint_of(request: Message) -> bytes:
    """What the request asks for, whatever its request id: its type and its other fields."""
    asked = type(request)()
    asked.CopyFrom(request)
    asked.ClearField("request_id")
    described = request.DESCRIPTOR.full_name.encode() + b"\0" + asked.SerializeToString(deterministic=True)
    return hashlib.sha256(described).digest()


async def claim(tx: AsyncSession, key: RequestKey) -> bytes | None:
    """Take the request id for this transaction, or answer the encrypted response it is remembered with."""
    connection = await driver_connection(tx)
    claimed = await connection.execute(CLAIM, key.parameters(b""))
    if claimed.rowcount:
        return None
    row = await tx.get_one(IdempotencyKeyRow, (key.bearer_id, key.request_id))
    key.check(row.fingerprint)
    return row.response_encrypted


async def remember(tx: AsyncSession, key: RequestKey, response_encrypted: bytes) -> None:
    """Keep the answer of the create that claimed the request id."""
    row = IdempotencyKeyRow
    await tx.execute(
        update(row)
        .where(row.bearer_id == key.bearer_id, row.request_id == key.request_id)
        .values(response_encrypted=response_encrypted)
    )


async def forget_old(db: Database) -> bool:
    """Delete a batch of the request ids that are no longer remembered; whether there may be more."""
    return await db.execute(_FORGET) == _FORGOTTEN_AT_ONCE
