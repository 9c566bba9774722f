"""Making and changing calls, over real sockets at the sandbox: what it takes, what it tells, and what is lost."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from server.providers.ports import (
    ProviderError,
    ProviderOutcomeUnknown,
    ProviderRejected,
    ProviderUnavailable,
)
from server.providers.twilio.recordings import TwilioCallRecordingFetcher
from server.providers.twilio.voice import TwilioVoiceCalls
from server.providers.voice_ports import CallGone, ConferenceEvent, LegAnswer, OutboundCall, RecordingReport
from tests.providers.servers import Sandbox, twilio_account
from tests.providers.twilio_voice.outbound import (
    NO_CALL,
    NO_CONFERENCE,
    NO_RECORDING,
    OTHER_NUMBER,
    OTHER_PHONE,
    PHONE,
    make_call,
)
from tests.providers.twilio_voice.server import Server


def moderator_of(server: Server) -> OutboundCall:
    """The leg that starts the server's conference."""
    return make_call(call_uuid=server.call_uuid, conference_uuid=server.conference_uuid, leg_uuid=server.moderator_leg)


async def dialled(sandbox: Sandbox) -> list[str]:
    """The sids of all calls that were made."""
    return [call["sid"] for call in (await sandbox.control("GET", "calls"))["calls"]]


async def test_call_is_dialled_and_tells_who_it_is(calls: TwilioVoiceCalls, server: Server) -> None:
    call = make_call(call_uuid=server.call_uuid)

    report = await calls.dial(call)

    assert (report.provider_status, report.answered_by, report.ended_at) == ("queued", None, None)
    answer = await server.until(LegAnswer)
    assert answer.conference_uuid == call.conference_uuid
    assert (answer.progress.leg_uuid, answer.progress.call_sid) == (call.leg_uuid, report.call_sid)
    assert (answer.progress.provider_status, answer.progress.answered_by) == ("in-progress", "human")
    assert answer.progress.to_number == call.to_number
    for status in ("initiated", "ringing", "in-progress"):
        progress = await server.until_status(call.leg_uuid, status)
        assert progress.call_sid == report.call_sid
        assert progress.occurred_at is not None


async def test_machine_is_told_of_before_the_script_is_asked_for(
    calls: TwilioVoiceCalls, server: Server, sandbox: Sandbox
) -> None:
    await sandbox.control("PUT", f"phones/{PHONE}", json={"pickup": "machine"})

    report = await calls.dial(make_call())

    assert (await server.until(LegAnswer)).progress.answered_by == "machine_start"
    fetched = await calls.fetch(report.call_sid)
    assert fetched is not None
    assert fetched.answered_by == "machine_start"


@pytest.mark.parametrize(
    ("pickup", "status"), [("no-answer", "no-answer"), ("busy", "busy"), ("unreachable", "failed")]
)
async def test_call_that_nobody_answers_ends_by_itself(
    calls: TwilioVoiceCalls, server: Server, sandbox: Sandbox, pickup: str, status: str
) -> None:
    await sandbox.control("PUT", f"phones/{PHONE}", json={"pickup": pickup})
    call = make_call(ring_for=timedelta(seconds=5))

    report = await calls.dial(call)

    await server.until_status(call.leg_uuid, status)
    fetched = await calls.fetch(report.call_sid)
    assert fetched is not None
    assert (fetched.call_sid, fetched.provider_status) == (report.call_sid, status)
    assert fetched.ended_at is not None
    assert server.of(LegAnswer) == []


async def test_call_is_ended_at_its_limit(calls: TwilioVoiceCalls, server: Server, sandbox: Sandbox) -> None:
    call = make_call(time_limit=timedelta(seconds=3))

    await calls.dial(call)

    await server.until_status(call.leg_uuid, "completed")
    [ended] = (await sandbox.control("GET", "calls"))["calls"]
    # Of the sandbox's seconds, which are shorter.
    assert ended["duration"] >= 3


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"to_number": "+15005550003"}, "21215"),
        ({"from_number": "+13035550100"}, "21210"),
        ({"to_number": "x"}, "21211"),
    ],
)
async def test_refused_call_is_rejected_with_its_code(
    calls: TwilioVoiceCalls, sandbox: Sandbox, over: dict[str, str], code: str
) -> None:
    with pytest.raises(ProviderRejected) as rejected:
        await calls.dial(make_call(**over))

    assert rejected.value.error == ProviderError(code, f"https://www.twilio.com/docs/api/errors/{code}")
    assert await dialled(sandbox) == []


