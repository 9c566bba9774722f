"""The dial worker: every leg is dialled once, whatever the provider does and whoever works at the same time."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls.conferences import callbacks as conference_callbacks
from server.calls.conferences import conferences as conference_calls
from server.calls.conferences.dial import GIVE_UP_AFTER
from server.calls.events import change_call
from server.calls.opt_outs import toggle
from server.calls.parts import CallParts
from server.calls.queries import Call
from server.db import Database
from server.notifications import Channel, Notifications
from server.providers.ports import ProviderOutcomeUnknown, ProviderRejected, ProviderUnavailable
from server.providers.voice_ports import LegAnswer, OutboundCall
from tests.calls.conferences import (
    CONTACTS,
    MODERATOR,
    REFUSED,
    Conference,
    Phones,
    age,
    cancel,
    create,
    dialler,
    events_of,
    failing,
    make_due,
    participants,
    progress,
    statuses_of,
)
from tests.clients import Client
from tests.factories import SENDER, make_messaging_service
from tests.messages.support import until


@pytest.fixture(autouse=True)
async def _numbers(db: Database) -> None:
    await make_messaging_service(db)


@pytest.fixture
async def conference(client: Client, parts: CallParts) -> Conference:
    """One that nobody was called for yet."""
    return Conference(await create(client), parts)


async def work(conference: Conference, *, rounds: int = 1) -> None:
    """So many rounds, each after every delay has run out."""
    for _ in range(rounds):
        await make_due(conference.parts.db)
        await conference.dial()


async def test_moderator_is_called_first_and_told_of(conference: Conference, db: Database) -> None:
    await conference.dial()

    moderator, *contacts = await conference.legs()
    assert conference.phones.dialled == [
        OutboundCall(
            call_uuid=UUID(conference.call.uuid),
            conference_uuid=conference.uuid,
            leg_uuid=moderator.uuid,
            from_number=SENDER,
            to_number=MODERATOR,
            ring_for=timedelta(seconds=30),
            time_limit=conference.parts.time_limit,
        )
    ]
    assert moderator.call_sid == conference.phones.sid_of(moderator)
    assert (moderator.provider_status, moderator.dial_at, moderator.in_doubt) == ("queued", None, False)
    assert moderator.check_at is not None
    assert all(contact.dial_attempts == 0 for contact in contacts)
    [_created, dialled] = await events_of(db, conference.call)
    assert dialled.call.call_sid == moderator.call_sid


async def test_contacts_are_called_once_the_moderator_has_joined(conference: Conference) -> None:
    await conference.dial()
    moderator, *_ = await conference.legs()
    await conference.dial()
    await conference.tell(moderator, "ringing")
    await conference.dial()
    before = len(conference.phones.dialled)

    await conference.answer(moderator)
    await conference.dial()
    await conference.dial()

    assert before == 1
    first, *others = [call.to_number for call in conference.phones.dialled]
    assert (first, sorted(others)) == (MODERATOR, sorted(CONTACTS))
    assert await conference.status() == ("inviting", None)


async def test_machine_of_the_moderator_calls_nobody_in(conference: Conference) -> None:
    await conference.dial()
    moderator, *_ = await conference.legs()

    script = await conference.answer(moderator, "machine_start")
    await conference.dial()

    assert b"<Hangup" in script
    assert len(conference.phones.dialled) == 1
    assert (await conference.status())[0] == "pending"


async def test_refused_leg_is_not_tried_again(conference: Conference, client: Client, db: Database) -> None:
    conference.phones = failing(ProviderRejected(REFUSED))

    await work(conference, rounds=3)

    assert len(conference.phones.dialled) == 1
    assert await statuses_of(db, conference.call) == [("pending", None), ("failed", None)]
    [_created, failed] = await events_of(db, conference.call)
    assert failed.call.error_code == "21211"
    assert REFUSED.url in failed.call.error_description
    assert failed.call.HasField("failed_at")
    assert [each.internal_status for each in await participants(client, conference.call)] == [
        "failed",
        "canceled",
        "canceled",
    ]


async def test_refused_contact_is_no_failure_of_the_call(conference: Conference, client: Client) -> None:
    await conference.dial()
    moderator, *_ = await conference.legs()
    await conference.answer(moderator)
    conference.phones.failures = [ProviderRejected(REFUSED), None]
    await conference.dial()
    await conference.dial()

    statuses = sorted(each.internal_status for each in await participants(client, conference.call))
    assert statuses == ["calling", "failed", "joined"]
    assert (await conference.status())[0] == "inviting"


async def test_contact_who_opts_out_before_they_are_called_is_not_called(
    conference: Conference, client: Client, db: Database
) -> None:
    await conference.dial()
    moderator, *_ = await conference.legs()
    await conference.answer(moderator)
    now = datetime.now(UTC)
    async with db.begin() as tx:
        for number in (MODERATOR, CONTACTS[0]):
            assert await toggle(tx, provider_number=SENDER, phone_number=number, since=now, now=now)
    for _ in CONTACTS:
        await conference.dial()

    called = {call.to_number for call in conference.phones.dialled}
    _moderator, out, other = await participants(client, conference.call)
    assert called == {MODERATOR, CONTACTS[1]}
    assert (out.phone_number, out.internal_status) == (CONTACTS[0], "failed")
    assert out.error_code == "RECIPIENT_OPTED_OUT_OF_CALLS"
    assert other.internal_status == "calling"


async def test_moderator_is_called_whatever_they_said_as_a_contact(conference: Conference, db: Database) -> None:
    now = datetime.now(UTC)
    async with db.begin() as tx:
        assert await toggle(tx, provider_number=SENDER, phone_number=MODERATOR, since=now, now=now)

    await conference.dial()

    assert [call.to_number for call in conference.phones.dialled] == [MODERATOR]


async def test_provider_that_is_away_is_asked_again(conference: Conference) -> None:
    conference.phones = failing(ProviderUnavailable("away"), ProviderUnavailable("away", retry_after=timedelta(0)))

    await work(conference, rounds=3)

    moderator, *_ = await conference.legs()
    assert len(conference.phones.dialled) == 3
    assert moderator.call_sid is not None
    assert moderator.dial_attempts == 3


async def test_provider_that_stays_away_is_given_up_after_five_minutes(conference: Conference, db: Database) -> None:
    conference.phones = failing(*[ProviderUnavailable("away")] * 2)
    await work(conference)
    await age(db, GIVE_UP_AFTER - timedelta(seconds=30))
    await work(conference)
    await age(db, timedelta(seconds=31))
    await work(conference)

    assert len(conference.phones.dialled) == 2
    assert (await conference.status())[0] == "failed"
    assert (await events_of(db, conference.call))[-1].call.error_code == "PROVIDER_UNAVAILABLE"


async def test_nobody_is_called_that_waited_for_a_worker_too_long(conference: Conference, db: Database) -> None:
    await age(db, GIVE_UP_AFTER + timedelta(seconds=1))

    await conference.dial()

    assert conference.phones.dialled == []
    assert (await conference.status())[0] == "failed"


async def test_lost_answer_is_looked_for_and_found(conference: Conference) -> None:
    conference.phones = failing(ProviderOutcomeUnknown("lost"), takes_it=True)

    await conference.dial()
    in_doubt = (await conference.legs())[0].in_doubt
    await work(conference, rounds=2)

    moderator, *_ = await conference.legs()
    assert in_doubt
    assert len(conference.phones.dialled) == 1
    assert moderator.call_sid == conference.phones.sid_of(moderator)
    assert not moderator.in_doubt


async def test_lost_request_is_looked_for_and_made_anew(conference: Conference) -> None:
    conference.phones = failing(ProviderOutcomeUnknown("lost"))

    await work(conference, rounds=2)

    moderator, *_ = await conference.legs()
    assert len(conference.phones.dialled) == 2
    assert moderator.call_sid == conference.phones.sid_of(moderator)


async def test_nobody_is_called_while_the_provider_cannot_be_asked(conference: Conference, db: Database) -> None:
    conference.phones = failing(ProviderOutcomeUnknown("lost"), *[ProviderUnavailable("away")] * 2, takes_it=True)
    await work(conference, rounds=2)
    before = (await conference.legs())[0].in_doubt
    await age(db, GIVE_UP_AFTER + timedelta(seconds=1))
    await work(conference)

    moderator, *_ = await conference.legs()
    assert before
    assert len(conference.phones.dialled) == 1
    assert moderator.error_code == "CALL_NOT_COMPLETED"
    assert (await conference.status())[0] == "failed"


async def test_call_that_shows_up_after_all_is_hung_up_on(conference: Conference, db: Database) -> None:
    conference.phones = failing(ProviderOutcomeUnknown("lost"), ProviderUnavailable("away"), takes_it=True)
    await work(conference)
    await age(db, GIVE_UP_AFTER + timedelta(seconds=1))
    await work(conference)
    moderator, *_ = await conference.legs()

    script = await conference.answer(moderator)

    moderator, *_ = await conference.legs()
    assert b"<Hangup" in script
    assert moderator.call_sid is not None
    assert moderator.control_at is not None
    assert (await conference.status())[0] == "failed"


async def test_callback_settles_what_was_in_doubt(conference: Conference) -> None:
    conference.phones = failing(ProviderOutcomeUnknown("lost"), takes_it=True)
    await conference.dial()
    moderator, *_ = await conference.legs()
    await conference.tell(moderator, "ringing")

    await work(conference, rounds=2)

    moderator, *_ = await conference.legs()
    assert len(conference.phones.dialled) == 1
    assert (moderator.provider_status, moderator.in_doubt, moderator.dial_at) == ("ringing", False, None)


async def test_callback_before_the_answer_is_recorded_is_not_lost(conference: Conference) -> None:
    conference.phones.gate = asyncio.Event()
    dialling = asyncio.create_task(conference.dial())
    await until(lambda: conference.phones.waiting)
    moderator, *_ = await conference.legs()

    script = await conference.answer(moderator)
    await conference.happen("participant-join", moderator)
    conference.phones.gate.set()
    await dialling

    moderator, *_ = await conference.legs()
    assert b"<Conference" in script
    assert (moderator.provider_status, moderator.joined_at is not None) == ("in-progress", True)
    assert (await conference.status())[0] == "inviting"


async def test_worker_that_is_told_to_end_records_what_it_is_dialling(conference: Conference) -> None:
    conference.phones.gate = asyncio.Event()
    dialling = asyncio.create_task(conference.dial())
    await until(lambda: conference.phones.waiting)

    dialling.cancel()
    await asyncio.sleep(0)
    conference.phones.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await dialling

    moderator, *_ = await conference.legs()
    assert moderator.call_sid == conference.phones.sid_of(moderator)
    assert not moderator.in_doubt


async def test_two_workers_dial_each_leg_once(client: Client, parts: CallParts, db: Database) -> None:
    conferences = [
        Conference(await create(client, moderator_number=f"+1206555{n:04}"), parts, Phones()) for n in range(200, 212)
    ]
    phones = conferences[0].phones
    workers = [dialler(parts, phones) for _ in range(4)]

    while any(await asyncio.gather(*(worker.step() for worker in workers))):
        pass

    assert len({call.leg_uuid for call in phones.dialled}) == len(phones.dialled) == len(conferences)


async def test_legs_between_the_same_two_numbers_are_dialled_one_after_the_other(
    client: Client, parts: CallParts
) -> None:
    first, second = [Conference(await create(client), parts) for _ in range(2)]
    phones = second.phones = first.phones = failing(ProviderOutcomeUnknown("lost"), takes_it=True)
    other = dialler(parts, phones)

    await asyncio.gather(other.step(), first.dial())
    only = len(phones.dialled)
    await work(first, rounds=3)

    legs = [(await conference.legs())[0] for conference in (first, second)]
    assert only == 1
    assert [phones.sid_of(leg) for leg in legs] == [leg.call_sid for leg in legs]
    assert len(phones.dialled) == 2


async def test_call_that_is_another_legs_is_not_taken_for_its_own(client: Client, parts: CallParts) -> None:
    first, second = [Conference(await create(client), parts) for _ in range(2)]
    phones = second.phones = first.phones = failing(None, ProviderOutcomeUnknown("lost"))

    await work(first, rounds=4)

    legs = [(await conference.legs())[0] for conference in (first, second)]
    assert len({leg.call_sid for leg in legs}) == 2
    assert [phones.sid_of(leg) for leg in legs] == [leg.call_sid for leg in legs]
    assert len(phones.dialled) == 3


async def test_second_call_of_a_leg_is_turned_away(conference: Conference) -> None:
    await conference.dial()
    moderator, *_ = await conference.legs()
    stranger = progress(moderator, "CA" + "f" * 32, "in-progress", answered_by="human")

    script = await conference_callbacks.answer_leg(
        conference.parts, LegAnswer(stranger, conference.uuid, is_welcomed=False)
    )
    await conference_callbacks.update_leg(conference.parts, progress(moderator, "CA" + "f" * 32, "completed"))

    assert b"<Hangup" in script
    assert (await conference.legs())[0].provider_status == "queued"
    assert (await conference.status())[0] == "pending"


async def test_canceled_before_it_was_due_nobody_is_called(conference: Conference, client: Client) -> None:
    await cancel(client, conference.call)

    await work(conference, rounds=2)

    assert conference.phones.dialled == []


async def test_canceled_while_it_is_dialled_is_hung_up_on(conference: Conference, client: Client) -> None:
    conference.phones.gate = asyncio.Event()
    dialling = asyncio.create_task(conference.dial())
    await until(lambda: conference.phones.waiting)

    canceled = await cancel(client, conference.call)
    between = (await conference.legs())[0]
    conference.phones.gate.set()
    await dialling

    moderator, *_ = await conference.legs()
    assert canceled.internal_status == "canceled"
    assert (between.call_sid, between.hangup_at is not None, between.control_at) == (None, True, None)
    assert moderator.call_sid is not None
    assert moderator.control_at is not None


@pytest.mark.parametrize("takes_it", [True, False])
async def test_canceled_in_doubt_is_looked_for_and_never_dialled_again(
    conference: Conference, client: Client, takes_it: bool
) -> None:
    conference.phones = failing(ProviderOutcomeUnknown("lost"), takes_it=takes_it)
    await conference.dial()
    await cancel(client, conference.call)

    await work(conference, rounds=3)

    moderator, *_ = await conference.legs()
    assert len(conference.phones.dialled) == 1
    assert (moderator.call_sid is not None) == (moderator.control_at is not None) == takes_it
    assert (moderator.ended_at is None) == takes_it
    assert (moderator.dial_at, moderator.in_doubt) == (None, False)


async def test_cancel_and_dial_at_once_leave_nobody_called_for_nothing(
    client: Client, parts: CallParts, db: Database
) -> None:
    for _ in range(15):
        conference = Conference(await create(client), parts)
        await asyncio.gather(conference.dial(), cancel(client, conference.call))
        await work(conference)

        moderator, *_ = await conference.legs()
        assert moderator.call_sid is None or moderator.control_at is not None
        assert len(conference.phones.dialled) == (moderator.call_sid is not None)
        assert moderator.dial_at is None


async def test_leg_is_not_claimed_while_its_call_is_being_ended(conference: Conference) -> None:
    parts = conference.parts
    worked = True

    async def end(tx: AsyncSession, call: Call) -> None:
        nonlocal worked
        await conference_calls.cancel(conference.call.uuid, now=datetime.now(UTC))(tx, call)
        async with asyncio.timeout(30):
            worked = await dialler(parts, conference.phones).step()

    call_id = (await conference.row()).id
    await change_call(parts.db, parts.notifications, parts.storage, call_id=call_id, change=end)
    await work(conference)

    assert not worked
    assert conference.phones.dialled == []
    assert (await conference.legs())[0].ended_at is not None


async def test_no_call_is_begun_late_in_its_lease(conference: Conference, parts: CallParts) -> None:
    times = iter((0.0, *[40.0] * 5))
    phones = Phones()

    await dialler(parts, phones, clock=lambda: next(times)).step()
    leg = (await conference.legs())[0]

    assert phones.dialled == []
    assert leg.in_doubt
    assert leg.dial_at is not None


async def test_create_wakes_the_worker(client: Client, parts: CallParts, database_url: str, db: Database) -> None:
    notifications = Notifications(database_url, db)
    woken = notifications.wake(Channel.CALL_LEGS)
    listening = asyncio.create_task(notifications.run())
    try:
        async with asyncio.timeout(30):
            await woken.wait()
            woken.clear()
            await create(client)
            await woken.wait()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
