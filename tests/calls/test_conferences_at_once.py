"""Creates, callbacks, cancels, changes and every worker at the same conferences at once: nobody waits for somebody who
waits for them, nobody is called twice, and nobody is left in a call that is over."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import grpc.aio
import pytest
from psycopg.rows import scalar_row

from server.calls.checks import CheckWorker
from server.calls.conferences.controls import ControlWorker
from server.calls.parts import CallParts
from server.calls.state import CallStatus
from server.calls.tables import CallLegRow
from server.db import Database
from server.errors import Unavailable
from server.providers.ports import ProviderOutcomeUnknown, ProviderUnavailable
from tests.calls.conferences import (
    CONTACTS,
    MODERATOR,
    Conference,
    Phones,
    cancel,
    change,
    create,
    dialler,
    events_of,
    make_due,
    remove,
)
from tests.clients import Client, refusal
from tests.factories import SENDER, make_messaging_service

_CONFERENCES = 6

# Of what is asked of somebody, or of a conference, that is over by then.
_REFUSALS = {
    "CONFERENCE_CALL_ENDED",
    "CONFERENCE_CALL_PARTICIPANT_LEFT",
    "CONFERENCE_CALL_PARTICIPANT_NOT_FOUND",
}

_STEPS = 12

# Longer than all of it takes; a wait in a circle would last longer.
_BOUND_SECONDS = 60


class _Provider(Phones):
    """One that fails now and then, having made the call or not."""

    def __init__(self, chosen: random.Random) -> None:
        super().__init__()
        self._chosen = chosen

    async def dial(self, call: Any) -> Any:
        await asyncio.sleep(0)
        self.takes_it = self._chosen.random() < 0.5
        failures = (None, None, None, ProviderOutcomeUnknown("lost"), ProviderUnavailable("away"))
        self.failures = [self._chosen.choice(failures)]
        if isinstance(self.failures[0], ProviderUnavailable):
            self.takes_it = False
        return await super().dial(call)


async def _deadlocks(db: Database) -> int:
    await db.execute("SELECT pg_stat_clear_snapshot()")
    found = await db.fetch_one(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()", {}, scalar_row
    )
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("seed", range(2))
async def test_everything_at_once_ends_well(client: Client, parts: CallParts, db: Database, seed: int) -> None:
    await make_messaging_service(db)
    chosen = random.Random(seed)  # noqa: S311 guards nothing
    phones = _Provider(chosen)
    before = await _deadlocks(db)

    async def begin(number: int) -> Conference:
        # The same moderator, contacts and conversation in all, who are not named in one order.
        call = await create(client, participant_numbers=CONTACTS[:: 1 if number % 2 else -1])
        return Conference(call, parts, phones)

    async with asyncio.timeout(_BOUND_SECONDS):
        conferences = await asyncio.gather(*(begin(number) for number in range(_CONFERENCES)))
    steps: list[Callable[[], Awaitable[bool]]] = [
        *[dialler(parts, phones).step for _ in range(3)],
        *[ControlWorker(db, parts.notifications, phones, parts.storage).step for _ in range(2)],
        CheckWorker(db, parts.notifications, phones, parts.storage).step,
    ]
    refused: list[grpc.aio.AioRpcError] = []

    def sids(leg: CallLegRow) -> list[str]:
        return [sid for sid, (made, _at) in phones._made.items() if made.leg_uuid == leg.uuid]

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await make_due(db)
            await asyncio.gather(*(step() for step in steps))

    async def post(conference: Conference, leg: CallLegRow) -> None:
        posts: list[Callable[[], Awaitable[Any]]] = [
            partial(conference.tell, leg, chosen.choice(("initiated", "ringing", "in-progress"))),
            partial(conference.answer, leg),
            partial(conference.happen, "participant-join", leg),
        ]
        with suppress(Unavailable):
            # Else it would be told again.
            await chosen.choice(posts)()

    async def callbacks(conference: Conference) -> None:
        for _ in range(_STEPS):
            for leg in await conference.legs():
                if sids(leg):
                    await post(conference, leg)

    async def users(conference: Conference) -> None:
        for _ in range(_STEPS):
            [_moderator, contact, other] = await conference.legs()
            mute = partial(change, client, conference.call, contact.call_sid or "-", muted=chosen.random() < 0.5)
            asked: list[Callable[[], Awaitable[Any]]] = [
                *[mute] * 4,
                partial(remove, client, conference.call, other.call_sid or "-"),
                partial(create, client, participant_numbers=CONTACTS[:: chosen.choice((1, -1))]),
            ]
            try:
                await chosen.choice(asked)()
            except grpc.aio.AioRpcError as error:
                refused.append(error)

    async with asyncio.timeout(_BOUND_SECONDS):
        await asyncio.gather(work(_STEPS), *map(callbacks, conferences), *map(users, conferences))
        ended = await asyncio.gather(
            work(_STEPS), *(cancel(client, each.call) for each in conferences), return_exceptions=True
        )
        await work(3 * _STEPS)

    refused += [each for each in ended if isinstance(each, grpc.aio.AioRpcError)]
    assert not [each for each in ended if isinstance(each, BaseException) and each not in refused]
    assert {refusal(each).reason for each in refused} <= _REFUSALS
    assert await _deadlocks(db) == before
    for conference in conferences:
        for leg in await conference.legs():
            made = sids(leg)
            assert len(made) <= 1
            assert leg.call_sid in (*made, None)
            # Whoever was called is known, and hung up on.
            assert leg.call_sid is not None or not made
            assert leg.call_sid is None or leg.call_sid in phones.hung_up
            assert (leg.dial_at, leg.in_doubt) == (None, False)
        told = await events_of(db, conference.call)
        assert [event.call.internal_status for event in told][-1] == CallStatus.CANCELED
        assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    assert {(call.from_number, call.to_number) for call in phones.dialled} <= {
        (SENDER, number) for number in (MODERATOR, *CONTACTS)
    }
