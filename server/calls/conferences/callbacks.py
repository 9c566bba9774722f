"""What the provider asks and tells about conferences and about legs of every kind of call: each callback is taken for
the facts it tells.

Whoever is in a conference has asked for their script before, which recorded their call: so nobody joins whose leg is
not known. A provider that has it otherwise is asked to tell it again.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import structlog
from psycopg.rows import scalar_row
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls import queries
from server.calls.conferences.conferences import ConferenceCallNotFound
from server.calls.events import change_call
from server.calls.incoming import find_call
from server.calls.legs import apply_progress, find_leg, is_taken_sid, record_sid
from server.calls.parts import CallParts
from server.calls.queries import Call
from server.calls.state import (
    CONFERENCE_END,
    CONFERENCE_START,
    IN_PROGRESS,
    LEG_STATUSES,
    MODERATOR,
    PARTICIPANT_JOIN,
    is_machine,
)
from server.calls.tables import CallLegRow, ConferenceCallRow
from server.db import violated_constraint
from server.errors import Unavailable
from server.providers.voice_ports import FINAL_STATUSES, ConferenceEvent, LegAnswer, LegProgress
from server.validation import e164, parse_uuid

log = structlog.get_logger()

_PARTICIPANT_LEAVE = "participant-leave"

# The call of a conference: by the UUID that is its name at the provider, else by its sid.
_FIND_CONFERENCE = """
SELECT CASE
    WHEN %(conference_uuid)s::uuid IS NOT NULL
    THEN (SELECT call_id FROM conference_calls WHERE uuid = %(conference_uuid)s::uuid)
    ELSE (SELECT call_id FROM conference_calls WHERE conference_sid = %(conference_sid)s::text ORDER BY id LIMIT 1)
END
"""

_FIND_LEG = "SELECT call_id FROM call_legs WHERE uuid = %(leg_uuid)s"

# What is said of the call of somebody who leaves that was in the conference.
_WAS_IN = (None, IN_PROGRESS, "completed")


async def answer_leg(parts: CallParts, answer: LegAnswer) -> bytes:
    """What somebody who answered is to do: join the conference, a contact once they have heard the welcome message. Not
    so a machine instead of the moderator, nor who is not wanted in it any more."""
    progress = answer.progress
    script = parts.scripts.hang_up()

    def apply(call: Call, leg: CallLegRow, now: datetime) -> None:
        nonlocal script
        script = _script(parts, call, leg, answer, now=now)

    named = {"conference_uuid": answer.conference_uuid, "conference_sid": None}
    call_id = await parts.db.fetch_one(_FIND_CONFERENCE, named, scalar_row)
    find = partial(_find_asking, progress=progress)
    if call_id is None or not await _change_leg(parts, call_id, progress, find=find, apply=apply):
        log.warning("leg.unknown_asks", call_sid=progress.call_sid, conference_uuid=str(answer.conference_uuid))
        return parts.scripts.hang_up()
    return script


async def update_leg(parts: CallParts, progress: LegProgress) -> None:
    """Take what is told of a leg of whatever call. One that the provider brought is told of by the sid of its call
    alone, and may be one that was not taken, or is just being made."""
    if progress.leg_uuid is not None:
        call_id = await parts.db.fetch_one(_FIND_LEG, {"leg_uuid": progress.leg_uuid}, scalar_row)
    else:
        call_id = await find_call(parts.db, progress.call_sid)
    find = partial(_find_told_of, progress=progress)
    if call_id is None or not await _change_leg(parts, call_id, progress, find=find, apply=lambda *_: None):
        report = log.info if progress.leg_uuid is None else log.warning
        report("leg.unknown", call_sid=progress.call_sid, leg_uuid=str(progress.leg_uuid or ""))


async def update_conference(parts: CallParts, event: ConferenceEvent) -> None:
    """Take what is told of a conference. Raises Unavailable where somebody joined whose leg is not known yet."""
    named = {"conference_uuid": event.conference_uuid, "conference_sid": event.conference_sid}
    call_id = await parts.db.fetch_one(_FIND_CONFERENCE, named, scalar_row)
    if call_id is None:
        log.warning("conference.unknown", conference_sid=event.conference_sid)
        return
    is_unknown = False

    async def change(_tx: AsyncSession, call: Call) -> None:
        nonlocal is_unknown
        is_unknown = False
        now = datetime.now(UTC)
        _take_event(_conference_of(call), event, now=now)
        if event.call_sid is None:
            return
        leg = find_leg(call.legs, leg_uuid=None, call_sid=event.call_sid)
        if leg is not None:
            _take_participant_event(leg, event, now=now)
        else:
            is_unknown = any(each.in_doubt for each in call.legs)

    await change_call(parts.db, parts.notifications, parts.storage, call_id=call_id, change=change)
    if is_unknown:
        raise Unavailable("whose call this is will be known soon; tell it again")


async def welcome_message(parts: CallParts, conference_uuid: str) -> bytes:
    """What a conference's participants hear before they join. Raises ConferenceCallNotFound."""
    uuid = parse_uuid(conference_uuid)
    async with parts.db.begin() as tx:
        call = await queries.find_conference(tx, uuid, owner_id=None) if uuid is not None else None
        if call is None:
            raise ConferenceCallNotFound(conference_uuid)
        query = select(ConferenceCallRow.welcome_message).where(ConferenceCallRow.call_id == call.id)
        text = (await tx.scalars(query)).one()
    return parts.scripts.say(text)


