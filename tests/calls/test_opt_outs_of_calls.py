"""Who takes no calls: told of by whom, for which of our numbers, and once in a call."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from server.calls.opt_outs import RecipientOptedOutOfCalls, is_opted_out, refuse_opted_out, toggle
from server.db import Database
from tests.clients import Client
from tests.factories import RECEIVER, SENDER, create_message, make_messaging_service

OTHER_SENDER = "+12065550101"
OTHER_SERVICES_NUMBER = "+12065550102"
OTHER_CONTACT = "+12065550191"

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


async def press(db: Database, *, minute: int, call_began: int | None = None, provider_number: str = SENDER) -> bool:
    """The contact's 3 in a call that began in this minute, if in no other; whether they are out of calls now."""
    began = NOW + timedelta(minutes=minute if call_began is None else call_began)
    async with db.begin() as tx:
        return await toggle(
            tx,
            provider_number=provider_number,
            phone_number=RECEIVER,
            since=began,
            now=NOW + timedelta(minutes=minute, seconds=20),
        )


async def is_out(db: Database, *, provider_number: str = SENDER, phone_number: str = RECEIVER) -> bool:
    async with db.begin() as tx:
        return await is_opted_out(tx, provider_number=provider_number, phone_number=phone_number)


async def test_who_opts_out_is_out_of_all_numbers_of_the_service_alone(db: Database) -> None:
    await make_messaging_service(db)
    await make_messaging_service(
        db, name="b", twilio_messaging_sid="MG" + "2" * 32, phone_numbers=[OTHER_SERVICES_NUMBER]
    )

    assert await press(db, minute=0) is True

    assert await is_out(db)
    assert await is_out(db, provider_number=OTHER_SENDER)
    assert not await is_out(db, provider_number=OTHER_SERVICES_NUMBER)
    assert not await is_out(db, phone_number=OTHER_CONTACT)


async def test_who_opts_in_again_takes_calls_and_may_opt_out_again(db: Database) -> None:
    await make_messaging_service(db)

    assert [await press(db, minute=minute) for minute in range(4)] == [True, False, True, False]


async def test_call_changes_it_once_however_often_it_is_told(db: Database) -> None:
    await make_messaging_service(db)

    pressed = await asyncio.gather(*(press(db, minute=0) for _ in range(8)))
    again = [await press(db, minute=minute, call_began=0) for minute in (1, 2)]
    back = await asyncio.gather(*(press(db, minute=10) for _ in range(8)))

    assert pressed == [True] * 8
    assert again == [True] * 2
    assert back == [False] * 8
    assert await press(db, minute=11, call_began=10) is False


async def move(db: Database, service: str | None) -> None:
    """SENDER, as a synchronisation does it."""
    found = "(SELECT id FROM messaging_services WHERE name = %s)"
    await db.execute(
        f"UPDATE twilio_numbers SET messaging_service_id = {found} WHERE phone_number = %s", (service, SENDER)
    )


async def test_number_of_no_service_is_opted_out_of_alone(db: Database) -> None:
    await make_messaging_service(db)
    await move(db, None)

    assert await press(db, minute=0) is True

    assert await is_out(db)
    await move(db, "school")
    assert await is_out(db)
    assert not await is_out(db, provider_number=OTHER_SENDER)
    assert await press(db, minute=1) is False
    assert not await is_out(db)


async def test_opt_out_holds_for_the_number_in_another_service_too(db: Database) -> None:
    await make_messaging_service(db)
    await make_messaging_service(
        db, name="b", twilio_messaging_sid="MG" + "2" * 32, phone_numbers=[OTHER_SERVICES_NUMBER]
    )
    numbers = (SENDER, OTHER_SENDER, OTHER_SERVICES_NUMBER)
    await press(db, minute=0)

    await move(db, "b")
    moved = [await is_out(db, provider_number=number) for number in numbers]
    pressed = await press(db, minute=1)
    taken_back = [await is_out(db, provider_number=number) for number in numbers]

    assert moved == [True, True, False]
    assert pressed is False
    assert taken_back == [False, True, False]


async def test_opting_in_by_another_number_counts_within_the_service_that_was_told(db: Database) -> None:
    await make_messaging_service(db)
    await make_messaging_service(
        db, name="b", twilio_messaging_sid="MG" + "2" * 32, phone_numbers=[OTHER_SERVICES_NUMBER]
    )
    await press(db, minute=0)

    assert await press(db, minute=1, provider_number=OTHER_SENDER) is False

    at_home = await is_out(db)
    await move(db, "b")
    assert (at_home, await is_out(db)) == (False, True)


async def test_calls_to_several_numbers_at_once_are_counted_one_after_the_other(db: Database) -> None:
    await make_messaging_service(db)

    for minute in range(0, 20, 2):
        numbers = (SENDER, OTHER_SENDER) * 4
        pressed = await asyncio.gather(*(press(db, minute=minute, provider_number=number) for number in numbers))
        assert len(set(pressed)) == 1
        assert await is_out(db) is await is_out(db, provider_number=OTHER_SENDER) is pressed[0]


async def test_number_that_left_its_service_speaks_for_the_conversations(db: Database, client: Client) -> None:
    await make_messaging_service(db)
    await create_message(client)
    await db.execute("UPDATE twilio_numbers SET messaging_service_id = NULL")

    assert await press(db, minute=0) is True

    assert await is_out(db)
    assert not await is_out(db, provider_number=OTHER_SENDER)
    await db.execute("UPDATE twilio_numbers SET messaging_service_id = (SELECT id FROM messaging_services)")
    assert await is_out(db, provider_number=OTHER_SENDER)


async def test_first_who_opted_out_is_named(db: Database) -> None:
    await make_messaging_service(db)
    await press(db, minute=0)

    async with db.begin() as tx:
        await refuse_opted_out(tx, provider_number=SENDER, phone_numbers=[OTHER_CONTACT])
        await refuse_opted_out(tx, provider_number=SENDER, phone_numbers=[])
        with pytest.raises(RecipientOptedOutOfCalls) as caught:
            await refuse_opted_out(tx, provider_number=SENDER, phone_numbers=[OTHER_CONTACT, RECEIVER])

    assert caught.value.metadata == {"phone_number": RECEIVER}
