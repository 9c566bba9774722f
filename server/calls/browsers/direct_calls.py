"""Calls from a browser to a contact: made when the provider, or whoever speaks for a browser, asks what to dial.

The contact is brought into the conversation and paired with a number of ours as by a message; that number is the caller
id, so that what calls it back comes to the conversation. A provider that asks again about the same call is answered the
same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import structlog
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.tables import BearerRow
from server.caller import Caller
from server.calls import queries
from server.calls.browsers.drafts import SdkCallDraft
from server.calls.browsers.voice_tokens import find_voice_token, newest_identity, use_service
from server.calls.events import append_created
from server.calls.incoming import begin_leg, hold_call_sid
from server.calls.opt_outs import refuse_opted_out
from server.calls.parts import CallParts
from server.calls.queries import Call
from server.calls.state import CONTACT, DIRECT, SDK, CallStatus
from server.calls.tables import CallLegRow, CallRow, VoiceTokenRow
from server.conversations import participants
from server.conversations.conversations import callback_url_of, find_or_make_conversation
from server.conversations.drafts import ConversationDraft, ParticipantDraft
from server.conversations.tables import ConversationRow, PairingRow, ParticipantRow
from server.errors import DomainError, FailedPrecondition, FieldViolation, InvalidArgument
from server.notifications import Channel
from server.numbers.tables import CustomerRow, MessagingServiceRow
from server.providers.voice_ports import VOICE_TOKEN_PARAMETER, IncomingCall
from server.validation import e164, parse_uuid

log = structlog.get_logger()

# A call that nobody has begun by then, for which there is no call at the provider to ask about, will not be.
EXPIRES_AFTER = timedelta(hours=1)

# The provider looks at a token when the browser connects, and asks us soon after, by a clock of its own.
_TOKEN_LEEWAY = timedelta(minutes=1)

# What is said of a call that nothing is known to be made from.
_SENDER_MISSING = FieldViolation(
    "messaging_service_sid",
    "name a messaging_service_sid or global_customer_id to call from, or a conversation that has one",
)

# What a browser hears, by the reason that API callers are told.
_SPOKEN = {
    "RECIPIENT_OPTED_OUT_OF_CALLS": "This contact has asked not to be called from this number.",
    "CONTACT_NOT_NAMED": "It is not known whom to call, because the conversation has no contact, or several.",
    "NO_SENDER_NUMBER": "There is no number to call from.",
    "NUMBER_POOL_EXHAUSTED": "Every number there is to call from is used for this contact in other conversations.",
    "UNAVAILABLE": "The call cannot be made right now. Please try again.",
}
# What it hears of a bad field; the page and the token are not asked for others.
_SPOKEN_OF_FIELDS = {
    "messaging_service_sid": "There is no number to call from.",
    "conversation.participants": "The conversation has no room for another contact.",
}
_SPOKEN_OF_OTHERS = "The call cannot be made."


class ContactNotNamed(FailedPrecondition):
    """The conversation has no contact, or several, and none was named."""

    reason = "CONTACT_NOT_NAMED"

    def __init__(self, named: Mapping[str, str]) -> None:
        super().__init__("the conversation has no contact, or several: name the one to call", **named)


class _TokenRefused(Exception):
    """A browser's call shows no token that it may be made with; the text is what its user hears."""


@dataclass(frozen=True)
class _Order:
    """A call to make. `named` is the conversation's id by which it was named, for what is said of it."""

    conversation: ConversationRow
    named: Mapping[str, str]
    phone_number: str | None
    messaging_service_sid: str | None
    global_customer_id: str | None
    callback_url: str | None
    client_call_id: str | None


async def answer_browser(parts: CallParts, call: IncomingCall) -> bytes:
    """What the provider is to do with a browser's call: dial the contact, or say in a sentence why not.

    The call is made once however often it is told of.
    """
    try:
        async with parts.db.begin() as tx:
            now = datetime.now(UTC)
            made = await _made_for_browser(tx, call) or await _call_of_browser(tx, call, now=now)
            script = _script(parts, made)
    except _TokenRefused as error:
        log.warning("direct_call.token_refused", call_sid=call.call_sid, cause=str(error))
        return parts.scripts.say_and_hang_up(str(error))
    except DomainError as error:
        # Not the error's own text, which may have the contact's number.
        fields = [each.field for each in error.violations] if isinstance(error, InvalidArgument) else []
        log.warning("direct_call.refused", call_sid=call.call_sid, reason=error.reason, fields=fields)
        spoken = [_SPOKEN_OF_FIELDS[field] for field in fields if field in _SPOKEN_OF_FIELDS]
        return parts.scripts.say_and_hang_up(next(iter(spoken), _SPOKEN.get(error.reason, _SPOKEN_OF_OTHERS)))
    parts.notifications.notify(Channel.OUTBOX)
    return script


