"""What the sandbox has recorded, asked for over real sockets: the same facts that its callbacks tell."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from server.providers.ports import ProviderUnavailable
from server.providers.twilio.recordings import TwilioCallRecordingFetcher
from server.providers.twilio.voice import TwilioVoiceCalls
from server.providers.voice_ports import ConferenceEvent, DialResult, IncomingCall, RecordingReport
from tests.providers.sandbox_voice.account import call_of
from tests.providers.servers import ACCOUNT_SID, Sandbox, listening, scripted_vendor, twilio_account
from tests.providers.twilio_voice.outbound import (
    NO_CALL,
    NO_CONFERENCE,
    NUMBER,
    OTHER_PHONE,
    PHONE,
    make_call,
)
from tests.providers.twilio_voice.server import TIME_LIMIT, Server

RECORDING = "RE" + "5" * 32
FILE = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/{RECORDING}"


async def list_recordings(
    calls: TwilioVoiceCalls,
    *call_sids: str,
    conference_sid: str | None = None,
    conference_uuid: UUID | None = None,
) -> list[RecordingReport]:
    """The lists of these."""
    return await calls.list_recordings(
        call_sids=call_sids, conference_sid=conference_sid, conference_uuid=conference_uuid
    )


async def call_in(sandbox: Sandbox) -> str:
    """A contact calls our number."""
    called: dict[str, Any] = await sandbox.control("POST", "calls", json={"from": PHONE, "to": NUMBER})
    return str(called["sid"])


async def told(server: Server, status: str = "completed") -> RecordingReport:
    """What a callback told in the end."""
    return await server.until(RecordingReport, lambda report: report.provider_status == status)


def as_listed(report: RecordingReport) -> RecordingReport:
    """The callback's facts without what its URL named."""
    return replace(report, call_uuid=None)


async def test_conferences_recording_is_found_by_its_sid_and_by_its_name(
    calls: TwilioVoiceCalls, server: Server, fetcher: TwilioCallRecordingFetcher
) -> None:
    moderator = make_call(
        call_uuid=server.call_uuid, conference_uuid=server.conference_uuid, leg_uuid=server.moderator_leg
    )
    sid = (await calls.dial(moderator)).call_sid
    await server.until(ConferenceEvent, lambda event: event.name == "participant-join")
    await calls.dial(replace(moderator, leg_uuid=uuid4(), to_number=OTHER_PHONE))
    started = await server.until(ConferenceEvent, lambda event: event.name == "conference-start")
    [lasting] = await list_recordings(calls, conference_sid=started.conference_sid)
    await calls.hang_up(sid)
    completed = await told(server)

    by_sid = await list_recordings(calls, conference_sid=started.conference_sid)
    by_name = await list_recordings(calls, sid, conference_uuid=server.conference_uuid)

    assert (lasting.provider_status, lasting.duration, lasting.url) == ("in-progress", None, completed.url)
    assert by_sid == by_name == [as_listed(completed)]
    assert (completed.source, completed.conference_sid) == ("Conference", started.conference_sid)
    assert completed.url is not None
    async with fetcher.open(completed.url) as chunks:
        assert b"".join([chunk async for chunk in chunks]).startswith(b"RIFF")


async def test_dials_recording_is_the_calls_that_dialled(
    calls: TwilioVoiceCalls, server: Server, sandbox: Sandbox
) -> None:
    leg = uuid4()
    server.answers[IncomingCall] = lambda _: server.scripts.dial_contact(
        call_uuid=server.call_uuid, leg_uuid=leg, caller_id=NUMBER, phone_number=OTHER_PHONE, time_limit=TIME_LIMIT
    )
    server.answers[DialResult] = lambda _: server.scripts.hang_up()
    await sandbox.control("PUT", f"phones/{OTHER_PHONE}", json={"hangs_up_after_ms": 3000})
    parent = await call_in(sandbox)
    child = await server.until_status(leg, "completed")
    completed = await told(server)

    fetched = await calls.fetch(child.call_sid)
    assert fetched is not None
    assert fetched.parent_call_sid == parent
    assert await list_recordings(calls, parent) == [as_listed(completed)]
    assert await list_recordings(calls, child.call_sid) == []
    assert (completed.source, completed.channels) == ("DialVerb", 2)


@pytest.mark.parametrize(("says", "status"), [(["The bus was late again."], "completed"), ([], "absent")])
async def test_voicemails_recording_is_its_calls(
    calls: TwilioVoiceCalls, server: Server, sandbox: Sandbox, says: Sequence[str], status: str
) -> None:
    server.answers[IncomingCall] = lambda _: server.scripts.take_voicemail(call_uuid=server.call_uuid)
    server.answers[RecordingReport] = lambda _: server.scripts.hang_up()
    await sandbox.control("PUT", f"phones/{PHONE}", json={"says": says})
    sid = await call_in(sandbox)
    reported = await told(server, status)
    await call_of(sandbox, sid)

    assert await list_recordings(calls, sid, sid) == [as_listed(reported)]
    assert reported.source == "RecordVerb"