@pytest.mark.parametrize("answer", ["429", "503"])
async def test_call_that_twilio_has_no_room_for_is_not_made(
    calls: TwilioVoiceCalls, sandbox: Sandbox, answer: str
) -> None:
    await sandbox.misbehave(answer=answer, retry_after_ms=7000)

    with pytest.raises(ProviderUnavailable) as unavailable:
        await calls.dial(make_call())

    assert unavailable.value.retry_after == timedelta(seconds=7)
    assert await dialled(sandbox) == []


@pytest.mark.parametrize("answer", ["lost-response", "garbled", "500-taken", "502-taken", "504-taken"])
async def test_call_made_without_an_answer_is_found_and_told_of(
    calls: TwilioVoiceCalls, server: Server, sandbox: Sandbox, answer: str
) -> None:
    call, since = make_call(), datetime.now(UTC)
    await sandbox.misbehave(answer=answer, next_requests=1)

    with pytest.raises(ProviderOutcomeUnknown):
        await calls.dial(call)

    (copy,) = await calls.find_copies(call, since=since)
    assert await dialled(sandbox) == [copy.call_sid]
    assert (await server.until_status(call.leg_uuid, "ringing")).call_sid == copy.call_sid


@pytest.mark.parametrize("answer", ["500", "502", "504"])
async def test_failure_midway_is_unknown_and_nothing_is_found(
    calls: TwilioVoiceCalls, sandbox: Sandbox, answer: str
) -> None:
    call, since = make_call(), datetime.now(UTC)
    await sandbox.misbehave(answer=answer, next_requests=1)

    with pytest.raises(ProviderOutcomeUnknown):
        await calls.dial(call)

    assert await calls.find_copies(call, since=since) == []


async def test_answer_that_comes_too_late_is_unknown(server: Server, sandbox: Sandbox) -> None:
    await sandbox.misbehave(delay_ms=1500, next_requests=1)
    hasty = TwilioVoiceCalls(
        twilio_account(sandbox.base_url), public_base_url=server.base_url, timeout=timedelta(seconds=1)
    )
    call = make_call()

    with pytest.raises(ProviderOutcomeUnknown):
        await hasty.dial(call)

    await hasty.aclose()
    await server.until_status(call.leg_uuid, "initiated")


async def test_only_our_calls_between_the_same_numbers_are_copies(
    calls: TwilioVoiceCalls, server: Server, sandbox: Sandbox
) -> None:
    call, since = make_call(), datetime.now(UTC)
    await calls.dial(replace(call, to_number=OTHER_PHONE))
    await calls.dial(replace(call, from_number=OTHER_NUMBER))
    await sandbox.control("POST", "calls", json={"from": PHONE, "to": call.from_number})
    server.answers[LegAnswer] = lambda _: server.scripts.dial_contact(
        call_uuid=call.call_uuid,
        leg_uuid=call.leg_uuid,
        caller_id=call.from_number,
        phone_number=PHONE,
        time_limit=timedelta(minutes=1),
    )
    await calls.dial(replace(call, to_number=OTHER_PHONE))
    await server.until_status(call.leg_uuid, "in-progress")
    first = await calls.dial(call)
    second = await calls.dial(call)

    copies = await calls.find_copies(call, since=since)

    assert [copy.call_sid for copy in copies] == [first.call_sid, second.call_sid]


async def test_older_calls_are_no_copies(calls: TwilioVoiceCalls) -> None:
    call = make_call()
    await calls.dial(call)

    assert await calls.find_copies(call, since=datetime.now(UTC) + timedelta(minutes=5)) == []


async def test_copies_are_found_across_pages(calls: TwilioVoiceCalls, sandbox: Sandbox) -> None:
    await sandbox.control("PUT", f"phones/{PHONE}", json={"pickup": "busy"})
    call, since = make_call(), datetime.now(UTC)
    made = [(await calls.dial(call)).call_sid for _ in range(102)]

    assert [copy.call_sid for copy in await calls.find_copies(call, since=since)] == made


@pytest.mark.parametrize("answer", ["429", "500", "502", "503", "lost-response", "garbled"])
async def test_looking_in_vain_is_not_finding_nothing(calls: TwilioVoiceCalls, sandbox: Sandbox, answer: str) -> None:
    sid = (await calls.dial(make_call())).call_sid
    await sandbox.misbehave(answer=answer)

    with pytest.raises(ProviderUnavailable):
        await calls.find_copies(make_call(), since=datetime.now(UTC))
    with pytest.raises(ProviderUnavailable):
        await calls.fetch(sid)


