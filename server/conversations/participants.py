"""Participants: who is in a conversation, and the pairing that brings what a contact writes into it.

Everything that changes a participant holds its row first, and whoever pairs contacts holds them all before the first
pairing is written: nobody who waits for a pairing is waited for. Before all of them it holds their bearer, whose end
takes every pairing with it: one that is over is not paired any more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, delete, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts import bearers
from server.conversations import queries
from server.conversations.drafts import CONTACT, MOST_PARTICIPANTS, ConversationDraft, ParticipantDraft
from server.conversations.tables import ConversationRow, PairingRow, ParticipantRow
from server.errors import FieldViolation, InvalidArgument, NotFound, Unavailable
from server.numbers import opt_outs, selection
from server.numbers.selection import NoSenderNumber, NumberPoolExhausted, PhoneNumberPaired, SenderNumberNotOwned
from server.numbers.tables import TwilioNumberRow

# What a contact is written to from: its number, for the service of that, else for the conversation's.
_OPTED_OUT_AT = opt_outs.opted_out_at(
    number="participants.twilio_number",
    service="coalesce(twilio_numbers.messaging_service_id, conversations.messaging_service_id)",
    contact=f"CASE participants.role WHEN '{CONTACT}' THEN participants.phone_number END",
)

# How often a number is chosen anew because a message took the one before for its own conversation.
_TRIES = 10


class ParticipantNotFound(NotFound):
    """The conversation has no contact with this number."""

    reason = "PARTICIPANT_NOT_FOUND"

    def __init__(self, phone_number: str) -> None:
        super().__init__(f"the conversation has no contact {phone_number}", phone_number=phone_number)


@dataclass(frozen=True)
class Participant:
    """A participant with its conversation, and since when it takes no messages of what it is written to from."""

    row: ParticipantRow
    conversation: ConversationRow
    opted_out_at: datetime | None


async def participants_of(tx: AsyncSession, conversation_ids: Sequence[int]) -> list[Participant]:
    """The participants of these conversations in the order of joining, as they are stored now."""
    query = (
        select(ParticipantRow, ConversationRow, literal_column(_OPTED_OUT_AT, DateTime(timezone=True)))
        .join(ConversationRow, ConversationRow.id == ParticipantRow.conversation_id)
        .outerjoin(TwilioNumberRow, TwilioNumberRow.phone_number == ParticipantRow.twilio_number)
        .where(ParticipantRow.conversation_id.in_(conversation_ids))
        .order_by(ParticipantRow.id)
        .execution_options(populate_existing=True)
    )
    return [Participant(*found) for found in await tx.execute(query)]


async def lock_contacts(tx: AsyncSession, draft: ConversationDraft) -> None:
    """Exclude others who pair these contacts until the transaction ends.

    To be asked for before a conversation is made or held: who had that first would wait for whoever waits for them.
    """
    numbers = draft.contact_numbers
    if numbers:
        connection = await tx.connection()
        await connection.exec_driver_sql(selection.LOCK_CONTACT, [{"receiver_number": number} for number in numbers])


async def add_participants(tx: AsyncSession, *, conversation: ConversationRow, draft: ConversationDraft) -> None:
    """Have everybody who is given in the conversation, the contacts paired as far as there is what to send from.

    Its contacts are locked. Raises InvalidArgument where somebody cannot be told from those who are in it.
    """
    is_live = await bearers.hold_live(tx, bearer_id=conversation.bearer_id)
    present = await _locked(tx, conversation.id)
    matched = list(_matched(present, draft.participants))
    new = [given for given, row in zip(draft.participants, matched, strict=True) if row is None]
    # Messages bring contacts in beyond that: who adds nobody is not refused for it.
    if new and len(present) + len(new) > MOST_PARTICIPANTS:
        description = f"a conversation has at most {MOST_PARTICIPANTS}"
        raise InvalidArgument([FieldViolation("conversation.participants", description)])
    if new:
        # A message may have brought one of them in meanwhile.
        await tx.execute(
            insert(ParticipantRow)
            .values([{**_known_by(given), "conversation_id": conversation.id} for given in new])
            .on_conflict_do_nothing()
        )
        matched = list(_matched(await _locked(tx, conversation.id), draft.participants))
    has_sender = bool(draft.sender_number or draft.named_service or conversation.messaging_service_id)
    for given, row in zip(draft.participants, matched, strict=True):
        assert row is not None, "it was inserted, or is in the way of that"
        await _change(tx, row, given)
        is_paired = row.twilio_number is not None and row.pairing_deactivated_at is None
        is_to_be_paired = (not is_paired or draft.sender_number) and (has_sender or row.twilio_number)
        if is_live and row.role == CONTACT and is_to_be_paired:
            await _pair(tx, row, draft)


async def deactivate_pairing(tx: AsyncSession, *, conversation: ConversationRow, phone_number: str) -> Participant:
    """End the contact's pairings; when that was is told once for all. Its number is tried first when it comes back."""
    row = await tx.scalar(
        select(ParticipantRow)
        .where(
            ParticipantRow.conversation_id == conversation.id,
            ParticipantRow.role == CONTACT,
            ParticipantRow.phone_number == phone_number,
        )
        .with_for_update(key_share=True)
    )
    if row is None:
        raise ParticipantNotFound(phone_number)
    await tx.execute(delete(PairingRow).where(PairingRow.participant_id == row.id))
    if row.pairing_deactivated_at is None:
        row.pairing_deactivated_at = func.now()
        row.updated_at = func.now()
        await tx.flush()
    [participant] = [p for p in await participants_of(tx, [conversation.id]) if p.row.id == row.id]
    return participant


