"""The commands that do one thing and end."""

import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog

from server import tables  # noqa: F401 - rows refer to rows of all of them
from server.accounts import bearers, keys
from server.background import Pace
from server.caller import BearerType
from server.config import DatabaseSettings, Settings
from server.db import Database
from server.encryption import Cipher
from server.messages.reconcile import CHECKS_PER_SECOND, Reconciler, Reconciliation, reconcile_all
from server.notifications import Notifications
from server.numbers import messaging_services
from server.numbers.sync import Changes, NumberSync
from server.process import log_json
from server.providers import registry

log = structlog.get_logger()


async def create_admin(settings: DatabaseSettings, *, name: str) -> str:
    """Make an Admin bearer with a key, and answer the token. Its callback URL and password are set through the API."""
    async with _session(settings) as (db, cipher), db.begin() as tx:
        bearer, _secret = await bearers.create_bearer(
            tx,
            cipher=cipher,
            bearer_name=name,
            bearer_type=BearerType.ADMIN,
            callback_url=None,
            username="admin",
            password=secrets.token_urlsafe(32),
        )
        _row, token = await keys.create_key(tx, bearer_id=bearer.id)
    return token


async def sync_numbers(settings: Settings) -> Changes:
    """Bring our numbers to what the provider's account has, now. Raises NotSynchronised."""
    async with _session(settings) as (db, _cipher):
        directory = registry.number_directory(settings)
        try:
            return await NumberSync(db, directory).sync_now()
        finally:
            await directory.aclose()


async def reconcile(settings: Settings, *, older_than: timedelta | None) -> Reconciliation:
    """Ask the providers now about every message that is due for it; with `older_than`, about every message without a
    final status that had no news for so long."""
    log_json(to=sys.stderr.buffer)
    async with _session(settings) as (db, _cipher):
        senders = registry.message_senders(settings)
        # Nobody is woken by these, for they are not run: the relay looks by itself.
        notifications = Notifications(settings.database_url.get_secret_value(), db)
        reconciler = Reconciler(db, notifications, senders, pace=Pace(CHECKS_PER_SECOND))
        try:
            return await reconcile_all(reconciler, db, older_than=older_than)
        finally:
            for sender in senders.values():
                await sender.aclose()


async def seed_local(
    settings: DatabaseSettings,
    *,
    name: str,
    provider: str,
    numbers: Sequence[str],
    twilio_messaging_sid: str | None = None,
    bandwidth_messaging_sid: str | None = None,
) -> None:
    """Make the customer and the messaging service of this name with these numbers, if they are not there."""
    async with _session(settings) as (db, _cipher):
        try:
            async with db.begin() as tx:
                await messaging_services.create_messaging_service(
                    tx,
                    name=name,
                    global_customer_id=name,
                    provider=provider,
                    twilio_messaging_sid=twilio_messaging_sid,
                    bandwidth_messaging_sid=bandwidth_messaging_sid,
                    phone_numbers=numbers,
                )
        except messaging_services.MessagingServiceExists:
            log.info("local.seeded_already", name=name)


@asynccontextmanager
async def _session(settings: DatabaseSettings) -> AsyncIterator[tuple[Database, Cipher]]:
    """A database for one command."""
    db = Database(settings.database_url.get_secret_value(), max_size=1)
    await db.open()
    try:
        yield db, Cipher([key.get_secret_value() for key in settings.encryption_keys])
    finally:
        await db.close()
