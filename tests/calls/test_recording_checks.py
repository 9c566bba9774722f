"""What the provider recorded is asked for once a call is over: found although nothing was told, and never waited for in
vain."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import hypothesis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.calls.parts import CallParts
from server.calls.recordings.worker import RecordingWorker
from server.calls.status import RECORDING_CHECKS
from server.db import Database
from server.providers.ports import ProviderUnavailable
from server.providers.voice_ports import LegReport
from tests.calls import recorded
from tests.calls.looking import (
    ANSWERED,
    CONFERENCE_CALL,
    DIRECT_CALL,
    KINDS,
    VOICEMAIL,
    assert_told,
    end,
    is_about,
    lasting,
    look,
    looks_of,
    over,
    phones_with,
)
from tests.calls.recorded import (
    legs_of,
    make_conference,
    recordings,
    shown,
    sid,
    told,
    voicemails,
    wav,
)
from tests.calls.transcribing import OneFile
from tests.clients import Client

any_order = hypothesis.settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


async def store(parts: CallParts) -> None:
    """Fetch whatever can be had, as if every wait were over."""
    await recorded.make_due(parts.db)
    worker = RecordingWorker(parts.db, parts.notifications, OneFile(wav()), parts.storage, delete_provider_copies=False)
    while await worker.step():
        pass


# What is told, and when the provider is asked: each None is a look.
Story = list[str | None]
LOST: Story = []


@any_order
@given(
    kind=st.sampled_from(KINDS),
    outcome=st.sampled_from(["completed", "absent", "failed"]),
    story=st.lists(st.sampled_from(["in-progress", "outcome", None]), max_size=5),
)
@example(kind=CONFERENCE_CALL, outcome="completed", story=LOST)
@example(kind=VOICEMAIL, outcome="completed", story=LOST)
@example(kind=VOICEMAIL, outcome="absent", story=[None, "in-progress", "outcome", None])
@example(kind=ANSWERED, outcome="completed", story=[None, "in-progress", "outcome", "outcome"])
@example(kind=DIRECT_CALL, outcome="failed", story=["in-progress", None, "outcome"])
async def test_whatever_is_lost_or_late_the_call_ends_as_if_all_had_been_told_in_order(
    parts: CallParts, db: Database, client: Client, kind: str, outcome: str, story: Sequence[str | None]
) -> None:
    # Of what there is nothing of, no length is known.
    given = {} if outcome == "completed" else {"duration": 0}
    in_order, call = await over(parts, client, kind), await over(parts, client, kind)
    for status in ("in-progress", outcome):
        await in_order.tell(status, **given)
    phones = phones_with(call.reported(outcome, **given))

    for step in [*story, None]:
        if step is None:
            await look(parts, phones)
        else:
            await call.tell(outcome if step == "outcome" else step, **given)
    await store(parts)

    expected, found = [lasting(await shown(db, parts.storage, each.call)) for each in (in_order, call)]
    assert found == expected
    await assert_told(db, parts.storage, call.call)
    assert (await looks_of(db, call.call))[0] is None
    assert phones.lists <= 1
    assert [row["call_id"] for row in await recordings(db)].count(call.call.id) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_call_that_was_never_recorded_is_told_so_once(
    parts: CallParts, db: Database, client: Client, kind: str
) -> None:
    call = await over(parts, client, kind)
    before = await told(db, call.call)

    assert await look(parts, phones_with())
    assert not await look(parts, phones_with())

    found = await shown(db, parts.storage, call.call)
    status = "voicemail" if kind == VOICEMAIL else "finished"
    assert (found.internal_status, found.error_code) == (status, "RECORDING_ABSENT")
    assert found.voicemail.internal_status == ("failed" if kind == VOICEMAIL else "")
    assert await told(db, call.call) == [*before, status]
    await assert_told(db, parts.storage, call.call)


@pytest.mark.parametrize("kind", KINDS)
async def test_recording_that_is_told_of_after_all_comes_before_that_there_was_none(
    parts: CallParts, db: Database, client: Client, kind: str
) -> None:
    call = await over(parts, client, kind)
    await look(parts, phones_with())

    await call.tell("in-progress")
    awaited, attempts = await looks_of(db, call.call)
    await call.tell("completed")
    await store(parts)

    found = await shown(db, parts.storage, call.call)
    assert is_about(awaited, RECORDING_CHECKS[1])
    assert attempts == 1
    assert found.internal_status == ("finished" if kind == CONFERENCE_CALL else "recorded")
    assert (found.error_code, bool(found.recording_url)) == ("", True)
    assert found.voicemail.internal_status == ("recorded" if kind == VOICEMAIL else "")


async def test_what_was_said_to_staff_is_no_voicemail(parts: CallParts, db: Database, client: Client) -> None:
    call = await over(parts, client, VOICEMAIL)

    await look(parts, phones_with(call.reported("completed", source="DialVerb")))

    [voicemail], [recording] = await voicemails(db), await recordings(db)
    assert (voicemail["recording_id"], voicemail["internal_status"]) == (None, "failed")
    assert recording["internal_status"] == "pending"
    assert await looks_of(db, call.call) == (None, 1)


async def test_recording_that_is_not_ready_is_asked_for_less_and_less_and_is_not_absent(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await over(parts, client, DIRECT_CALL)
    phones = phones_with(call.reported("in-progress", url=None))
    before = await told(db, call.call)
    waits = []

    while (wait := (await looks_of(db, call.call))[0]) is not None:
        waits.append(wait)
        assert await told(db, call.call) == before
        await look(parts, phones)

    found = await shown(db, parts.storage, call.call)
    assert all(is_about(wait, expected) for wait, expected in zip(waits, RECORDING_CHECKS, strict=True))
    assert phones.lists == len(RECORDING_CHECKS)
    assert (found.error_code, found.internal_status) == ("RECORDING_FAILED", "finished")
    assert await told(db, call.call) == [*before, "finished"]


async def test_recording_that_is_completed_after_it_was_given_up_is_fetched(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await over(parts, client, VOICEMAIL)
    for _ in RECORDING_CHECKS:
        await look(parts, phones_with(call.reported("in-progress", url=None)))
    given_up = await shown(db, parts.storage, call.call)

    await call.tell("completed")
    await store(parts)

    found = await shown(db, parts.storage, call.call)
    assert (given_up.voicemail.internal_status, given_up.error_code) == ("failed", "RECORDING_FAILED")
    assert (found.internal_status, found.voicemail.internal_status, found.error_code) == ("recorded", "recorded", "")


async def test_recording_that_is_looked_for_at_its_address_is_not_given_up_here(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await over(parts, client, DIRECT_CALL)
    for _ in RECORDING_CHECKS:
        await look(parts, phones_with(call.reported("in-progress")))

    [pending] = await recordings(db)
    await store(parts)

    assert (pending["internal_status"], pending["due_at"] is not None) == ("pending", True)
    assert await looks_of(db, call.call) == (None, len(RECORDING_CHECKS))
    assert (await shown(db, parts.storage, call.call)).internal_status == "recorded"


async def test_recording_that_becomes_ready_is_had_at_the_next_look(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await over(parts, client, CONFERENCE_CALL)
    phones = phones_with(call.reported("in-progress"))
    await look(parts, phones)
    phones.recorded = [call.reported("completed")]
    await look(parts, phones)

    await store(parts)

    assert bool((await shown(db, parts.storage, call.call)).recording_url)
    assert not await look(parts, phones)


async def test_conference_of_which_no_event_came_is_found_by_its_name(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await make_conference(db, client)
    await end(parts, call)
    uuid = UUID((await shown(db, parts.storage, call)).conference_call.uuid)
    phones = phones_with(recorded.report(conference_sid="CF" + "3" * 32, recording_sid=sid("RE")))
    phones.conferences = {uuid: "CF" + "3" * 32}

    await look(parts, phones)

    assert [row["call_id"] for row in await recordings(db)] == [call.id]


async def test_call_that_dialled_is_asked_for_where_nobody_told_which_it_was(
    parts: CallParts, db: Database, client: Client
) -> None:
    call = await over(parts, client, DIRECT_CALL)
    browser, contact = await legs_of(db, call.call)
    await db.execute("UPDATE call_legs SET call_sid = NULL WHERE id = %s", [browser.id])
    assert browser.call_sid is not None
    assert contact.call_sid is not None
    phones = phones_with(call.reported("completed"))
    phones.calls[contact.call_sid] = LegReport(contact.call_sid, "completed", parent_call_sid=browser.call_sid)

    await look(parts, phones)

    assert [row["provider_status"] for row in await recordings(db)] == ["completed"]


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        (None, timedelta(minutes=5)),
        (timedelta(seconds=1), timedelta(minutes=5)),
        (timedelta(minutes=7), timedelta(minutes=7)),
        (timedelta(days=1), timedelta(hours=1)),
    ],
)
async def test_provider_that_is_away_is_asked_later_and_was_not_asked_in_vain(
    parts: CallParts, db: Database, client: Client, retry_after: timedelta | None, expected: timedelta
) -> None:
    call = await over(parts, client, VOICEMAIL)
    before = await told(db, call.call)
    phones = phones_with(call.reported("completed"))

    for _ in range(len(RECORDING_CHECKS) + 2):
        phones.failures = [ProviderUnavailable("away", retry_after=retry_after)]
        await look(parts, phones)
        wait, attempts = await looks_of(db, call.call)
        assert is_about(wait, expected)
        assert attempts == 0
    assert await told(db, call.call) == before
    await look(parts, phones)

    assert [row["provider_status"] for row in await recordings(db)] == ["completed"]


async def test_worker_that_fails_leaves_the_call_to_the_next(parts: CallParts, db: Database, client: Client) -> None:
    call = await over(parts, client, DIRECT_CALL)
    phones = phones_with(call.reported("completed"))
    phones.failures = [RuntimeError("a fault of ours")]

    assert await look(parts, phones)
    leased = await looks_of(db, call.call)
    assert await look(parts, phones)

    assert leased[0] is not None
    assert leased[0] > timedelta(minutes=1)
    assert [row["provider_status"] for row in await recordings(db)] == ["completed"]
