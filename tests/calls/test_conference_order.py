"""Whatever becomes of the provider's callbacks, late, repeated, out of order or lost: a conference ends as it did."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from server.calls.checks import CheckWorker
from server.calls.parts import CallParts
from server.db import Database
from tests.calls.conferences import CONTACTS, Conference, create, events_of, get, make_due, participants
from tests.clients import Client
from tests.factories import make_messaging_service

# What becomes of somebody who is called: who answers, a contact who hangs up in the welcome message, or how it ends.
ANSWERS = ("human", "unknown", "machine_start")
HANGS_UP = "hangs up"
ENDS = ("busy", "no-answer", "failed", "canceled")

# What becomes of a callback: it comes at once, later, twice, or never.
FATES = ("at once", "late", "at once and late", "twice late", "lost")

any_time = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    # Not to a shorter story, for which a failing one would be told very often.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
outcomes = st.sampled_from((*ANSWERS, *ENDS))
contacts_outcomes = st.sampled_from((*ANSWERS, *ENDS, HANGS_UP, HANGS_UP))
fates = st.lists(st.sampled_from(FATES), min_size=60, max_size=60)


@dataclass(frozen=True)
class Story:
    """What becomes of the moderator and of the contacts, and whether the conference's end is told before theirs."""

    moderator: str
    contacts: Sequence[str]
    end_first: bool


stories = st.builds(
    Story,
    st.one_of(st.just("human"), st.just("human"), outcomes),
    st.lists(contacts_outcomes, min_size=len(CONTACTS), max_size=len(CONTACTS)),
    st.booleans(),
)


@dataclass
class Telling:
    """The callbacks of one conference, each of which has a fate of its own."""

    conference: Conference
    fates: Sequence[str]
    late: list[tuple[str, int | None, dict[str, Any]]] = field(default_factory=list)
    _told: int = 0

    async def status(self, who: int, provider_status: str, **over: Any) -> None:
        """A status of somebody's call."""
        await self._tell((provider_status, who, over), is_event=False)

    async def happen(self, name: str, who: int | None = None, **over: Any) -> None:
        """An event of the conference."""
        await self._tell((name, who, over), is_event=True)

    async def _tell(self, callback: tuple[str, int | None, dict[str, Any]], *, is_event: bool) -> None:
        fate = self.fates[self._told % len(self.fates)]
        self._told += 1
        name, who, over = callback
        marked = (name, who, {**over, "is_event": is_event})
        self.late += [marked] * {"late": 1, "at once and late": 1, "twice late": 2}.get(fate, 0)
        if fate.startswith("at once"):
            await self.deliver(marked)

    async def deliver(self, callback: tuple[str, int | None, dict[str, Any]]) -> None:
        """Post one."""
        name, who, given = callback
        over = {key: value for key, value in given.items() if key != "is_event"}
        legs = await self.conference.legs()
        if given["is_event"]:
            await self.conference.happen(name, legs[who] if who is not None else None, **over)
        else:
            assert who is not None, "a status is somebody's"
            await self.conference.tell(legs[who], name, **over)


async def play(story: Story, telling: Telling) -> None:
    """What happens at the provider, with the scripts it asks for, which it gets or nobody joins."""
    conference, phones = telling.conference, telling.conference.phones
    await conference.dial()
    await telling.status(0, "initiated")
    await telling.status(0, "ringing")
    if story.moderator in ENDS:
        phones.become(phones.sid_of((await conference.legs())[0]), story.moderator)
        await telling.status(0, story.moderator)
        return
    await telling.status(0, "in-progress", answered_by=story.moderator)
    script = await conference.answer((await conference.legs())[0], story.moderator)
    is_in = b"<Conference" in script
    assert is_in == (story.moderator != "machine_start")
    answered = []
    if is_in:
        await telling.happen("participant-join", 0)
        answered = await call_contacts(story, telling)
    people = [0, *answered]
    if is_in and story.end_first:
        await telling.happen("conference-end")
    for who in people:
        phones.become(
            phones.sid_of((await conference.legs())[who]), "completed", (story.moderator, *story.contacts)[who]
        )
        if is_in:
            await telling.happen("participant-leave", who, participant_call_status="completed")
        await telling.status(who, "completed", answered_by=(story.moderator, *story.contacts)[who])
    if is_in and not story.end_first:
        await telling.happen("conference-end")


