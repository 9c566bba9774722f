"""Messaging services: a customer's sending identity and its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts import bearers
from server.db import violated_constraint
from server.errors import AlreadyExists, FieldViolation, InvalidArgument, NotFound
from server.numbers import customers, twilio_numbers
from server.numbers.tables import CustomerRow, MessagingServiceRow, TwilioNumberRow
from server.numbers.twilio_numbers import NumberChange
from server.paging import Page

# What a messaging service can be looked up by, besides its uuid.
LookupField = Literal["twilio_messaging_sid", "bandwidth_messaging_sid", "global_customer_id", "name"]

DEFAULT_PROVIDER = "twilio"

# The sid without which a provider cannot send for the service.
SID_FIELDS = {"twilio": "twilio_messaging_sid", "bandwidth": "bandwidth_messaging_sid"}

_UNIQUE_FIELDS = {
    "uq_messaging_services_name": "name",
    "uq_messaging_services_twilio_messaging_sid": "twilio_messaging_sid",
    "uq_messaging_services_bandwidth_messaging_sid": "bandwidth_messaging_sid",
}

_LOOKUPS = {
    "twilio_messaging_sid": MessagingServiceRow.twilio_messaging_sid,
    "bandwidth_messaging_sid": MessagingServiceRow.bandwidth_messaging_sid,
    "global_customer_id": CustomerRow.global_customer_id,
    "name": MessagingServiceRow.name,
}


class MessagingServiceNotFound(NotFound):
    """No such messaging service."""

    reason = "MESSAGING_SERVICE_NOT_FOUND"

    def __init__(self, **named: str) -> None:
        super().__init__(f"no messaging service {', '.join(named.values())}", **named)


class MessagingServiceExists(AlreadyExists):
    """Another messaging service has this name or sid."""

    reason = "MESSAGING_SERVICE_EXISTS"

    def __init__(self, field: str) -> None:
        super().__init__(f"another messaging service has this {field}", field=field)


@dataclass(frozen=True)
class MessagingService:
    """A messaging service with its customer and its numbers in the order of preference."""

    row: MessagingServiceRow
    customer: CustomerRow
    numbers: Sequence[TwilioNumberRow]


def sid_missing(provider: str) -> FieldViolation:
    """What is said of a messaging service without the sid that its provider needs."""
    unless = "" if provider == DEFAULT_PROVIDER else f" where provider is {provider}"
    return FieldViolation(SID_FIELDS[provider], f"is required{unless}")


async def create_messaging_service(
    tx: AsyncSession,
    *,
    name: str,
    global_customer_id: str,
    twilio_messaging_sid: str | None,
    bandwidth_messaging_sid: str | None = None,
    provider: str = DEFAULT_PROVIDER,
    is_k12_pool: bool = False,
    bearer_id: int | None = None,
    phone_numbers: Sequence[str] = (),
) -> MessagingService:
    """A new messaging service of a customer, who is made if new, with its numbers: all or nothing."""
    await tx.execute(text(twilio_numbers.LOCK))
    if bearer_id is not None:
        await bearers.get_bearer(tx, bearer_id=bearer_id, lock=True)
    customer = await customers.find_or_make_customer(tx, global_customer_id)
    row = MessagingServiceRow(
        customer_id=customer.id,
        name=name,
        provider=provider,
        twilio_messaging_sid=twilio_messaging_sid,
        bandwidth_messaging_sid=bandwidth_messaging_sid,
        is_k12_pool=is_k12_pool,
        bearer_id=bearer_id,
    )
    tx.add(row)
    await _flush(tx)
    await tx.refresh(row)
    await twilio_numbers.add_numbers(tx, messaging_service_id=row.id, phone_numbers=phone_numbers)
    return await _with_parts(tx, row)


async def update_messaging_service(
    tx: AsyncSession,
    *,
    uuid: UUID,
    changes: Mapping[str, str | bool],
    bearer_id: int | None,
    global_customer_id: str | None,
    number_changes: Sequence[NumberChange],
) -> MessagingService:
    """Set the given fields (`changes` are named as in the API); the others stay. All or nothing."""
    await tx.execute(text(twilio_numbers.LOCK))
    # Locked, yet free to be named by new rows, such as messages.
    query = select(MessagingServiceRow).where(MessagingServiceRow.uuid == uuid)
    row = await tx.scalar(query.with_for_update(key_share=True))
    if row is None:
        raise MessagingServiceNotFound(messaging_service_uuid=str(uuid))
    provider_before = row.provider
    # A query writes what was changed before it: these come first, so that what is taken is refused by `_flush`.
    if bearer_id is not None:
        row.bearer_id = (await bearers.get_bearer(tx, bearer_id=bearer_id, lock=True)).id
    if global_customer_id is not None:
        row.customer_id = (await customers.find_or_make_customer(tx, global_customer_id)).id
    for name, value in changes.items():
        setattr(row, name, value)
    if getattr(row, SID_FIELDS[row.provider]) is None:
        raise InvalidArgument([sid_missing(row.provider)])
    await _flush(tx)
    if row.provider != provider_before:
        # What the account of the one provider had or lacked says nothing of the other's.
        numbers = update(TwilioNumberRow).where(TwilioNumberRow.messaging_service_id == row.id)
        await tx.execute(numbers.values(released_at=None))
    await twilio_numbers.change_numbers(tx, messaging_service_id=row.id, changes=number_changes)
    return await _with_parts(tx, row)


async def get_messaging_service(tx: AsyncSession, *, uuid: UUID) -> MessagingService:
    """One messaging service."""
    row = await tx.scalar(select(MessagingServiceRow).where(MessagingServiceRow.uuid == uuid))
    if row is None:
        raise MessagingServiceNotFound(messaging_service_uuid=str(uuid))
    return await _with_parts(tx, row)


async def find_messaging_service(tx: AsyncSession, *, field: LookupField, value: str) -> MessagingService:
    """The messaging service with this value; the oldest, where a customer has several."""
    query = (
        select(MessagingServiceRow)
        .join(CustomerRow, CustomerRow.id == MessagingServiceRow.customer_id)
        .where(_LOOKUPS[field] == value)
    )
    row = await tx.scalar(query.order_by(MessagingServiceRow.id).limit(1))
    if row is None:
        raise MessagingServiceNotFound(**{field: value})
    return await _with_parts(tx, row)


async def list_messaging_services(tx: AsyncSession, *, page: Page) -> tuple[Sequence[MessagingService], str]:
    """A page of messaging services, oldest first."""
    query = select(MessagingServiceRow).order_by(MessagingServiceRow.id).limit(page.limit)
    if page.after_id is not None:
        query = query.where(MessagingServiceRow.id > page.after_id)
    rows, next_page_token = page.cut((await tx.scalars(query)).all())
    return await _complete(tx, rows), next_page_token


async def _flush(tx: AsyncSession) -> None:
    """Write what changed. A name or sid that another service has is refused by its constraint, whoever came first."""
    try:
        await tx.flush()
    except IntegrityError as error:
        field = _UNIQUE_FIELDS.get(violated_constraint(error) or "")
        if field is None:
            raise
        raise MessagingServiceExists(field) from error


async def _with_parts(tx: AsyncSession, row: MessagingServiceRow) -> MessagingService:
    [messaging_service] = await _complete(tx, [row])
    return messaging_service


async def _complete(tx: AsyncSession, rows: Sequence[MessagingServiceRow]) -> list[MessagingService]:
    """The services with their customers and numbers, two queries for all of them."""
    customers_of_rows = select(CustomerRow).where(CustomerRow.id.in_({row.customer_id for row in rows}))
    customer_by_id = {customer.id: customer for customer in await tx.scalars(customers_of_rows)}
    numbers: dict[int | None, list[TwilioNumberRow]] = {row.id: [] for row in rows}
    for number in await tx.scalars(
        select(TwilioNumberRow).where(TwilioNumberRow.messaging_service_id.in_(numbers)).order_by(TwilioNumberRow.id)
    ):
        numbers[number.messaging_service_id].append(number)
    return [MessagingService(row, customer_by_id[row.customer_id], numbers[row.id]) for row in rows]
