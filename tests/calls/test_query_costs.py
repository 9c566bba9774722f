"""What is asked and claimed about calls costs the same however many there have been."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from psycopg.rows import scalar_row
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls import checks, incoming, queries, return_calls
from server.calls.conferences import callbacks as conference_callbacks
from server.calls.conferences import controls, dial
from server.calls.parts import CallParts
from server.calls.recordings import checks as recording_checks
from server.calls.recordings import deletions as recording_deletions
from server.calls.recordings import reports as recording_reports
from server.calls.recordings import transcripts
from server.calls.recordings import worker as recordings
from server.db import Database, driver_connection
from tests.calls.conferences import Conference, create
from tests.clients import Client
from tests.factories import make_messaging_service

_MANY = 20_000

_FILL = [
    f"""INSERT INTO calls (uuid, kind, bearer_id, provider_number, participant_number, internal_status, sequence)
    SELECT gen_random_uuid(), 'conference', bearer_id, provider_number, participant_number, 'finished', 1
    FROM calls, generate_series(1, {_MANY})""",
    """INSERT INTO conference_calls (call_id, uuid, welcome_message, conference_sid)
    SELECT id, gen_random_uuid(), '', 'CF' || id FROM calls WHERE internal_status = 'finished'""",
    """INSERT INTO call_legs (uuid, call_id, kind, address, position, call_sid, provider_status, ended_at)
    SELECT gen_random_uuid(), id, 'moderator', participant_number, 0, 'CA' || id, 'completed', now()
    FROM calls WHERE internal_status = 'finished'""",
    """INSERT INTO call_recordings (call_id, recording_sid, internal_status, storage_key)
    SELECT id, 'RE' || id, 'stored', 'key' || id FROM calls WHERE internal_status = 'finished'""",
    """INSERT INTO transcripts (uuid, recording_id, internal_status, words)
    SELECT gen_random_uuid(), id, 'ready', '[]' FROM call_recordings""",
    "ANALYZE calls, conference_calls, call_legs, call_recordings, transcripts",
]

_FILLED = ("calls", "conference_calls", "call_legs", "call_recordings", "transcripts")

_LEASE = timedelta(seconds=60)
_CLAIMS = {
    "dial": (dial._CLAIM, {"limit": 8, "lease": _LEASE}),
    "control": (controls._CLAIM, {"limit": 8, "lease": _LEASE}),
    "check legs": (checks._CLAIM_LEGS, {"limit": 8, "lease": _LEASE}),
    "expire calls": (checks._CLAIM_CALLS, {"limit": 8, "again": _LEASE}),
    "store": (recordings._CLAIM, {"lease": _LEASE}),
    "check recordings": (recording_checks._CLAIM, {"limit": 8, "lease": _LEASE}),
    "delete": (recording_deletions._CLAIM, {"lease": _LEASE}),
    "transcribe": (transcripts._CLAIM, {"lease": _LEASE}),
}


@pytest.fixture
async def conference(client: Client, parts: CallParts, db: Database) -> Conference:
    """One that is not over yet, among many that are."""
    await make_messaging_service(db)
    return Conference(await create(client), parts)


@asynccontextmanager
async def _among_many(db: Database) -> AsyncIterator[AsyncSession]:
    """A transaction that alone sees how many calls there have been."""
    async with db.begin() as tx:
        connection = await driver_connection(tx)
        for statement in _FILL:
            await connection.execute(statement.encode())
        yield tx
        await tx.rollback()


async def _plan(tx: AsyncSession, statement: str, parameters: Any) -> str:
    cursor = (await driver_connection(tx)).cursor(row_factory=scalar_row)
    return "\n".join(await (await cursor.execute(f"EXPLAIN {statement}".encode(), parameters)).fetchall())


async def test_no_claim_reads_a_table_whole(conference: Conference, db: Database) -> None:
    async with _among_many(db) as tx:
        plans = {name: await _plan(tx, *claim) for name, claim in _CLAIMS.items()}

    assert not [name for name, plan in plans.items() if "Seq Scan" in plan]


async def test_no_question_reads_a_table_whole(conference: Conference, db: Database) -> None:
    call_id, uuid = conference.call.id, conference.uuid
    sids = {"conference_sid": "CF1", "call_sid": "CA0"}
    asked: list[tuple[str, Any]] = [
        (incoming._FIND, sids),
        (conference_callbacks._FIND_LEG, {"leg_uuid": uuid}),
        (conference_callbacks._FIND_CONFERENCE, {**sids, "conference_uuid": uuid}),
        (conference_callbacks._FIND_CONFERENCE, {**sids, "conference_uuid": None}),
        (recording_reports._FIND, {**sids, "call_uuid": uuid}),
        (return_calls._FIND, {"uuid": uuid, "kinds": ["direct", "return"]}),
    ]
    async with _among_many(db) as tx:
        connection = await tx.connection()

        def keep(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
            asked.append((statement, parameters))

        event.listen(connection.sync_connection, "before_cursor_execute", keep)
        for either in (UUID(conference.call.uuid), uuid):
            await queries.find_conference(tx, either, owner_id=None)
        await queries.find_call(tx, uuid, owner_id=conference.call.bearer_id)
        await queries.legs_of(tx, call_id)
        await queries.hold_call(tx, call_id=call_id)
        plans = [(statement, await _plan(tx, statement, parameters)) for statement, parameters in asked]

    assert len(plans) == 13
    assert not [statement for statement, plan in plans if any(f"Seq Scan on {table}" in plan for table in _FILLED)]


async def test_conference_is_found_by_its_own_uuid_and_by_its_calls(conference: Conference, db: Database) -> None:
    async with db.begin() as tx:
        found = [
            await queries.find_conference(tx, uuid, owner_id=conference.call.bearer_id)
            for uuid in (conference.uuid, UUID(conference.call.uuid))
        ]
        of_nobody = await queries.find_conference(tx, conference.uuid, owner_id=conference.call.bearer_id + 1)

    assert [row.id if row else None for row in found] == [conference.call.id] * 2
    assert of_nobody is None
