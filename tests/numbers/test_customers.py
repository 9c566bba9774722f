"""Customers through the front door."""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime

import grpc
import grpc.aio
import pytest
from commonservices.v1 import customer_pb2
from commonservices.v1 import customer_service_pb2 as pb

from server.caller import BearerType
from server.db import Database
from tests.clients import Client, refused
from tests.conftest import MakeClient
from tests.factories import make_messaging_service


def create(admin: Client, global_customer_id: str = "district", **given: str) -> Awaitable[customer_pb2.Customer]:
    request = pb.AdminCreateCustomerRequest(global_customer_id=global_customer_id, **given)
    return admin.customers.AdminCreateCustomer(request, metadata=admin.metadata)


def update(admin: Client, global_customer_id: str = "district", **given: str) -> Awaitable[customer_pb2.Customer]:
    request = pb.AdminUpdateCustomerRequest(global_customer_id=global_customer_id, **given)
    return admin.customers.AdminUpdateCustomer(request, metadata=admin.metadata)


def get(admin: Client, global_customer_id: str = "district") -> Awaitable[customer_pb2.Customer]:
    request = pb.AdminGetCustomerRequest(global_customer_id=global_customer_id)
    return admin.customers.AdminGetCustomer(request, metadata=admin.metadata)


async def listed(admin: Client, *, page_size: int = 0, page_token: str = "") -> pb.AdminListCustomersResponse:
    request = pb.AdminListCustomersRequest(page_size=page_size, page_token=page_token)
    return await admin.customers.AdminListCustomers(request, metadata=admin.metadata)


async def test_create_answers_every_field(admin: Client) -> None:
    made = await create(
        admin,
        customer_name="Lakeside Schools",
        state="WA",
        number_pool="k12",
        business_profile_sid="BU1",
        shaken_stir_product_sid="BU2",
    )

    assert (made.global_customer_id, made.customer_name, made.state) == ("district", "Lakeside Schools", "WA")
    assert (made.number_pool, made.business_profile_sid, made.shaken_stir_product_sid) == ("k12", "BU1", "BU2")
    assert made.created_at == made.updated_at
    assert abs(made.created_at.ToDatetime(tzinfo=UTC) - datetime.now(UTC)).total_seconds() < 60
    assert await get(admin) == made


async def test_only_the_id_is_needed(admin: Client) -> None:
    made = await create(admin)

    assert made.number_pool == "dedicated"
    for field in ("customer_name", "state", "business_profile_sid", "shaken_stir_product_sid"):
        assert not made.HasField(field)


async def test_given_fields_change_and_the_others_stay(admin: Client) -> None:
    made = await create(admin, customer_name="Lakeside", state="WA")

    changed = await update(admin, number_pool="k12", business_profile_sid="BU1")
    again = await update(admin, customer_name="Lakeside Schools", shaken_stir_product_sid="BU2", state="OR")

    assert (changed.customer_name, changed.state, changed.number_pool) == ("Lakeside", "WA", "k12")
    assert (again.customer_name, again.state, again.number_pool) == ("Lakeside Schools", "OR", "k12")
    assert (again.business_profile_sid, again.shaken_stir_product_sid) == ("BU1", "BU2")
    assert again.created_at == made.created_at
    assert again.updated_at.ToDatetime() > changed.updated_at.ToDatetime() > made.updated_at.ToDatetime()
    assert await get(admin) == again


@pytest.mark.parametrize("state", ["ZZ", "zz", "W", "Washington", "AA", "FM"])
async def test_state_is_one_that_has_numbers(admin: Client, state: str) -> None:
    await create(admin, "other")

    for call in (create(admin, state=state), update(admin, "other", state=state)):
        answer = await refused(call)
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("state",))
    assert not (await get(admin, "other")).HasField("state")


async def test_state_is_told_in_capitals(admin: Client) -> None:
    made = await create(admin, state="wa", number_pool="k12")
    changed = await update(admin, state="Or")

    assert (made.state, changed.state) == ("WA", "OR")
    assert (await get(admin)).state == "OR"


@pytest.mark.parametrize("state", ["DC", "PR", "AK"])
async def test_district_and_territories_are_states(admin: Client, state: str) -> None:
    assert (await create(admin, state=state, number_pool="k12")).state == state


