"""Conference calls: created with everybody who is to be called, read, ended, and who is in them changed.

Nobody is called here: a leg that is due is the workers'.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from commonservices.v1 import call_pb2
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.caller import Caller
from server.calls import convert, queries
from server.calls.conferences.drafts import ConferenceDraft
from server.calls.events import Change, append_created
from server.calls.legs import find_leg
from server.calls.opt_outs import refuse_opted_out
from server.calls.queries import Call
from server.calls.state import CONFERENCE, CONTACT, MODERATOR, CallStatus
from server.calls.status import leg_of
from server.calls.tables import CallLegRow, CallRow, ConferenceCallRow
from server.conversations import participants
from server.conversations.conversations import callback_url_of, find_or_make_conversation
from server.conversations.drafts import ConversationDraft, ParticipantDraft
from server.conversations.tables import ConversationRow
from server.errors import FailedPrecondition, FieldViolation, InvalidArgument, NotFound
from server.numbers.selection import SenderNumberNotOwned
from server.numbers.tables import MessagingServiceRow, TwilioNumberRow
from server.paging import Page
from server.validation import parse_uuid

# A call is over at the latest when everybody was tried for as long as that, and then talked for as long as they may.
_TRIED_FOR = timedelta(minutes=30)

_LIVE = (CallStatus.PENDING, CallStatus.INVITING)


class ConferenceCallNotFound(NotFound):
    """No such conference call, or another bearer's."""

    reason = "CONFERENCE_CALL_NOT_FOUND"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"no conference call {uuid}", uuid=uuid)


class ConferenceCallEnded(FailedPrecondition):
    """It is over: there is nothing to end."""

    reason = "CONFERENCE_CALL_ENDED"

    def __init__(self, uuid: str, internal_status: str) -> None:
        super().__init__(f"the conference call is {internal_status}", uuid=uuid, internal_status=internal_status)


class ConferenceCallParticipantNotFound(NotFound):
    """Nobody in the conference has this call."""

    reason = "CONFERENCE_CALL_PARTICIPANT_NOT_FOUND"

    def __init__(self, call_sid: str) -> None:
        super().__init__(f"nobody in the conference call has the call {call_sid}", call_sid=call_sid)


class ConferenceCallParticipantLeft(FailedPrecondition):
    """Their call is over: there is nobody to change."""

    reason = "CONFERENCE_CALL_PARTICIPANT_LEFT"

    def __init__(self, call_sid: str, internal_status: str) -> None:
        super().__init__(
            f"they are not in the conference any more: {internal_status}",
            call_sid=call_sid,
            internal_status=internal_status,
        )


async def create_conference_call(
    tx: AsyncSession,
    *,
    caller: Caller,
    draft: ConferenceDraft,
    default_welcome_message: str,
    time_limit: timedelta,
    now: datetime,
) -> call_pb2.Call:
    """A new conference call of the caller's whose moderator is due to be called, and the first event of it.

    Its contacts are in the conversation and paired with our number, so that what calls it back reaches the
    conversation. Raises SenderNumberNotOwned, PhoneNumberPaired, RecipientOptedOutOfCalls or InvalidArgument.
    """
    await _check_number(tx, draft.twilio_number)
    conversation = await _conversation(tx, caller=caller, draft=draft)
    await refuse_opted_out(tx, provider_number=draft.twilio_number, phone_numbers=draft.participant_numbers)
    row = CallRow(
        uuid=uuid4(),
        kind=CONFERENCE,
        bearer_id=caller.bearer_id,
        conversation_id=conversation.id,
        callback_url=await callback_url_of(
            tx, bearer_id=caller.bearer_id, conversation=conversation, given=draft.callback_url
        ),
        provider_number=draft.twilio_number,
        participant_number=draft.moderator_number,
        internal_status=CallStatus.PENDING,
        expires_at=now + _TRIED_FOR + time_limit,
        sequence=0,
        created_at=now,
        updated_at=now,
    )
    tx.add(row)
    await tx.flush()
    conference = ConferenceCallRow(
        call_id=row.id, uuid=uuid4(), welcome_message=draft.welcome_message or default_welcome_message
    )
    legs = _legs(row, draft, now=now)
    tx.add_all([conference, *legs])
    await tx.flush()
    call = Call(row, conversation, conference, legs, recordings=(), voicemail=None)
    return await append_created(tx, call, now=now)


async def get_conference_call(tx: AsyncSession, *, caller: Caller, uuid: str) -> Call:
    """A conference call of the caller's, any for an Admin. Raises ConferenceCallNotFound."""
    call = await queries.call_of(tx, await find_conference_call(tx, caller=caller, uuid=uuid))
    await queries.load_words(tx, call.recording)
    return call


async def find_conference_call(tx: AsyncSession, *, caller: Caller, uuid: str) -> CallRow:
    """The same without what it has. Raises ConferenceCallNotFound."""
    parsed = parse_uuid(uuid)
    row = await queries.find_conference(tx, parsed, owner_id=caller.owner_id) if parsed is not None else None
    if row is None:
        raise ConferenceCallNotFound(uuid)
    return row


