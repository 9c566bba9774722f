"""Muting, holding and hanging up: as it is wanted last, for as long as the leg lasts."""

import asyncio
from datetime import timedelta

import grpc
import pytest
from commonservices.v1 import conference_call_pb2
from commonservices.v1 import conference_call_service_pb2 as pb

from server.calls.conferences.controls import ControlWorker
from server.calls.parts import CallParts
from server.calls.work import leg_work
from server.config import Settings
from server.db import Database
from server.notifications import Notifications
from server.providers.ports import ProviderRejected, ProviderUnavailable
from server.providers.voice_ports import CallGone
from tests.calls.conferences import (
    CONFERENCE_SID,
    REFUSED,
    Conference,
    Phones,
    cancel,
    change,
    create,
    events_of,
    make_due,
    participants,
    remove,
)
from tests.clients import Client, refused
from tests.conftest import MakeClient
from tests.factories import make_messaging_service
from tests.messages.support import until

UNKNOWN = "CA" + "e" * 32


@pytest.fixture(autouse=True)
async def _numbers(db: Database) -> None:
    await make_messaging_service(db)


@pytest.fixture
async def conference(client: Client, parts: CallParts) -> Conference:
    """One that everybody is in."""
    conference = Conference(await create(client), parts)
    await conference.begin()
    return conference


def controller(conference: Conference, phones: Phones | None = None) -> ControlWorker:
    """A worker."""
    parts = conference.parts
    return ControlWorker(parts.db, parts.notifications, phones or conference.phones, parts.storage)


async def sids(conference: Conference) -> list[str]:
    return [leg.call_sid or "" for leg in await conference.legs()]


async def work(conference: Conference, *, rounds: int = 1) -> None:
    """So many rounds, each after every delay has run out."""
    for _ in range(rounds):
        await make_due(conference.parts.db)
        await controller(conference).step()


async def test_everybody_is_left_as_they_are(conference: Conference) -> None:
    assert not await controller(conference).step()


async def test_contact_is_muted_held_and_let_go(conference: Conference, client: Client) -> None:
    _moderator, contact, _other = await sids(conference)

    answers = []
    for given in ({"muted": True}, {"hold": True}, {"muted": False, "hold": False}):
        answer = await change(client, conference.call, contact, **given)
        answers.append((answer.call_sid, answer.internal_status, answer.muted, answer.hold))
        await controller(conference).step()

    assert answers == [
        (contact, "joined", True, False),
        (contact, "joined", True, True),
        (contact, "joined", False, False),
    ]
    assert conference.phones.changed == [
        (CONFERENCE_SID, contact, True, False),
        (CONFERENCE_SID, contact, True, True),
        (CONFERENCE_SID, contact, False, False),
    ]
    assert not await controller(conference).step()


async def test_change_of_nothing_asks_nobody(conference: Conference, client: Client, db: Database) -> None:
    before = len(await events_of(db, conference.call))
    answer = await change(client, conference.call, (await sids(conference))[1])

    assert (answer.muted, answer.hold) == (False, False)
    assert not await controller(conference).step()
    assert len(await events_of(db, conference.call)) == before


async def test_what_is_wanted_meanwhile_is_due_anew(conference: Conference, client: Client) -> None:
    contact = (await sids(conference))[1]
    await change(client, conference.call, contact, muted=True)
    conference.phones.gate = asyncio.Event()

    working = asyncio.create_task(controller(conference).step())
    await until(lambda: conference.phones.waiting)
    await change(client, conference.call, contact, muted=False)
    conference.phones.gate.set()
    await working
    await controller(conference).step()

    assert [muted for *_, muted, _hold in conference.phones.changed] == [True, False]
    assert not await controller(conference).step()


async def test_request_that_arrives_late_does_not_have_the_last_word(conference: Conference, client: Client) -> None:
    contact = (await sids(conference))[1]
    slow = Phones(gate=asyncio.Event())
    await change(client, conference.call, contact, muted=True)
    working = asyncio.create_task(controller(conference, slow).step())
    await until(lambda: slow.waiting)
    await change(client, conference.call, contact, muted=False)
    await controller(conference).step()

    assert slow.gate is not None
    slow.gate.set()
    await working
    again = await controller(conference).step()

    assert again
    assert [muted for *_, muted, _hold in conference.phones.changed] == [False, False]
    assert not await controller(conference).step()


