"""When the provider is to be asked what it recorded of a call: after it is over, while nothing was told of that."""

from datetime import timedelta

import pytest

from server.calls.parts import CallParts
from server.calls.state import CONTACT, MODERATOR
from server.calls.status import RECORDING_CHECKS
from server.db import Database
from tests.calls.looking import CONFERENCE_CALL, KINDS, VOICEMAIL, end, is_about, looks_of, over
from tests.calls.recorded import make_conference, make_return_call, shown
from tests.clients import Client

FIRST = RECORDING_CHECKS[0]


@pytest.mark.parametrize("kind", KINDS)
async def test_call_that_was_spoken_in_is_asked_about_soon_after_it_is_over(
    parts: CallParts, db: Database, client: Client, kind: str
) -> None:
    call = await over(parts, client, kind)

    wait, attempts = await looks_of(db, call.call)

    assert is_about(wait, FIRST)
    assert attempts == 0
    assert sum(RECORDING_CHECKS, timedelta(0)) < timedelta(hours=24)


@pytest.mark.parametrize(
    ("kind", "but"), [(CONFERENCE_CALL, CONTACT), (CONFERENCE_CALL, MODERATOR), (VOICEMAIL, CONTACT)]
)
async def test_call_is_not_asked_about_while_somebody_may_be_speaking(
    parts: CallParts, db: Database, client: Client, kind: str, but: str
) -> None:
    if kind == CONFERENCE_CALL:
        call = await make_conference(db, client)
    else:
        call = await make_return_call(db, client)

    await end(parts, call, but=but)
    lasts = await looks_of(db, call)
    await end(parts, call)
    ended, _ = await looks_of(db, call)

    assert lasts == (None, 0)
    assert is_about(ended, FIRST)


@pytest.mark.parametrize("joined", [True, False])
async def test_canceled_conference_is_asked_about_where_people_had_joined(
    parts: CallParts, db: Database, client: Client, joined: bool
) -> None:
    call = await make_conference(db, client)
    if not joined:
        await db.execute("UPDATE call_legs SET joined_at = NULL WHERE kind = 'contact'")
    await db.execute("UPDATE conference_calls SET canceled_at = now()")

    await end(parts, call)

    wait, _ = await looks_of(db, call)
    assert (await shown(db, parts.storage, call)).internal_status == "canceled"
    assert is_about(wait, FIRST) if joined else wait is None


async def test_call_that_nobody_answered_is_not_asked_about(parts: CallParts, db: Database, client: Client) -> None:
    call = await make_return_call(db, client, voicemail=False)

    await end(parts, call)

    assert (await shown(db, parts.storage, call)).internal_status == "no_answer"
    assert await looks_of(db, call) == (None, 0)


@pytest.mark.parametrize("status", ["completed", "absent", "failed"])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_told_is_not_asked_for(
    parts: CallParts, db: Database, client: Client, kind: str, status: str
) -> None:
    call = await over(parts, client, kind)

    await call.tell("in-progress")
    begun, _ = await looks_of(db, call.call)
    await call.tell(status)

    assert is_about(begun, FIRST)
    assert await looks_of(db, call.call) == (None, 0)
