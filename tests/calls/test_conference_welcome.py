"""Contacts who hear the welcome message: nobody is in the conference before they have heard it."""

import pytest

from server.calls.parts import CallParts
from server.db import Database
from tests.calls.conferences import Conference, cancel, create, participants, remove
from tests.clients import Client
from tests.factories import make_messaging_service


@pytest.fixture
async def conference(client: Client, parts: CallParts, db: Database) -> Conference:
    """One whose contacts are called."""
    await make_messaging_service(db)
    conference = Conference(await create(client), parts)
    await conference.dial()
    await conference.answer((await conference.legs())[0])
    await conference.dial()
    return conference


@pytest.mark.parametrize("answered_by", ["human", "unknown", "machine_start"])
async def test_contact_has_joined_when_they_ask_for_what_follows_the_message(
    conference: Conference, answered_by: str
) -> None:
    _, contact, _ = await conference.legs()

    first = await conference.ask(contact, answered_by)
    before = (await conference.legs())[1].joined_at
    second = await conference.ask(contact, answered_by, is_welcomed=True)

    assert (b"<Redirect" in first, b"<Conference" in first) == (True, False)
    assert b"<Conference" in second
    assert (before is None, (await conference.legs())[1].joined_at is None) == (True, False)


async def test_requests_may_be_repeated_and_come_in_any_order(conference: Conference) -> None:
    _, contact, _ = await conference.legs()

    joined = await conference.ask(contact, is_welcomed=True)
    at = (await conference.legs())[1].joined_at
    late = await conference.ask(contact)
    again = await conference.ask(contact, is_welcomed=True)

    assert joined == again
    assert b"<Redirect" in late
    assert (at is not None, (await conference.legs())[1].joined_at) == (True, at)


@pytest.mark.parametrize("repeated", [False, True])
async def test_who_hung_up_in_the_message_has_not_joined(
    conference: Conference, client: Client, repeated: bool
) -> None:
    moderator, contact, other = await conference.legs()
    await conference.tell(other, "no-answer")
    await conference.ask(contact)
    await conference.tell(contact, "completed")
    if repeated:
        await conference.ask(contact)
        await conference.tell(contact, "in-progress")
    await conference.tell(moderator, "completed")

    assert await conference.status() == ("no_answer", "conference-end")
    told = await participants(client, conference.call)
    assert [(each.internal_status, each.provider_status, each.HasField("joined_at")) for each in told] == [
        ("left", "completed", True),
        ("no_answer", "completed", False),
        ("no_answer", "no-answer", False),
    ]
    # Nothing was recorded, and nobody asks what was.
    assert (await conference.row()).recordings_check_at is None


@pytest.mark.parametrize("how", ["removed", "canceled"])
async def test_who_is_not_wanted_any_more_while_they_hear_the_message_is_hung_up_on(
    conference: Conference, client: Client, how: str
) -> None:
    _, contact, _ = await conference.legs()
    await conference.ask(contact)
    if how == "removed":
        await remove(client, conference.call, contact.call_sid or "")
    else:
        await cancel(client, conference.call)

    script = await conference.ask(contact, is_welcomed=True)

    assert b"<Hangup" in script
    assert (await conference.legs())[1].joined_at is None


async def test_conference_that_somebody_joined_beside_one_who_hung_up_is_finished(conference: Conference) -> None:
    moderator, contact, other = await conference.legs()
    await conference.ask(contact)
    await conference.answer(other)
    for leg in (contact, other, moderator):
        await conference.tell(leg, "completed")

    assert await conference.status() == ("finished", "conference-end")
    assert (await conference.row()).recordings_check_at is not None