async def test_worker_that_is_told_to_end_records_what_it_has_had_done(conference: Conference, client: Client) -> None:
    await change(client, conference.call, (await sids(conference))[1], muted=True)
    conference.phones.gate = asyncio.Event()
    working = asyncio.create_task(controller(conference).step())
    await until(lambda: conference.phones.waiting)

    working.cancel()
    await asyncio.sleep(0)
    conference.phones.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await working

    assert [leg.control_at for leg in await conference.legs()] == [None] * 3


@pytest.mark.parametrize("failure", [ProviderUnavailable("away"), ProviderRejected(REFUSED)])
async def test_what_could_not_be_done_is_tried_again_later(
    conference: Conference, client: Client, failure: Exception
) -> None:
    contact = (await sids(conference))[1]
    await change(client, conference.call, contact, muted=True)
    conference.phones.failures = [failure]

    await controller(conference).step()
    at_once = await controller(conference).step()
    await work(conference)

    assert not at_once
    assert conference.phones.changed == [(CONFERENCE_SID, contact, True, False)]


async def test_provider_may_ask_for_time(conference: Conference, client: Client, db: Database) -> None:
    await change(client, conference.call, (await sids(conference))[1], muted=True)
    conference.phones.failures = [ProviderUnavailable("busy", retry_after=timedelta(seconds=90))]
    await controller(conference).step()

    [waits] = [leg.control_at for leg in await conference.legs() if leg.control_at is not None]
    [now] = [row for row in await db.fetch_all("SELECT now()", {}, lambda _cursor: lambda values: values[0])]
    assert timedelta(seconds=80) < waits - now < timedelta(seconds=120)


async def test_somebody_who_has_not_joined_is_muted_as_soon_as_they_have(client: Client, parts: CallParts) -> None:
    conference = Conference(await create(client), parts)
    await conference.dial()
    moderator, *_ = await conference.legs()
    await change(client, conference.call, moderator.call_sid or "", muted=True)
    await controller(conference).step()
    before = list(conference.phones.changed)

    await conference.answer(moderator)
    await conference.happen("participant-join", moderator)
    await controller(conference).step()

    assert before == []
    assert conference.phones.changed == [(CONFERENCE_SID, moderator.call_sid, True, False)]


async def test_somebody_on_the_way_into_the_conference_is_muted_later(conference: Conference, client: Client) -> None:
    contact = (await sids(conference))[1]
    conference.phones.become(contact, "in-progress")
    await change(client, conference.call, contact, muted=True)
    conference.phones.failures = [CallGone("not in it yet")]

    await controller(conference).step()
    await work(conference)

    assert conference.phones.asked == [contact]
    assert conference.phones.changed == [(CONFERENCE_SID, contact, True, False)]


async def test_somebody_who_has_left_unnoticed_is_not_asked_for_ever(conference: Conference, client: Client) -> None:
    contact = (await sids(conference))[1]
    await change(client, conference.call, contact, hold=True)
    conference.phones.become(contact, "completed")
    conference.phones.failures = [CallGone("left")]

    await controller(conference).step()

    leg = (await conference.legs())[1]
    assert (leg.provider_status, leg.control_at) == ("completed", None)
    assert leg.ended_at is not None


async def test_removed_contact_is_hung_up_on_once(conference: Conference, client: Client) -> None:
    contact = (await sids(conference))[1]

    await remove(client, conference.call, contact)
    await remove(client, conference.call, contact)
    await controller(conference).step()

    assert conference.phones.hung_up == [contact]
    assert not await controller(conference).step()
    assert (await conference.status())[0] == "inviting"


async def test_removed_moderator_ends_the_conference(conference: Conference, client: Client) -> None:
    moderator, *_contacts = await conference.legs()
    await remove(client, conference.call, moderator.call_sid or "")
    await controller(conference).step()
    await conference.tell(moderator, "completed")
    await controller(conference).step()

    assert sorted(conference.phones.hung_up) == sorted(await sids(conference))
    assert (await conference.status())[0] == "finished"


