"""Asking what was recorded, by several workers and while callbacks come: what is known is one in the end."""

import asyncio
from datetime import timedelta
from typing import Any

from server.calls.parts import CallParts
from server.calls.status import RECORDING_CHECKS
from server.calls.tables import CallRow
from server.config import Settings
from server.db import Database
from server.notifications import Channel, Notifications
from server.providers.ports import ProviderUnavailable
from server.providers.voice_ports import RecordingReport
from tests.calls import recorded
from tests.calls.conferences import Phones
from tests.calls.looking import (
    DIRECT_CALL,
    KINDS,
    VOICEMAIL,
    assert_told,
    finder,
    is_about,
    look,
    looks_of,
    make_due,
    over,
    phones_with,
)
from tests.calls.recorded import recordings, shown, voicemails
from tests.clients import Client


async def test_workers_at_once_ask_once(parts: CallParts, db: Database, client: Client) -> None:
    calls = [await over(parts, client, kind) for kind in KINDS]
    phones = phones_with(*(call.reported("completed") for call in calls))
    await make_due(db)

    await asyncio.gather(*(finder(parts, phones).step() for _ in range(4)))

    assert phones.lists == len(KINDS)
    assert len(await recordings(db)) == len(KINDS)


async def test_call_that_is_being_changed_holds_nobody_up(parts: CallParts, db: Database, client: Client) -> None:
    call = await over(parts, client, DIRECT_CALL)
    phones = phones_with(call.reported("completed"))
    await make_due(db)

    async with asyncio.timeout(30), db.begin() as tx:
        await tx.get_one(CallRow, call.call.id, with_for_update=True)
        assert not await finder(parts, phones).step()

    assert await finder(parts, phones).step()


async def test_who_fetches_recordings_is_woken(
    parts: CallParts, db: Database, client: Client, settings: Settings
) -> None:
    call = await over(parts, client, DIRECT_CALL)
    notifications = Notifications(settings.database_url.get_secret_value(), db)
    heard, connected = asyncio.Event(), asyncio.Event()
    notifications.listen(Channel.CALL_RECORDINGS, heard.set)
    notifications.on_connect(connected.set)
    running = [asyncio.create_task(each.run()) for each in (notifications, parts.notifications)]
    try:
        async with asyncio.timeout(30):
            await connected.wait()
            heard.clear()

            await look(parts, phones_with(call.reported("completed")))

            await heard.wait()
    finally:
        await recorded.run_out(*running)


class Slow(Phones):
    """A provider at which something else happens while it is asked for the first time."""

    def __init__(self, meanwhile: Any, *reports: RecordingReport) -> None:
        super().__init__(recorded=list(reports))
        self._meanwhile = meanwhile

    async def list_recordings(self, **asked: Any) -> list[RecordingReport]:
        found = await super().list_recordings(**asked)
        if self.lists == 1:
            await self._meanwhile()
        self._fail()
        return found


async def test_answer_that_comes_after_another_workers_changes_nothing(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await over(parts, client, VOICEMAIL)
    other = phones_with(call.reported("completed"))

    async def ask() -> None:
        assert await look(parts, other)

    await look(parts, Slow(ask))

    assert [row["provider_status"] for row in await recordings(db)] == ["completed"]
    assert (await looks_of(db, call.call))[1] == 1
    await assert_told(db, parts.storage, call.call)
    assert (await shown(db, parts.storage, call.call)).error_code == ""


async def test_answer_that_comes_after_the_lease_takes_nothing_from_who_has_it_now(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await over(parts, client, VOICEMAIL)

    async def ask() -> None:
        for _ in range(2):
            assert await look(parts, phones_with(call.reported("in-progress", url=None)))

    # It was asked before there was a recording.
    await look(parts, Slow(ask))

    wait, attempts = await looks_of(db, call.call)
    assert is_about(wait, RECORDING_CHECKS[2])
    assert attempts == 2


async def test_failure_that_comes_after_another_workers_answer_changes_nothing(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await over(parts, client, VOICEMAIL)
    away = Slow(lambda: look(parts, phones_with(call.reported("in-progress", url=None))))
    away.failures = [None, ProviderUnavailable("away", retry_after=timedelta(hours=1))]

    await look(parts, away)

    wait, attempts = await looks_of(db, call.call)
    assert is_about(wait, RECORDING_CHECKS[1])
    assert attempts == 1


async def test_callback_that_comes_while_the_provider_is_asked_is_the_last_word(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await over(parts, client, VOICEMAIL)

    async def tell() -> None:
        await call.tell("completed")

    await look(parts, Slow(tell))

    [voicemail] = await voicemails(db)
    assert voicemail["internal_status"] == "pending"
    assert (await shown(db, parts.storage, call.call)).error_code == ""
    assert await looks_of(db, call.call) == (None, 0)
