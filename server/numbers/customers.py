"""Customers: whom messages are sent for, and which numbers they may send from."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import violated_constraint
from server.errors import AlreadyExists, FieldViolation, InvalidArgument, NotFound
from server.numbers.tables import CustomerRow
from server.paging import Page

K12 = "k12"

# What is said of a customer that would send from the pool of no state.
STATE_MISSING = FieldViolation("state", "is required where number_pool is k12")


class CustomerNotFound(NotFound):
    """No such customer."""

    reason = "CUSTOMER_NOT_FOUND"

    def __init__(self, global_customer_id: str) -> None:
        super().__init__(f"no customer {global_customer_id}", global_customer_id=global_customer_id)


class CustomerExists(AlreadyExists):
    """Another customer has this id."""

    reason = "CUSTOMER_EXISTS"

    def __init__(self, global_customer_id: str) -> None:
        super().__init__(f"there is a customer {global_customer_id}", global_customer_id=global_customer_id)


async def create_customer(tx: AsyncSession, *, global_customer_id: str, values: Mapping[str, str]) -> CustomerRow:
    """A new customer with these fields, named as in the API; the others have their defaults."""
    row = CustomerRow(global_customer_id=global_customer_id, **values)
    tx.add(row)
    try:
        await tx.flush()
    except IntegrityError as error:
        if violated_constraint(error) != "uq_customers_global_customer_id":
            raise
        raise CustomerExists(global_customer_id) from error
    await tx.refresh(row)
    return row


async def get_customer(tx: AsyncSession, *, global_customer_id: str, lock: bool = False) -> CustomerRow:
    """A customer; locked until the transaction ends where it is about to change, yet free to be named by new rows."""
    query = select(CustomerRow).where(CustomerRow.global_customer_id == global_customer_id)
    row = await tx.scalar(query.with_for_update(key_share=True) if lock else query)
    if row is None:
        raise CustomerNotFound(global_customer_id)
    return row


async def find_or_make_customer(tx: AsyncSession, global_customer_id: str) -> CustomerRow:
    """The customer with this id, who is made, dedicated and without a state, if there is none."""
    await tx.execute(insert(CustomerRow).values(global_customer_id=global_customer_id).on_conflict_do_nothing())
    return await get_customer(tx, global_customer_id=global_customer_id)


async def list_customers(tx: AsyncSession, *, page: Page) -> tuple[Sequence[CustomerRow], str]:
    """A page of customers, oldest first."""
    query = select(CustomerRow).order_by(CustomerRow.id).limit(page.limit)
    if page.after_id is not None:
        query = query.where(CustomerRow.id > page.after_id)
    return page.cut((await tx.scalars(query)).all())


async def update_customer(tx: AsyncSession, *, global_customer_id: str, changes: Mapping[str, str]) -> CustomerRow:
    """Set the given fields (named as in the API); the others stay. InvalidArgument where k12 would have no state."""
    row = await get_customer(tx, global_customer_id=global_customer_id, lock=True)
    for name, value in changes.items():
        setattr(row, name, value)
    if row.number_pool == K12 and row.state is None:
        raise InvalidArgument([STATE_MISSING])
    row.updated_at = func.now()
    await tx.flush()
    await tx.refresh(row)
    return row
