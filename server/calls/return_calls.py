"""Calls of contacts to our numbers: a menu, the staff member's browsers, and a voicemail.

A call is made once, and every digit and result is taken for the fact it tells: what is posted again, or late, ends in
the same state and is answered the same.
"""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import structlog
from psycopg.rows import scalar_row
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.tables import BearerRow
from server.calls.browsers.voice_tokens import newest_identity
from server.calls.events import append_created, change_call
from server.calls.incoming import begin_leg, hold_call_sid
from server.calls.legs import apply_progress, record_sid
from server.calls.opt_outs import is_opted_out, toggle
from server.calls.parts import CallParts
from server.calls.queries import Call
from server.calls.state import CONTACT, DIRECT, RETURN, SDK, CallStatus
from server.calls.tables import CallLegRow, CallRow, VoicemailRow
from server.conversations.conversations import callback_url_of
from server.conversations.tables import ConversationRow, PairingRow
from server.notifications import Channel
from server.providers.voice_ports import FINAL_STATUSES, DialResult, IncomingCall, MenuChoice
from server.validation import e164

log = structlog.get_logger()

_FIND = "SELECT id FROM calls WHERE uuid = %(uuid)s AND kind = ANY(%(kinds)s)"

_RING = "1"
_VOICEMAIL = "2"
_OPT_OUT = "3"

_MOST_ATTEMPTS = 3

_GOODBYE = "No choice was made. Goodbye."
_OPTED_OUT = "You will not be called from this number any more. Goodbye."
_OPTED_IN = "You can be called from this number again. Goodbye."

# A dial's own words for a leg that was spoken on.
_ANSWERED = ("completed", "answered")
# Withdrawn while it rang.
_CANCELED = "canceled"


async def receive_call(parts: CallParts, incoming: IncomingCall) -> bytes:
    """The menu of the conversation that the two numbers are paired in; what a caller hears whom nobody knows."""
    async with parts.db.begin() as tx:
        leg = await hold_call_sid(tx, incoming.call_sid)
        if leg is not None:
            found: CallRow | None = await tx.get_one(CallRow, leg.call_id)
        else:
            found = await _make(tx, incoming, now=datetime.now(UTC))
        call = found if found is not None and found.kind == RETURN else None
        opted_out = call is not None and await _is_opted_out(tx, call)
    if call is None:
        log.info("return_call.unknown_caller", call_sid=incoming.call_sid)
        return parts.scripts.say_and_hang_up(parts.unknown_caller_answer)
    parts.notifications.notify(Channel.OUTBOX)
    return parts.scripts.return_call_menu(call_uuid=call.uuid, attempt=1, pressed=None, opted_out=opted_out)


async def choose(parts: CallParts, choice: MenuChoice) -> bytes:
    """What comes of a digit: a browser rings, a voicemail is taken, calls are stopped, or the menu is said again."""
    call_id = await _find(parts, choice.call_uuid, kinds=[RETURN])
    if call_id is None:
        return parts.scripts.hang_up()
    now = datetime.now(UTC)
    answer = b""

    async def change(tx: AsyncSession, call: Call) -> Call:
        nonlocal answer
        # Who presses something is on the phone.
        _apply(_leg_of(call, CONTACT), "in-progress", now=now)
        if choice.digits == _RING:
            answer, call = await _ring(tx, parts, call, now=now)
        elif choice.digits == _VOICEMAIL:
            answer, call = await _take_voicemail(tx, parts, call, now=now)
        elif choice.digits == _OPT_OUT:
            answer = await _toggle(tx, parts, call.row, now=now)
        else:
            answer = await _repeat(tx, parts, call.row, choice)
        return call

    await change_call(parts.db, parts.notifications, parts.storage, call_id=call_id, change=change)
    log.info("return_call.chosen", call_uuid=str(choice.call_uuid), digits=choice.digits[:1], attempt=choice.attempt)
    return answer


async def after_dial(parts: CallParts, result: DialResult) -> bytes:
    """What comes after a dial in a direct or a return call: the end, or a voicemail where no browser answered."""
    call_id = await _find(parts, result.call_uuid, kinds=[DIRECT, RETURN])
    if call_id is None:
        return parts.scripts.hang_up()
    now = datetime.now(UTC)
    answer = parts.scripts.hang_up()
    status = "completed" if result.dial_status in _ANSWERED else result.dial_status

    async def change(tx: AsyncSession, call: Call) -> Call:
        nonlocal answer
        is_direct = call.row.kind == DIRECT
        dialling = _leg_of(call, SDK if is_direct else CONTACT)
        await _name(tx, dialling, result.call_sid, now=now)
        if result.provider_status is not None and dialling.call_sid == result.call_sid:
            _apply(dialling, result.provider_status, now=now)
        dialled = _find_leg(call, CONTACT if is_direct else SDK)
        if dialled is None:
            log.warning("return_call.never_rang", call_uuid=str(call.row.uuid))
            return call
        await _name(tx, dialled, result.dial_call_sid, now=now)
        _apply(dialled, status, now=now)
        # Nobody is there who could leave a message where the caller has hung up.
        is_there = result.provider_status not in FINAL_STATUSES and status != _CANCELED
        if not is_direct and is_there and status != "completed":
            answer, call = await _take_voicemail(tx, parts, call, now=now)
        return call

    await change_call(parts.db, parts.notifications, parts.storage, call_id=call_id, change=change)
    return answer


