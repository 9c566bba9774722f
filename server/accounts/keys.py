"""API keys: random 256-bit tokens, of which the server keeps the SHA-256."""

import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy import delete, exists, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.tables import ApiKeyRow, BearerRow
from server.caller import BearerType
from server.errors import FailedPrecondition, NotFound
from server.notifications import Channel
from server.paging import Page

# What secret scanners can recognise a leaked token by.
TOKEN_PREFIX = "csk_"  # noqa: S105 it is public
_TOKEN_LENGTH = len(TOKEN_PREFIX) + 43
_SHOWN_LENGTH = 10

# Removals that could leave no Admin behind run one at a time.
_ADMIN_LOCK = 0x61646D69


class ApiKeyNotFound(NotFound):
    """No such key, or not of the caller's bearer."""

    reason = "API_KEY_NOT_FOUND"

    def __init__(self, api_key_id: int) -> None:
        super().__init__(f"no API key {api_key_id}", api_key_id=str(api_key_id))


class LastAdmin(FailedPrecondition):
    """The removal would leave nobody who can administer."""

    reason = "LAST_ADMIN"

    def __init__(self, bearer_id: int) -> None:
        super().__init__("this would leave no Admin with an API key", bearer_id=str(bearer_id))


def new_token() -> str:
    """A token nobody has seen."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes | None:
    """What a token is found by; None for a text that cannot be one, so that it costs no query."""
    if len(token) != _TOKEN_LENGTH or not token.startswith(TOKEN_PREFIX):
        return None
    return hashlib.sha256(token.encode()).digest()


async def create_key(tx: AsyncSession, *, bearer_id: int) -> tuple[ApiKeyRow, str]:
    """A new key and its token, which is not to be had again."""
    token = new_token()
    row = ApiKeyRow(bearer_id=bearer_id, token_hash=token_hash(token), token_prefix=token[:_SHOWN_LENGTH])
    tx.add(row)
    await tx.flush()
    await tx.refresh(row)
    return row, token


async def list_keys(tx: AsyncSession, *, bearer_id: int | None, page: Page) -> tuple[Sequence[ApiKeyRow], str]:
    """A page of keys, oldest first; everybody's where bearer_id is None."""
    query = select(ApiKeyRow).order_by(ApiKeyRow.id).limit(page.limit)
    if bearer_id is not None:
        query = query.where(ApiKeyRow.bearer_id == bearer_id)
    if page.after_id is not None:
        query = query.where(ApiKeyRow.id > page.after_id)
    return page.cut((await tx.scalars(query)).all())


async def delete_key(tx: AsyncSession, *, api_key_id: int, bearer_id: int | None) -> None:
    """End a key, on every server as soon as the transaction commits; any bearer's where bearer_id is None."""
    await lock_admins(tx)
    query = delete(ApiKeyRow).where(ApiKeyRow.id == api_key_id).returning(ApiKeyRow.bearer_id)
    if bearer_id is not None:
        query = query.where(ApiKeyRow.bearer_id == bearer_id)
    owner_id = await tx.scalar(query)
    if owner_id is None:
        raise ApiKeyNotFound(api_key_id)
    if await tx.scalar(select(BearerRow.bearer_type).where(BearerRow.id == owner_id)) == BearerType.ADMIN:
        await require_admin_left(tx, removed_from=owner_id)
    await forget_keys(tx)


async def lock_admins(tx: AsyncSession) -> None:
    """Wait for other removals that could take the last Admin."""
    await tx.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADMIN_LOCK})


async def require_admin_left(tx: AsyncSession, *, removed_from: int) -> None:
    """Raise LastAdmin unless a live Admin bearer with a key is left."""
    left = await tx.scalar(
        select(
            exists().where(
                ApiKeyRow.bearer_id == BearerRow.id,
                BearerRow.bearer_type == BearerType.ADMIN,
                BearerRow.deleted_at.is_(None),
            )
        )
    )
    if not left:
        raise LastAdmin(removed_from)


async def forget_keys(tx: AsyncSession) -> None:
    """Have every process forget the keys it knows when the transaction commits: they change too rarely to be picky."""
    await tx.execute(text("SELECT pg_notify(:channel, '')"), {"channel": Channel.API_KEYS})
