"""gRPC handlers of customers."""

from typing import Any

import grpc.aio
from commonservices.v1 import customer_pb2, customer_service_pb2, customer_service_pb2_grpc
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database
from server.encryption import Cipher
from server.numbers import convert, customers
from server.numbers.states import STATES
from server.paging import Page
from server.rpc import answers
from server.rpc.creates import Creates
from server.validation import FieldChecks, check, checking

Context = grpc.aio.ServicerContext[Any, Any]
Written = customer_service_pb2.AdminCreateCustomerRequest | customer_service_pb2.AdminUpdateCustomerRequest

_IDENTITIES = ("customer_name", "business_profile_sid", "shaken_stir_product_sid")
_FIELDS = (*_IDENTITIES, "state", "number_pool")


class CustomerService(customer_service_pb2_grpc.CustomerServiceServicer):
    """Customers, which are for Admins alone."""

    def __init__(self, db: Database, cipher: Cipher) -> None:
        self._db = db
        self._creates = Creates(db, cipher)

    async def AdminCreateCustomer(
        self, request: customer_service_pb2.AdminCreateCustomerRequest, context: Context
    ) -> customer_pb2.Customer:
        with checking(request) as bad:
            bad.identities(request, "global_customer_id")
            values = _given(request, bad)
            if request.number_pool == customers.K12 and not request.state:
                bad.add(customers.STATE_MISSING.field, customers.STATE_MISSING.description)

        async def create(tx: AsyncSession) -> customer_pb2.Customer:
            return convert.customer_to_proto(
                await customers.create_customer(tx, global_customer_id=request.global_customer_id, values=values)
            )

        return await self._creates.run(request, context, customer_pb2.Customer, create)

    async def AdminListCustomers(
        self, request: customer_service_pb2.AdminListCustomersRequest, context: Context
    ) -> customer_service_pb2.AdminListCustomersResponse:
        check(request)
        async with self._db.begin() as tx:
            rows, next_page_token = await customers.list_customers(tx, page=Page(request))
        await answers.paged(context, request, next_page_token)
        return customer_service_pb2.AdminListCustomersResponse(
            customers=[convert.customer_to_proto(row) for row in rows], next_page_token=next_page_token
        )

    async def AdminGetCustomer(
        self, request: customer_service_pb2.AdminGetCustomerRequest, context: Context
    ) -> customer_pb2.Customer:
        check(request)
        async with self._db.begin() as tx:
            return convert.customer_to_proto(
                await customers.get_customer(tx, global_customer_id=request.global_customer_id)
            )

    async def AdminUpdateCustomer(
        self, request: customer_service_pb2.AdminUpdateCustomerRequest, context: Context
    ) -> customer_pb2.Customer:
        with checking(request) as bad:
            changes = _given(request, bad)
        async with self._db.begin() as tx:
            return convert.customer_to_proto(
                await customers.update_customer(tx, global_customer_id=request.global_customer_id, changes=changes)
            )


def _given(request: Written, bad: FieldChecks) -> dict[str, str]:
    """The fields that are given, named as in the API, the state in capitals."""
    bad.identities(request, *_IDENTITIES)
    given = {name: value for name in _FIELDS if (value := getattr(request, name))}
    if "state" in given:
        given["state"] = given["state"].upper()
        if given["state"] not in STATES:
            bad.add("state", "is not the postal abbreviation of a US state, such as WA")
    return given