async def test_pool_needs_a_state(admin: Client) -> None:
    await create(admin, "stateless")

    made = await refused(create(admin, number_pool="k12"))
    changed = await refused(update(admin, "stateless", number_pool="k12", customer_name="x"))
    with_state = await update(admin, "stateless", number_pool="k12", state="WA")
    back = await update(admin, "stateless", number_pool="dedicated")

    assert made.fields == changed.fields == ("state",)
    assert not with_state.HasField("customer_name")
    assert (with_state.number_pool, back.number_pool, back.state) == ("k12", "dedicated", "WA")


async def test_every_bad_field_is_named_at_once(admin: Client) -> None:
    answer = await refused(
        create(
            admin,
            "",
            customer_name="x" * 256,
            state="ZZ",
            number_pool="shared",
            business_profile_sid="a\0b",
            shaken_stir_product_sid="x" * 256,
        )
    )

    assert set(answer.fields) == {
        "global_customer_id",
        "customer_name",
        "state",
        "number_pool",
        "business_profile_sid",
        "shaken_stir_product_sid",
    }


async def test_one_of_many_who_make_a_customer_at_once_succeeds(admin: Client) -> None:
    outcomes = await asyncio.gather(*(create(admin, customer_name=str(n)) for n in range(6)), return_exceptions=True)

    errors = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert len(errors) == 5
    again = await refused(create(admin))
    assert (again.code, again.reason) == (grpc.StatusCode.ALREADY_EXISTS, "CUSTOMER_EXISTS")
    assert again.metadata == {"global_customer_id": "district"}


async def test_repeated_create_answers_the_same_customer(admin: Client) -> None:
    made = await asyncio.gather(*(create(admin, state="WA", request_id="once") for _ in range(5)))

    reused = await refused(create(admin, state="OR", request_id="once"))

    assert all(each == made[0] for each in made)
    assert reused.reason == "REQUEST_ID_REUSED"


async def test_customer_made_by_a_messaging_service_is_completed(admin: Client, db: Database) -> None:
    await make_messaging_service(db, global_customer_id="district")

    before = await get(admin)
    after = await update(admin, state="WA", number_pool="k12")

    assert (before.number_pool, before.HasField("state")) == ("dedicated", False)
    assert (after.id, after.number_pool, after.state) == (before.id, "k12", "WA")


async def test_changes_at_once_are_all_kept(admin: Client) -> None:
    await create(admin)

    await asyncio.gather(
        update(admin, customer_name="Lakeside"),
        update(admin, state="WA"),
        update(admin, business_profile_sid="BU1"),
        update(admin, shaken_stir_product_sid="BU2"),
    )

    after = await get(admin)
    assert (after.customer_name, after.state) == ("Lakeside", "WA")
    assert (after.business_profile_sid, after.shaken_stir_product_sid) == ("BU1", "BU2")


async def test_list_pages_hold_every_customer_once_oldest_first(admin: Client) -> None:
    made = [await create(admin, f"customer-{n}") for n in range(5)]

    seen: list[customer_pb2.Customer] = []
    token = ""
    while True:
        page = await listed(admin, page_size=2, page_token=token)
        seen += page.customers
        token = page.next_page_token
        if not token:
            break

    assert seen == made


async def test_empty_list(admin: Client) -> None:
    assert await listed(admin) == pb.AdminListCustomersResponse()


@pytest.mark.parametrize("global_customer_id", ["", "nobody", "é"])
async def test_unknown_customer_is_not_found(admin: Client, global_customer_id: str) -> None:
    for call in (get(admin, global_customer_id), update(admin, global_customer_id, state="WA")):
        answer = await refused(call)
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "CUSTOMER_NOT_FOUND")
        assert answer.metadata == {"global_customer_id": global_customer_id}


async def test_id_that_no_row_can_hold_is_refused(admin: Client) -> None:
    for call in (get(admin, "a\0b"), update(admin, "a\0b", state="WA")):
        assert (await refused(call)).fields == ("global_customer_id",)


@pytest.mark.parametrize("bearer_type", [BearerType.APPLICATION, BearerType.USER])
async def test_customers_are_for_admins_alone(client_of: MakeClient, bearer_type: BearerType) -> None:
    caller = await client_of(bearer_type)

    for call in (create(caller), update(caller, state="WA"), get(caller), listed(caller)):
        answer = await refused(call)
        assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