async def list_participants(
    tx: AsyncSession, *, caller: Caller, uuid: str, page: Page
) -> tuple[Sequence[CallLegRow], str]:
    """Who is called into a conference call, in the order of its create. Raises ConferenceCallNotFound."""
    call = await find_conference_call(tx, caller=caller, uuid=uuid)
    query = select(CallLegRow).where(CallLegRow.call_id == call.id).order_by(CallLegRow.id).limit(page.limit)
    if page.after_id is not None:
        query = query.where(CallLegRow.id > page.after_id)
    return page.cut((await tx.scalars(query)).all())


async def find_participant(tx: AsyncSession, *, call_id: int, call_sid: str) -> CallLegRow:
    """Whose call at the provider it is, of a conference call. Raises ConferenceCallParticipantNotFound."""
    query = select(CallLegRow).where(CallLegRow.call_id == call_id, CallLegRow.call_sid == call_sid)
    leg = (await tx.scalars(query)).one_or_none()
    if leg is None:
        raise ConferenceCallParticipantNotFound(call_sid)
    return leg


def cancel(uuid: str, *, now: datetime) -> Change:
    """The change that ends a conference call. It raises ConferenceCallEnded."""

    async def change(_tx: AsyncSession, call: Call) -> None:
        if call.row.internal_status not in _LIVE:
            raise ConferenceCallEnded(uuid, call.row.internal_status)
        assert call.conference is not None, "of conferences alone"
        call.conference.canceled_at = now

    return change


def change_participant(call_sid: str, *, muted: bool | None, hold: bool | None, now: datetime) -> Change:
    """The change that has somebody muted or held, or not any more. It raises ConferenceCallParticipantNotFound or
    ConferenceCallParticipantLeft."""

    async def change(_tx: AsyncSession, call: Call) -> None:
        leg = _present(call, call_sid)
        wanted = (leg.muted if muted is None else muted, leg.hold if hold is None else hold)
        if wanted != (leg.muted, leg.hold):
            leg.muted, leg.hold = wanted
            leg.control_at = now
            leg.control_attempts = 0

    return change


def remove_participant(call_sid: str, *, now: datetime) -> Change:
    """The change that hangs up on somebody. It raises as `change_participant`'s does."""

    async def change(_tx: AsyncSession, call: Call) -> None:
        leg = _present(call, call_sid)
        if leg.hangup_at is None:
            leg.hangup_at = leg.control_at = now
            leg.control_attempts = 0

    return change


def _present(call: Call, call_sid: str) -> CallLegRow:
    leg = find_leg(call.legs, leg_uuid=None, call_sid=call_sid)
    if leg is None:
        raise ConferenceCallParticipantNotFound(call_sid)
    if leg_of(leg).is_over:
        raise ConferenceCallParticipantLeft(call_sid, convert.participant_status(leg))
    return leg


async def _check_number(tx: AsyncSession, twilio_number: str) -> None:
    """Conferences are Twilio's: a number that another provider carries cannot call into one."""
    query = (
        select(TwilioNumberRow.phone_number)
        .join(MessagingServiceRow, MessagingServiceRow.id == TwilioNumberRow.messaging_service_id)
        .where(
            TwilioNumberRow.phone_number == twilio_number,
            TwilioNumberRow.released_at.is_(None),
            MessagingServiceRow.provider == "twilio",
        )
    )
    if await tx.scalar(query) is None:
        raise SenderNumberNotOwned(twilio_number)


async def _conversation(tx: AsyncSession, *, caller: Caller, draft: ConferenceDraft) -> ConversationRow:
    """The conversation with everybody in it."""
    everybody = [ParticipantDraft("moderator_number", MODERATOR, draft.moderator_number, None)]
    everybody += [
        ParticipantDraft(f"participant_numbers[{index}]", CONTACT, number, None)
        for index, number in enumerate(draft.participant_numbers)
    ]
    given = ConversationDraft(
        client_conversation_id=draft.conversation.value,
        callback_url=draft.callback_url,
        messaging_service_sid=None,
        global_customer_id=None,
        sender_number=draft.twilio_number,
        participants=everybody,
    )
    # Before the conversation, as whoever creates one does: else the two could wait for each other.
    await participants.lock_contacts(tx, given)
    conversation = await find_or_make_conversation(
        tx, caller=caller, key=draft.conversation, callback_url=draft.callback_url
    )
    try:
        await participants.add_participants(tx, conversation=conversation, draft=given)
    except InvalidArgument as error:
        # All that can be wrong with somebody who has no id is that the conversation is full.
        descriptions = "; ".join(violation.description for violation in error.violations)
        raise InvalidArgument([FieldViolation("participant_numbers", descriptions)]) from error
    return conversation


def _legs(call: CallRow, draft: ConferenceDraft, *, now: datetime) -> list[CallLegRow]:
    """Everybody's leg, of which the moderator's is due."""
    everybody = [(MODERATOR, draft.moderator_number), *((CONTACT, number) for number in draft.participant_numbers)]
    return [
        CallLegRow(
            uuid=uuid4(),
            call_id=call.id,
            kind=kind,
            address=number,
            position=position,
            dial_at=now if kind == MODERATOR else None,
            created_at=now,
        )
        for position, (kind, number) in enumerate(everybody)
    ]
