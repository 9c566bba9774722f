"""The Calls resource as the official SDK uses it, and its refusals with Twilio's codes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.providers.http import NoAnswer
from server.providers.twilio.client import Refusal, TwilioClient
from tests.providers.sandbox_voice.account import (
    APP_SID,
    NO_SUCH,
    NUMBER,
    OTHER_PHONE,
    PHONE,
    Account,
    call_of,
)
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, Sandbox

CALLS = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls"
STAY = '<Pause length="600"/>'


async def placed(twilio: TwilioClient, account: Account, **more: Any) -> Any:
    """A call to a phone that answers and stays, made with the SDK."""
    asked = {"to": PHONE, "from_": NUMBER, "url": account.url("/stay", STAY)} | more
    return await twilio.calls.create_async(**asked)


async def test_call_is_made_answered_and_told_of(twilio: TwilioClient, account: Account) -> None:
    created = await twilio.calls.create_async(
        to=PHONE,
        from_=NUMBER,
        url=account.url("/script?leg=7", "<Say>Hello</Say>"),
        status_callback=account.url("/status?leg=7"),
        status_callback_event=["initiated", "ringing", "answered", "completed"],
        machine_detection="Enable",
        timeout=30,
        time_limit=600,
    )

    assert (created.status, created.direction, created.to, created._from) == ("queued", "outbound-api", PHONE, NUMBER)
    assert created.sid.startswith("CA")
    assert created.start_time is None
    told = await account.get("/status", 4)
    assert {fields["CallStatus"] for fields in told} == {"initiated", "ringing", "in-progress", "completed"}
    assert {(fields["CallSid"], fields["leg"]) for fields in told} == {(created.sid, "7")}
    (asked,) = account.got("/script")
    assert (asked["AnsweredBy"], asked["leg"]) == ("human", "7")
    done = await twilio.calls(created.sid).fetch_async()
    assert (done.status, done.answered_by) == ("completed", "human")
    assert int(done.duration) >= 1
    assert done.end_time is not None


async def test_machine_may_be_told_of_while_the_call_goes_on(
    sandbox: Sandbox, twilio: TwilioClient, account: Account
) -> None:
    await sandbox.control("PUT", f"phones/{PHONE}", json={"pickup": "machine"})

    created = await placed(
        twilio,
        account,
        machine_detection="DetectMessageEnd",
        async_amd="true",
        async_amd_status_callback=account.url("/amd"),
    )

    (told,) = await account.get("/amd")
    assert (told["CallSid"], told["AnsweredBy"]) == (created.sid, "machine_end_beep")


async def test_twiml_may_be_given_with_the_call(sandbox: Sandbox, twilio: TwilioClient) -> None:
    created = await twilio.calls.create_async(to=PHONE, from_=NUMBER, twiml="<Response><Say>Hi</Say></Response>")

    call = await call_of(sandbox, created.sid)
    assert [(heard["kind"], heard["text"]) for heard in call["heard"]] == [("say", "Hi")]


async def test_url_counts_where_twiml_is_given_too(twilio: TwilioClient, account: Account) -> None:
    await placed(twilio, account, twiml="<Response><Hangup/></Response>")

    assert await account.get("/stay")


async def test_call_may_ask_the_twiml_app(twilio: TwilioClient, account: Account) -> None:
    await twilio.calls.create_async(to=PHONE, from_=NUMBER, application_sid=APP_SID)

    (asked,) = await account.get("/app")
    assert asked["To"] == PHONE


async def test_call_is_redirected_while_it_lasts(sandbox: Sandbox, twilio: TwilioClient, account: Account) -> None:
    created = await placed(twilio, account)
    await account.get("/stay")

    updated = await twilio.calls(created.sid).update_async(url=account.url("/other", "<Say>Other</Say>"))

    assert updated.status == "in-progress"
    call = await call_of(sandbox, created.sid)
    assert [heard["text"] for heard in call["heard"]] == ["Other"]


async def test_call_is_hung_up(twilio: TwilioClient, account: Account) -> None:
    created = await placed(twilio, account)
    await account.get("/stay")

    updated = await twilio.calls(created.sid).update_async(status="completed")

    assert updated.status == "completed"
    with pytest.raises(Refusal, match="21220"):
        await twilio.calls(created.sid).update_async(twiml="<Response/>")


async def test_call_that_rings_is_canceled_and_one_that_lasts_is_not(
    sandbox: Sandbox, twilio: TwilioClient, account: Account
) -> None:
    await sandbox.control("PUT", f"phones/{PHONE}", json={"pickup": "no-answer"})
    ringing = await placed(twilio, account, timeout=600)
    lasting = await placed(twilio, account, to=OTHER_PHONE)
    await account.get("/stay")

    canceled = await twilio.calls(ringing.sid).update_async(status="canceled")

    assert canceled.status == "canceled"
    with pytest.raises(Refusal, match="21220"):
        await twilio.calls(lasting.sid).update_async(status="canceled")


async def test_calls_are_paged_through_newest_first(twilio: TwilioClient, account: Account) -> None:
    sids = [(await placed(twilio, account)).sid for _ in range(5)]

    listed = await twilio.calls.list_async(page_size=2)

    assert [call.sid for call in listed] == sids[::-1]


async def test_calls_are_found_by_who_when_and_how(twilio: TwilioClient, account: Account) -> None:
    first = await placed(twilio, account)
    await placed(twilio, account, to=OTHER_PHONE, from_="+12065550101")
    now = datetime.now(UTC)

    async def found(**filters: Any) -> int:
        return len(await twilio.calls.list_async(**filters))

    assert await found(to=PHONE) == 1
    assert await found(from_="+12065550101") == 1
    assert await found(to=PHONE, from_=NUMBER, start_time_after=now - timedelta(minutes=1)) == 1
    assert await found(start_time_after=now + timedelta(minutes=1)) == 0
    assert await found(start_time_before=now + timedelta(minutes=1)) == 2
    assert await found(end_time_after=now - timedelta(minutes=1)) == 0
    assert await found(parent_call_sid=first.sid) == 0
    await twilio.calls(first.sid).update_async(status="completed")
    assert await found(status="completed") == 1


async def test_children_are_found_by_their_parent(twilio: TwilioClient, account: Account) -> None:
    told = f'statusCallback="{account.url("/child")}" statusCallbackEvent="answered"'
    twiml = f"<Dial><Number {told}>{OTHER_PHONE}</Number></Dial>"
    parent = await placed(twilio, account, url=account.url("/dial", twiml))
    await account.get("/child")

    (child,) = await twilio.calls.list_async(parent_call_sid=parent.sid)

    assert (child.to, child.direction) == (OTHER_PHONE, "outbound-dial")


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"To": None}, 21201),
        ({"From": None}, 21213),
        ({"To": "nobody"}, 21211),
        ({"To": "client:"}, 21211),
        ({"To": "+15005550001"}, 21217),
        ({"To": "+15005550003"}, 21215),
        ({"From": "nobody"}, 21212),
        ({"From": "+14155550199"}, 21210),
        ({"Url": None}, 21205),
        ({"Url": "no url"}, 21205),
        ({"Url": "ftp://media.example/1"}, 21205),
        ({"Url": None, "Twiml": "<Response><Sing/></Response>"}, 12200),
        ({"Url": None, "Twiml": "<Response>"}, 12100),
        ({"Url": None, "Twiml": "x" * 4001}, 21200),
        ({"ApplicationSid": "AP" + NO_SUCH}, 21218),
        ({"Method": "PUT"}, 21209),
        ({"Timeout": "601"}, 21208),
        ({"TimeLimit": "0"}, 20001),
        ({"MachineDetection": "Always"}, 20001),
        ({"MachineDetection": "Enable", "MachineDetectionTimeout": "60"}, 20001),
        ({"StatusCallback": "no url"}, 21609),
        ({"StatusCallbackEvent": "begun"}, 21626),
        ({"Record": "true"}, 90002),
    ],
)
async def test_call_that_twilio_would_not_make_is_refused(
    sandbox: Sandbox, account: Account, form: dict[str, str | None], code: int
) -> None:
    fields = {"To": PHONE, "From": NUMBER, "Url": account.url("/stay", STAY)} | form

    status, answer = await sandbox.rest(
        "POST", f"{CALLS}.json", data={name: value for name, value in fields.items() if value is not None}
    )

    assert (status, answer["code"], answer["status"]) == (400, code, 400)
    assert (await sandbox.control("GET", "calls"))["calls"] == []


async def test_update_without_anything_is_refused(sandbox: Sandbox, twilio: TwilioClient, account: Account) -> None:
    created = await placed(twilio, account)

    status, answer = await sandbox.rest("POST", f"{CALLS}/{created.sid}.json", data={})

    assert (status, answer["code"]) == (400, 21205)


async def test_unknown_call_is_not_found(twilio: TwilioClient) -> None:
    for asked in (
        twilio.calls("CA" + NO_SUCH).fetch_async(),
        twilio.calls("CA" + NO_SUCH).update_async(status="completed"),
    ):
        with pytest.raises(Refusal, match="20404"):
            await asked


async def test_calls_need_the_accounts_credentials(sandbox: Sandbox) -> None:
    status, answer = await sandbox.rest("GET", f"{CALLS}.json", token=AUTH_TOKEN + "x")

    assert (status, answer["code"]) == (401, 20003)


async def test_call_whose_answer_is_lost_was_made(sandbox: Sandbox, twilio: TwilioClient, account: Account) -> None:
    await sandbox.misbehave(answer="lost-response", next_requests=1)

    with pytest.raises(NoAnswer):
        await placed(twilio, account)

    assert len(await twilio.calls.list_async(to=PHONE)) == 1


@pytest.mark.parametrize(("answer", "made"), [("429", 0), ("503", 0), ("500-taken", 1), ("504-taken", 1)])
async def test_call_that_is_answered_untruly_is_made_or_not(
    sandbox: Sandbox, twilio: TwilioClient, account: Account, answer: str, made: int
) -> None:
    await sandbox.misbehave(answer=answer, next_requests=1)

    with pytest.raises(Refusal):
        await placed(twilio, account)

    assert len(await twilio.calls.list_async()) == made


async def test_callbacks_of_a_call_are_lost_where_they_are_told_to(
    sandbox: Sandbox, twilio: TwilioClient, account: Account
) -> None:
    await sandbox.misbehave(callbacks="missing", next_requests=1)

    created = await placed(
        twilio, account, url=account.url("/end", "<Hangup/>"), status_callback=account.url("/status")
    )

    await call_of(sandbox, created.sid)
    assert account.got("/status") == []


async def test_what_a_call_says_may_ask_for_misbehaviour(sandbox: Sandbox, twilio: TwilioClient) -> None:
    twiml = "<Response><Say>Hi [sandbox:429]</Say></Response>"

    with pytest.raises(Refusal, match="20429"):
        await twilio.calls.create_async(to=PHONE, from_=NUMBER, twiml=twiml)
    created = await twilio.calls.create_async(to=PHONE, from_=NUMBER, twiml=twiml)

    assert [call["sid"] for call in (await sandbox.control("GET", "calls"))["calls"]] == [created.sid]
