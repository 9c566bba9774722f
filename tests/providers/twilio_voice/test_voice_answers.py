"""What becomes of each answer that Twilio may give, also of those that the sandbox never gives."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.providers.ports import (
    ProviderFailure,
    ProviderOutcomeUnknown,
    ProviderRejected,
    ProviderUnavailable,
)
from server.providers.twilio.voice import TwilioVoiceCalls
from server.providers.voice_ports import CallGone, LegReport
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, Sandbox, closed_port_url, scripted_vendor, twilio_account
from tests.providers.twilio_voice.outbound import NO_CALL, NO_CONFERENCE, NO_RECORDING, make_call


@asynccontextmanager
async def calls_at(api_base_url: str, *, auth_token: str = AUTH_TOKEN) -> AsyncIterator[TwilioVoiceCalls]:
    calls = TwilioVoiceCalls(twilio_account(api_base_url, auth_token=auth_token), public_base_url="https://api.example")
    yield calls
    await calls.aclose()


def error_body(code: int) -> str:
    return json.dumps({"code": code, "message": "why", "more_info": f"https://www.twilio.com/docs/errors/{code}"})


def documented_call(**over: Any) -> dict[str, Any]:
    """The Call resource in the shape of Twilio's reference."""
    sid = "CA" + "a" * 32
    path = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/{sid}"
    return {
        "account_sid": ACCOUNT_SID,
        "answered_by": None,
        "api_version": "2010-04-01",
        "caller_name": None,
        "date_created": "Tue, 31 Aug 2010 20:36:28 +0000",
        "date_updated": "Tue, 31 Aug 2010 20:36:44 +0000",
        "direction": "outbound-api",
        "duration": "15",
        "end_time": "Tue, 31 Aug 2010 20:36:44 +0000",
        "forwarded_from": None,
        "from": "+15017122661",
        "from_formatted": "(501) 712-2661",
        "group_sid": None,
        "parent_call_sid": None,
        "phone_number_sid": "PN" + "a" * 32,
        "price": "-0.03000",
        "price_unit": "USD",
        "queue_time": "1000",
        "sid": sid,
        "start_time": "Tue, 31 Aug 2010 20:36:29 +0000",
        "status": "completed",
        "subresource_uris": {"recordings": f"{path}/Recordings.json"},
        "to": "+15558675310",
        "to_formatted": "(555) 867-5310",
        "trunk_sid": None,
        "uri": f"{path}.json",
    } | over


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (429, error_body(20429), ProviderUnavailable),
        (400, error_body(10004), ProviderUnavailable),
        (503, "<html>", ProviderUnavailable),
        (500, error_body(20500), ProviderOutcomeUnknown),
        (502, "<html>", ProviderOutcomeUnknown),
        (504, "<html>", ProviderOutcomeUnknown),
        (401, error_body(20003), ProviderUnavailable),
        (403, error_body(20003), ProviderUnavailable),
        (400, error_body(10001), ProviderUnavailable),
        (404, error_body(20404), ProviderUnavailable),
        (400, "<html>a proxy's own page</html>", ProviderUnavailable),
        (302, "", ProviderUnavailable),
        (400, error_body(21211), ProviderRejected),
        (400, error_body(21215), ProviderRejected),
        (400, error_body(13224), ProviderRejected),
        (201, "", ProviderOutcomeUnknown),
        (201, "[]", ProviderOutcomeUnknown),
        (201, "{}", ProviderOutcomeUnknown),
        (201, '{"sid": "CA1"}', ProviderOutcomeUnknown),
        (201, "{", ProviderOutcomeUnknown),
    ],
)
async def test_answer_to_a_create_decides_what_happens_next(
    status: int, body: str, failure: type[ProviderFailure]
) -> None:
    async with scripted_vendor(status, body) as url, calls_at(url) as calls:
        with pytest.raises(failure):
            await calls.dial(make_call())


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (404, error_body(20404), CallGone),
        (400, error_body(21220), CallGone),
        (404, "<html>", ProviderUnavailable),
        (429, error_body(20429), ProviderUnavailable),
        (500, error_body(20500), ProviderUnavailable),
        (503, "<html>", ProviderUnavailable),
        (504, "<html>", ProviderUnavailable),
        (401, error_body(20003), ProviderUnavailable),
        (400, "<html>", ProviderUnavailable),
        (400, error_body(20001), ProviderRejected),
        (200, "{", ProviderUnavailable),
    ],
)
async def test_answer_to_a_change_decides_what_happens_next(status: int, body: str, failure: type[Exception]) -> None:
    async with scripted_vendor(status, body) as url, calls_at(url) as calls:
        with pytest.raises(failure):
            await calls.hang_up(NO_CALL)
        with pytest.raises(failure):
            await calls.update_participant(NO_CONFERENCE, NO_CALL, muted=True, hold=False)


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (404, "<html>", ProviderUnavailable),
        (429, error_body(20429), ProviderUnavailable),
        (500, error_body(20500), ProviderUnavailable),
        (400, error_body(20001), ProviderRejected),
    ],
)
async def test_recording_is_not_deleted_for_certain(status: int, body: str, failure: type[Exception]) -> None:
    async with scripted_vendor(status, body) as url, calls_at(url) as calls:
        with pytest.raises(failure):
            await calls.delete_recording(NO_RECORDING)


