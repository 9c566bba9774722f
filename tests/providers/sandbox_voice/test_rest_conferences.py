"""The Conferences and Participants resources as the official SDK uses them."""

import asyncio
from typing import Any

import pytest

from server.providers.twilio.client import Refusal, TwilioClient
from tests.providers.sandbox_voice.account import NO_SUCH, NUMBER, OTHER_PHONE, PHONE, Account, call_of
from tests.providers.servers import ACCOUNT_SID, PATIENCE, Sandbox

CONFERENCES = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Conferences"


async def eventually(found: Any, wanted: Any) -> None:
    """Until what is asked for again and again is as wanted."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await found() == wanted:
                return
            await asyncio.sleep(0.005)


async def gathered(twilio: TwilioClient, account: Account, *, noun: str = "") -> tuple[Any, list[str]]:
    """A conference of two, and the sids of their calls in the order they came."""
    sids = []
    for label, phone in (("first", PHONE), ("second", OTHER_PHONE)):
        dial = f'<Dial><Conference participantLabel="{label}" {noun}>room</Conference></Dial>'
        created = await twilio.calls.create_async(to=phone, from_=NUMBER, url=account.url(f"/{label}", dial))
        sids.append(created.sid)

        async def present(count: int = len(sids)) -> bool:
            rooms = await twilio.conferences.list_async(friendly_name="room")
            return bool(rooms) and len(await rooms[0].participants.list_async()) == count

        await eventually(present, True)
    (conference,) = await twilio.conferences.list_async(friendly_name="room")
    return conference, sids


async def test_conference_is_found_by_name_and_status(twilio: TwilioClient, account: Account) -> None:
    conference, _ = await gathered(twilio, account)

    fetched = await twilio.conferences(conference.sid).fetch_async()
    found = [
        len(await twilio.conferences.list_async(**filters))
        for filters in ({"friendly_name": "room"}, {"friendly_name": "hall"}, {"status": "completed"})
    ]

    assert (fetched.friendly_name, fetched.status) == ("room", "in-progress")
    assert found == [1, 0, 0]


async def test_participants_are_listed_and_found_by_call_and_label(twilio: TwilioClient, account: Account) -> None:
    conference, sids = await gathered(twilio, account)

    listed = await conference.participants.list_async()
    by_label = await conference.participants("second").fetch_async()

    assert [each.call_sid for each in listed] == sids
    assert (by_label.call_sid, by_label.label, by_label.status) == (sids[1], "second", "connected")
    assert (by_label.muted, by_label.hold, by_label.end_conference_on_exit) == (False, False, False)


async def test_participant_is_muted_and_held(twilio: TwilioClient, account: Account) -> None:
    conference, sids = await gathered(twilio, account)

    muted = await conference.participants(sids[0]).update_async(muted=True)
    held = await conference.participants(sids[0]).update_async(
        muted=False, hold=True, hold_url=account.url("/music"), end_conference_on_exit=True
    )

    assert (muted.muted, muted.hold) == (True, False)
    assert (held.muted, held.hold, held.end_conference_on_exit) == (False, True, True)
    assert [each.call_sid for each in await conference.participants.list_async(hold=True)] == sids[:1]
    assert await conference.participants.list_async(muted=True) == []


async def test_announcements_are_heard(twilio: TwilioClient, sandbox: Sandbox, account: Account) -> None:
    conference, sids = await gathered(twilio, account)

    await conference.participants(sids[1]).update_async(
        announce_url=account.url("/one", "<Say>For you</Say>"), announce_method="GET"
    )
    await twilio.conferences(conference.sid).update_async(announce_url=account.url("/all", "<Say>For all</Say>"))

    await account.get("/one")
    await account.get("/all")

    async def heard() -> list[str]:
        call = await sandbox.control("GET", f"calls/{sids[1]}")
        return [each["text"] for each in call["heard"] if each["kind"] == "say"]

    await eventually(lambda: _contains(heard, "For you"), True)


async def _contains(found: Any, text: str) -> bool:
    return text in await found()


async def test_participant_is_removed(twilio: TwilioClient, sandbox: Sandbox, account: Account) -> None:
    conference, sids = await gathered(twilio, account)

    assert await conference.participants(sids[1]).delete_async()

    assert [each.call_sid for each in await conference.participants.list_async()] == sids[:1]
    await call_of(sandbox, sids[1])
    with pytest.raises(Refusal, match="20404"):
        await conference.participants(sids[1]).update_async(muted=True)


async def test_conference_is_ended_for_all(twilio: TwilioClient, sandbox: Sandbox, account: Account) -> None:
    conference, sids = await gathered(twilio, account)

    ended = await twilio.conferences(conference.sid).update_async(status="completed")

    assert (ended.status, ended.reason_conference_ended) == ("completed", "conference-ended-via-api")
    for sid in sids:
        await call_of(sandbox, sid)
    with pytest.raises(Refusal, match="20404"):
        await conference.participants(sids[0]).fetch_async()


async def test_participant_is_called_into_a_conference_by_its_name(twilio: TwilioClient, account: Account) -> None:
    created = await twilio.conferences("hall").participants.create_async(
        to=PHONE,
        from_=NUMBER,
        label="moderator",
        early_media=True,
        beep="onEnter",
        timeout=30,
        start_conference_on_enter=True,
        end_conference_on_exit=True,
        conference_record="record-from-start",
        conference_status_callback=account.url("/conference"),
        conference_status_callback_event=["start", "end", "join", "leave"],
        status_callback=account.url("/status"),
        status_callback_event=["initiated", "ringing", "answered", "completed"],
    )
    await account.get_status("/status", "in-progress")

    (conference,) = await twilio.conferences.list_async(friendly_name="hall")
    joined = await account.get("/conference")

    assert (created.label, created.conference_sid) == ("moderator", conference.sid)
    assert (joined[0]["StatusCallbackEvent"], joined[0]["CallSid"]) == ("participant-join", created.call_sid)


async def test_participant_is_called_into_a_conference_that_lasts(twilio: TwilioClient, account: Account) -> None:
    conference, _ = await gathered(twilio, account)

    created = await conference.participants.create_async(to="+14155550125", from_=NUMBER)

    assert created.conference_sid == conference.sid

    async def count() -> int:
        return len(await conference.participants.list_async())

    await eventually(count, 3)


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"To": ""}, 21201),
        ({"From": "+14155550199"}, 21210),
        ({"Timeout": "4"}, 21208),
        ({"ConferenceStatusCallback": "no url"}, 21609),
        ({"ConferenceStatusCallbackEvent": "begin"}, 21626),
        ({"Muted": "quietly"}, 20001),
        ({"Record": "true"}, 90002),
    ],
)
async def test_participant_that_twilio_would_not_call_is_refused(
    sandbox: Sandbox, form: dict[str, str], code: int
) -> None:
    path = f"{CONFERENCES}/hall/Participants.json"

    status, answer = await sandbox.rest("POST", path, data={"To": PHONE, "From": NUMBER} | form)

    assert (status, answer["code"]) == (400, code)
    assert (await sandbox.control("GET", "conferences"))["conferences"] == []


async def test_unknown_conferences_and_participants_are_not_found(twilio: TwilioClient, account: Account) -> None:
    conference, _ = await gathered(twilio, account)
    unknown = twilio.conferences("CF" + NO_SUCH)

    for asked in (
        unknown.fetch_async(),
        unknown.update_async(status="completed"),
        unknown.participants.list_async(),
        unknown.participants.create_async(to=PHONE, from_=NUMBER),
        conference.participants("CA" + NO_SUCH).fetch_async(),
        conference.participants("nobody").update_async(muted=True),
        conference.participants("CA" + NO_SUCH).delete_async(),
    ):
        with pytest.raises(Refusal, match="20404"):
            await asked


async def test_conference_update_without_anything_is_refused(
    twilio: TwilioClient, sandbox: Sandbox, account: Account
) -> None:
    conference, _ = await gathered(twilio, account)

    status, answer = await sandbox.rest("POST", f"{CONFERENCES}/{conference.sid}.json", data={})

    assert (status, answer["code"]) == (400, 20001)