async def make_call(tx: AsyncSession, parts: CallParts, *, caller: Caller, draft: SdkCallDraft, now: datetime) -> bytes:
    """Make a call of the caller's and answer the script that dials it. Raises what there is to say against it."""
    order = await _order_of(tx, caller=caller, draft=draft)
    # Which of the browsers it is nobody says; of a conversation with a token it is most likely that one.
    identity = await newest_identity(tx, conversation_id=order.conversation.id)
    call = await _make(tx, order, identity=identity or "", incoming=None, now=now)
    return _script(parts, call)


async def _made_for_browser(tx: AsyncSession, call: IncomingCall) -> Call | None:
    leg = await hold_call_sid(tx, call.call_sid)
    if leg is None:
        return None
    row = await tx.get_one(CallRow, leg.call_id)
    if row.kind != DIRECT:
        raise _TokenRefused("This is another call.")
    return await queries.call_of(tx, row)


async def _call_of_browser(tx: AsyncSession, call: IncomingCall, *, now: datetime) -> Call:
    token = await _token_of(tx, call, now=now)
    order = _Order(
        conversation=await tx.get_one(ConversationRow, token.conversation_id),
        named={"conversation_id": str(token.conversation_id)},
        phone_number=await _number_to_call(tx, token, call),
        messaging_service_sid=token.messaging_service_sid,
        global_customer_id=token.global_customer_id,
        callback_url=token.callback_url,
        client_call_id=token.client_call_id,
    )
    return await _make(tx, order, identity=token.identity, incoming=call, now=now)


async def _token_of(tx: AsyncSession, call: IncomingCall, *, now: datetime) -> VoiceTokenRow:
    """The token that the browser connected with. Its page can say whatever it likes, its identity is proven."""
    uuid = parse_uuid(call.parameters.get(VOICE_TOKEN_PARAMETER, ""))
    token = await find_voice_token(tx, uuid) if uuid is not None else None
    if token is None or token.identity != call.from_identity:
        raise _TokenRefused("This call has no voice token that is known here.")
    is_live = await tx.scalar(
        select(BearerRow.id).where(BearerRow.id == token.bearer_id, BearerRow.deleted_at.is_(None))
    )
    if is_live is None:
        raise _TokenRefused("This call has no voice token that is known here.")
    if token.expires_at + _TOKEN_LEEWAY < now:
        raise _TokenRefused("The voice token has expired.")
    return token


async def _number_to_call(tx: AsyncSession, token: VoiceTokenRow, call: IncomingCall) -> str | None:
    """The token's number, else the contact that the page asks for; None where neither says one.

    A page is its user's to change, and calls cost money: without a number in its token it calls contacts alone.
    """
    asked = e164(call.to_number) if call.to_number else None
    if call.to_number and asked is None:
        raise _TokenRefused("The number to call is not a phone number.")
    if asked is None or token.phone_number == asked:
        return token.phone_number
    if token.phone_number is not None:
        raise _TokenRefused("The voice token is for another phone number.")
    contact = select(ParticipantRow.id).where(
        ParticipantRow.conversation_id == token.conversation_id,
        ParticipantRow.role == CONTACT,
        ParticipantRow.phone_number == asked,
    )
    if await tx.scalar(contact) is None:
        raise _TokenRefused("The number to call is no contact of the conversation.")
    return asked


async def _order_of(tx: AsyncSession, *, caller: Caller, draft: SdkCallDraft) -> _Order:
    key = draft.conversation
    if key is not None:
        if draft.phone_number is not None:
            await participants.lock_contacts(tx, _contact_draft(draft.phone_number))
        conversation = await find_or_make_conversation(tx, caller=caller, key=key, callback_url=draft.callback_url)
    else:
        conversation = await _conversation_of_service(tx, caller=caller, draft=draft)
    return _Order(
        conversation=conversation,
        named={key.name: key.value} if key is not None else {},
        phone_number=draft.phone_number,
        messaging_service_sid=draft.messaging_service_sid,
        global_customer_id=draft.global_customer_id,
        callback_url=draft.callback_url,
        client_call_id=None,
    )


