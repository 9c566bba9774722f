"""Conversations: made, read and changed by their bearer, under any of their four ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.tables import BearerRow
from server.caller import Caller
from server.conversations import participants, queries
from server.conversations.drafts import ConversationDraft
from server.conversations.keys import ConversationKey, ConversationNotFound
from server.conversations.participants import Participant
from server.conversations.tables import ConversationRow, ParticipantRow
from server.db import violated_constraint
from server.errors import AlreadyExists, Unavailable
from server.numbers.selection import NoSenderNumber, SenderNumberNotOwned
from server.numbers.tables import CustomerRow, MessagingServiceRow
from server.paging import Page

# Of the conversations of a page together. A thousand full conversations would be tens of megabytes in one answer.
_MOST_PARTICIPANTS_OF_A_PAGE = 5000

_CLIENT_ID_IS_UNIQUE = "uq_conversations_bearer_id_client_conversation_id"

# How often a conversation is looked for anew because another create made it meanwhile.
_TRIES = 10


class ConversationExists(AlreadyExists):
    """The bearer has a conversation with this id."""

    reason = "CONVERSATION_EXISTS"

    def __init__(self, client_conversation_id: str) -> None:
        super().__init__(
            f"there is a conversation with client_conversation_id {client_conversation_id}",
            client_conversation_id=client_conversation_id,
        )


@dataclass(frozen=True)
class Conversation:
    """A conversation with what it sends from and who is in it, in the order of joining."""

    row: ConversationRow
    messaging_service_uuid: UUID | None
    global_customer_id: str | None
    participants: Sequence[Participant]


async def create_conversation(tx: AsyncSession, *, caller: Caller, draft: ConversationDraft) -> Conversation:
    """A new conversation of the caller's, its contacts paired where it says what to send from: all or nothing."""
    service_id = await find_service(tx, draft, conversation=None)
    await participants.lock_contacts(tx, draft)
    row = ConversationRow(
        bearer_id=caller.bearer_id,
        client_conversation_id=draft.client_conversation_id,
        callback_url=draft.callback_url,
        messaging_service_id=service_id,
    )
    tx.add(row)
    await _flush(tx, draft)
    await participants.add_participants(tx, conversation=row, draft=draft)
    return await _get(tx, row)


async def get_conversation(tx: AsyncSession, *, caller: Caller, key: ConversationKey) -> Conversation:
    """A conversation of the caller's; any for an Admin, but its own by the id that is unique for one bearer only."""
    return await _get(tx, await find_conversation(tx, caller=caller, key=key))


async def list_conversations(tx: AsyncSession, *, caller: Caller, page: Page) -> tuple[Sequence[Conversation], str]:
    """A page of the caller's conversations, everybody's for an Admin, newest first; fewer where they are large."""
    query = select(ConversationRow).order_by(ConversationRow.id.desc()).limit(page.limit)
    if caller.owner_id is not None:
        query = query.where(ConversationRow.bearer_id == caller.owner_id)
    if page.after_id is not None:
        query = query.where(ConversationRow.id < page.after_id)
    found = (await tx.scalars(query)).all()
    rows, next_page_token = page.cut(found, at_most=await _fitting(tx, found))
    return await _complete(tx, rows), next_page_token


async def update_conversation(
    tx: AsyncSession, *, caller: Caller, key: ConversationKey, draft: ConversationDraft
) -> Conversation:
    """Set what is given, and have the participants that are given in it and paired: all or nothing."""
    await participants.lock_contacts(tx, draft)
    row = await find_conversation(tx, caller=caller, key=key, lock=True)
    service_id = await find_service(tx, draft, conversation=row)
    await participants.add_participants(tx, conversation=row, draft=draft)
    # Last, because another client_conversation_id excludes messages to the conversation, and those that have a
    # participant or a pairing of it in hand would be waited for.
    row.client_conversation_id = draft.client_conversation_id or row.client_conversation_id
    row.callback_url = draft.callback_url or row.callback_url
    row.messaging_service_id = service_id
    row.updated_at = func.now()
    await _flush(tx, draft)
    return await _get(tx, row)


async def find_conversation(
    tx: AsyncSession, *, caller: Caller, key: ConversationKey, lock: bool = False
) -> ConversationRow:
    """The conversation of a key; locked until the transaction ends where it is about to change."""
    query = select(ConversationRow).where(getattr(ConversationRow, key.name) == key.parameter())
    owner_id = caller.bearer_id if key.name == "client_conversation_id" else caller.owner_id
    if owner_id is not None:
        query = query.where(ConversationRow.bearer_id == owner_id)
    row = await tx.scalar(query.with_for_update(key_share=True) if lock else query)
    if row is None:
        raise ConversationNotFound(key)
    return row