async def test_recording_that_is_not_there_is_deleted() -> None:
    async with scripted_vendor(404, error_body(20404)) as url, calls_at(url) as calls:
        await calls.delete_recording(NO_RECORDING)


async def test_retry_after_is_kept() -> None:
    async with scripted_vendor(429, error_body(20429), {"Retry-After": "3"}) as url, calls_at(url) as calls:
        with pytest.raises(ProviderUnavailable) as unavailable:
            await calls.hang_up(NO_CALL)

    assert unavailable.value.retry_after == timedelta(seconds=3)


async def test_refused_connection_took_nothing() -> None:
    async with calls_at(closed_port_url()) as calls:
        with pytest.raises(ProviderUnavailable):
            await calls.dial(make_call())
        with pytest.raises(ProviderUnavailable):
            await calls.find_copies(make_call(), since=datetime.now(UTC))
        with pytest.raises(ProviderUnavailable):
            await calls.fetch(NO_CALL)
        with pytest.raises(ProviderUnavailable):
            await calls.hang_up(NO_CALL)


@pytest.mark.parametrize("body", ["", "{}", "[]", "{", '{"calls": [{}], "next_page_uri": null, "page": 0}'])
async def test_answer_that_names_no_call_says_nothing_of_any(body: str) -> None:
    async with scripted_vendor(200, body) as url, calls_at(url) as calls:
        with pytest.raises(ProviderUnavailable):
            await calls.fetch(NO_CALL)
        with pytest.raises(ProviderUnavailable):
            await calls.find_copies(make_call(), since=datetime.now(UTC))


async def test_wrong_credentials_lose_no_call(sandbox: Sandbox) -> None:
    async with calls_at(sandbox.base_url, auth_token="another") as calls:
        with pytest.raises(ProviderUnavailable):
            await calls.dial(make_call())

    assert (await sandbox.control("GET", "calls"))["calls"] == []


@pytest.mark.parametrize("answered_by", [None, "human", "unknown", "machine_start"])
async def test_documented_answer_is_read(answered_by: str | None) -> None:
    body = json.dumps(documented_call(answered_by=answered_by))
    expected = LegReport(
        call_sid="CA" + "a" * 32,
        provider_status="completed",
        answered_by=answered_by,
        ended_at=datetime(2010, 8, 31, 20, 36, 44, tzinfo=UTC),
    )
    async with scripted_vendor(200, body) as url, calls_at(url) as calls:
        assert await calls.fetch(NO_CALL) == expected
        assert await calls.dial(make_call()) == expected


async def test_only_calls_that_we_asked_for_are_copies() -> None:
    listed = [
        documented_call(sid="CA3", status="queued", start_time=None, end_time=None),
        documented_call(sid="CA2", direction="outbound-dial"),
        documented_call(sid="CA1"),
        documented_call(sid="CA0", date_created="Tue, 31 Aug 2010 20:30:00 +0000"),
    ]
    body = json.dumps({"calls": listed, "next_page_uri": None, "page": 0})
    async with scripted_vendor(200, body) as url, calls_at(url) as calls:
        copies = await calls.find_copies(make_call(), since=datetime(2010, 8, 31, 20, 36, 30, tzinfo=UTC))

    assert [(copy.call_sid, copy.ended_at is None) for copy in copies] == [("CA1", False), ("CA3", True)]