async def call_contacts(story: Story, telling: Telling) -> list[int]:
    """The contacts are called; who of them are in it then."""
    conference, phones = telling.conference, telling.conference.phones
    await conference.dial()
    inside: list[int] = []
    for who, outcome in enumerate(story.contacts, start=1):
        await telling.status(who, "ringing")
        if outcome in ANSWERS:
            await telling.status(who, "in-progress", answered_by=outcome)
            assert b"<Conference" in await conference.answer((await conference.legs())[who], outcome)
            await telling.happen("participant-join", who)
            if not inside:
                await telling.happen("conference-start")
            inside.append(who)
        elif outcome == HANGS_UP:
            await telling.status(who, "in-progress", answered_by="human")
            assert b"<Redirect" in await conference.ask((await conference.legs())[who], "human")
    for who, outcome in enumerate(story.contacts, start=1):
        if outcome == HANGS_UP:
            phones.become(phones.sid_of((await conference.legs())[who]), "completed", "human")
            await telling.status(who, "completed", answered_by="human")
        elif outcome in ENDS:
            phones.become(phones.sid_of((await conference.legs())[who]), outcome)
            await telling.status(who, outcome)
    return inside


async def settle(conference: Conference) -> None:
    """Ask about whatever is left to ask about."""
    parts = conference.parts
    worker = CheckWorker(parts.db, parts.notifications, conference.phones, parts.storage)
    await make_due(parts.db)
    while await worker.step():
        pass


async def outcome_of(conference: Conference, client: Client) -> tuple[Any, ...]:
    """What the API tells of it in the end; the last event tells the same."""
    told = await get(client, conference.call)
    last = (await events_of(conference.parts.db, conference.call))[-1].call
    assert (last.internal_status, last.provider_status) == (told.internal_status, told.provider_status)
    people = [
        (each.role, each.internal_status, each.provider_status, each.HasField("joined_at"))
        for each in await participants(client, conference.call)
    ]
    return told.internal_status, told.provider_status, last.machine_detected, people


async def run(client: Client, parts: CallParts, story: Story, fates: Sequence[str], order: Any) -> tuple[Any, ...]:
    """A conference whose callbacks have these fates, late ones in this order; what comes of it."""
    conference = Conference(await create(client), parts)
    telling = Telling(conference, fates)
    await play(story, telling)
    order.shuffle(telling.late)
    for callback in telling.late:
        await telling.deliver(callback)
    await settle(conference)
    return await outcome_of(conference, client)


def expected(story: Story) -> str:
    """`internal_status` in the end, in plain words."""
    if story.moderator == "failed":
        return "failed"
    if story.moderator in ENDS or story.moderator == "machine_start":
        return "no_answer"
    if any(outcome in ANSWERS for outcome in story.contacts):
        return "finished"
    return "failed" if all(outcome == "failed" for outcome in story.contacts) else "no_answer"


@any_time
@given(story=stories, fates=fates, order=st.randoms(use_true_random=False))
async def test_conference_ends_the_same_whatever_becomes_of_callbacks(
    client: Client, parts: CallParts, story: Story, fates: Sequence[str], order: Any
) -> None:
    if not await has_numbers(parts.db):
        await make_messaging_service(parts.db)

    ordered = await run(client, parts, story, ["at once"], order)
    disordered = await run(client, parts, story, fates, order)
    lost = await run(client, parts, story, ["lost"], order)

    assert ordered[0] == expected(story)
    assert disordered == ordered
    assert lost == ordered


async def has_numbers(db: Database) -> bool:
    """Whether an earlier example has made our numbers."""
    return bool(await db.execute("SELECT 1 FROM twilio_numbers"))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_events_that_end_a_conference_may_come_in_any_order(
    client: Client, parts: CallParts, order: Sequence[int]
) -> None:
    await make_messaging_service(parts.db)
    conference = Conference(await create(client), parts)
    legs = await conference.begin()
    callbacks = [
        lambda: conference.happen("conference-end"),
        lambda: conference.tell(legs[0], "completed"),
        lambda: conference.happen("participant-leave", legs[1], participant_call_status="completed"),
        lambda: conference.tell(legs[1], "completed"),
    ]

    for index in order:
        await callbacks[index]()

    assert await conference.status() == ("finished", "conference-end")