async def find_or_make_conversation(
    tx: AsyncSession, *, caller: Caller, key: ConversationKey, callback_url: str | None
) -> ConversationRow:
    """The caller's own conversation of a key, for something new to belong to.

    One that is named by its id in the caller's system is made where there is none, with this callback_url.
    """
    column = getattr(ConversationRow, key.name)
    query = select(ConversationRow).where(ConversationRow.bearer_id == caller.bearer_id, column == key.parameter())
    made = (
        insert(ConversationRow)
        .values(bearer_id=caller.bearer_id, client_conversation_id=key.value, callback_url=callback_url)
        .on_conflict_do_nothing(index_elements=["bearer_id", "client_conversation_id"])
        .returning(ConversationRow)
    )
    for _ in range(_TRIES):
        row = await tx.scalar(query)
        if row is not None:
            return row
        if key.name != "client_conversation_id":
            raise ConversationNotFound(key)
        row = await tx.scalar(made)
        if row is not None:
            return row
    raise Unavailable("the conversation keeps being made and renamed; try again")


async def callback_url_of(
    tx: AsyncSession, *, bearer_id: int, conversation: ConversationRow | None, given: str | None
) -> str | None:
    """Where the events of something new go: where it says, else where its conversation's, else its bearer's do."""
    of_conversation = conversation.callback_url if conversation is not None else None
    query = select(BearerRow.callback_url).where(BearerRow.id == bearer_id)
    return given or of_conversation or await tx.scalar(query)


async def find_service(
    tx: AsyncSession, draft: ConversationDraft, *, conversation: ConversationRow | None
) -> int | None:
    """The id of the messaging service that is named, else of the conversation's, else of the sender number's.

    Raises NoSenderNumber or SenderNumberNotOwned where there is no such service, or the number is not one of it.
    """
    connection = await tx.connection()
    parameters = {
        "conversation_id": conversation.id if conversation else None,
        "service_id": conversation.messaging_service_id if conversation else None,
        "sender_number": draft.sender_number,
        "messaging_service_sid": draft.messaging_service_sid,
        "global_customer_id": draft.global_customer_id,
    }
    found = (await connection.exec_driver_sql(queries.FIND_SERVICE, parameters)).one()
    service_id: int | None = found.service_id
    named = draft.named_service
    is_named = not named or (service_id is not None and draft.global_customer_id in (None, found.global_customer_id))
    if draft.sender_number is None:
        if not is_named:
            raise NoSenderNumber(named, is_there=False)
        return service_id
    is_of_service = service_id == found.service_id_of_number or found.number_is_of_pool
    if found.service_id_of_number is None or not is_named or (named and not is_of_service):
        raise SenderNumberNotOwned(draft.sender_number)
    of_number: int = found.service_id_of_number
    return service_id if service_id is not None and is_of_service else of_number


async def _flush(tx: AsyncSession, draft: ConversationDraft) -> None:
    try:
        await tx.flush()
    except IntegrityError as error:
        if violated_constraint(error) != _CLIENT_ID_IS_UNIQUE:
            raise
        assert draft.client_conversation_id is not None, "only one that is given can be taken"
        raise ConversationExists(draft.client_conversation_id) from error


async def _get(tx: AsyncSession, row: ConversationRow) -> Conversation:
    [conversation] = await _complete(tx, [row])
    return conversation


async def _fitting(tx: AsyncSession, rows: Sequence[ConversationRow]) -> int:
    """How many of the conversations, from the first, fit a page with everybody who is in them; one at least."""
    counted = (
        select(ParticipantRow.conversation_id, func.count())
        .where(ParticipantRow.conversation_id.in_([row.id for row in rows]))
        .group_by(ParticipantRow.conversation_id)
    )
    sizes = {conversation_id: size for conversation_id, size in await tx.execute(counted)}
    totals = accumulate(sizes.get(row.id, 0) for row in rows)
    return max(1, sum(total <= _MOST_PARTICIPANTS_OF_A_PAGE for total in totals))


async def _complete(tx: AsyncSession, rows: Sequence[ConversationRow]) -> list[Conversation]:
    """The conversations with their services and participants as they are stored now, two queries for all of them."""
    ids = [row.id for row in rows]
    query = (
        select(ConversationRow, MessagingServiceRow.uuid, CustomerRow.global_customer_id)
        .outerjoin(MessagingServiceRow, MessagingServiceRow.id == ConversationRow.messaging_service_id)
        .outerjoin(CustomerRow, CustomerRow.id == MessagingServiceRow.customer_id)
        .where(ConversationRow.id.in_(ids))
        .execution_options(populate_existing=True)
    )
    found = {row.id: (row, uuid, customer) for row, uuid, customer in await tx.execute(query)}
    members: dict[int, list[Participant]] = {conversation_id: [] for conversation_id in ids}
    for participant in await participants.participants_of(tx, ids):
        members[participant.conversation.id].append(participant)
    return [Conversation(*found[conversation_id], members[conversation_id]) for conversation_id in ids]
