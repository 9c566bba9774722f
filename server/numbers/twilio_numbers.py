"""Our phone numbers: how they come into messaging services and leave them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from server.errors import AlreadyExists, FieldViolation, InvalidArgument, NotFound
from server.numbers.states import state_of
from server.numbers.tables import TwilioNumberRow

# The advisory lock of whoever changes which number or name belongs to which messaging service. Several numbers, names
# and sids in one transaction, in any order, would otherwise end in deadlocks.
LOCK = "SELECT pg_advisory_xact_lock(x'6e756d62657273'::bigint)"

# Numbers come in the order given, which is the order of preference; those that another service has are not answered.
_ADD = """
INSERT INTO twilio_numbers (messaging_service_id, phone_number, state_code)
SELECT :messaging_service_id, phone_number, state_code
FROM unnest(CAST(:phone_numbers AS text[]), CAST(:state_codes AS text[]))
     WITH ORDINALITY AS given (phone_number, state_code, place)
ORDER BY place
ON CONFLICT (phone_number) DO UPDATE
SET messaging_service_id = excluded.messaging_service_id, state_code = excluded.state_code, released_at = NULL
WHERE twilio_numbers.messaging_service_id IS NULL
RETURNING phone_number
"""

# Pairings are conversations', which are above numbers; that one exists is a fact of the number.
_PAIRED = "SELECT twilio_number FROM pairings WHERE twilio_number = ANY(:phone_numbers) ORDER BY 1 LIMIT 1"


class PhoneNumberTaken(AlreadyExists):
    """Another messaging service has this number."""

    reason = "PHONE_NUMBER_TAKEN"

    def __init__(self, phone_number: str) -> None:
        super().__init__(f"{phone_number} belongs to a messaging service already", phone_number=phone_number)


class PhoneNumberNotFound(NotFound):
    """The messaging service has no such number."""

    reason = "PHONE_NUMBER_NOT_FOUND"

    def __init__(self, **named: str) -> None:
        super().__init__(f"the messaging service has no number {', '.join(named.values())}", **named)


class PhoneNumberInUse(AlreadyExists):
    """The number is paired with a contact, who could not be answered from it any more."""

    reason = "PHONE_NUMBER_PAIRED"

    def __init__(self, phone_number: str) -> None:
        super().__init__(
            f"{phone_number} is paired with a contact; deactivate its pairings first", phone_number=phone_number
        )


@dataclass(frozen=True)
class NumberChange:
    """A number to add to a messaging service, or one of its own, by id or number, to keep or to take out."""

    # Where the request says so.
    field: str
    number_id: int | None
    phone_number: str | None
    takes_out: bool


async def add_numbers(tx: AsyncSession, *, messaging_service_id: int, phone_numbers: Sequence[str]) -> None:
    """Put numbers into a messaging service, new ones and those that are in none; the caller holds LOCK."""
    parameters = {
        "messaging_service_id": messaging_service_id,
        "phone_numbers": list(phone_numbers),
        "state_codes": [state_of(phone_number) for phone_number in phone_numbers],
    }
    added = set((await tx.scalars(text(_ADD), parameters)).all())
    for phone_number in phone_numbers:
        if phone_number not in added:
            raise PhoneNumberTaken(phone_number)


async def change_numbers(tx: AsyncSession, *, messaging_service_id: int, changes: Sequence[NumberChange]) -> None:
    """Add and take out numbers of a messaging service; the caller holds LOCK. A number that is taken out stays ours."""
    rows = (
        await tx.scalars(select(TwilioNumberRow).where(TwilioNumberRow.messaging_service_id == messaging_service_id))
    ).all()
    by_id = {row.id: row for row in rows}
    by_number = {row.phone_number: row for row in rows}
    seen: set[str] = set()
    added: list[str] = []
    taken_out: list[TwilioNumberRow] = []
    for change in changes:
        row = _named(change, by_id, by_number)
        phone_number = change.phone_number if row is None else row.phone_number
        assert phone_number is not None, "what names no row of the service is a number to add"
        if phone_number in seen:
            raise InvalidArgument([FieldViolation(change.field, "is given twice")])
        seen.add(phone_number)
        if row is None:
            added.append(phone_number)
        elif change.takes_out:
            taken_out.append(row)
    await _take_out(tx, taken_out)
    await add_numbers(tx, messaging_service_id=messaging_service_id, phone_numbers=added)


def _named(
    change: NumberChange, by_id: dict[int, TwilioNumberRow], by_number: dict[str, TwilioNumberRow]
) -> TwilioNumberRow | None:
    """The service's row that a change names, None for a number to add."""
    if change.number_id is None:
        row = by_number.get(change.phone_number or "")
        if row is None and change.takes_out:
            raise PhoneNumberNotFound(phone_number=change.phone_number or "")
        return row
    row = by_id.get(change.number_id)
    if row is None:
        raise PhoneNumberNotFound(twilio_number_id=str(change.number_id))
    if change.phone_number not in (None, row.phone_number):
        raise InvalidArgument([FieldViolation(f"{change.field}.phone_number", "is not the number with this id")])
    return row


async def _take_out(tx: AsyncSession, rows: Sequence[TwilioNumberRow]) -> None:
    paired = await tx.scalar(text(_PAIRED), {"phone_numbers": [row.phone_number for row in rows]})
    if paired is not None:
        raise PhoneNumberInUse(paired)
    for row in rows:
        row.messaging_service_id = None
    await tx.flush()
