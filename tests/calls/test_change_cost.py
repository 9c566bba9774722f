"""What a change of a call costs: few round trips, no words shown anew, and nobody woken for nothing."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.caller import BearerType, Caller
from server.calls import transcript_formats
from server.calls.browsers.direct_calls import make_call
from server.calls.browsers.drafts import SdkCallDraft
from server.calls.conferences.conferences import create_conference_call
from server.calls.conferences.drafts import read_conference_call
from server.calls.events import change_call
from server.calls.parts import CallParts
from server.calls.queries import Call
from server.calls.return_calls import receive_call
from server.calls.tables import TranscriptRow
from server.db import Database
from server.notifications import Channel
from server.providers.voice_ports import IncomingCall
from tests.calls.conferences import CONTACTS, Conference, call_sid, create, events_of, new_conference
from tests.calls.transcribing import SAID
from tests.clients import Client
from tests.factories import SENDER, SERVICE_SID, make_messaging_service
from tests.round_trips import Traced, traced

# A callback finds its call, BEGINs, holds the call, reads it, holds its legs and COMMITs; one that tells something new
# changes a leg or the conference, and what is to be seen the call and the log, too.
_COSTS = {"repeated": 6, "completed": 7, "asked for a script": 6, "left": 6, "ended": 10}


@pytest.fixture(autouse=True)
async def _numbers(db: Database) -> None:
    await make_messaging_service(db)


@pytest.fixture
async def conference(client: Client, parts: CallParts) -> Conference:
    """One that everybody is in."""
    conference = Conference(await create(client), parts)
    await conference.begin()
    return conference


@pytest.fixture
async def traced_db(database_url: str, db: Database) -> AsyncIterator[Traced]:
    """The database, on a connection that all of can be seen of."""
    async with traced(database_url) as one:
        yield one


async def _costs(conference: Conference, traced_db: Traced) -> dict[str, int]:
    """The round trips of callbacks about a conference that everybody is in."""
    conference = replace(conference, parts=replace(conference.parts, db=traced_db.db))
    moderator, contact, other, *_ = await conference.legs()
    posts: dict[str, Callable[[], Awaitable[Any]]] = {
        "repeated": lambda: conference.tell(moderator, "in-progress"),
        "completed": lambda: conference.tell(contact, "completed"),
        "asked for a script": lambda: conference.ask(other, is_welcomed=True),
        "left": lambda: conference.happen("participant-leave", contact),
        "ended": lambda: conference.happen("conference-end"),
    }
    return {name: (await traced_db.during(post())).round_trips for name, post in posts.items()}


async def test_callbacks_take_few_round_trips_however_many_are_in_the_conference(
    conference: Conference, client: Client, parts: CallParts, traced_db: Traced
) -> None:
    many = [f"+1206555{number:04}" for number in range(200, 208)]
    large = Conference(await create(client, participant_numbers=many, client_conversation_id="many"), parts)
    await large.begin()

    assert await _costs(conference, traced_db) == _COSTS
    assert await _costs(large, traced_db) == _COSTS


async def test_call_that_is_made_is_not_read_back(
    conference: Conference, client: Client, parts: CallParts, traced_db: Traced
) -> None:
    of_traced = replace(parts, db=traced_db.db)
    caller = Caller(client.bearer_id, BearerType.APPLICATION, 1)
    incoming = IncomingCall(call_sid(), "ringing", CONTACTS[0], SENDER, None, {})
    now = datetime.now(UTC)

    async def confer() -> None:
        draft = read_conference_call(new_conference())
        async with traced_db.db.begin() as tx:
            await create_conference_call(
                tx, caller=caller, draft=draft, default_welcome_message="", time_limit=parts.time_limit, now=now
            )

    async def dial() -> None:
        draft = SdkCallDraft(CONTACTS[0], None, SERVICE_SID, None, None, None)
        async with traced_db.db.begin() as tx:
            await make_call(tx, of_traced, caller=caller, draft=draft, now=now)

    made = [await traced_db.during(act) for act in (confer(), dial(), receive_call(of_traced, incoming))]

    afterwards = [trace.text.partition("INSERT INTO call_legs")[2] for trace in made]
    assert all("INSERT INTO events" in each for each in afterwards)
    # Whoever reads a call back reads its legs.
    assert not [each for each in afterwards if "FROM call_legs" in each]


async def _say(conference: Conference, words: str) -> None:
    """Have a recording of the call whose transcript is ready."""
    db = conference.parts.db
    await db.execute(
        """INSERT INTO call_recordings (call_id, recording_sid, internal_status, storage_key)
        VALUES (%s, 'RE1', 'stored', 'recordings/1')""",
        [conference.call.id],
    )
    await db.execute(
        """INSERT INTO transcripts (uuid, recording_id, internal_status, words)
        SELECT gen_random_uuid(), id, 'ready', %s FROM call_recordings""",
        [words],
    )


async def test_what_was_said_is_neither_read_nor_shown_anew_for_a_callback(
    conference: Conference, db: Database, traced_db: Traced
) -> None:
    moderator, *_ = await conference.legs()
    # Whoever shows these words fails.
    await _say(conference, '[["unspeakable"]]')
    before = len(await events_of(db, conference.call))

    told = replace(conference, parts=replace(conference.parts, db=traced_db.db))
    trace = await traced_db.during(told.tell(moderator, "in-progress"))

    assert len(await events_of(db, conference.call)) == before
    assert "transcripts" in trace.text
    assert "unspeakable" not in trace.text


async def test_what_was_said_is_told_with_what_changes_later(conference: Conference, db: Database) -> None:
    moderator, *_ = await conference.legs()
    await _say(conference, '[["Hello.", 0, 400, 0.9]]')

    await conference.tell(moderator, "completed")

    assert (await events_of(db, conference.call))[-1].call.transcription.text == "Hello."


class Words(list[Any]):
    """Knows in which threads it was looked through."""

    def __init__(self, words: list[Any]) -> None:
        super().__init__(words)
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[Any]:
        self.threads.add(threading.get_ident())
        return super().__iter__()


async def test_what_was_said_is_shown_in_its_event_beside_the_event_loop(conference: Conference, db: Database) -> None:
    parts = conference.parts
    await _say(conference, "[]")
    await db.execute("UPDATE transcripts SET internal_status = 'pending', words = NULL")
    words = Words(transcript_formats.to_json(SAID))

    async def transcribe(tx: AsyncSession, _call: Call) -> None:
        row = (await tx.scalars(select(TranscriptRow))).one()
        row.words, row.internal_status = words, "ready"

    await change_call(parts.db, parts.notifications, parts.storage, call_id=conference.call.id, change=transcribe)

    assert (await events_of(db, conference.call))[-1].call.transcription.text == "Hello, this is school."
    # It is written down in the one.
    assert words.threads > {threading.get_ident()}


@pytest.mark.parametrize("ends", [False, True])
async def test_workers_are_woken_for_legs_that_are_to_be_changed_alone(conference: Conference, ends: bool) -> None:
    notifications = conference.parts.notifications
    legs, marker = notifications.wake(Channel.CALL_LEGS), notifications.wake(Channel.MEDIA)
    connected = asyncio.Event()
    notifications.on_connect(connected.set)
    running = asyncio.create_task(notifications.run())
    moderator, *_ = await conference.legs()
    try:
        async with asyncio.timeout(30):
            await connected.wait()
            legs.clear()
            marker.clear()
            await conference.tell(moderator, "completed" if ends else "in-progress")
            # Is told no sooner than what was to be told before it.
            notifications.notify(Channel.MEDIA)
            await marker.wait()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert legs.is_set() == ends
