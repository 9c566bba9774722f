"""Keeps our numbers as the provider's account has them.

One worker at a time, once an hour: the row of `number_syncs` is claimed by lease, the provider is asked with no
transaction open, and what it said is applied in one, unless the lease was lost meanwhile. Numbers come, move between
messaging services, go and come back. A number that is gone keeps its row and its pairings, and one that the provider
names in no messaging service we asked for keeps the one it has here: an Admin put it there, or the provider does not
know the service any more, which must not silence every number of it.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from psycopg.rows import class_row, scalar_row
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database, driver_connection
from server.numbers.states import state_of
from server.numbers.twilio_numbers import LOCK
from server.providers.ports import NumberDirectory, ProviderNumber, ProviderUnavailable

log = structlog.get_logger()

_PROVIDER = "twilio"

# One request for each messaging service, a tenth of a second each, and one for each thousand numbers.
_LIST_AT_MOST = timedelta(minutes=10)

# The lease outlasts the longest list, so that nobody who is still at work is overtaken.
_CLAIM = """
INSERT INTO number_syncs (provider, due_at) VALUES (%(provider)s, now() + interval '15 minutes')
ON CONFLICT (provider) DO UPDATE SET due_at = excluded.due_at WHERE number_syncs.due_at <= now() OR %(at_once)s
RETURNING due_at, now() AS claimed_at
"""

_SERVICE_SIDS = "SELECT twilio_messaging_sid FROM messaging_services WHERE provider = %(provider)s ORDER BY id"

_HOLD_CLAIM = "SELECT 1 FROM number_syncs WHERE provider = %(provider)s AND due_at = %(claim)s FOR UPDATE"

_LISTED = """
listed AS (
    SELECT l.phone_number, l.phone_number_sid, l.state_code, m.id AS messaging_service_id
    FROM unnest(%(phone_numbers)s::text[], %(phone_number_sids)s::text[], %(state_codes)s::text[],
                %(messaging_service_sids)s::text[])
         AS l (phone_number, phone_number_sid, state_code, messaging_service_sid)
    LEFT JOIN messaging_services m
           ON m.provider = %(provider)s AND m.twilio_messaging_sid = l.messaging_service_sid
)
"""

# What another provider carries is not this one's to change.
_OF_THIS_PROVIDER = """
NOT EXISTS (
    SELECT FROM messaging_services m WHERE m.id = n.messaging_service_id AND m.provider <> %(provider)s
)
"""

_CHANGE = f"""
WITH {_LISTED}, found AS (
    SELECT n.id, listed.phone_number_sid, listed.state_code,
           coalesce(listed.messaging_service_id, n.messaging_service_id) AS messaging_service_id
    FROM listed JOIN twilio_numbers n ON n.phone_number = listed.phone_number
    WHERE {_OF_THIS_PROVIDER}
)
UPDATE twilio_numbers n
SET phone_number_sid = found.phone_number_sid, state_code = found.state_code,
    messaging_service_id = found.messaging_service_id, released_at = NULL
FROM found
WHERE n.id = found.id
  AND (n.phone_number_sid, n.state_code, n.messaging_service_id, n.released_at)
      IS DISTINCT FROM (found.phone_number_sid, found.state_code, found.messaging_service_id, NULL::timestamptz)
RETURNING n.phone_number, old.messaging_service_id IS DISTINCT FROM new.messaging_service_id AS moved,
          old.released_at IS NOT NULL AS restored
"""

_ADD = f"""
WITH {_LISTED}
INSERT INTO twilio_numbers (phone_number, phone_number_sid, state_code, messaging_service_id)
SELECT phone_number, phone_number_sid, state_code, messaging_service_id FROM listed
WHERE NOT EXISTS (SELECT FROM twilio_numbers n WHERE n.phone_number = listed.phone_number) ORDER BY phone_number
ON CONFLICT (phone_number) DO NOTHING
RETURNING phone_number
"""

# A number that came to us while the provider was asked may be missing from what it said.
_RELEASE = f"""
UPDATE twilio_numbers n SET released_at = now()
WHERE n.released_at IS NULL AND n.created_at < %(claimed_at)s AND NOT n.phone_number = ANY(%(phone_numbers)s::text[])
  AND {_OF_THIS_PROVIDER}
RETURNING n.phone_number
"""

_FINISH = """
UPDATE number_syncs
SET due_at = now() + %(again_after)s, finished_at = now(), added = %(added)s, moved = %(moved)s,
    released = %(released)s, restored = %(restored)s, error = %(error)s
