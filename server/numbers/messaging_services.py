"""Messaging services: a customer's sending identity and its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import violated_constraint
from server.errors import AlreadyExists, NotFound
from server.numbers.tables import CustomerRow, MessagingServiceRow, TwilioNumberRow
from server.paging import Page

_UNIQUE_FIELDS = {
    "uq_messaging_services_name": "name",
    "uq_messaging_services_twilio_messaging_sid": "twilio_messaging_sid",
    "uq_messaging_services_bandwidth_messaging_sid": "bandwidth_messaging_sid",
}


class MessagingServiceNotFound(NotFound):
    """No such messaging service."""

    reason = "MESSAGING_SERVICE_NOT_FOUND"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"no messaging service {uuid}", messaging_service_uuid=uuid)


class MessagingServiceExists(AlreadyExists):
    """Another messaging service has this name or sid."""

    reason = "MESSAGING_SERVICE_EXISTS"

    def __init__(self, field: str) -> None:
        super().__init__(f"another messaging service has this {field}", field=field)


class PhoneNumberTaken(AlreadyExists):
    """Another messaging service has this number."""

    reason = "PHONE_NUMBER_TAKEN"

    def __init__(self, phone_number: str) -> None:
        super().__init__(f"{phone_number} belongs to a messaging service already", phone_number=phone_number)


@dataclass(frozen=True)
class MessagingService:
    """A messaging service with its customer and its numbers in the order of preference."""

    row: MessagingServiceRow
    customer: CustomerRow
    numbers: Sequence[TwilioNumberRow]


async def create_messaging_service(
    tx: AsyncSession,
    *,
    name: str,
    global_customer_id: str,
    twilio_messaging_sid: str,
    bandwidth_messaging_sid: str | None,
    phone_numbers: Sequence[str],
) -> MessagingService:
    """A new messaging service of a customer, who is made if new, with its numbers: all or nothing."""
    customer = await _find_or_make_customer(tx, global_customer_id)
    row = MessagingServiceRow(
        customer_id=customer.id,
        name=name,
        twilio_messaging_sid=twilio_messaging_sid,
        bandwidth_messaging_sid=bandwidth_messaging_sid,
    )
    tx.add(row)
    try:
        await tx.flush()
    except IntegrityError as error:
        raise MessagingServiceExists(_UNIQUE_FIELDS[violated_constraint(error) or ""]) from error
    await tx.refresh(row)
    numbers = []
    for phone_number in phone_numbers:
        number_id = await tx.scalar(
            insert(TwilioNumberRow)
            .values(messaging_service_id=row.id, phone_number=phone_number)
            .on_conflict_do_nothing(index_elements=[TwilioNumberRow.phone_number])
            .returning(TwilioNumberRow.id)
        )
        if number_id is None:
            raise PhoneNumberTaken(phone_number)
        numbers.append(await tx.get_one(TwilioNumberRow, number_id))
    return MessagingService(row, customer, numbers)


async def get_messaging_service(tx: AsyncSession, *, uuid: UUID) -> MessagingService:
    """One messaging service."""
    row = await tx.scalar(select(MessagingServiceRow).where(MessagingServiceRow.uuid == uuid))
    if row is None:
        raise MessagingServiceNotFound(str(uuid))
    [messaging_service] = await _complete(tx, [row])
    return messaging_service


async def list_messaging_services(tx: AsyncSession, *, page: Page) -> tuple[Sequence[MessagingService], str]:
    """A page of messaging services, oldest first."""
    query = select(MessagingServiceRow).order_by(MessagingServiceRow.id).limit(page.limit)
    if page.after_id is not None:
        query = query.where(MessagingServiceRow.id > page.after_id)
    rows, next_page_token = page.cut((await tx.scalars(query)).all())
    return await _complete(tx, rows), next_page_token


async def _find_or_make_customer(tx: AsyncSession, global_customer_id: str) -> CustomerRow:
    await tx.execute(insert(CustomerRow).values(global_customer_id=global_customer_id).on_conflict_do_nothing())
    found = await tx.scalars(select(CustomerRow).where(CustomerRow.global_customer_id == global_customer_id))
    return found.one()


async def _complete(tx: AsyncSession, rows: Sequence[MessagingServiceRow]) -> list[MessagingService]:
    """The services with their customers and numbers, two queries for all of them."""
    customers = await tx.scalars(select(CustomerRow).where(CustomerRow.id.in_({row.customer_id for row in rows})))
    customer_by_id = {customer.id: customer for customer in customers}
    numbers: dict[int, list[TwilioNumberRow]] = {row.id: [] for row in rows}
    for number in await tx.scalars(
        select(TwilioNumberRow).where(TwilioNumberRow.messaging_service_id.in_(numbers)).order_by(TwilioNumberRow.id)
    ):
        numbers[number.messaging_service_id].append(number)
    return [MessagingService(row, customer_by_id[row.customer_id], numbers[row.id]) for row in rows]
