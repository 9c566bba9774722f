"""The provider's copies: deleted once ours is recorded, however long the provider takes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from server.calls.parts import CallParts
from server.calls.recordings.deletions import DeletionWorker
from server.calls.recordings.reports import update_recording
from server.db import Database
from server.providers.twilio.voice import TwilioVoiceCalls
from tests.calls.recorded import make_direct_call, make_due, recordings, report, sid, told
from tests.clients import Client
from tests.cut_off import ASKING, RECORDING, cut_off
from tests.messages.support import until
from tests.providers.servers import listening, twilio_account


@dataclass
class Twilio:
    """Answers deletions as it is told; while its gate is closed it does not."""

    base_url: str = ""
    statuses: list[int] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a recording."""
        self.deleted.append(request.match_info["sid"])
        await self.gate.wait()
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 204:
            return web.Response(status=204)
        return web.json_response({"code": 20000 + status, "message": "no", "status": status}, status=status)


@pytest.fixture
async def twilio() -> AsyncIterator[Twilio]:
    """Twilio, which has the copies."""
    twilio = Twilio()
    twilio.gate.set()
    app = web.Application()
    app.router.add_delete("/2010-04-01/Accounts/{account}/Recordings/{sid}.json", twilio.delete)
    async with listening(app) as base_url:
        twilio.base_url = base_url
        yield twilio
        twilio.gate.set()


@pytest.fixture
async def make_worker(db: Database, twilio: Twilio) -> AsyncIterator[Callable[[], DeletionWorker]]:
    """Makes workers that are stepped."""
    voice = TwilioVoiceCalls(twilio_account(twilio.base_url), public_base_url="https://school.example")
    yield lambda: DeletionWorker(db, voice)
    await voice.aclose()


@pytest.fixture
def worker(make_worker: Callable[[], DeletionWorker]) -> DeletionWorker:
    """A worker that is stepped."""
    return make_worker()


async def store(parts: CallParts, db: Database, client: Client, *sids: str) -> None:
    """Recordings that are stored, whose copies are to be deleted."""
    for each in sids:
        await update_recording(parts, report(await make_direct_call(db, client), recording_sid=each))
    await db.execute(
        """UPDATE call_recordings SET internal_status = 'stored', storage_key = 'recordings/a.wav', due_at = NULL,
           delete_at = now()"""
    )


async def test_copy_is_deleted_and_ours_stays(
    parts: CallParts, db: Database, client: Client, twilio: Twilio, worker: DeletionWorker
) -> None:
    one = sid("RE")
    await store(parts, db, client, one)

    assert await worker.step()
    assert not await worker.step()

    [row] = await recordings(db)
    assert twilio.deleted == [one]
    assert (row["internal_status"], row["storage_key"], row["delete_at"]) == ("stored", "recordings/a.wav", None)


async def test_copy_that_is_gone_already_is_deleted(
    parts: CallParts, db: Database, client: Client, twilio: Twilio, worker: DeletionWorker
) -> None:
    await store(parts, db, client, sid("RE"))
    twilio.statuses = [404]

    await worker.step()

    assert [row["delete_at"] for row in await recordings(db)] == [None]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_copy_that_cannot_be_deleted_now_is_tried_for_as_long_as_it_takes(
    parts: CallParts, db: Database, client: Client, twilio: Twilio, worker: DeletionWorker, status: int
) -> None:
    await store(parts, db, client, sid("RE"))
    await db.execute("UPDATE call_recordings SET created_at = now() - interval '90 days', delete_attempts = 1000")
    twilio.statuses = [status]

    assert await worker.step()
    assert not await worker.step()
    [waiting] = await recordings(db)
    await make_due(db)
    await worker.step()

    assert timedelta(minutes=14) < waiting["delete_at"] - datetime.now(UTC) <= timedelta(minutes=18)
    assert len(twilio.deleted) == 2
    assert [row["delete_at"] for row in await recordings(db)] == [None]


async def test_copy_that_may_not_be_deleted_is_left(
    parts: CallParts, db: Database, client: Client, twilio: Twilio, worker: DeletionWorker
) -> None:
    await store(parts, db, client, sid("RE"))
    twilio.statuses = [400]

    await worker.step()

    [row] = await recordings(db)
    assert (row["internal_status"], row["delete_at"]) == ("stored", None)


async def test_copy_of_what_is_not_stored_is_never_deleted(
    parts: CallParts, db: Database, client: Client, twilio: Twilio, worker: DeletionWorker
) -> None:
    for status in ("completed", "in-progress", "failed", "absent"):
        told_of = report(await make_direct_call(db, client), status, recording_sid=sid("RE"))
        await update_recording(parts, told_of)
    await db.execute("UPDATE call_recordings SET delete_at = now()")

    assert not await worker.step()
    assert twilio.deleted == []


async def test_workers_at_once_delete_each_copy_once(
    parts: CallParts, db: Database, client: Client, twilio: Twilio, make_worker: Callable[[], DeletionWorker]
) -> None:
    sids = [sid("RE") for _ in range(5)]
    await store(parts, db, client, *sids)
    twilio.gate.clear()

    async def work(worker: DeletionWorker) -> None:
        while await worker.step():
            pass

    deleting = asyncio.gather(*(work(make_worker()) for _ in range(5)))
    await until(lambda: len(twilio.deleted) == 5)
    twilio.gate.set()
    await deleting

    assert sorted(twilio.deleted) == sorted(sids)
    assert {row["delete_at"] for row in await recordings(db)} == {None}


@pytest.mark.parametrize("moment", [ASKING, RECORDING])
async def test_worker_may_be_cancelled_at_any_moment(
    parts: CallParts,
    db: Database,
    client: Client,
    twilio: Twilio,
    make_worker: Callable[[], DeletionWorker],
    moment: str,
) -> None:
    await store(parts, db, client, sid("RE"))
    step = make_worker().step()
    await cut_off(
        moment, step, db=db, table="call_recordings", asked=lambda: len(twilio.deleted) == 1, gate=twilio.gate
    )

    await make_due(db)
    await make_worker().step()

    assert [row["delete_at"] for row in await recordings(db)] == [None]


async def test_deletion_is_told_to_nobody(
    parts: CallParts, db: Database, client: Client, worker: DeletionWorker
) -> None:
    call = await make_direct_call(db, client)
    await update_recording(parts, report(call, recording_sid=sid("RE")))
    before = await told(db, call)
    await db.execute(
        """UPDATE call_recordings SET internal_status = 'stored', storage_key = 'recordings/a.wav', due_at = NULL,
           delete_at = now()"""
    )

    await worker.step()

    assert await told(db, call) == before