def _conference_of(call: Call) -> ConferenceCallRow:
    assert call.conference is not None, "it was found by it"
    return call.conference


def _find_told_of(call: Call, progress: LegProgress) -> CallLegRow | None:
    return find_leg(call.legs, leg_uuid=progress.leg_uuid, call_sid=progress.call_sid)


def _find_asking(call: Call, progress: LegProgress) -> CallLegRow | None:
    """The leg that asks, of a conference; where only its number is known it is the one that was called there."""
    leg = _find_told_of(call, progress)
    if leg is None and progress.leg_uuid is None:
        called = e164(progress.to_number) if progress.to_number else None
        leg = next((each for each in call.legs if each.address == called and each.call_sid is None), None)
    return leg


async def _change_leg(
    parts: CallParts,
    call_id: int,
    progress: LegProgress,
    *,
    find: Callable[[Call], CallLegRow | None],
    apply: Callable[[Call, CallLegRow, datetime], None],
) -> bool:
    """Take what is told of a leg of a call, and apply what more there is to be said of it. False where there is no such
    leg, or it is another call's at the provider."""
    is_known = False

    async def change(_tx: AsyncSession, call: Call) -> None:
        nonlocal is_known
        now = datetime.now(UTC)
        leg = find(call)
        is_known = leg is not None
        if leg is None:
            return
        record_sid(leg, progress.call_sid, now=now)
        apply_progress(
            leg,
            provider_status=progress.provider_status,
            answered_by=progress.answered_by,
            error=progress.error,
            sip_response_code=progress.sip_response_code,
            occurred_at=progress.occurred_at,
            now=now,
        )
        apply(call, leg, now)

    try:
        await change_call(parts.db, parts.notifications, parts.storage, call_id=call_id, change=change)
    except IntegrityError as error:
        if not is_taken_sid(violated_constraint(error)):
            raise
        log.error("leg.call_of_another", call_id=call_id, call_sid=progress.call_sid)  # noqa: TRY400 no fault of ours
        return False
    return is_known


def _script(parts: CallParts, call: Call, leg: CallLegRow, answer: LegAnswer, *, now: datetime) -> bytes:
    """What somebody who asks for their script is to do. Who is told to join has joined, as far as anybody can tell: no
    callback of it may ever come. A contact may hang up in the welcome message, and is told once they have heard it."""
    if not _is_let_in(leg, answer.progress):
        return parts.scripts.hang_up()
    conference = _conference_of(call)
    is_moderator = leg.kind == MODERATOR
    if not is_moderator and not answer.is_welcomed:
        return parts.scripts.welcome(
            conference_uuid=conference.uuid, leg_uuid=leg.uuid, welcome_message=conference.welcome_message
        )
    if answer.progress.provider_status == IN_PROGRESS:
        _joined(leg, answer.progress.occurred_at, now=now)
    return parts.scripts.join_conference(
        call_uuid=call.row.uuid,
        conference_uuid=conference.uuid,
        is_moderator=is_moderator,
        time_limit=parts.time_limit,
    )


def _is_let_in(leg: CallLegRow, progress: LegProgress) -> bool:
    """Whether somebody who asks for their script may join."""
    is_over = progress.provider_status in FINAL_STATUSES
    if leg.hangup_at is not None and not is_over:
        return False
    return not (leg.kind == MODERATOR and is_machine(leg.answered_by))


def _take_event(conference: ConferenceCallRow, event: ConferenceEvent, *, now: datetime) -> None:
    """Take what an event tells of the conference."""
    at = event.occurred_at or now
    conference.conference_sid = conference.conference_sid or event.conference_sid
    if event.name == CONFERENCE_START:
        conference.started_at = conference.started_at or at
    elif event.name == CONFERENCE_END:
        conference.ended_at = conference.ended_at or at
    elif _tells_of_joining(event):
        conference.joined_at = conference.joined_at or at


def _take_participant_event(leg: CallLegRow, event: ConferenceEvent, *, now: datetime) -> None:
    """Take what an event tells of somebody in the conference."""
    if event.name == _PARTICIPANT_LEAVE and event.participant_call_status in LEG_STATUSES:
        apply_progress(
            leg,
            provider_status=event.participant_call_status,
            answered_by=None,
            error=None,
            occurred_at=event.occurred_at,
            now=now,
        )
    if _tells_of_joining(event):
        _joined(leg, event.occurred_at, now=now)
    if event.name == PARTICIPANT_JOIN and (leg.muted or leg.hold):
        # It was wanted before they could be.
        leg.control_at = now


def _tells_of_joining(event: ConferenceEvent) -> bool:
    """Whether somebody joined: that they did, or that they left who were in it."""
    if event.name == _PARTICIPANT_LEAVE:
        return event.participant_call_status in _WAS_IN
    return event.name == PARTICIPANT_JOIN


def _joined(leg: CallLegRow, occurred_at: datetime | None, *, now: datetime) -> None:
    at = occurred_at or now
    leg.joined_at = min(leg.joined_at, at) if leg.joined_at is not None else at