WHERE provider = %(provider)s AND due_at = %(claim)s
"""

_EVERY = timedelta(hours=1)
_AFTER_FAILURE = timedelta(minutes=5)


class Change(StrEnum):
    """What can become of a number."""

    ADDED = "added"
    MOVED = "moved"
    RELEASED = "released"
    RESTORED = "restored"


# The numbers of each kind of change, in the order of their digits.
Changes = dict[Change, list[str]]


class NotSynchronised(Exception):
    """Nothing was changed; the text says why."""


@dataclass(frozen=True)
class _Claim:
    """The right to synchronise until `due_at`."""

    due_at: datetime
    claimed_at: datetime


@dataclass(frozen=True)
class _Changed:
    phone_number: str
    moved: bool
    restored: bool


class NumberSync:
    """Any number of workers may run `step`: who has the lease works."""

    def __init__(self, db: Database, directory: NumberDirectory) -> None:
        self._db = db
        self._directory = directory

    async def step(self) -> bool:
        """Synchronise if that is due, and answer whether it was. A failure is told to the log and to the row."""
        claim = await self._claim(at_once=False)
        if claim is None:
            return False
        try:
            changes = await self._synchronise(claim)
        except NotSynchronised as error:
            log.warning("numbers.not_synchronised", provider=_PROVIDER, error=str(error))
        else:
            log.info("numbers.synchronised", provider=_PROVIDER, **_counts(changes))
        return True

    async def sync_now(self) -> Changes:
        """Synchronise whether or not it is due, in the place of whoever is at it. Raises NotSynchronised."""
        claim = await self._claim(at_once=True)
        assert claim is not None, "a claim that waits for nothing succeeds"
        return await self._synchronise(claim)

    async def _claim(self, *, at_once: bool) -> _Claim | None:
        return await self._db.fetch_one(_CLAIM, {"provider": _PROVIDER, "at_once": at_once}, class_row(_Claim))

    async def _synchronise(self, claim: _Claim) -> Changes:
        try:
            numbers = await self._list()
            async with self._db.begin() as tx:
                return await _apply(tx, claim, numbers)
        except NotSynchronised as error:
            await self._db.execute(_FINISH, _outcome(claim, {}, again_after=_AFTER_FAILURE, error=str(error)))
            raise

    async def _list(self) -> list[ProviderNumber]:
        sids = await self._db.fetch_all(_SERVICE_SIDS, {"provider": _PROVIDER}, scalar_row)
        try:
            async with asyncio.timeout(_LIST_AT_MOST.total_seconds()):
                numbers = await self._directory.list_numbers(sids)
        except ProviderUnavailable as error:
            raise NotSynchronised(f"the provider's numbers could not be listed: {error}") from error
        except TimeoutError as error:
            raise NotSynchronised(f"the provider's numbers were not listed within {_LIST_AT_MOST}") from error
        if not numbers:
            # Far more likely a wrong account, or a fault at the provider, than the loss of every number.
            raise NotSynchronised("the provider lists no numbers at all")
        return numbers


async def _apply(tx: AsyncSession, claim: _Claim, numbers: list[ProviderNumber]) -> Changes:
    """Make our numbers those of the list."""
    await tx.execute(text(LOCK))
    connection = await driver_connection(tx)
    parameters = {
        "provider": _PROVIDER,
        "claim": claim.due_at,
        "claimed_at": claim.claimed_at,
        "phone_numbers": [number.phone_number for number in numbers],
        "phone_number_sids": [number.phone_number_sid for number in numbers],
        "state_codes": [state_of(number.phone_number) for number in numbers],
        "messaging_service_sids": [number.messaging_service_sid for number in numbers],
    }
    if (await connection.execute(_HOLD_CLAIM, parameters)).rowcount == 0:
        raise NotSynchronised("another synchronisation has begun")
    async with connection.cursor(row_factory=class_row(_Changed)) as cursor:
        changed = await (await cursor.execute(_CHANGE, parameters)).fetchall()
    async with connection.cursor(row_factory=scalar_row) as cursor:
        added = await (await cursor.execute(_ADD, parameters)).fetchall()
        released = await (await cursor.execute(_RELEASE, parameters)).fetchall()
    changes = {
        Change.ADDED: sorted(added),
        Change.MOVED: sorted(number.phone_number for number in changed if number.moved),
        Change.RELEASED: sorted(released),
        Change.RESTORED: sorted(number.phone_number for number in changed if number.restored),
    }
    await connection.execute(_FINISH, _outcome(claim, changes, again_after=_EVERY, error=None))
    return changes


def _outcome(claim: _Claim, changes: Changes, *, again_after: timedelta, error: str | None) -> dict[str, object]:
    return {
        "provider": _PROVIDER,
        "claim": claim.due_at,
        "again_after": again_after,
        "error": error,
        **_counts(changes),
    }


def _counts(changes: Changes) -> dict[str, int]:
    # Keys of str itself: the log's renderer takes no others.
    return {change.value: len(changes.get(change, [])) for change in Change}
