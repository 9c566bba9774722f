"""Bearers: who owns keys and resources, and where their events go."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts import keys, signing_secrets
from server.accounts.tables import ApiKeyRow, BearerRow
from server.caller import BearerType
from server.encryption import Cipher
from server.errors import NotFound
from server.paging import Page

PREVIOUS_SECRET_SIGNS_FOR = timedelta(hours=24)

# Webhooks are above accounts: what is to happen there is passed in.
EnableEndpoint = Callable[[AsyncSession, int, str], Awaitable[None]]
EndOfBearer = Callable[[AsyncSession, int], Awaitable[None]]


class BearerNotFound(NotFound):
    """No such bearer, or a deleted one."""

    reason = "BEARER_NOT_FOUND"

    def __init__(self, bearer_id: int) -> None:
        super().__init__(f"no bearer {bearer_id}", bearer_id=str(bearer_id))


async def create_bearer(
    tx: AsyncSession,
    *,
    cipher: Cipher,
    bearer_name: str,
    bearer_type: BearerType,
    callback_url: str | None,
    username: str,
    password: str,
) -> tuple[BearerRow, str]:
    """A new bearer and its signing secret, which is not to be had again."""
    secret = signing_secrets.new_secret()
    row = BearerRow(
        bearer_name=bearer_name,
        bearer_type=bearer_type,
        callback_url=callback_url,
        username=username,
        password_encrypted=cipher.encrypt(password.encode()),
        signing_secret_encrypted=cipher.encrypt(secret.encode()),
    )
    tx.add(row)
    await tx.flush()
    await tx.refresh(row)
    return row, secret


async def list_bearers(tx: AsyncSession, *, page: Page) -> tuple[Sequence[BearerRow], str]:
    """A page of live bearers, oldest first."""
    query = select(BearerRow).where(BearerRow.deleted_at.is_(None)).order_by(BearerRow.id).limit(page.limit)
    if page.after_id is not None:
        query = query.where(BearerRow.id > page.after_id)
    return page.cut((await tx.scalars(query)).all())


async def get_bearer(tx: AsyncSession, *, bearer_id: int, lock: bool = False) -> BearerRow:
    """A live bearer; locked until the transaction ends where it is about to change.

    The lock lets rows that name the bearer be inserted: creates that have done so for their request ids, and then all
    asked for a lock that excludes that, would wait for each other.
    """
    query = select(BearerRow).where(BearerRow.id == bearer_id, BearerRow.deleted_at.is_(None))
    row = await tx.scalar(query.with_for_update(key_share=True) if lock else query)
    if row is None:
        raise BearerNotFound(bearer_id)
    return row


async def hold_live(tx: AsyncSession, *, bearer_id: int) -> bool:
    """Whether the bearer is live; if it is, its end waits for the end of the transaction."""
    query = select(BearerRow.id).where(BearerRow.id == bearer_id, BearerRow.deleted_at.is_(None))
    return await tx.scalar(query.with_for_update(read=True, key_share=True)) is not None


async def update_bearer(
    tx: AsyncSession, *, cipher: Cipher, bearer_id: int, changes: Mapping[str, str], enable_endpoint: EnableEndpoint
) -> BearerRow:
    """Set the given fields (named as in the API); the others stay."""
    loses_admin = "bearer_type" in changes and changes["bearer_type"] != BearerType.ADMIN
    if loses_admin:
        await keys.lock_admins(tx)
    row = await get_bearer(tx, bearer_id=bearer_id, lock=True)
    was_admin = row.bearer_type == BearerType.ADMIN
    values: dict[str, Any] = dict(changes)
    if "password" in values:
        values["password_encrypted"] = cipher.encrypt(values.pop("password").encode())
    for name, value in values.items():
        setattr(row, name, value)
    row.updated_at = func.now()
    await tx.flush()
    await tx.refresh(row)
    if "callback_url" in changes:
        await enable_endpoint(tx, bearer_id, changes["callback_url"])
    if "bearer_type" in changes:
        if loses_admin and was_admin:
            await keys.require_admin_left(tx, removed_from=bearer_id)
        await keys.forget_keys(tx)
    return row


async def delete_bearer(tx: AsyncSession, *, bearer_id: int, end_of_bearer: EndOfBearer) -> None:
    """End a bearer: its keys at once everywhere, its secrets for good, its deliveries; its resources stay."""
    await keys.lock_admins(tx)
    # Excludes the relay, too, which makes deliveries while it holds the bearer's row as live.
    await tx.execute(select(BearerRow.id).where(BearerRow.id == bearer_id).with_for_update())
    row = await get_bearer(tx, bearer_id=bearer_id, lock=True)
    await tx.execute(delete(ApiKeyRow).where(ApiKeyRow.bearer_id == bearer_id))
    row.deleted_at = func.now()
    row.updated_at = func.now()
    row.password_encrypted = None
    row.signing_secret_encrypted = None
    row.previous_signing_secret_encrypted = None
    row.previous_signing_secret_expires_at = None
    await tx.flush()
    await end_of_bearer(tx, bearer_id)
    if row.bearer_type == BearerType.ADMIN:
        await keys.require_admin_left(tx, removed_from=bearer_id)
    await keys.forget_keys(tx)


async def rotate_signing_secret(
    tx: AsyncSession, *, cipher: Cipher, bearer_id: int, now: datetime
) -> tuple[str, datetime]:
    """A new secret, and until when the one before it signs too."""
    row = await get_bearer(tx, bearer_id=bearer_id, lock=True)
    secret = signing_secrets.new_secret()
    expires_at = now + PREVIOUS_SECRET_SIGNS_FOR
    row.previous_signing_secret_encrypted = row.signing_secret_encrypted
    row.previous_signing_secret_expires_at = expires_at
    row.signing_secret_encrypted = cipher.encrypt(secret.encode())
    row.updated_at = func.now()
    await tx.flush()
    return secret, expires_at