async def end_pairings_of_bearer(tx: AsyncSession, bearer_id: int) -> None:
    """Deactivate every pairing of a bearer's conversations: others may use the numbers, and what contacts write to
    them is an unknown sender's. The bearer's row is held FOR UPDATE: nobody else is pairing."""
    connection = await tx.connection()
    for statement in (queries.HOLD_CONTACTS_OF_BEARER, queries.END_PAIRINGS_OF_BEARER):
        await connection.exec_driver_sql(statement, {"bearer_id": bearer_id})


async def _locked(tx: AsyncSession, conversation_id: int) -> Sequence[ParticipantRow]:
    """Who is in the conversation; nobody else changes them or their pairings until the transaction ends."""
    query = (
        select(ParticipantRow)
        .where(ParticipantRow.conversation_id == conversation_id)
        .order_by(ParticipantRow.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return (await tx.scalars(query)).all()


def _matched(
    present: Sequence[ParticipantRow], participants: Sequence[ParticipantDraft]
) -> Iterator[ParticipantRow | None]:
    """Of everybody who is given the one they are already: of the same role, with the same number or the same id."""
    by_value: dict[tuple[str, str, str | None], ParticipantRow] = {
        (row.role, name, value): row
        for row in present
        for name, value in (("phone_number", row.phone_number), ("client_participant_id", row.client_participant_id))
        if value is not None
    }
    taken: set[int] = set()
    for given in participants:
        by_number = by_value.get((given.role, "phone_number", given.phone_number))
        by_id = by_value.get((given.role, "client_participant_id", given.client_participant_id))
        row = by_number or by_id
        if row is not None and (row.id in taken or by_id not in (None, row)):
            description = "is another participant's"
            raise InvalidArgument([FieldViolation(f"{given.field}.client_participant_id", description)])
        if row is not None:
            taken.add(row.id)
        yield row


def _known_by(given: ParticipantDraft) -> dict[str, str | None]:
    return {
        "role": given.role,
        "phone_number": given.phone_number,
        "client_participant_id": given.client_participant_id,
    }


async def _change(tx: AsyncSession, row: ParticipantRow, given: ParticipantDraft) -> None:
    """Set what is given and differs. With another number a contact is not paired any more."""
    known_by = _known_by(given)
    changes: dict[str, Any] = {n: value for n, value in known_by.items() if value not in (None, getattr(row, n))}
    if not changes:
        return
    if row.role == CONTACT and "phone_number" in changes:
        await tx.execute(delete(PairingRow).where(PairingRow.participant_id == row.id))
        if row.twilio_number is not None and row.pairing_deactivated_at is None:
            changes["pairing_deactivated_at"] = func.now()
    for name, value in changes.items():
        setattr(row, name, value)
    row.updated_at = func.now()
    await tx.flush()
    await tx.refresh(row)


async def _pair(tx: AsyncSession, row: ParticipantRow, draft: ConversationDraft) -> None:
    """Pair the contact with the number that is named, else with the one the rules of `selection` choose."""
    assert row.phone_number is not None, "a contact has a number"
    connection = await tx.connection()
    parameters = {
        "participant_id": row.id,
        **selection.parameters(
            sender_number=draft.sender_number,
            receiver_number=row.phone_number,
            messaging_service_sid=draft.messaging_service_sid,
            global_customer_id=draft.global_customer_id,
        ),
    }
    for _ in range(_TRIES):
        found = (await connection.exec_driver_sql(queries.CHOOSE_NUMBER, parameters)).one()
        _check_number(found, row, draft)
        if found.paired_conversation_id is None:
            paired = await tx.scalar(
                insert(PairingRow)
                .values(
                    twilio_number=found.phone_number,
                    phone_number=row.phone_number,
                    participant_id=row.id,
                    conversation_id=row.conversation_id,
                )
                .on_conflict_do_nothing()
                .returning(PairingRow.participant_id)
            )
            if paired is None:
                continue
        row.twilio_number = found.phone_number
        row.pairing_deactivated_at = None
        row.updated_at = func.now()
        await tx.flush()
        return
    raise Unavailable("messages keep taking the numbers there are for this contact; try again")


def _check_number(found: Any, row: ParticipantRow, draft: ConversationDraft) -> None:
    """Raise unless there is a number, and it is not paired with the contact in another conversation."""
    assert row.phone_number is not None, "a contact has a number"
    if found.phone_number is None:
        if draft.sender_number is not None:
            raise SenderNumberNotOwned(draft.sender_number)
        if found.has_numbers:
            raise NumberPoolExhausted(row.phone_number)
        of_conversation = {"global_customer_id": found.global_customer_id} if found.global_customer_id else {}
        raise NoSenderNumber(draft.named_service or of_conversation, is_there=True)
    if found.paired_conversation_id not in (None, row.conversation_id):
        raise PhoneNumberPaired(found.phone_number)
