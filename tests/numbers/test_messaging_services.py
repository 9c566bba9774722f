"""Messaging services through the front door."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
from commonservices.v1 import messaging_service_pb2
from commonservices.v1 import messaging_service_service_pb2 as pb
from psycopg.rows import scalar_row

from server.caller import BearerType
from server.db import Database
from tests.clients import Client, refused
from tests.conftest import MakeClient
from tests.numbers.support import create, get, new_service, numbers

UNKNOWN = "00000000-0000-0000-0000-000000000000"


async def counts(db: Database) -> list[int]:
    query = """
        SELECT count(*) FROM customers UNION ALL SELECT count(*) FROM messaging_services
        UNION ALL SELECT count(*) FROM twilio_numbers
    """
    return await db.fetch_all(query, {}, scalar_row)


async def test_create_answers_the_service_with_its_numbers_in_the_order_given(admin: Client, client: Client) -> None:
    made = await create(admin)

    got = await client.messaging_services.GetMessagingService(
        pb.GetMessagingServiceRequest(uuid=made.uuid), metadata=client.metadata
    )

    assert (made.name, made.global_customer_id, made.twilio_messaging_sid, made.bandwidth_messaging_sid) == (
        "school",
        "customer",
        "MG1",
        "bw1",
    )
    assert [n.phone_number for n in made.twilio_numbers] == ["+12065550101", "+12065550100"]
    assert got == made


async def test_alias_of_the_numbers_means_the_same(admin: Client) -> None:
    made = await create(admin, twilio_numbers_attributes=[], twilio_numbers=numbers("+12065550100"))

    assert [n.phone_number for n in made.twilio_numbers] == ["+12065550100"]


async def test_name_defaults_to_the_customer(admin: Client) -> None:
    made = await create(admin, name="", bandwidth_messaging_sid="", twilio_numbers_attributes=[])

    assert made.name == "customer"
    assert not made.HasField("bandwidth_messaging_sid")
    assert not made.twilio_numbers


async def test_us_spellings_are_normalised(admin: Client) -> None:
    made = await create(admin, twilio_numbers_attributes=numbers("(206) 555-0100", "1 206 555 0101", "+442079460000"))

    assert [n.phone_number for n in made.twilio_numbers] == ["+12065550100", "+12065550101", "+442079460000"]


async def test_every_bad_field_is_named_at_once(admin: Client, db: Database) -> None:
    request = pb.AdminCreateMessagingServiceRequest(
        name="x" * 256,
        twilio_numbers_attributes=numbers("+12065550100", "555-0100", "(206) 555-0100", ""),
        twilio_numbers=[],
    )

    answer = await refused(admin.messaging_services.AdminCreateMessagingService(request, metadata=admin.metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(answer.fields) == {
        "name",
        "twilio_messaging_sid",
        "global_customer_id",
        "twilio_numbers_attributes[1].phone_number",
        "twilio_numbers_attributes[2].phone_number",
        "twilio_numbers_attributes[3].phone_number",
    }
    assert await counts(db) == [0, 0, 0]


async def test_both_names_of_the_numbers_at_once_are_refused(admin: Client) -> None:
    request = new_service(twilio_numbers=numbers("+12065550102"))

    answer = await refused(admin.messaging_services.AdminCreateMessagingService(request, metadata=admin.metadata))

    assert answer.fields == ("twilio_numbers",)


@pytest.mark.parametrize("field", ["name", "twilio_messaging_sid", "bandwidth_messaging_sid"])
async def test_taken_name_or_sid_is_refused_and_leaves_nothing(admin: Client, db: Database, field: str) -> None:
    await create(admin)
    other = {
        "name": "other",
        "twilio_messaging_sid": "MG2",
        "bandwidth_messaging_sid": "bw2",
        "global_customer_id": "another",
        "twilio_numbers_attributes": numbers("+12065550105"),
    }
    taken = {"name": "school", "twilio_messaging_sid": "MG1", "bandwidth_messaging_sid": "bw1"}[field]

    answer = await refused(
        admin.messaging_services.AdminCreateMessagingService(
            new_service(**{**other, field: taken}), metadata=admin.metadata
        )
    )

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MESSAGING_SERVICE_EXISTS")
    assert answer.metadata == {"field": field}
    assert await counts(db) == [1, 1, 2]


async def test_taken_number_is_refused_and_leaves_nothing(admin: Client, db: Database) -> None:
    await create(admin)
    request = new_service(
        name="other",
        twilio_messaging_sid="MG2",
        bandwidth_messaging_sid="",
        global_customer_id="another",
        twilio_numbers_attributes=numbers("+12065550109", "+12065550100"),
    )

    answer = await refused(admin.messaging_services.AdminCreateMessagingService(request, metadata=admin.metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "PHONE_NUMBER_TAKEN")
    assert answer.metadata == {"phone_number": "+12065550100"}
    assert await counts(db) == [1, 1, 2]


async def test_services_of_one_customer_share_it(admin: Client, db: Database) -> None:
    made = await asyncio.gather(
        *(
            create(
                admin,
                name=f"school-{n}",
                twilio_messaging_sid=f"MG{n}",
                bandwidth_messaging_sid="",
                twilio_numbers_attributes=[],
            )
            for n in range(5)
        )
    )

    assert {service.global_customer_id for service in made} == {"customer"}
    assert await counts(db) == [1, 5, 0]


async def test_two_who_want_one_number_at_once_do_not_both_get_it(admin: Client, db: Database) -> None:
    outcomes = await asyncio.gather(
        *(
            create(admin, name=f"school-{n}", twilio_messaging_sid=f"MG{n}", bandwidth_messaging_sid="")
            for n in range(5)
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(outcome, messaging_service_pb2.MessagingService) for outcome in outcomes) == 1
    assert await counts(db) == [1, 1, 2]


async def test_repeated_create_answers_the_same_service(admin: Client, db: Database) -> None:
    made = await asyncio.gather(*(create(admin, request_id="once") for _ in range(10)))

    reused = await refused(
        admin.messaging_services.AdminCreateMessagingService(
            new_service(name="other", request_id="once"), metadata=admin.metadata
        )
    )

    assert len({service.SerializeToString(deterministic=True) for service in made}) == 1
    assert await counts(db) == [1, 1, 2]
    assert reused.reason == "REQUEST_ID_REUSED"


async def test_list_pages_hold_every_service_once_oldest_first(admin: Client, client: Client) -> None:
    made = [
        await create(
            admin,
            name=f"school-{n}",
            global_customer_id=f"customer-{n % 2}",
            twilio_messaging_sid=f"MG{n}",
            bandwidth_messaging_sid="",
            twilio_numbers_attributes=numbers(f"+1206555010{n}"),
        )
        for n in range(5)
    ]

    seen: list[messaging_service_pb2.MessagingService] = []
    token = ""
    while True:
        page = await client.messaging_services.ListMessagingServices(
            pb.ListMessagingServicesRequest(page_size=2, page_token=token), metadata=client.metadata
        )
        seen += page.messaging_services
        token = page.next_page_token
        if not token:
            break

    assert seen == made


async def test_empty_list(client: Client) -> None:
    answer = await client.messaging_services.ListMessagingServices(
        pb.ListMessagingServicesRequest(), metadata=client.metadata
    )

    assert answer == pb.ListMessagingServicesResponse()


@pytest.mark.parametrize("uuid", ["", "nonsense", UNKNOWN, "é", "1"])
async def test_unknown_uuid_is_not_found(client: Client, uuid: str) -> None:
    answer = await refused(
        client.messaging_services.GetMessagingService(
            pb.GetMessagingServiceRequest(uuid=uuid), metadata=client.metadata
        )
    )

    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "MESSAGING_SERVICE_NOT_FOUND")
    assert answer.metadata == {"messaging_service_uuid": uuid}


async def find(client: Client, field: str, value: str) -> messaging_service_pb2.MessagingService:
    calls: dict[str, Callable[[], Awaitable[messaging_service_pb2.MessagingService]]] = {
        "twilio_messaging_sid": lambda: client.messaging_services.FindMessagingServiceByTwilioMessagingSid(
            pb.FindMessagingServiceByTwilioMessagingSidRequest(twilio_messaging_sid=value), metadata=client.metadata
        ),
        "bandwidth_messaging_sid": lambda: client.messaging_services.FindMessagingServiceByBandwidthMessagingSid(
            pb.FindMessagingServiceByBandwidthMessagingSidRequest(bandwidth_messaging_sid=value),
            metadata=client.metadata,
        ),
        "global_customer_id": lambda: client.messaging_services.FindMessagingServiceByGlobalCustomerId(
            pb.FindMessagingServiceByGlobalCustomerIdRequest(global_customer_id=value), metadata=client.metadata
        ),
        "name": lambda: client.messaging_services.FindMessagingServiceByName(
            pb.FindMessagingServiceByNameRequest(name=value), metadata=client.metadata
        ),
    }
    return await calls[field]()


LOOKUPS = ("twilio_messaging_sid", "bandwidth_messaging_sid", "global_customer_id", "name")


@pytest.mark.parametrize("field", LOOKUPS)
async def test_service_is_found_by_what_is_its_alone(admin: Client, client: Client, field: str) -> None:
    made = await create(admin)
    await create(
        admin,
        name="other",
        global_customer_id="another",
        twilio_messaging_sid="MG2",
        bandwidth_messaging_sid="bw2",
        twilio_numbers_attributes=numbers("+12065550109"),
    )

    assert await find(client, field, getattr(made, field)) == made


@pytest.mark.parametrize("field", LOOKUPS)
async def test_what_no_service_has_is_not_found(admin: Client, client: Client, field: str) -> None:
    await create(admin)

    for value in ("é", "nobody's", "%"):
        answer = await refused(find(client, field, value))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "MESSAGING_SERVICE_NOT_FOUND")
        assert answer.metadata == {field: value}
    assert (await refused(find(client, field, ""))).fields == (field,)
    assert (await refused(find(client, field, "a\0b"))).fields == (field,)


async def test_oldest_service_of_a_customer_is_found(admin: Client, client: Client) -> None:
    made = await create(admin)
    await create(admin, name="a", twilio_messaging_sid="MG2", bandwidth_messaging_sid="", twilio_numbers_attributes=[])

    assert await find(client, "global_customer_id", "customer") == made


async def test_create_without_numbers_answers_every_field(admin: Client, client: Client) -> None:
    request = pb.CreateMessagingServiceRequest(
        name="pool",
        global_customer_id="customer",
        twilio_messaging_sid="MG1",
        provider="twilio",
        is_k12_pool=True,
        bearer_id=client.bearer_id,
        request_id="once",
    )

    made = await admin.messaging_services.CreateMessagingService(request, metadata=admin.metadata)
    again = await admin.messaging_services.CreateMessagingService(request, metadata=admin.metadata)

    assert made == again == await get(client, made.uuid)
    assert (made.provider, made.is_k12_pool, made.bearer_id) == ("twilio", True, client.bearer_id)
    assert not made.HasField("bandwidth_messaging_sid")
    assert not made.twilio_numbers


async def test_create_without_numbers_names_every_bad_field(admin: Client) -> None:
    request = pb.CreateMessagingServiceRequest(name="x" * 256, provider="pigeon", bandwidth_messaging_sid="a\0b")

    answer = await refused(admin.messaging_services.CreateMessagingService(request, metadata=admin.metadata))

    assert set(answer.fields) == {"name", "provider", "bandwidth_messaging_sid", "global_customer_id"}


async def test_numbers_of_a_create_are_new(admin: Client, db: Database) -> None:
    request = new_service(
        twilio_numbers_attributes=[
            pb.TwilioNumberAttributes(id=1),
            pb.TwilioNumberAttributes(phone_number="+12065550100", destroy=True),
        ]
    )

    answer = await refused(admin.messaging_services.AdminCreateMessagingService(request, metadata=admin.metadata))

    assert answer.fields == ("twilio_numbers_attributes[0].id", "twilio_numbers_attributes[1]._destroy")
    assert await counts(db) == [0, 0, 0]


async def test_numbers_tell_their_state_sid_and_release(admin: Client, client: Client, db: Database) -> None:
    made = await create(admin, twilio_numbers_attributes=numbers("+15125550100", "+18885550100", "+442079460000"))
    await db.execute("UPDATE twilio_numbers SET phone_number_sid = 'PN1', released_at = now() WHERE state_code = 'TX'")

    texan, toll_free, foreign = (await get(client, made.uuid)).twilio_numbers

    assert [number.state_code for number in made.twilio_numbers] == ["TX", "", ""]
    assert not any(number.HasField("released_at") for number in made.twilio_numbers)
    assert (texan.state_code, texan.phone_number_sid, texan.HasField("released_at")) == ("TX", "PN1", True)
    for number in (toll_free, foreign):
        assert not any(number.HasField(field) for field in ("state_code", "phone_number_sid", "released_at"))


@pytest.mark.parametrize("bearer_type", [BearerType.APPLICATION, BearerType.USER])
async def test_making_one_takes_an_admin(client_of: MakeClient, db: Database, bearer_type: BearerType) -> None:
    caller = await client_of(bearer_type)

    answer = await refused(
        caller.messaging_services.AdminCreateMessagingService(new_service(), metadata=caller.metadata)
    )

    plain = await refused(
        caller.messaging_services.CreateMessagingService(pb.CreateMessagingServiceRequest(), metadata=caller.metadata)
    )

    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    assert plain == answer
    assert await counts(db) == [0, 0, 0]
