"""Messaging services that change: fields, customers and numbers, all or nothing."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from commonservices.v1 import bearer_service_pb2, messaging_service_pb2
from commonservices.v1 import messaging_service_service_pb2 as pb

from server.caller import BearerType
from server.db import Database
from server.encryption import Cipher
from tests.clients import Client, refused
from tests.conftest import MakeClient
from tests.numbers.account import numbers_of, pair, pairings
from tests.numbers.support import create, get, numbers, update

FIRST, SECOND, THIRD = "+12065550101", "+12065550100", "+15125550102"


@pytest.fixture
async def service(admin: Client) -> messaging_service_pb2.MessagingService:
    """`school`, with FIRST and SECOND."""
    return await create(admin)


async def make_other(admin: Client, **over: Any) -> messaging_service_pb2.MessagingService:
    given = {
        "name": "other",
        "global_customer_id": "another",
        "twilio_messaging_sid": "MG2",
        "bandwidth_messaging_sid": "bw2",
        "twilio_numbers_attributes": numbers(THIRD),
    }
    return await create(admin, **{**given, **over})


def taken_out(*named: str | int) -> list[pb.TwilioNumberAttributes]:
    return [
        pb.TwilioNumberAttributes(id=each, destroy=True)
        if isinstance(each, int)
        else pb.TwilioNumberAttributes(phone_number=each, destroy=True)
        for each in named
    ]


def spelled(service: messaging_service_pb2.MessagingService) -> list[str]:
    return [number.phone_number for number in service.twilio_numbers]


async def test_given_fields_change_and_the_others_stay(
    admin: Client, client: Client, service: messaging_service_pb2.MessagingService
) -> None:
    renamed = await update(admin, service.uuid, name="renamed")
    resided = await update(admin, service.uuid, twilio_messaging_sid="MG9", bandwidth_messaging_sid="bw9")
    pooled = await update(admin, service.uuid, is_k12_pool=True, bearer_id=client.bearer_id)
    untouched = await update(admin, service.uuid)
    unpooled = await update(admin, service.uuid, is_k12_pool=False)

    expected = messaging_service_pb2.MessagingService()
    expected.CopyFrom(service)
    expected.name = "renamed"
    assert renamed == expected
    expected.twilio_messaging_sid, expected.bandwidth_messaging_sid = "MG9", "bw9"
    assert resided == expected
    expected.is_k12_pool, expected.bearer_id = True, client.bearer_id
    assert pooled == untouched == expected
    expected.is_k12_pool = False
    assert unpooled == expected == await get(client, service.uuid)


async def test_service_goes_to_another_customer_who_is_made_if_new(
    admin: Client, service: messaging_service_pb2.MessagingService
) -> None:
    other = await make_other(admin)

    to_new = await update(admin, service.uuid, global_customer_id="brand-new")
    to_known = await update(admin, service.uuid, global_customer_id="another")

    assert to_new.global_customer_id == "brand-new"
    assert to_known.global_customer_id == other.global_customer_id == "another"


@pytest.mark.parametrize("field", ["twilio_numbers_attributes", "twilio_numbers"])
async def test_numbers_are_added_after_those_there_are(
    admin: Client, service: messaging_service_pb2.MessagingService, field: str
) -> None:
    changed = await update(admin, service.uuid, **{field: numbers("(512) 555-0102", FIRST)})

    assert spelled(changed) == [FIRST, SECOND, THIRD]
    assert [number.state_code for number in changed.twilio_numbers] == ["WA", "WA", "TX"]


async def test_numbers_are_taken_out_by_id_and_by_number_and_stay_ours(
    admin: Client, db: Database, service: messaging_service_pb2.MessagingService
) -> None:
    by_id = await update(admin, service.uuid, twilio_numbers=taken_out(service.twilio_numbers[0].id))
    by_number = await update(admin, service.uuid, twilio_numbers=taken_out("(206) 555-0100"))

    assert (spelled(by_id), spelled(by_number)) == ([SECOND], [])
    assert {number: found.service for number, found in (await numbers_of(db)).items()} == {FIRST: None, SECOND: None}


async def test_number_that_is_in_no_service_is_taken_in(
    admin: Client, db: Database, service: messaging_service_pb2.MessagingService
) -> None:
    await update(admin, service.uuid, twilio_numbers=taken_out(FIRST, SECOND))
    await db.execute("UPDATE twilio_numbers SET released_at = now(), state_code = NULL")

    other = await make_other(admin, twilio_numbers_attributes=numbers(THIRD, FIRST))
    back = await update(admin, service.uuid, twilio_numbers=numbers(SECOND))

    # The lowest id is the first number.
    assert spelled(other) == [FIRST, THIRD]
    assert spelled(back) == [SECOND]
    for number in (*other.twilio_numbers, *back.twilio_numbers):
        assert number.HasField("state_code")
        assert not number.HasField("released_at")


async def test_numbers_that_are_named_as_they_are_stay(
    admin: Client, service: messaging_service_pb2.MessagingService
) -> None:
    first, second = service.twilio_numbers
    as_read = [
        pb.TwilioNumberAttributes(id=first.id, phone_number=first.phone_number),
        pb.TwilioNumberAttributes(id=second.id),
    ]

    assert await update(admin, service.uuid, twilio_numbers=as_read) == service


async def test_number_of_another_service_is_taken(
    admin: Client, db: Database, service: messaging_service_pb2.MessagingService
) -> None:
    await make_other(admin)
    before = await numbers_of(db)

    answer = await refused(update(admin, service.uuid, name="x", twilio_numbers=numbers("+12065550109", THIRD)))

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "PHONE_NUMBER_TAKEN")
    assert answer.metadata == {"phone_number": THIRD}
    assert await numbers_of(db) == before
    assert (await get(admin, service.uuid)) == service


@pytest.mark.parametrize("is_named_by_id", [True, False])
async def test_number_of_another_service_is_not_found_to_be_taken_out(
    admin: Client, service: messaging_service_pb2.MessagingService, is_named_by_id: bool
) -> None:
    other = await make_other(admin)
    [theirs] = other.twilio_numbers
    named: str | int = theirs.id if is_named_by_id else theirs.phone_number

    answer = await refused(update(admin, service.uuid, twilio_numbers=taken_out(FIRST, named)))

    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "PHONE_NUMBER_NOT_FOUND")
    assert answer.metadata == {"twilio_number_id" if is_named_by_id else "phone_number": str(named)}
    assert await get(admin, service.uuid) == service
    assert await get(admin, other.uuid) == other


async def test_number_that_is_nobodys_is_not_found(
    admin: Client, service: messaging_service_pb2.MessagingService
) -> None:
    by_id = await refused(update(admin, service.uuid, twilio_numbers=[pb.TwilioNumberAttributes(id=4_000_000_000)]))
    by_number = await refused(update(admin, service.uuid, twilio_numbers=taken_out("+12065550177")))

    assert (by_id.reason, by_id.metadata) == ("PHONE_NUMBER_NOT_FOUND", {"twilio_number_id": "4000000000"})
    assert (by_number.reason, by_number.metadata) == ("PHONE_NUMBER_NOT_FOUND", {"phone_number": "+12065550177"})


async def test_paired_number_is_not_taken_out_until_it_is_free(
    admin: Client, db: Database, cipher: Cipher, service: messaging_service_pb2.MessagingService
) -> None:
    await pair(db, cipher, SECOND)
    before = await pairings(db)

    answer = await refused(update(admin, service.uuid, name="x", twilio_numbers=taken_out(FIRST, SECOND)))
    unchanged = await get(admin, service.uuid)
    other_one = await update(admin, service.uuid, twilio_numbers=taken_out(FIRST))

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "PHONE_NUMBER_PAIRED")
    assert answer.metadata == {"phone_number": SECOND}
    assert unchanged == service
    assert spelled(other_one) == [SECOND]
    assert await pairings(db) == before

    await db.execute("DELETE FROM pairings")
    assert spelled(await update(admin, service.uuid, twilio_numbers=taken_out(SECOND))) == []


async def test_every_bad_field_is_named_at_once(admin: Client, service: messaging_service_pb2.MessagingService) -> None:
    bad = [pb.TwilioNumberAttributes(phone_number="12"), pb.TwilioNumberAttributes(destroy=True)]

    answer = await refused(
        update(admin, service.uuid, name="x" * 256, provider="pigeon", global_customer_id="a\0b", twilio_numbers=bad)
    )

    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(answer.fields) == {
        "name",
        "provider",
        "global_customer_id",
        "twilio_numbers[0].phone_number",
        "twilio_numbers[1].phone_number",
    }


async def test_number_named_twice_or_as_another_is_refused(
    admin: Client, service: messaging_service_pb2.MessagingService
) -> None:
    first = service.twilio_numbers[0]
    twice_added = await refused(update(admin, service.uuid, twilio_numbers=numbers(THIRD, "512 555 0102")))
    twice_named = await refused(
        update(admin, service.uuid, twilio_numbers=[*taken_out(first.id), *numbers(first.phone_number)])
    )
    another = await refused(
        update(admin, service.uuid, twilio_numbers=[pb.TwilioNumberAttributes(id=first.id, phone_number=THIRD)])
    )
    both_names = await refused(
        update(admin, service.uuid, twilio_numbers=numbers(THIRD), twilio_numbers_attributes=numbers(THIRD))
    )

    assert twice_added.fields == ("twilio_numbers[1]",)
    assert twice_named.fields == ("twilio_numbers[1]",)
    assert another.fields == ("twilio_numbers[0].phone_number",)
    assert both_names.fields == ("twilio_numbers",)
    assert await get(admin, service.uuid) == service


@pytest.mark.parametrize("field", ["name", "twilio_messaging_sid", "bandwidth_messaging_sid"])
async def test_taken_name_or_sid_is_refused_and_changes_nothing(
    admin: Client, service: messaging_service_pb2.MessagingService, field: str
) -> None:
    other = await make_other(admin)

    answer = await refused(
        update(admin, other.uuid, **{field: getattr(service, field)}, twilio_numbers=taken_out(THIRD))
    )

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MESSAGING_SERVICE_EXISTS")
    assert answer.metadata == {"field": field}
    assert await get(admin, other.uuid) == other


async def test_taken_name_is_refused_with_whatever_else_is_given(
    admin: Client, client: Client, service: messaging_service_pb2.MessagingService
) -> None:
    other = await make_other(admin)

    with_bearer = await refused(update(admin, other.uuid, name=service.name, bearer_id=client.bearer_id))
    with_customer = await refused(update(admin, other.uuid, name=service.name, global_customer_id="a third"))

    assert with_bearer.metadata == with_customer.metadata == {"field": "name"}
    assert await get(admin, other.uuid) == other


async def test_one_of_many_who_want_a_name_at_once_gets_it(admin: Client) -> None:
    made = [
        await make_other(
            admin,
            name=f"other-{n}",
            twilio_messaging_sid=f"MG-{n}",
            bandwidth_messaging_sid="",
            twilio_numbers_attributes=[],
        )
        for n in range(4)
    ]

    changed = await asyncio.gather(*(update(admin, each.uuid, name="wanted") for each in made), return_exceptions=True)
    created = await asyncio.gather(
        *(
            make_other(
                admin,
                name="wanted-too",
                twilio_messaging_sid=f"MG+{n}",
                bandwidth_messaging_sid="",
                twilio_numbers_attributes=[],
            )
            for n in range(4)
        ),
        return_exceptions=True,
    )

    for outcomes in (changed, created):
        errors = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
        assert len(outcomes) - len(errors) == 1
        assert {error.code() for error in errors} == {grpc.StatusCode.ALREADY_EXISTS}


async def test_change_does_not_wait_for_a_message_of_the_service(
    admin: Client, db: Database, service: messaging_service_pb2.MessagingService
) -> None:
    async with db.connection() as connection, connection.transaction(), asyncio.timeout(30):
        # As the foreign keys of new rows do until their commit.
        await connection.execute("SELECT FROM messaging_services FOR KEY SHARE")
        changed = await update(admin, service.uuid, is_k12_pool=True, twilio_numbers=taken_out(FIRST))

    assert (changed.is_k12_pool, spelled(changed)) == (True, [SECOND])


async def test_services_that_want_the_same_numbers_in_any_order_do_not_stop_each_other(
    admin: Client, db: Database
) -> None:
    wanted = [f"+1206555{n:04}" for n in range(500)]

    outcomes = await asyncio.gather(
        *(
            make_other(
                admin,
                name=f"other-{n}",
                twilio_messaging_sid=f"MG-{n}",
                bandwidth_messaging_sid="",
                twilio_numbers_attributes=numbers(*(wanted if n % 2 else reversed(wanted))),
            )
            for n in range(6)
        ),
        return_exceptions=True,
    )

    errors = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert len(errors) == 5
    assert {error.code() for error in errors} == {grpc.StatusCode.ALREADY_EXISTS}
    assert len({number.service for number in (await numbers_of(db)).values()}) == 1


async def test_one_of_many_services_gets_a_number_that_is_in_none(admin: Client, db: Database) -> None:
    await create(admin)
    await db.execute("UPDATE twilio_numbers SET messaging_service_id = NULL")

    outcomes = await asyncio.gather(
        *(
            make_other(
                admin,
                name=f"other-{n}",
                twilio_messaging_sid=f"MG-{n}",
                bandwidth_messaging_sid="",
                twilio_numbers_attributes=numbers(FIRST, SECOND) if n % 2 else numbers(SECOND, FIRST),
            )
            for n in range(6)
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(outcome, messaging_service_pb2.MessagingService) for outcome in outcomes) == 1
    assert len({number.service for number in (await numbers_of(db)).values()}) == 1


async def test_owner_of_strangers_messages_must_be_a_live_bearer(
    admin: Client, client_of: MakeClient, service: messaging_service_pb2.MessagingService
) -> None:
    ended = await client_of(BearerType.APPLICATION)
    await delete_bearer(admin, ended.bearer_id)

    for bearer_id in (ended.bearer_id, 4_000_000_000):
        changed = await refused(update(admin, service.uuid, bearer_id=bearer_id))
        made = await refused(make_other(admin, bearer_id=bearer_id))

        assert changed == made
        assert (changed.code, changed.reason) == (grpc.StatusCode.NOT_FOUND, "BEARER_NOT_FOUND")
        assert changed.metadata == {"bearer_id": str(bearer_id)}


async def delete_bearer(admin: Client, bearer_id: int) -> None:
    await admin.bearers.DeleteBearer(bearer_service_pb2.DeleteBearerRequest(id=bearer_id), metadata=admin.metadata)


@pytest.mark.parametrize("uuid", ["", "nonsense", "00000000-0000-0000-0000-000000000000"])
async def test_unknown_uuid_is_not_found(admin: Client, uuid: str) -> None:
    answer = await refused(update(admin, uuid, name="x"))

    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "MESSAGING_SERVICE_NOT_FOUND")
    assert answer.metadata == {"messaging_service_uuid": uuid}


@pytest.mark.parametrize("bearer_type", [BearerType.APPLICATION, BearerType.USER])
async def test_changing_one_takes_an_admin(
    client_of: MakeClient, service: messaging_service_pb2.MessagingService, bearer_type: BearerType
) -> None:
    caller = await client_of(bearer_type)

    answer = await refused(update(caller, service.uuid, name="x"))

    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
