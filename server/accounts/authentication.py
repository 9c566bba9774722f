"""From token to caller, with a short memory that NOTIFY empties.

A process remembers keys only while it is listening: a key deleted elsewhere is forgotten as soon as the deletion
commits, and a process that cannot hear asks the database every time.
"""

import time

from psycopg.rows import TupleRow, tuple_row

from server.accounts import keys
from server.caller import BearerType, Caller
from server.db import Database
from server.notifications import Channel, Notifications

# Bounds what a half-dead connection could hide until TCP keepalives (about 9 s) end it.
_REMEMBERED_SECONDS = 10.0
_MAX_REMEMBERED = 10_000
_USE_RECORDED_EVERY_SECONDS = 30.0

_FIND = """
SELECT k.id, k.bearer_id, b.bearer_type FROM api_keys k JOIN bearers b ON b.id = k.bearer_id
WHERE k.token_hash = %(token_hash)s AND b.deleted_at IS NULL
"""
_STILL_VALID = """
SELECT 1 FROM api_keys k JOIN bearers b ON b.id = k.bearer_id
WHERE k.id = %(api_key_id)s AND b.deleted_at IS NULL AND b.bearer_type = %(bearer_type)s
"""
_RECORD_USE = "UPDATE api_keys SET last_used_at = now() WHERE id = ANY(%(ids)s)"


class Authentication:
    """Knows callers by their tokens."""

    def __init__(self, db: Database, notifications: Notifications) -> None:
        self._db = db
        self._known: dict[bytes, tuple[Caller, float]] = {}
        # Counts forgettings: what was read before one must not be remembered after it.
        self._generation = 0
        self._listening = False
        self._used: set[int] = set()
        self._use_recorded_at: dict[int, float] = {}
        notifications.listen(Channel.API_KEYS, self._forget)
        notifications.on_connect(self._start_listening)
        notifications.on_disconnect(self._stop_listening)

    async def authenticate(self, token: str) -> Caller | None:
        """The caller of a live token; None for any other text."""
        token_hash = keys.token_hash(token)
        if token_hash is None:
            return None
        now = time.monotonic()
        remembered = self._known.get(token_hash)
        if remembered is not None and remembered[1] > now:
            self._note_use(remembered[0].api_key_id, now)
            return remembered[0]
        generation = self._generation
        row: TupleRow | None = await self._db.fetch_one(_FIND, {"token_hash": token_hash}, tuple_row)
        if row is None:
            return None
        caller = Caller(api_key_id=row[0], bearer_id=row[1], bearer_type=BearerType(row[2]))
        if self._listening and generation == self._generation:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            self._known[token_hash] = (caller, now + _REMEMBERED_SECONDS)
        self._note_use(caller.api_key_id, now)
        return caller

    async def is_still_valid(self, caller: Caller) -> bool:
        """Whether the key of a long-lived call has not ended meanwhile, nor its bearer's role changed."""
        parameters = {"api_key_id": caller.api_key_id, "bearer_type": caller.bearer_type}
        found = await self._db.fetch_one(_STILL_VALID, parameters, tuple_row)
        return found is not None

    async def record_use(self) -> bool:
        """Write `last_used_at` of the keys used since: to be repeated. What fails is written the next time."""
        used = sorted(self._used)
        if used:
            await self._db.execute(_RECORD_USE, {"ids": used})
            self._used.difference_update(used)
        return False

    def _note_use(self, api_key_id: int, now: float) -> None:
        if self._use_recorded_at.get(api_key_id, 0.0) + _USE_RECORDED_EVERY_SECONDS <= now:
            self._use_recorded_at[api_key_id] = now
            self._used.add(api_key_id)

    def _forget(self) -> None:
        self._generation += 1
        self._known.clear()
        self._use_recorded_at.clear()

    def _start_listening(self) -> None:
        self._forget()
        self._listening = True

    def _stop_listening(self) -> None:
        self._listening = False
        self._forget()
