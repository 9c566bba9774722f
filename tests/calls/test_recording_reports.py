"""What is told of recordings: one result in whatever order, however often, and to how many servers at once."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.calls.parts import CallParts
from server.calls.recordings.reports import LOOK_AFTER, receive_voicemail, take_facts, update_recording
from server.calls.state import RECORDING_STATUSES
from server.calls.tables import CallRecordingRow
from server.config import Settings
from server.db import Database
from server.notifications import Channel, Notifications
from server.providers.voice_ports import RecordingReport
from server.storage import Storage
from tests.calls.recorded import (
    events_of,
    legs_of,
    make_conference,
    make_direct_call,
    make_return_call,
    recordings,
    report,
    shown,
    sid,
    told,
    voicemails,
)
from tests.clients import Client

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
LIMIT = timedelta(hours=2)

Facts = tuple[str, str | None, str | None, str | None, int | None, int | None, datetime | None]


def facts_after(reports: Sequence[RecordingReport]) -> Facts:
    """What is kept of a recording that nobody works on."""
    row = CallRecordingRow(internal_status="pending", attempts=0)
    for each in reports:
        take_facts(row, each, time_limit=LIMIT, now=NOW)
    return (
        row.internal_status,
        row.error_description,
        row.provider_status,
        row.url,
        row.duration,
        row.channels,
        row.due_at,
    )


any_report = st.builds(
    RecordingReport,
    recording_sid=st.just("RE1"),
    provider_status=st.sampled_from(RECORDING_STATUSES),
    url=st.sampled_from([None, "https://api.twilio.com/a", "https://api.twilio.com/b"]),
    duration=st.none() | st.integers(0, 5),
    channels=st.none() | st.integers(1, 2),
    call_sid=st.none(),
    conference_sid=st.none(),
    call_uuid=st.none(),
)


@given(reports=st.lists(any_report, min_size=1, max_size=6), data=st.data())
def test_facts_are_the_same_in_whatever_order_and_however_often_they_are_told(
    reports: list[RecordingReport], data: st.DataObject
) -> None:
    again = data.draw(st.permutations([*reports, *data.draw(st.lists(st.sampled_from(reports), max_size=3))]))

    assert facts_after(again) == facts_after(reports)


@given(reports=st.lists(any_report, min_size=1, max_size=6))
def test_recording_is_due_where_there_is_one_once_it_is_completed_or_must_have_ended(
    reports: list[RecordingReport],
) -> None:
    status, error, provider_status, url, duration, _channels, due_at = facts_after(reports)

    expected = {"completed": NOW, "in-progress": NOW + (timedelta(0) if duration else LIMIT) + LOOK_AFTER}
    assert due_at == (expected.get(provider_status or "") if url is not None else None)
    assert provider_status == max((each.provider_status for each in reports), key=RECORDING_STATUSES.index)
    assert status == (provider_status if provider_status in ("absent", "failed") else status)
    assert (status == "failed") == (error is not None)
    assert due_at is None or status == "pending"


@pytest.mark.parametrize("settled", ["stored", "failed"])
@given(reports=st.lists(any_report, max_size=4))
def test_what_is_settled_stays_so_whatever_is_told(settled: str, reports: list[RecordingReport]) -> None:
    row = CallRecordingRow(internal_status="pending", attempts=0)
    take_facts(row, report(), time_limit=LIMIT, now=NOW)
    row.internal_status, row.due_at = settled, None

    for each in reports:
        take_facts(row, each, time_limit=LIMIT, now=NOW)

    assert (row.internal_status, row.provider_status, row.due_at) == (settled, "completed", None)


async def test_recording_is_due_to_be_fetched_once_it_is_completed(
    parts: CallParts, db: Database, client: Client, storage: Storage
) -> None:
    call = await make_direct_call(db, client)

    await update_recording(parts, report(call, "in-progress", url=None, duration=None))
    [begun] = await recordings(db)
    await update_recording(parts, report(call, duration=7, channels=2))
    [completed] = await recordings(db)

    assert (begun["internal_status"], begun["provider_status"]) == ("pending", "in-progress")
    assert begun["due_at"] is None
    assert (completed["internal_status"], completed["provider_status"]) == ("pending", "completed")
    assert completed["due_at"] is not None
    assert (completed["url"], completed["duration"], completed["channels"]) == (
        "https://api.twilio.com/recording",
        7,
        2,
    )
    found = await shown(db, storage, call)
    assert (found.internal_status, found.recording_duration) == ("finished", 7)
    assert not found.HasField("recording_url")
    # The length is news, that a recording has begun is none.
    assert [event.call.recording_duration for event in await events_of(db, call.uuid)] == [7]


async def test_repeated_and_late_reports_tell_nothing(parts: CallParts, db: Database, client: Client) -> None:
    call = await make_direct_call(db, client)
    await update_recording(parts, report(call))
    before, told_before = await recordings(db), await told(db, call)

    for status in ("completed", "in-progress", "failed", "absent"):
        await update_recording(parts, report(call, status))

    assert await recordings(db) == before
    assert await told(db, call) == told_before == ["finished"]


@pytest.mark.parametrize(
    ("status", "code", "description"),
    [
        ("absent", "RECORDING_ABSENT", "The provider recorded nothing."),
        ("failed", "RECORDING_FAILED", "The provider could not make the recording."),
    ],
)
async def test_recording_that_there_is_none_of_is_told(
    parts: CallParts, db: Database, client: Client, storage: Storage, status: str, code: str, description: str
) -> None:
    call = await make_direct_call(db, client)

    await update_recording(parts, report(call, status, url=None, duration=None))

    [row] = await recordings(db)
    assert (row["internal_status"], row["due_at"]) == (status, None)
    [event] = await events_of(db, call.uuid)
    for found in (event.call, await shown(db, storage, call)):
        assert (found.internal_status, found.error_code, found.error_description) == ("finished", code, description)


async def test_recording_that_is_nowhere_fails_until_it_is_somewhere(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await make_direct_call(db, client)

    await update_recording(parts, report(call, url=None))
    [nowhere] = await recordings(db)
    await update_recording(parts, report(call))
    [somewhere] = await recordings(db)

    assert (nowhere["internal_status"], nowhere["due_at"]) == ("failed", None)
    assert nowhere["error_description"] == "The provider does not say where the recording is."
    assert (somewhere["internal_status"], somewhere["error_description"]) == ("pending", None)
    assert somewhere["due_at"] is not None


async def test_call_is_found_by_its_uuid_its_conference_or_a_leg(
    parts: CallParts, db: Database, client: Client
) -> None:
    direct = await make_direct_call(db, client)
    conference = await make_conference(db, client, conference_sid="CF" + "1" * 32)
    contact = (await legs_of(db, await make_return_call(db, client)))[0]

    by_uuid = report(direct, conference_sid="CF" + "1" * 32, call_sid=contact.call_sid)
    by_conference = report(call_uuid=uuid4(), conference_sid="CF" + "1" * 32, call_sid=contact.call_sid)
    by_leg = report(conference_sid="CF" + "2" * 32, call_sid=contact.call_sid)
    for each in (by_uuid, by_conference, by_leg):
        await update_recording(parts, _with_sid(each))

    assert [row["call_id"] for row in await recordings(db)] == [direct.id, conference.id, contact.call_id]


async def test_recording_of_no_call_changes_nothing(parts: CallParts, db: Database, client: Client) -> None:
    await make_direct_call(db, client)

    for unknown in (report(call_uuid=uuid4()), report(call_sid="CA0"), report(conference_sid="CF0"), report()):
        await update_recording(parts, unknown)
        await receive_voicemail(parts, unknown)

    assert await recordings(db) == []


async def test_recording_stays_with_the_call_it_was_told_of_first(
    parts: CallParts, db: Database, client: Client
) -> None:
    first, second = await make_direct_call(db, client), await make_direct_call(db, client)

    await update_recording(parts, report(first, "in-progress"))
    await update_recording(parts, report(second))

    [row] = await recordings(db)
    assert (row["call_id"], row["provider_status"]) == (first.id, "in-progress")
    assert await told(db, second) == []


async def test_call_may_have_several_recordings(parts: CallParts, db: Database, client: Client) -> None:
    call = await make_direct_call(db, client)

    for _ in range(3):
        await update_recording(parts, _with_sid(report(call)))

    assert [row["call_id"] for row in await recordings(db)] == [call.id] * 3


async def test_record_is_thanked_and_its_status_is_answered_nothing(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await make_return_call(db, client)

    thanked = await receive_voicemail(parts, report(call, "in-progress"))
    silent = [await receive_voicemail(parts, report(call, status)) for status in ("completed", "absent", "failed")]

    assert b"<Say" in thanked
    assert b"Thank you." in thanked
    assert b"<Hangup" in thanked
    assert silent == [b"<Response/>"] * 3


async def test_voicemails_recording_is_linked_to_it(
    parts: CallParts, db: Database, client: Client, storage: Storage
) -> None:
    call = await make_return_call(db, client)

    await receive_voicemail(parts, report(call, "in-progress", duration=4))

    [voicemail], [recording] = await voicemails(db), await recordings(db)
    assert (voicemail["call_id"], voicemail["recording_id"]) == (call.id, recording["id"])
    assert voicemail["caller_id"] == "+1 206 555 0190"
    found = await shown(db, storage, call)
    assert (found.internal_status, found.voicemail.internal_status) == ("voicemail", "pending")
    assert (found.voicemail.provider_status, found.voicemail.recording_duration) == ("in-progress", 4)


@pytest.mark.parametrize("order", sorted(set(itertools.permutations(["in-progress", "completed", "completed"]))))
async def test_voicemail_that_nobody_has_written_down_is_made(
    parts: CallParts, db: Database, client: Client, storage: Storage, order: Sequence[str]
) -> None:
    call = await make_return_call(db, client, voicemail=False)

    for status in order:
        await receive_voicemail(parts, report(call, status))

    [voicemail], [recording] = await voicemails(db), await recordings(db)
    assert voicemail["recording_id"] == recording["id"]
    assert voicemail["caller_id"] == call.participant_number
    found = await shown(db, storage, call)
    assert (found.internal_status, found.voicemail.internal_status) == ("voicemail", "pending")
    assert found.voicemail.provider_status == "completed"
    assert set(await told(db, call)) == {"voicemail"}


@pytest.mark.parametrize("status", ["absent", "failed"])
async def test_voicemail_without_a_recording_fails(
    parts: CallParts, db: Database, client: Client, storage: Storage, status: str
) -> None:
    call = await make_return_call(db, client)

    await receive_voicemail(parts, report(call, status, url=None, duration=0))

    found = await shown(db, storage, call)
    assert (found.internal_status, found.voicemail.internal_status) == ("voicemail", "failed")
    assert found.error_code == f"RECORDING_{status.upper()}"
    assert (await events_of(db, call.uuid))[-1].call.voicemail.internal_status == "failed"


async def test_answered_calls_recording_is_no_voicemail(parts: CallParts, db: Database, client: Client) -> None:
    call = await make_return_call(db, client, voicemail=False)

    await update_recording(parts, report(call))

    assert await voicemails(db) == []
    assert [row["call_id"] for row in await recordings(db)] == [call.id]


async def test_record_in_a_conference_is_a_recording_as_any_other(
    parts: CallParts, db: Database, client: Client, storage: Storage
) -> None:
    call = await make_conference(db, client)
    contact = (await legs_of(db, call))[1]

    await receive_voicemail(parts, report(call_sid=contact.call_sid))

    assert await voicemails(db) == []
    assert [row["call_id"] for row in await recordings(db)] == [call.id]
    assert (await shown(db, storage, call)).internal_status == "inviting"


async def test_reports_at_once_make_one_recording_and_one_voicemail(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await make_return_call(db, client, voicemail=False)
    statuses = ["in-progress", "completed"] * 4

    await asyncio.gather(*(receive_voicemail(parts, report(call, status)) for status in statuses))

    [recording], [voicemail] = await recordings(db), await voicemails(db)
    assert (recording["provider_status"], voicemail["recording_id"]) == ("completed", recording["id"])
    events = await events_of(db, call.uuid)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len(events) <= 2


async def test_workers_are_woken(parts: CallParts, db: Database, client: Client, settings: Settings) -> None:
    call = await make_direct_call(db, client)
    notifications = Notifications(settings.database_url.get_secret_value(), db)
    heard, connected = asyncio.Event(), asyncio.Event()
    notifications.listen(Channel.CALL_RECORDINGS, heard.set)
    notifications.on_connect(connected.set)
    running = [asyncio.create_task(each.run()) for each in (notifications, parts.notifications)]
    async with asyncio.timeout(30):
        await connected.wait()

        await update_recording(parts, report(call))

        await heard.wait()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _with_sid(told_of: RecordingReport) -> RecordingReport:
    """The report of another recording."""
    return RecordingReport(**{**vars(told_of), "recording_sid": sid("RE")})
