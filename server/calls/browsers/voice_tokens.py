"""Voice tokens: what a staff member's browser calls a contact with, and is rung by."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4, uuid5

from sqlalchemy import delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.caller import Caller
from server.calls.browsers.drafts import VoiceTokenDraft
from server.calls.tables import VoiceTokenRow
from server.conversations import participants
from server.conversations.conversations import find_or_make_conversation, find_service
from server.conversations.drafts import MODERATOR, ConversationDraft, ParticipantDraft
from server.conversations.keys import ConversationKey
from server.conversations.tables import ConversationRow
from server.errors import FailedPrecondition
from server.validation import parse_uuid

_IDENTITIES = UUID("409dc14e-c61c-40b3-8633-d1823da4ffd1")

# An expired token is kept for so long, for whoever calls with it to be told that it has expired.
_KEPT_FOR = timedelta(days=1)


class VoiceNotConfigured(FailedPrecondition):
    """There is nothing to sign voice tokens with."""

    reason = "VOICE_NOT_CONFIGURED"

    def __init__(self) -> None:
        super().__init__("no API key is configured that voice tokens could be signed with")


def identity_of(*, bearer_id: int, moderator_id: str) -> str:
    """What a bearer's staff member is called at the provider, the same in all of their tokens; letters, digits and
    underscores alone, as browsers' names must be."""
    return f"staff_{uuid5(_IDENTITIES, f'{bearer_id} {moderator_id}').hex}"


async def create_voice_token(
    tx: AsyncSession, *, caller: Caller, draft: VoiceTokenDraft, now: datetime
) -> VoiceTokenRow:
    """A new token of the caller's, its conversation made where it is nobody's yet, and its staff member in it.

    Raises ConversationNotFound, NoSenderNumber where what is to be called from is not there, or InvalidArgument where
    the conversation is full.
    """
    conversation = await _conversation(tx, caller=caller, draft=draft)
    moderator = ParticipantDraft("conversation", MODERATOR, None, draft.moderator_id)
    changes = ConversationDraft(
        client_conversation_id=None,
        callback_url=None,
        messaging_service_sid=draft.messaging_service_sid,
        global_customer_id=draft.global_customer_id,
        sender_number=None,
        participants=[moderator],
    )
    await use_service(tx, conversation=conversation, draft=changes)
    await participants.add_participants(tx, conversation=conversation, draft=changes)
    row = VoiceTokenRow(
        uuid=uuid4(),
        bearer_id=caller.bearer_id,
        conversation_id=conversation.id,
        moderator_id=draft.moderator_id,
        identity=identity_of(bearer_id=caller.bearer_id, moderator_id=draft.moderator_id),
        client_call_id=draft.client_call_id,
        callback_url=draft.callback_url,
        phone_number=draft.phone_number,
        messaging_service_sid=draft.messaging_service_sid,
        global_customer_id=draft.global_customer_id,
        expires_at=now + draft.ttl,
        created_at=now,
    )
    tx.add(row)
    await tx.flush()
    # The newest one of a conversation is kept: it says whom to ring.
    is_forgotten = VoiceTokenRow.expires_at < now - _KEPT_FOR
    older = delete(VoiceTokenRow).where(VoiceTokenRow.conversation_id == conversation.id, VoiceTokenRow.id < row.id)
    await tx.execute(older.where(is_forgotten).execution_options(synchronize_session=False))
    return row


async def use_service(tx: AsyncSession, *, conversation: ConversationRow, draft: ConversationDraft) -> None:
    """Have the conversation call, and send, from the messaging service that is named, where it has none yet: numbers
    are chosen by it. Raises NoSenderNumber where there is no such service."""
    service_id = await find_service(tx, draft, conversation=conversation)
    if conversation.messaging_service_id is None and service_id is not None:
        conversation.messaging_service_id = service_id
        conversation.updated_at = func.now()
        await tx.flush()
        await tx.refresh(conversation)


async def find_voice_token(tx: AsyncSession, uuid: UUID) -> VoiceTokenRow | None:
    """The token of a UUID, whosever it is."""
    return (await tx.scalars(select(VoiceTokenRow).where(VoiceTokenRow.uuid == uuid))).one_or_none()


async def newest_identity(tx: AsyncSession, *, conversation_id: int) -> str | None:
    """Whom to ring in the conversation: the identity of its newest token; None where nobody ever had one. Of a token
    that has expired too, for the staff member may be there with one of another conversation."""
    query = (
        select(VoiceTokenRow.identity)
        .where(VoiceTokenRow.conversation_id == conversation_id)
        .order_by(VoiceTokenRow.id.desc())
        .limit(1)
    )
    return await tx.scalar(query)


async def _conversation(tx: AsyncSession, *, caller: Caller, draft: VoiceTokenDraft) -> ConversationRow:
    """The caller's conversation that is named; by an id that may be any of its ids, the caller's own id first."""
    key = draft.conversation
    if key is None:
        assert draft.any_conversation_id is not None, "a draft names its conversation"
        value = draft.any_conversation_id
        uuid = parse_uuid(value)
        if uuid is not None:
            is_by_client_id = ConversationRow.client_conversation_id == value
            query = (
                select(ConversationRow)
                .where(
                    ConversationRow.bearer_id == caller.bearer_id,
                    or_(
                        is_by_client_id,
                        ConversationRow.internal_conversation_id == uuid,
                        ConversationRow.global_id == uuid,
                    ),
                )
                .order_by(func.coalesce(is_by_client_id, False).desc())
                .limit(1)
            )
            row = (await tx.scalars(query)).one_or_none()
            if row is not None:
                return row
        key = ConversationKey("client_conversation_id", value)
    return await find_or_make_conversation(tx, caller=caller, key=key, callback_url=draft.callback_url)