async def test_call_that_is_not_known_is_none(calls: TwilioVoiceCalls) -> None:
    assert await calls.fetch(NO_CALL) is None
    assert await calls.fetch("../Messages") is None


async def test_call_is_hung_up_while_it_rings_and_while_it_lasts(
    calls: TwilioVoiceCalls, server: Server, sandbox: Sandbox
) -> None:
    await sandbox.control("PUT", f"phones/{PHONE}", json={"pickup": "no-answer"})
    ringing, lasting = make_call(), make_call(to_number=OTHER_PHONE)
    ringing_sid = (await calls.dial(ringing)).call_sid
    lasting_sid = (await calls.dial(lasting)).call_sid
    await server.until_status(ringing.leg_uuid, "ringing")
    await server.until(LegAnswer)

    await calls.hang_up(ringing_sid)
    await calls.hang_up(lasting_sid)

    for sid in (ringing_sid, lasting_sid):
        report = await calls.fetch(sid)
        assert report is not None
        assert report.ended_at is not None
    await server.until_status(lasting.leg_uuid, "completed")


async def test_call_that_never_was_is_gone(calls: TwilioVoiceCalls) -> None:
    with pytest.raises(CallGone):
        await calls.hang_up(NO_CALL)
    with pytest.raises(CallGone):
        await calls.update_participant(NO_CONFERENCE, NO_CALL, muted=True, hold=False)


async def test_somebody_is_muted_and_held_until_they_have_left(calls: TwilioVoiceCalls, server: Server) -> None:
    moderator = moderator_of(server)
    contact = replace(moderator, leg_uuid=make_call().leg_uuid, to_number=OTHER_PHONE)
    await calls.dial(moderator)
    joined = await server.until(ConferenceEvent, lambda event: event.name == "participant-join")
    sid = (await calls.dial(contact)).call_sid
    await server.until(ConferenceEvent, lambda event: (event.name, event.call_sid) == ("participant-join", sid))

    await calls.update_participant(joined.conference_sid, sid, muted=True, hold=False)
    await server.until(ConferenceEvent, lambda event: (event.name, event.call_sid) == ("participant-mute", sid))
    await calls.update_participant(joined.conference_sid, sid, muted=False, hold=True)
    await server.until(ConferenceEvent, lambda event: (event.name, event.call_sid) == ("participant-unmute", sid))
    await server.until(ConferenceEvent, lambda event: (event.name, event.call_sid) == ("participant-hold", sid))
    await calls.hang_up(sid)
    await server.until(ConferenceEvent, lambda event: (event.name, event.call_sid) == ("participant-leave", sid))

    with pytest.raises(CallGone):
        await calls.update_participant(joined.conference_sid, sid, muted=True, hold=False)


async def test_recording_is_fetched_then_deleted_once(
    calls: TwilioVoiceCalls, server: Server, fetcher: TwilioCallRecordingFetcher
) -> None:
    moderator = await calls.dial(moderator_of(server))
    await calls.dial(replace(moderator_of(server), leg_uuid=make_call().leg_uuid, to_number=OTHER_PHONE))
    await server.until(ConferenceEvent, lambda event: event.name == "conference-start")
    await calls.hang_up(moderator.call_sid)
    recording = await server.until(RecordingReport, lambda told: told.provider_status == "completed")
    assert recording.url is not None
    assert recording.call_uuid == server.call_uuid

    async with fetcher.open(recording.url) as chunks:
        wav = b"".join([chunk async for chunk in chunks])
    await calls.delete_recording(recording.recording_sid)
    await calls.delete_recording(recording.recording_sid)
    await calls.delete_recording(NO_RECORDING)

    assert wav[:4] == b"RIFF"
    assert wav[8:12] == b"WAVE"
    with pytest.raises(ProviderUnavailable):
        async with fetcher.open(recording.url):
            raise AssertionError("it was deleted")


@pytest.mark.parametrize("answer", ["429", "500", "502", "503", "504", "lost-response"])
async def test_change_that_fails_may_be_asked_again(
    calls: TwilioVoiceCalls, server: Server, sandbox: Sandbox, answer: str
) -> None:
    sid = (await calls.dial(moderator_of(server))).call_sid
    joined = await server.until(ConferenceEvent, lambda event: event.name == "participant-join")
    await sandbox.misbehave(answer=answer, next_requests=2)

    with pytest.raises(ProviderUnavailable):
        await calls.update_participant(joined.conference_sid, sid, muted=True, hold=False)
    with pytest.raises(ProviderUnavailable):
        await calls.hang_up(sid)

    await calls.hang_up(sid)
    await server.until(ConferenceEvent, lambda event: event.name == "conference-end")
