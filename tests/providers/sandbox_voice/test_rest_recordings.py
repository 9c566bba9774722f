"""The Recordings resource as the official SDK uses it, and the files it leads to."""

from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from server.providers.sandbox.voice_audio import seconds_of
from server.providers.twilio.client import Refusal, TwilioClient
from tests.providers.sandbox_voice.account import NO_SUCH, NUMBER, PHONE, Account
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, Sandbox, running_sandbox

RECORDINGS = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings"


async def recorded(sandbox: Sandbox, twilio: TwilioClient, account: Account) -> tuple[str, dict[str, str]]:
    """The sid of a call that was recorded, and what was told of the recording."""
    await sandbox.control("PUT", f"phones/{PHONE}", json={"says": ["We will be late"]})
    record = f'<Record action="/done" recordingStatusCallback="{account.url("/recorded")}"/>'
    created = await twilio.calls.create_async(to=PHONE, from_=NUMBER, url=account.url("/record", record))
    (told,) = await account.get("/recorded")
    return created.sid, told


async def fetched(sandbox: Sandbox, url: str, *, token: str = AUTH_TOKEN) -> tuple[int, str, bytes]:
    headers = {"Authorization": aiohttp.encode_basic_auth(ACCOUNT_SID, token)}
    async with sandbox.http.get(url, headers=headers) as response:
        return response.status, response.content_type, await response.read()


async def test_recording_is_fetched_and_heard(sandbox: Sandbox, twilio: TwilioClient, account: Account) -> None:
    call_sid, told = await recorded(sandbox, twilio, account)

    recording = await twilio.recordings(told["RecordingSid"]).fetch_async()
    files = [await fetched(sandbox, told["RecordingUrl"] + ending) for ending in ("", ".wav")]

    assert (recording.call_sid, recording.status, recording.source) == (call_sid, "completed", "RecordVerb")
    assert (recording.channels, recording.duration) == (1, told["RecordingDuration"])
    assert recording.media_url == told["RecordingUrl"]
    for status, content_type, wav in files:
        assert (status, content_type) == (200, "audio/x-wav")
        assert round(seconds_of(wav)) == int(recording.duration)


async def test_recordings_are_found_by_call(sandbox: Sandbox, twilio: TwilioClient, account: Account) -> None:
    call_sid, told = await recorded(sandbox, twilio, account)
    sid = told["RecordingSid"]

    async def sids(listing: Any, **filters: Any) -> list[str]:
        return [each.sid for each in await listing.list_async(**filters)]

    assert await sids(twilio.recordings) == [sid]
    assert await sids(twilio.recordings, call_sid=call_sid) == [sid]
    assert await sids(twilio.recordings, call_sid="CA" + NO_SUCH) == []
    assert await sids(twilio.calls(call_sid).recordings) == [sid]
    assert await sids(twilio.conferences("CF" + NO_SUCH).recordings) == []
    assert (await twilio.calls(call_sid).recordings(sid).fetch_async()).sid == sid
    with pytest.raises(Refusal, match="20404"):
        await twilio.calls("CA" + NO_SUCH).recordings(sid).fetch_async()


async def test_deleted_recording_is_gone_with_its_file(
    sandbox: Sandbox, twilio: TwilioClient, account: Account
) -> None:
    _, told = await recorded(sandbox, twilio, account)

    assert await twilio.recordings(told["RecordingSid"]).delete_async()

    assert await twilio.recordings.list_async() == []
    assert (await fetched(sandbox, told["RecordingUrl"]))[0] == 404
    with pytest.raises(Refusal, match="20404"):
        await twilio.recordings(told["RecordingSid"]).delete_async()


async def test_recording_of_a_conference_is_found_by_it(
    sandbox: Sandbox, twilio: TwilioClient, account: Account
) -> None:
    told_at = account.url("/recorded")
    noun = f'<Conference record="record-from-start" recordingStatusCallback="{told_at}">room</Conference>'
    url = account.url("/join", f"<Dial>{noun}</Dial>")
    for phone in (PHONE, "+14155550124"):
        await sandbox.control("PUT", f"phones/{phone}", json={"says": ["Hello"], "hangs_up_after_ms": 100_000})
        await twilio.calls.create_async(to=phone, from_=NUMBER, url=url)

    (told,) = await account.get("/recorded")

    (found,) = await twilio.recordings.list_async(conference_sid=told["ConferenceSid"])
    (below,) = await twilio.conferences(told["ConferenceSid"]).recordings.list_async()
    assert (found.sid, below.sid, found.source) == (told["RecordingSid"], told["RecordingSid"], "Conference")


async def test_file_needs_the_accounts_credentials(sandbox: Sandbox, twilio: TwilioClient, account: Account) -> None:
    _, told = await recorded(sandbox, twilio, account)

    assert (await fetched(sandbox, told["RecordingUrl"], token="another"))[0] == 401


@pytest.mark.parametrize("ending", ["", ".wav", ".mp3", ".json"])
async def test_unknown_recording_is_not_found(sandbox: Sandbox, ending: str) -> None:
    status, answer = await sandbox.rest("GET", f"{RECORDINGS}/RE{NO_SUCH}{ending}")

    assert (status, answer["code"]) == (404, 20404)


async def test_recording_url_is_where_the_account_reaches_the_sandbox(
    sandbox: Sandbox, twilio: TwilioClient, account: Account
) -> None:
    _, told = await recorded(sandbox, twilio, account)

    assert told["RecordingUrl"] == f"{sandbox.base_url}{RECORDINGS}/{told['RecordingSid']}"
    assert urlsplit(told["RecordingUrl"]).query == ""


async def test_recording_url_is_below_the_base_url_that_the_sandbox_was_told(account: Account) -> None:
    async with running_sandbox(voice_url=account.url("/voice"), base_url="http://sandbox.example:8081") as sandbox:
        await sandbox.control("PUT", f"phones/{PHONE}", json={"says": ["Hello"]})
        account.url("/voice", '<Record action="/done"/>')
        await sandbox.control("POST", "calls", json={"from": PHONE, "to": NUMBER})
        (told,) = await account.get("/done")

    assert told["RecordingUrl"].startswith(f"http://sandbox.example:8081{RECORDINGS}/RE")
