"""What no callback told is asked for, and a call that nobody knows anything of fails."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from server.calls.checks import CheckWorker
from server.calls.legs import CHECK_AFTER
from server.calls.parts import CallParts
from server.db import Database
from server.providers.ports import ProviderUnavailable
from tests.calls.conferences import Conference, age, cancel, create, events_of, make_due, statuses_of
from tests.clients import Client
from tests.factories import make_messaging_service


@pytest.fixture(autouse=True)
async def _numbers(db: Database) -> None:
    await make_messaging_service(db)


@pytest.fixture
async def conference(client: Client, parts: CallParts) -> Conference:
    """One that nobody was called for yet."""
    return Conference(await create(client), parts)


def checker(conference: Conference) -> CheckWorker:
    """A worker."""
    parts = conference.parts
    return CheckWorker(parts.db, parts.notifications, conference.phones, parts.storage)


async def work(conference: Conference, *, rounds: int = 1) -> None:
    """So many rounds, each after every delay has run out."""
    for _ in range(rounds):
        await make_due(conference.parts.db)
        await checker(conference).step()


async def expire(conference: Conference) -> None:
    """As if the time of the call were over."""
    await conference.parts.db.execute("UPDATE calls SET expires_at = now()")
    await checker(conference).step()


async def test_leg_is_asked_about_after_two_minutes_without_news(conference: Conference, db: Database) -> None:
    await conference.dial()
    early = await checker(conference).step()
    await age(db, CHECK_AFTER)
    late = await checker(conference).step()

    moderator, *_ = await conference.legs()
    assert (early, late) == (False, True)
    assert conference.phones.asked == [moderator.call_sid]


async def test_leg_with_news_since_it_was_asked_about_waits_anew(conference: Conference, db: Database) -> None:
    await conference.dial()
    await work(conference, rounds=3)
    moderator, *_ = await conference.legs()
    before = moderator.check_attempts

    await conference.tell(moderator, "ringing")

    moderator, *_ = await conference.legs()
    assert before == 3
    assert moderator.check_attempts == 0
    assert moderator.check_at is not None
    assert abs(moderator.check_at - datetime.now(UTC) - CHECK_AFTER) < timedelta(seconds=20)


async def test_leg_that_lasts_is_asked_about_less_and_less(conference: Conference) -> None:
    await conference.dial()
    for minutes in (2, 4, 8, 15, 15):
        await work(conference)
        moderator, *_ = await conference.legs()
        assert moderator.check_at is not None
        # Up to a fifth longer, and with what this test takes itself.
        waits = (moderator.check_at - datetime.now(UTC)) / timedelta(minutes=minutes)
        assert 0.8 < waits <= 1.2


async def test_leg_that_is_over_is_not_asked_about(conference: Conference) -> None:
    await conference.dial()
    await conference.tell((await conference.legs())[0], "no-answer")

    await work(conference)

    assert conference.phones.asked == []
    assert (await conference.status())[0] == "no_answer"


async def test_call_whose_callbacks_were_all_lost_is_settled(conference: Conference, db: Database) -> None:
    await conference.dial()
    moderator, *_ = await conference.legs()
    await conference.answer(moderator)
    await conference.dial()
    moderator, first, second = await conference.legs()
    await conference.answer(first)
    for leg, status in ((moderator, "completed"), (first, "completed"), (second, "no-answer")):
        conference.phones.become(conference.phones.sid_of(leg), status, "human")

    await work(conference)

    assert await conference.status() == ("finished", "conference-end")
    assert all(leg.check_at is None and leg.ended_at is not None for leg in await conference.legs())
    assert (await conference.row()).expires_at is None
    assert (await statuses_of(db, conference.call))[-1] == ("finished", "conference-end")


async def test_conference_whose_end_was_never_told_ends(conference: Conference) -> None:
    legs = await conference.begin()
    for leg in legs:
        conference.phones.become(conference.phones.sid_of(leg), "completed")

    await work(conference)

    assert await conference.status() == ("finished", "conference-end")


async def test_moderator_who_never_answered_is_found_out(conference: Conference) -> None:
    await conference.dial()
    conference.phones.become(conference.phones.sid_of((await conference.legs())[0]), "busy")

    await work(conference)

    assert await conference.status() == ("no_answer", None)


async def test_machine_is_told_of_when_it_is_asked_about(conference: Conference, db: Database) -> None:
    await conference.dial()
    conference.phones.become(conference.phones.sid_of((await conference.legs())[0]), "completed", "machine_start")

    await work(conference)

    assert (await events_of(db, conference.call))[-1].call.machine_detected is True


async def test_provider_that_is_away_is_asked_later(conference: Conference) -> None:
    await conference.dial()
    sid = conference.phones.sid_of((await conference.legs())[0])
    conference.phones.become(sid, "failed")
    conference.phones.failures = [ProviderUnavailable("away", retry_after=timedelta(minutes=7))]

    await work(conference)
    moderator, *_ = await conference.legs()
    waits = moderator.check_at
    await work(conference)

    assert waits is not None
    assert timedelta(minutes=6) < waits - datetime.now(UTC) < timedelta(minutes=9)
    assert (await conference.status())[0] == "failed"


async def test_leg_that_the_provider_does_not_have_is_given_up_in_the_end(conference: Conference, db: Database) -> None:
    await conference.dial()
    conference.phones.calls.clear()

    await work(conference, rounds=2)
    before = (await conference.status())[0]
    await work(conference)

    assert before == "pending"
    assert (await conference.status())[0] == "failed"
    last = (await events_of(db, conference.call))[-1].call
    # It may have been told of before, and lost since: nothing else is said of it.
    assert (last.error_code, last.error_description) == (
        "CALL_NOT_COMPLETED",
        "What became of the call is not known: the voice provider has no such call.",
    )


async def test_word_of_how_it_ended_comes_before_that_it_was_given_up(conference: Conference, db: Database) -> None:
    await conference.dial()
    moderator, *_ = await conference.legs()
    conference.phones.calls.clear()
    await work(conference, rounds=3)

    await conference.tell(moderator, "in-progress")
    between = (await conference.status())[0]
    await conference.tell(moderator, "no-answer")

    last = (await events_of(db, conference.call))[-1].call
    assert between == "failed"
    assert (last.internal_status, last.error_code, last.HasField("failed_at")) == ("no_answer", "", False)


async def test_two_workers_ask_once(conference: Conference, db: Database) -> None:
    await conference.dial()
    await age(db, CHECK_AFTER)

    await asyncio.gather(*(checker(conference).step() for _ in range(4)))

    assert len(conference.phones.asked) == 1


async def test_expired_call_that_nobody_knows_anything_of_fails(conference: Conference, db: Database) -> None:
    await conference.dial()
    conference.phones.calls.clear()

    await expire(conference)

    last = (await events_of(db, conference.call))[-1].call
    assert (last.internal_status, last.error_code) == ("failed", "CALL_NOT_COMPLETED")
    assert (await conference.row()).expires_at is None
    assert not await checker(conference).step()


async def test_expired_call_that_was_never_begun_fails(conference: Conference) -> None:
    await expire(conference)

    assert (await conference.status())[0] == "failed"


async def test_expired_call_that_is_over_at_the_provider_ends_as_it_did(conference: Conference) -> None:
    legs = await conference.begin()
    for leg in legs:
        conference.phones.become(conference.phones.sid_of(leg), "completed")

    await expire(conference)

    assert await conference.status() == ("finished", "conference-end")


async def test_expired_call_that_lasts_is_left_alone(conference: Conference) -> None:
    legs = await conference.begin()
    for leg in legs:
        conference.phones.become(conference.phones.sid_of(leg), "in-progress")

    await expire(conference)

    row = await conference.row()
    assert row.internal_status == "inviting"
    assert row.expires_at is not None
    assert row.expires_at > datetime.now(UTC) + timedelta(minutes=10)


async def test_expired_call_waits_for_a_provider_that_is_away(conference: Conference) -> None:
    await conference.dial()
    conference.phones.failures = [ProviderUnavailable("away")]

    await expire(conference)

    assert (await conference.status())[0] == "pending"
    assert (await conference.row()).expires_at is not None


async def test_canceled_call_does_not_expire(conference: Conference, client: Client, db: Database) -> None:
    await cancel(client, conference.call)
    await age(db, timedelta(days=1))

    assert not await checker(conference).step()
    assert (await conference.status())[0] == "canceled"