async def _conversation_of_service(tx: AsyncSession, *, caller: Caller, draft: SdkCallDraft) -> ConversationRow:
    """The caller's last conversation with the contact that calls from what is named; a new one where there is none."""
    assert draft.phone_number is not None, "a draft without a conversation names the contact"
    # Two at once are to find one conversation.
    await participants.lock_contacts(tx, _contact_draft(draft.phone_number))
    query = (
        select(ConversationRow)
        .join(PairingRow, PairingRow.conversation_id == ConversationRow.id)
        .join(MessagingServiceRow, MessagingServiceRow.id == ConversationRow.messaging_service_id)
        .join(CustomerRow, CustomerRow.id == MessagingServiceRow.customer_id)
        .where(ConversationRow.bearer_id == caller.bearer_id, PairingRow.phone_number == draft.phone_number)
        .order_by(PairingRow.created_at.desc(), PairingRow.twilio_number)
        .limit(1)
    )
    if draft.messaging_service_sid is not None:
        query = query.where(
            or_(
                MessagingServiceRow.twilio_messaging_sid == draft.messaging_service_sid,
                MessagingServiceRow.bandwidth_messaging_sid == draft.messaging_service_sid,
            )
        )
    else:
        query = query.where(CustomerRow.global_customer_id == draft.global_customer_id)
    row = (await tx.scalars(query)).one_or_none()
    if row is None:
        row = ConversationRow(bearer_id=caller.bearer_id, callback_url=draft.callback_url)
        tx.add(row)
        await tx.flush()
        await tx.refresh(row)
    return row


async def _make(
    tx: AsyncSession, order: _Order, *, identity: str, incoming: IncomingCall | None, now: datetime
) -> Call:
    """The call, its legs and the first event of it, and all that it needs: all or nothing."""
    conversation = order.conversation
    phone_number = order.phone_number or await _only_contact(tx, order)
    caller_id = await _paired(tx, order, phone_number)
    await refuse_opted_out(tx, provider_number=caller_id, phone_numbers=[phone_number])
    row = CallRow(
        uuid=uuid4(),
        kind=DIRECT,
        bearer_id=conversation.bearer_id,
        conversation_id=conversation.id,
        client_call_id=order.client_call_id,
        callback_url=await callback_url_of(
            tx, bearer_id=conversation.bearer_id, conversation=conversation, given=order.callback_url
        ),
        provider_number=caller_id,
        participant_number=phone_number,
        internal_status=CallStatus.PENDING,
        expires_at=now + EXPIRES_AFTER if incoming is None else None,
        sequence=0,
        created_at=now,
        updated_at=now,
    )
    tx.add(row)
    await tx.flush()
    browser = CallLegRow(uuid=uuid4(), call_id=row.id, kind=SDK, address=identity, position=0, created_at=now)
    contact = CallLegRow(uuid=uuid4(), call_id=row.id, kind=CONTACT, address=phone_number, position=1, created_at=now)
    if incoming is not None:
        begin_leg(browser, incoming, now=now)
    tx.add_all([browser, contact])
    await tx.flush()
    call = Call(row, conversation, conference=None, legs=[browser, contact], recordings=(), voicemail=None)
    await append_created(tx, call, now=now)
    return call


async def _only_contact(tx: AsyncSession, order: _Order) -> str:
    query = select(ParticipantRow.phone_number).where(
        ParticipantRow.conversation_id == order.conversation.id, ParticipantRow.role == CONTACT
    )
    found: Sequence[str | None] = (await tx.scalars(query.limit(2))).all()
    if len(found) != 1 or found[0] is None:
        raise ContactNotNamed(order.named)
    return found[0]


async def _paired(tx: AsyncSession, order: _Order, phone_number: str) -> str:
    """Have the contact in the conversation and paired; the number of ours that it is paired with."""
    conversation = order.conversation
    draft = _contact_draft(phone_number, order)
    await participants.lock_contacts(tx, draft)
    await use_service(tx, conversation=conversation, draft=draft)
    await participants.add_participants(tx, conversation=conversation, draft=draft)
    query = select(ParticipantRow.twilio_number).where(
        ParticipantRow.conversation_id == conversation.id,
        ParticipantRow.role == CONTACT,
        ParticipantRow.phone_number == phone_number,
        ParticipantRow.pairing_deactivated_at.is_(None),
    )
    number = await tx.scalar(query)
    if number is None:
        raise InvalidArgument([_SENDER_MISSING])
    return number


def _contact_draft(phone_number: str, order: _Order | None = None) -> ConversationDraft:
    """The contact, to be in a conversation and paired with what the order says."""
    return ConversationDraft(
        client_conversation_id=None,
        callback_url=None,
        messaging_service_sid=order.messaging_service_sid if order else None,
        global_customer_id=order.global_customer_id if order else None,
        sender_number=None,
        participants=[ParticipantDraft("To", CONTACT, phone_number, None)],
    )


def _script(parts: CallParts, call: Call) -> bytes:
    [contact] = [leg for leg in call.legs if leg.kind == CONTACT]
    return parts.scripts.dial_contact(
        call_uuid=call.row.uuid,
        leg_uuid=contact.uuid,
        caller_id=call.row.provider_number,
        phone_number=call.row.participant_number,
        time_limit=parts.time_limit,
    )