async def test_canceled_conference_is_hung_up_on(conference: Conference, client: Client) -> None:
    await cancel(client, conference.call)
    conference.phones.failures = [ProviderUnavailable("away")]

    await work(conference, rounds=3)

    assert sorted(conference.phones.hung_up) == sorted(await sids(conference))


async def test_whoever_still_rings_when_it_is_over_is_hung_up_on(client: Client, parts: CallParts) -> None:
    conference = Conference(await create(client), parts)
    await conference.dial()
    moderator, *_ = await conference.legs()
    await conference.answer(moderator)
    await conference.dial()
    await conference.tell((await conference.legs())[1], "ringing")

    await conference.tell(moderator, "completed")
    await controller(conference).step()

    assert sorted(conference.phones.hung_up) == sorted((await sids(conference))[1:])


async def test_hang_up_of_a_call_that_is_over_ends_there(conference: Conference, client: Client) -> None:
    contact = (await sids(conference))[1]
    await remove(client, conference.call, contact)
    conference.phones.become(contact, "completed")
    conference.phones.failures = [CallGone("over")]

    await controller(conference).step()
    await work(conference)

    assert conference.phones.hung_up == []
    assert (await conference.legs())[1].control_at is None


async def test_two_workers_do_each_thing_once(conference: Conference, client: Client) -> None:
    await cancel(client, conference.call)

    await asyncio.gather(*(controller(conference).step() for _ in range(4)))

    assert sorted(conference.phones.hung_up) == sorted(await sids(conference))


async def test_worker_that_died_is_replaced(conference: Conference, client: Client) -> None:
    await remove(client, conference.call, (await sids(conference))[1])
    conference.phones.failures = [RuntimeError("died here")]

    await controller(conference).step()
    at_once = await controller(conference).step()
    await work(conference)

    assert not at_once
    assert len(conference.phones.hung_up) == 1


async def test_answer_that_is_slow_to_come_holds_up_no_other(
    conference: Conference, client: Client, settings: Settings
) -> None:
    parts, slow = conference.parts, conference.phones
    _moderator, muted, removed = await sids(conference)
    slow.gate = asyncio.Event()
    notifications = Notifications(settings.database_url.get_secret_value(), parts.db)
    loops = leg_work(parts.db, notifications, parts.storage, voice=slow, time_limit=parts.time_limit)
    running = [asyncio.create_task(loop()) for loop in (*loops, notifications.run)]
    try:
        await change(client, conference.call, muted, muted=True)
        await until(lambda: slow.waiting)

        await remove(client, conference.call, removed)

        # Sooner than anybody waits for the other.
        await until(lambda: slow.hung_up == [removed], seconds=10)
        assert not slow.gate.is_set()
    finally:
        slow.gate.set()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_participants_are_told_in_order_with_what_became_of_them(conference: Conference, client: Client) -> None:
    await conference.tell((await conference.legs())[2], "completed")

    told = await participants(client, conference.call)

    assert [(each.role, each.internal_status, each.provider_status) for each in told] == [
        ("moderator", "joined", "in-progress"),
        ("contact", "joined", "in-progress"),
        ("contact", "left", "completed"),
    ]
    assert [each.machine_detected for each in told] == [False] * 3
    assert all(each.HasField("joined_at") for each in told)
    assert [each.HasField("ended_at") for each in told] == [False, False, True]


async def test_participants_come_in_pages(conference: Conference, client: Client) -> None:
    listed: list[conference_call_pb2.ConferenceCallParticipant] = []
    token = ""
    while True:
        request = pb.ListConferenceCallParticipantsRequest(uuid=conference.call.uuid, page_size=2, page_token=token)
        page = await client.conference_calls.ListConferenceCallParticipants(request, metadata=client.metadata)
        listed += page.participants
        token = page.next_page_token
        if not token:
            break

    assert listed == await participants(client, conference.call)


@pytest.mark.parametrize("over", [{"page_size": 1001}, {"page_token": "x"}])
async def test_bad_page_is_refused(conference: Conference, client: Client, over: dict[str, object]) -> None:
    request = pb.ListConferenceCallParticipantsRequest(uuid=conference.call.uuid, **over)  # type: ignore[arg-type]

    answer = await refused(client.conference_calls.ListConferenceCallParticipants(request, metadata=client.metadata))

    assert answer.fields == tuple(over)