async def test_of_what_the_provider_does_not_have_there_are_none(calls: TwilioVoiceCalls) -> None:
    assert await list_recordings(calls, NO_CALL, "../Messages", conference_sid=NO_CONFERENCE) == []
    assert await list_recordings(calls, conference_uuid=uuid4()) == []
    assert await list_recordings(calls) == []


@pytest.mark.parametrize("answer", ["429", "500", "502", "503", "504", "lost-response", "garbled"])
async def test_asking_in_vain_is_not_finding_nothing(calls: TwilioVoiceCalls, sandbox: Sandbox, answer: str) -> None:
    await sandbox.misbehave(answer=answer, retry_after_ms=7000)

    for asked in ({"conference_sid": NO_CONFERENCE}, {"conference_uuid": uuid4()}):
        with pytest.raises(ProviderUnavailable) as unavailable:
            await list_recordings(calls, **asked)
        assert unavailable.value.retry_after in (None, timedelta(seconds=7))
    with pytest.raises(ProviderUnavailable):
        await list_recordings(calls, NO_CALL)


def resource(**over: Any) -> dict[str, Any]:
    """A recording as Twilio's documentation shows it, in a call's list."""
    return {
        "account_sid": ACCOUNT_SID,
        "api_version": "2010-04-01",
        "call_sid": NO_CALL,
        "conference_sid": None,
        "channels": 2,
        "date_created": "Fri, 14 Oct 2016 21:56:34 +0000",
        "date_updated": "Fri, 14 Oct 2016 21:56:38 +0000",
        "start_time": "Fri, 14 Oct 2016 21:56:34 +0000",
        "price": "-0.00250",
        "price_unit": "USD",
        "duration": "4",
        "sid": RECORDING,
        "source": "DialVerb",
        "status": "completed",
        "error_code": None,
        "encryption_details": None,
        "uri": f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/{NO_CALL}/Recordings/{RECORDING}.json",
        **over,
    }


@asynccontextmanager
async def asking(base_url: str) -> AsyncIterator[TwilioVoiceCalls]:
    """Our side of a Twilio that is there."""
    calls = TwilioVoiceCalls(twilio_account(base_url), public_base_url="https://school.example")
    yield calls
    await calls.aclose()


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("in-progress", "in-progress"),
        ("paused", "in-progress"),
        ("stopped", "in-progress"),
        ("processing", "in-progress"),
        ("a word of next year", "in-progress"),
        ("completed", "completed"),
        ("absent", "absent"),
        ("failed", "failed"),
    ],
)
async def test_what_is_not_ready_yet_is_in_progress(word: str, status: str) -> None:
    body = json.dumps({"recordings": [resource(status=word)]})
    async with scripted_vendor(200, body) as base_url, asking(base_url) as calls:
        [report] = await list_recordings(calls, NO_CALL)

    # Where callbacks say that the file is, not below the call.
    assert report == RecordingReport(
        RECORDING,
        status,
        base_url + FILE,
        4,
        2,
        call_sid=NO_CALL,
        conference_sid=None,
        call_uuid=None,
        source="DialVerb",
    )


@pytest.mark.parametrize(("duration", "seconds"), [("-1", None), (None, None), ("", None), ("0", 0), ("61", 61)])
async def test_length_is_told_once_it_is_known(duration: str | None, seconds: int | None) -> None:
    body = json.dumps({"recordings": [resource(duration=duration)]})
    async with scripted_vendor(200, body) as base_url, asking(base_url) as calls:
        [report] = await list_recordings(calls, NO_CALL)

    assert report.duration == seconds


@pytest.mark.parametrize("bad", [{"sid": None}, {"status": ""}])
async def test_list_that_names_no_recording_is_no_answer(bad: dict[str, Any]) -> None:
    body = json.dumps({"recordings": [resource(**bad)]})
    async with scripted_vendor(200, body) as base_url, asking(base_url) as calls:
        with pytest.raises(ProviderUnavailable):
            await list_recordings(calls, NO_CALL)


async def test_call_that_twilio_says_it_does_not_have_hides_no_other() -> None:
    async def answer(request: web.Request) -> web.Response:
        if NO_CALL in request.path:
            return web.json_response({"code": 20404, "message": "not found", "status": 404}, status=404)
        # One recording, listed of a call and of the conference it was in.
        return web.json_response({"recordings": [resource()]})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    other = "CA" + "7" * 32
    async with listening(app) as base_url, asking(base_url) as calls:
        found = await list_recordings(calls, NO_CALL, other, conference_sid=NO_CONFERENCE)

    assert [report.recording_sid for report in found] == [RECORDING]
