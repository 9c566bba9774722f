"""Our numbers follow the provider's account: numbers come, move, go and come back."""

from server.db import Database
from server.encryption import Cipher
from server.numbers.sync import Change, NumberSync
from server.providers.sandbox.carrier import phone_number_sid
from server.providers.sandbox.settings import OWNED_NUMBERS
from tests.factories import make_messaging_service
from tests.numbers.account import (
    AUSTIN,
    FIRST,
    NOTHING,
    OTHER,
    SEATTLE,
    SECOND,
    TOLL_FREE,
    Account,
    Number,
    make_services,
    numbers_of,
    pair,
    pairings,
)


def seattle(*, service: str | None = "first", is_released: bool = False) -> Number:
    return Number(service, "WA", phone_number_sid(SEATTLE), is_released)


async def test_numbers_of_the_account_come_in_their_services_or_in_none(
    db: Database, account: Account, sync: NumberSync
) -> None:
    await make_services(db)
    await account.leave(FIRST, AUSTIN)
    await account.join(SECOND, AUSTIN)
    await account.buy(TOLL_FREE)

    changes = await sync.sync_now()

    found = await numbers_of(db)
    assert changes == {**NOTHING, Change.ADDED: sorted([*OWNED_NUMBERS, TOLL_FREE])}
    assert found.keys() == {*OWNED_NUMBERS, TOLL_FREE}
    assert found[SEATTLE] == seattle()
    assert found[AUSTIN] == Number("second", "TX", phone_number_sid(AUSTIN), is_released=False)
    assert found[TOLL_FREE] == Number(None, None, phone_number_sid(TOLL_FREE), is_released=False)


async def test_what_was_written_by_hand_is_completed(db: Database, sync: NumberSync) -> None:
    await make_messaging_service(db, name="first", twilio_messaging_sid=FIRST, phone_numbers=[SEATTLE])
    await db.execute("UPDATE twilio_numbers SET state_code = NULL")

    changes = await sync.sync_now()

    assert (await numbers_of(db))[SEATTLE] == seattle()
    assert SEATTLE not in {number for numbers in changes.values() for number in numbers}


async def test_second_synchronisation_finds_nothing_to_do(db: Database, sync: NumberSync) -> None:
    await make_services(db)
    await sync.sync_now()
    before = await numbers_of(db)

    changes = await sync.sync_now()

    assert changes == NOTHING
    assert await numbers_of(db) == before


async def test_numbers_move_between_services_as_at_the_provider(
    db: Database, account: Account, sync: NumberSync
) -> None:
    await make_services(db)
    await sync.sync_now()
    await account.leave(FIRST, SEATTLE)
    await account.join(SECOND, SEATTLE)
    await account.leave(FIRST, OTHER)

    changes = await sync.sync_now()

    found = await numbers_of(db)
    assert changes == {**NOTHING, Change.MOVED: [SEATTLE]}
    assert (found[SEATTLE].service, found[OTHER].service) == ("second", "first")


async def test_number_that_an_admin_put_into_a_service_stays_there(
    db: Database, account: Account, sync: NumberSync
) -> None:
    await account.buy(TOLL_FREE)
    await make_messaging_service(db, name="first", twilio_messaging_sid=FIRST, phone_numbers=[TOLL_FREE])

    first = await sync.sync_now()
    await account.release(TOLL_FREE)
    await sync.sync_now()
    await account.buy(TOLL_FREE)
    back = await sync.sync_now()

    assert (first[Change.MOVED], back) == ([], {**NOTHING, Change.RESTORED: [TOLL_FREE]})
    assert (await numbers_of(db))[TOLL_FREE] == Number("first", None, phone_number_sid(TOLL_FREE), is_released=False)


async def test_paired_number_moves_with_its_pairing(
    db: Database, cipher: Cipher, account: Account, sync: NumberSync
) -> None:
    await make_services(db)
    await sync.sync_now()
    await pair(db, cipher, SEATTLE)
    before = await pairings(db)
    await account.leave(FIRST, SEATTLE)
    await account.join(SECOND, SEATTLE)

    changes = await sync.sync_now()

    assert changes == {**NOTHING, Change.MOVED: [SEATTLE]}
    assert (await numbers_of(db))[SEATTLE].service == "second"
    assert await pairings(db) == before


async def test_number_that_is_gone_is_marked_keeps_its_pairing_and_comes_back(
    db: Database, cipher: Cipher, account: Account, sync: NumberSync
) -> None:
    await make_services(db)
    await sync.sync_now()
    await pair(db, cipher, SEATTLE)
    before = await pairings(db)
    await account.release(SEATTLE, OTHER)

    gone = await sync.sync_now()
    number_gone = (await numbers_of(db))[SEATTLE]
    still_gone = await sync.sync_now()
    await account.buy(SEATTLE)
    await account.join(FIRST, SEATTLE)
    back = await sync.sync_now()

    assert gone == {**NOTHING, Change.RELEASED: [SEATTLE, OTHER]}
    assert number_gone == seattle(is_released=True)
    assert still_gone == NOTHING
    assert back == {**NOTHING, Change.RESTORED: [SEATTLE]}
    assert (await numbers_of(db))[SEATTLE] == seattle()
    assert await pairings(db) == before


async def test_numbers_of_another_provider_are_left_alone(db: Database, account: Account, sync: NumberSync) -> None:
    ported = "+12065550199"
    await make_messaging_service(
        db,
        name="bandwidth",
        provider="bandwidth",
        # It was Twilio's once.
        twilio_messaging_sid=FIRST,
        bandwidth_messaging_sid="application",
        phone_numbers=[SEATTLE, ported],
    )
    before = await numbers_of(db)

    changes = await sync.sync_now()

    found = await numbers_of(db)
    assert {number: found[number] for number in (SEATTLE, ported)} == before
    assert changes == {**NOTHING, Change.ADDED: sorted({*OWNED_NUMBERS} - {SEATTLE})}
    assert {found[number].service for number in changes[Change.ADDED]} == {None}


async def test_service_that_the_provider_does_not_know_keeps_its_numbers(
    db: Database, account: Account, sync: NumberSync
) -> None:
    await make_messaging_service(
        db, name="unknown", twilio_messaging_sid="MG" + "9" * 32, phone_numbers=[SEATTLE, AUSTIN]
    )
    await make_messaging_service(
        db, name="odd", global_customer_id="odd", twilio_messaging_sid=f"../{FIRST}?x=1#ü", phone_numbers=[OTHER]
    )
    await make_messaging_service(
        db, name="second", global_customer_id="second", twilio_messaging_sid=SECOND, phone_numbers=()
    )
    await account.leave(FIRST, AUSTIN)
    await account.join(SECOND, AUSTIN)

    changes = await sync.sync_now()

    found = await numbers_of(db)
    new = sorted({*OWNED_NUMBERS} - {SEATTLE, OTHER, AUSTIN})
    assert changes == {**NOTHING, Change.ADDED: new, Change.MOVED: [AUSTIN]}
    assert [found[number].service for number in (SEATTLE, OTHER, AUSTIN)] == ["unknown", "odd", "second"]