async def test_nobody_else_sees_or_changes_it(
    conference: Conference, client: Client, client_of: MakeClient, admin: Client
) -> None:
    stranger, contact = await client_of(), (await sids(conference))[1]
    uuid = conference.call.uuid
    requests = [
        ("GetConferenceCall", pb.GetConferenceCallRequest(uuid=uuid)),
        ("CancelConferenceCall", pb.CancelConferenceCallRequest(uuid=uuid)),
        ("ListConferenceCallParticipants", pb.ListConferenceCallParticipantsRequest(uuid=uuid)),
        (
            "UpdateConferenceCallParticipant",
            pb.UpdateConferenceCallParticipantRequest(uuid=uuid, call_sid=contact, muted=True),
        ),
        ("DeleteConferenceCallParticipant", pb.DeleteConferenceCallParticipantRequest(uuid=uuid, call_sid=contact)),
    ]

    for method, request in requests:
        answer = await refused(getattr(stranger.conference_calls, method)(request, metadata=stranger.metadata))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "CONFERENCE_CALL_NOT_FOUND")
        assert answer.metadata == {"uuid": uuid}
    assert (await conference.status())[0] == "inviting"
    assert (await change(admin, conference.call, contact, muted=True)).muted


@pytest.mark.parametrize("uuid", ["00000000-0000-0000-0000-000000000000", "nonsense", ""])
async def test_conference_that_is_none_is_not_found(client: Client, uuid: str) -> None:
    request = pb.GetConferenceCallRequest(uuid=uuid)

    answer = await refused(client.conference_calls.GetConferenceCall(request, metadata=client.metadata))

    assert (answer.reason, answer.metadata) == ("CONFERENCE_CALL_NOT_FOUND", {"uuid": uuid})


async def test_participant_of_another_conference_is_not_found(
    conference: Conference, client: Client, parts: CallParts
) -> None:
    other = Conference(await create(client, moderator_number="+12065550199"), parts)
    await other.dial()

    for sid in (UNKNOWN, (await sids(other))[0]):
        for call in (change(client, conference.call, sid, muted=True), remove(client, conference.call, sid)):
            answer = await refused(call)
            assert (answer.code, answer.reason) == (
                grpc.StatusCode.NOT_FOUND,
                "CONFERENCE_CALL_PARTICIPANT_NOT_FOUND",
            )
            assert answer.metadata == {"call_sid": sid}


async def test_participant_who_left_cannot_be_changed(conference: Conference, client: Client) -> None:
    leg = (await conference.legs())[1]
    await conference.tell(leg, "completed")

    for call in (
        change(client, conference.call, leg.call_sid or "", muted=True),
        remove(client, conference.call, leg.call_sid or ""),
    ):
        answer = await refused(call)
        assert (answer.code, answer.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "CONFERENCE_CALL_PARTICIPANT_LEFT",
        )
        assert answer.metadata == {"call_sid": leg.call_sid, "internal_status": "left"}


async def test_conference_is_canceled_once(conference: Conference, client: Client, db: Database) -> None:
    canceled = await cancel(client, conference.call)
    answer = await refused(cancel(client, conference.call))

    assert canceled.internal_status == canceled.conference_call.internal_status == "canceled"
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CONFERENCE_CALL_ENDED")
    assert answer.metadata == {"uuid": conference.call.uuid, "internal_status": "canceled"}
    assert (await events_of(db, conference.call))[-1].call == canceled


async def test_conference_that_is_over_cannot_be_canceled(conference: Conference, client: Client) -> None:
    await conference.happen("conference-end")

    answer = await refused(cancel(client, conference.call))

    assert (answer.reason, answer.metadata["internal_status"]) == ("CONFERENCE_CALL_ENDED", "finished")


async def test_concurrent_cancels_end_it_once(conference: Conference, client: Client, db: Database) -> None:
    before = len(await events_of(db, conference.call))

    answers = await asyncio.gather(*(cancel(client, conference.call) for _ in range(5)), return_exceptions=True)

    assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
    assert len(await events_of(db, conference.call)) == before + 1
