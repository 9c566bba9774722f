"""What the provider tells of recordings, taken for the facts it tells: late and repeated reports change nothing.

That a recording is completed may be told when nobody hears it: one that was in progress is looked for once it must have
ended, and the provider is asked (`checks.py`) what it recorded of a call that is over.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog
from psycopg.rows import scalar_row
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls.events import change_call
from server.calls.parts import CallParts
from server.calls.queries import Call, Recording
from server.calls.state import RECORDING_STATUSES, RETURN, later
from server.calls.tables import CallRecordingRow, VoicemailRow
from server.notifications import Channel
from server.providers.voice_ports import RecordingReport

log = structlog.get_logger()

# The call that was recorded: the one that the URL names, else the conference's or the leg's.
_FIND = """
SELECT coalesce(
    (SELECT id FROM calls WHERE uuid = %(call_uuid)s::uuid),
    (SELECT call_id FROM conference_calls WHERE conference_sid = %(conference_sid)s::text ORDER BY id LIMIT 1),
    (SELECT call_id FROM call_legs WHERE call_sid = %(call_sid)s::text)
)
"""

Detail = TypeVar("Detail", int, str)

_IN_PROGRESS = "in-progress"
_COMPLETED = "completed"

# How long that it is completed is waited for, after it has ended.
LOOK_AFTER = timedelta(minutes=5)

_NOT_MADE = "The provider could not make the recording."
_NOWHERE = "The provider does not say where the recording is."
_NEVER_COMPLETED = "The provider did not complete the recording within 24 hours."

_THANK_YOU = "Thank you. Your message has been recorded. Goodbye."
# To what asks for nothing to be said.
_NO_ANSWER = b"<Response/>"


async def update_recording(parts: CallParts, report: RecordingReport) -> None:
    """A recording's status; what can be had of it is due to be fetched."""
    await _apply(parts, report, is_voicemail=False)


async def receive_voicemail(parts: CallParts, report: RecordingReport) -> bytes:
    """A voicemail's recording: the same, and it is the voicemail's.

    Answers what the caller hears who is still there when the recording ends, which is when it has an address already
    and no status; what is told afterwards is answered nothing.
    """
    await _apply(parts, report, is_voicemail=True)
    if report.provider_status == _IN_PROGRESS and report.url is not None:
        return parts.scripts.say_and_hang_up(_THANK_YOU)
    return _NO_ANSWER


async def _apply(parts: CallParts, report: RecordingReport, *, is_voicemail: bool) -> None:
    named = {"call_uuid": report.call_uuid, "conference_sid": report.conference_sid, "call_sid": report.call_sid}
    call_id = await parts.db.fetch_one(_FIND, named, scalar_row)
    if call_id is None:
        log.warning("call_recording.of_no_call", recording_sid=report.recording_sid)
        return
    change = partial(take_report, report=report, is_voicemail=is_voicemail, time_limit=parts.time_limit)
    await change_call(parts.db, parts.notifications, parts.storage, call_id=call_id, change=change)
    parts.notifications.notify(Channel.CALL_RECORDINGS)


async def take_report(
    tx: AsyncSession, call: Call, *, report: RecordingReport, is_voicemail: bool, time_limit: timedelta
) -> Call:
    """Keep what the report tells of a recording of the call, which the transaction holds; answers the call with it."""
    is_known = any(each.row.recording_sid == report.recording_sid for each in call.recordings)
    if not is_known:
        made = insert(CallRecordingRow).values(
            call_id=call.row.id, recording_sid=report.recording_sid, internal_status="pending"
        )
        await tx.execute(made.on_conflict_do_nothing(index_elements=[CallRecordingRow.recording_sid]))
    # As it is now: workers claim it without its call.
    query = select(CallRecordingRow).where(CallRecordingRow.recording_sid == report.recording_sid)
    row = (await tx.scalars(query.with_for_update(), execution_options={"populate_existing": True})).one()
    if row.call_id != call.row.id:
        log.warning("call_recording.of_two_calls", recording_sid=report.recording_sid)
        return call
    if not is_known:
        call = replace(call, recordings=[*call.recordings, Recording(row, transcript=None)])
    take_facts(row, report, time_limit=time_limit, now=datetime.now(UTC))
    # A `<Record>` is only in a contact's call; elsewhere it is a recording as any other.
    if is_voicemail and call.row.kind == RETURN:
        call = await _link_voicemail(tx, call, row, now=datetime.now(UTC))
    return call


def take_facts(row: CallRecordingRow, report: RecordingReport, *, time_limit: timedelta, now: datetime) -> None:
    """What is known of the recording with what the report tells, and what is to be done about it. No recording lasts
    longer than `time_limit`."""
    could_be_had = row.provider_status == _COMPLETED and row.url is not None
    row.provider_status = later(RECORDING_STATUSES, row.provider_status, report.provider_status)
    row.url = _one_of(row.url, report.url)
    row.duration = _one_of(row.duration, report.duration)
    row.channels = _one_of(row.channels, report.channels)
    if could_be_had:
        # It is stored, given up, or a worker's.
        return
    if row.provider_status in ("absent", "failed"):
        row.internal_status, row.due_at = row.provider_status, None
        row.error_description = _NOT_MADE if row.provider_status == "failed" else None
    elif row.provider_status == _COMPLETED:
        row.internal_status = "pending" if row.url is not None else "failed"
        row.error_description = None if row.url is not None else _NOWHERE
        row.due_at = now if row.url is not None else None
    elif row.internal_status == "pending" and row.url is not None and not row.attempts:
        # Of one that has ended the length is told.
        ends = now if row.duration else now + time_limit
        row.due_at = min(row.due_at or ends + LOOK_AFTER, ends + LOOK_AFTER)


def give_up(row: CallRecordingRow) -> None:
    """Nothing more is expected of a recording that is pending, unless it is being looked for at its address. It is
    taken all the same should it be told that it is completed."""
    if row.internal_status == "pending" and row.due_at is None:
        row.internal_status, row.error_description = "failed", _NEVER_COMPLETED


def _one_of(known: Detail | None, told: Detail | None) -> Detail | None:
    """What is told of a recording is told alike each time. Were it not, one is kept, which is the same in whatever
    order they come."""
    return told if known is None or (told is not None and told > known) else known


async def _link_voicemail(tx: AsyncSession, call: Call, recording: CallRecordingRow, *, now: datetime) -> Call:
    """The recording is the voicemail of the call, who was sent to voicemail if there is one."""
    if call.row.voicemail_at is None:
        call.row.voicemail_at = now
    voicemail = call.voicemail
    if voicemail is None:
        voicemail = VoicemailRow(
            call_id=call.row.id,
            caller_id=call.row.participant_number,
            internal_status="pending",
            created_at=now,
            updated_at=now,
        )
        tx.add(voicemail)
    if voicemail.recording_id is None:
        voicemail.recording_id = recording.id
        voicemail.updated_at = now
    await tx.flush()
    return replace(call, voicemail=voicemail)