async def _make(tx: AsyncSession, incoming: IncomingCall, *, now: datetime) -> CallRow | None:
    """The call with its first event; None where the two numbers are not paired in anybody's conversation."""
    contact, number = e164(incoming.from_number), e164(incoming.to_number)
    if contact is None or number is None:
        return None
    query = (
        select(ConversationRow)
        .join(PairingRow, PairingRow.conversation_id == ConversationRow.id)
        .join(BearerRow, BearerRow.id == ConversationRow.bearer_id)
        .where(
            PairingRow.twilio_number == number,
            PairingRow.phone_number == contact,
            BearerRow.deleted_at.is_(None),
        )
    )
    conversation = (await tx.scalars(query)).one_or_none()
    if conversation is None:
        return None
    row = CallRow(
        uuid=uuid4(),
        kind=RETURN,
        bearer_id=conversation.bearer_id,
        conversation_id=conversation.id,
        callback_url=await callback_url_of(tx, bearer_id=conversation.bearer_id, conversation=conversation, given=None),
        provider_number=number,
        participant_number=contact,
        internal_status=CallStatus.PENDING,
        sequence=0,
        created_at=now,
        updated_at=now,
    )
    tx.add(row)
    await tx.flush()
    leg = CallLegRow(uuid=uuid4(), call_id=row.id, kind=CONTACT, address=contact, position=0, created_at=now)
    # Its caller may hang up in the menu, of which only asking about it tells.
    begin_leg(leg, incoming, now=now)
    tx.add(leg)
    await tx.flush()
    call = Call(row, conversation, conference=None, legs=[leg], recordings=(), voicemail=None)
    await append_created(tx, call, now=now)
    return row


async def _ring(tx: AsyncSession, parts: CallParts, call: Call, *, now: datetime) -> tuple[bytes, Call]:
    """Ring the browsers of the conversation's staff member, once for the call; a voicemail where there are none."""
    row = call.row
    leg = _find_leg(call, SDK)
    if leg is None:
        assert row.conversation_id is not None, "a pairing has one"
        identity = await newest_identity(tx, conversation_id=row.conversation_id)
        if identity is None:
            return await _take_voicemail(tx, parts, call, now=now)
        leg = CallLegRow(uuid=uuid4(), call_id=row.id, kind=SDK, address=identity, position=1, created_at=now)
        tx.add(leg)
        await tx.flush()
        call = replace(call, legs=[*call.legs, leg])
    script = parts.scripts.ring_browser(
        call_uuid=row.uuid,
        leg_uuid=leg.uuid,
        identity=leg.address,
        caller_id=row.participant_number,
        time_limit=parts.time_limit,
    )
    return script, call


async def _take_voicemail(tx: AsyncSession, parts: CallParts, call: Call, *, now: datetime) -> tuple[bytes, Call]:
    if call.row.voicemail_at is None:
        call.row.voicemail_at = now
        voicemail = VoicemailRow(call_id=call.row.id, caller_id=call.row.participant_number, internal_status="pending")
        tx.add(voicemail)
        await tx.flush()
        call = replace(call, voicemail=voicemail)
    return parts.scripts.take_voicemail(call_uuid=call.row.uuid), call


async def _toggle(tx: AsyncSession, parts: CallParts, call: CallRow, *, now: datetime) -> bytes:
    is_out = await toggle(
        tx,
        provider_number=call.provider_number,
        phone_number=call.participant_number,
        since=call.created_at,
        now=now,
    )
    log.info("return_call.opt_out", call_uuid=str(call.uuid), is_opted_out=is_out)
    return parts.scripts.say_and_hang_up(_OPTED_OUT if is_out else _OPTED_IN)


async def _repeat(tx: AsyncSession, parts: CallParts, call: CallRow, choice: MenuChoice) -> bytes:
    if choice.attempt >= _MOST_ATTEMPTS:
        return parts.scripts.say_and_hang_up(_GOODBYE)
    return parts.scripts.return_call_menu(
        call_uuid=call.uuid,
        attempt=choice.attempt + 1,
        pressed=choice.digits,
        opted_out=await _is_opted_out(tx, call),
    )


async def _is_opted_out(tx: AsyncSession, call: CallRow) -> bool:
    return await is_opted_out(tx, provider_number=call.provider_number, phone_number=call.participant_number)


async def _find(parts: CallParts, uuid: UUID, *, kinds: list[str]) -> int | None:
    """The id of the call that the URL names; None of a URL that is not ours any more, or is not of such a call."""
    call_id: int | None = await parts.db.fetch_one(_FIND, {"uuid": uuid, "kinds": kinds}, scalar_row)
    if call_id is None:
        log.warning("call.unknown", call_uuid=str(uuid))
    return call_id


def _leg_of(call: Call, kind: str) -> CallLegRow:
    leg = _find_leg(call, kind)
    assert leg is not None, "made with its call"
    return leg


def _find_leg(call: Call, kind: str) -> CallLegRow | None:
    return next((leg for leg in call.legs if leg.kind == kind), None)


async def _name(tx: AsyncSession, leg: CallLegRow, call_sid: str | None, *, now: datetime) -> None:
    """The leg is that call at the provider, unless it is known by another or the call is another leg's."""
    if leg.call_sid is not None or call_sid is None:
        return
    other = await tx.scalar(select(CallLegRow.id).where(CallLegRow.call_sid == call_sid))
    if other is None:
        record_sid(leg, call_sid, now=now)


def _apply(leg: CallLegRow, provider_status: str, *, now: datetime) -> None:
    apply_progress(leg, provider_status=provider_status, answered_by=None, error=None, occurred_at=None, now=now)
