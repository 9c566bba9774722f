"""What phones do, told by the control API: they call, press, speak and hang up, and behave when they are called."""

from typing import Any

import pytest

from tests.providers.sandbox_voice.account import NO_SUCH, NUMBER, OTHER_PHONE, PHONE, Account, call_of
from tests.providers.servers import ACCOUNT_SID, Sandbox, running_sandbox


async def calling(sandbox: Sandbox, **more: Any) -> dict[str, Any]:
    """A phone calls a number."""
    call: dict[str, Any] = await sandbox.control("POST", "calls", json={"from": PHONE, "to": NUMBER} | more)
    return call


def refused(answer: dict[str, Any]) -> dict[str, str]:
    """What is wrong with each field."""
    return {error["field"]: error["description"] for error in answer["errors"]}


async def test_call_asks_the_numbers_voice_url_and_hears_the_answer(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", "<Say>Welcome</Say><Play>https://media.example/1.mp3</Play><Hangup/>")

    called = await calling(sandbox)

    (asked,) = await account.get("/voice")
    assert (asked["CallSid"], asked["From"], asked["To"]) == (called["sid"], PHONE, NUMBER)
    assert (asked["CallStatus"], asked["Direction"]) == ("ringing", "inbound")
    call = await call_of(sandbox, called["sid"])
    assert [(heard["kind"], heard["text"]) for heard in call["heard"]] == [
        ("say", "Welcome"),
        ("play", "https://media.example/1.mp3"),
    ]


async def test_call_asks_the_url_that_the_number_was_given(sandbox: Sandbox, account: Account) -> None:
    path = f"/2010-04-01/Accounts/{ACCOUNT_SID}/IncomingPhoneNumbers.json?PhoneNumber={NUMBER[1:]}"
    (number,) = (await sandbox.rest("GET", path))[1]["incoming_phone_numbers"]
    await sandbox.rest("POST", number["uri"], data={"VoiceUrl": account.url("/own", "<Hangup/>")})

    await calling(sandbox)

    assert await account.get("/own")
    assert account.got("/voice") == []


async def test_end_of_a_call_is_told_where_the_number_says(sandbox: Sandbox, account: Account) -> None:
    path = f"/2010-04-01/Accounts/{ACCOUNT_SID}/IncomingPhoneNumbers.json?PhoneNumber={NUMBER[1:]}"
    (number,) = (await sandbox.rest("GET", path))[1]["incoming_phone_numbers"]
    status, updated = await sandbox.rest("POST", number["uri"], data={"StatusCallback": account.url("/own_status")})
    account.url("/voice", "<Say>Welcome</Say>")

    called = await calling(sandbox)

    (told,) = await account.get("/own_status")
    assert (number["status_callback"], status) == (account.url("/status"), 200)
    assert updated["status_callback"] == account.url("/own_status")
    assert (told["CallSid"], told["CallStatus"]) == (called["sid"], "completed")
    assert account.got("/status") == []


async def test_keys_are_pressed(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", '<Gather action="/chosen" numDigits="1" timeout="600"><Say>Press 1</Say></Gather>')
    account.url("/chosen", "<Say>Thank you</Say>")
    called = await calling(sandbox)
    await call_of(sandbox, called["sid"], "in-progress")

    await sandbox.control("POST", f"calls/{called['sid']}/digits", json={"digits": "1"})

    (chosen,) = await account.get("/chosen")
    assert chosen["Digits"] == "1"
    call = await call_of(sandbox, called["sid"])
    assert [heard["kind"] for heard in call["heard"]] == ["say", "gather", "say"]


async def test_what_is_said_is_recorded(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", '<Record action="/recorded" timeout="600"/>')
    called = await calling(sandbox)
    await call_of(sandbox, called["sid"], "in-progress")

    await sandbox.control("POST", f"calls/{called['sid']}/speech", json={"text": "We will be late today."})
    await sandbox.control("POST", f"calls/{called['sid']}/digits", json={"digits": "#"})

    (recorded,) = await account.get("/recorded")
    assert int(recorded["RecordingDuration"]) >= 1


async def test_caller_hangs_up(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", '<Say>Hold</Say><Pause length="600"/>')
    called = await calling(sandbox)
    await call_of(sandbox, called["sid"], "in-progress")

    await sandbox.control("POST", f"calls/{called['sid']}/hangup", json={})

    call = await call_of(sandbox, called["sid"])
    again = await sandbox.control("POST", f"calls/{called['sid']}/hangup", json={}, expect=400)
    assert call["duration"] >= 1
    assert "sid" in refused(again)


async def test_calls_are_listed_oldest_first_by_either_side(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", "<Hangup/>")
    sids = [(await calling(sandbox, **{"from": phone}))["sid"] for phone in (PHONE, OTHER_PHONE, PHONE)]
    for sid in sids:
        await call_of(sandbox, sid)

    async def listed(**query: str) -> list[str]:
        calls = (await sandbox.control("GET", "calls", params=query))["calls"]
        return [call["sid"] for call in calls]

    assert await listed() == sids
    assert await listed(phone=OTHER_PHONE) == sids[1:2]
    assert await listed(phone=NUMBER, direction="inbound", status="completed") == sids
    assert await listed(direction="outbound-api") == []


@pytest.mark.parametrize(
    ("call", "fields"),
    [
        ({"from": "nobody", "to": "+12065559999"}, {"from", "to"}),
        ({"to": None}, {"to"}),
        ({"voice": "loud"}, {"voice"}),
    ],
)
async def test_call_that_cannot_be_made_is_refused(sandbox: Sandbox, call: dict[str, Any], fields: set[str]) -> None:
    answer = await sandbox.control("POST", "calls", json={"from": PHONE, "to": NUMBER} | call, expect=400)

    assert set(refused(answer)) == fields


async def test_number_without_a_voice_url_rings_nowhere() -> None:
    async with running_sandbox() as sandbox:
        answer = await sandbox.control("POST", "calls", json={"from": PHONE, "to": NUMBER}, expect=400)

    assert refused(answer)["to"] == "must be a number with a voice URL; this one rings nowhere"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("digits", {"digits": "1a"}, "digits"),
        ("digits", {}, "digits"),
        ("speech", {"text": " "}, "text"),
        ("hangup", {"now": True}, "now"),
    ],
)
async def test_what_nobody_can_do_on_a_phone_is_refused(
    sandbox: Sandbox, account: Account, path: str, body: dict[str, Any], field: str
) -> None:
    account.url("/voice", '<Say>Hold</Say><Pause length="600"/>')
    called = await calling(sandbox)
    await call_of(sandbox, called["sid"], "in-progress")

    answer = await sandbox.control("POST", f"calls/{called['sid']}/{path}", json=body, expect=400)

    assert set(refused(answer)) == {field}


@pytest.mark.parametrize("path", ["digits", "speech", "hangup"])
async def test_unknown_call_is_refused(sandbox: Sandbox, path: str) -> None:
    answer = await sandbox.control("POST", f"calls/CA{NO_SUCH}/{path}", json={}, expect=400)

    assert set(refused(answer)) == {"sid"}


async def test_phone_behaves_as_it_is_told(sandbox: Sandbox, account: Account) -> None:
    told = {
        "pickup": "machine",
        "answers_after_ms": 2000,
        "hangs_up_after_ms": 60_000,
        "presses": ["1", ""],
        "says": ["Hello"],
        "greeting": "Nobody is here.",
        "callbacks": "duplicated",
        "scenario": "none",
    }

    assert await sandbox.control("PUT", f"phones/{PHONE}", json=told) == told
    assert await sandbox.control("GET", "phones") == {PHONE: told}
    await sandbox.control("DELETE", f"phones/{PHONE}")
    assert await sandbox.control("GET", "phones") == {}


@pytest.mark.parametrize(
    ("pickup", "status"), [("busy", "busy"), ("no-answer", "no-answer"), ("unreachable", "failed")]
)
async def test_phone_that_does_not_answer_is_told_of(
    sandbox: Sandbox, account: Account, pickup: str, status: str
) -> None:
    await sandbox.control("PUT", f"phones/{OTHER_PHONE}", json={"pickup": pickup})
    account.url("/voice", f'<Dial action="/dialled" timeout="5">{OTHER_PHONE}</Dial>')

    await calling(sandbox)

    (dialled,) = await account.get("/dialled")
    assert dialled["DialCallStatus"] == status


async def test_phone_that_is_none_is_refused_with_all_that_is_wrong(sandbox: Sandbox) -> None:
    wrong = {
        "pickup": "perhaps",
        "answers_after_ms": -1,
        "hangs_up_after_ms": "soon",
        "presses": ["x"],
        "says": "hello",
        "greeting": 1,
        "callbacks": "late",
        "scenario": "comedy",
        "mood": "good",
    }

    answer = await sandbox.control("PUT", "phones/nobody", json=wrong, expect=400)

    assert set(refused(answer)) == {*wrong, "number"}


async def test_conferences_are_shown_with_who_is_in_them(sandbox: Sandbox, account: Account) -> None:
    told = f'statusCallback="{account.url("/conference")}" statusCallbackEvent="start"'
    account.url("/voice", f"<Dial><Conference {told}>room</Conference></Dial>")
    for phone in (PHONE, OTHER_PHONE):
        await calling(sandbox, **{"from": phone})
    await account.get("/conference")

    (conference,) = (await sandbox.control("GET", "conferences"))["conferences"]

    calls = (await sandbox.control("GET", "calls"))["calls"]
    assert (conference["friendly_name"], conference["status"]) == ("room", "in-progress")
    assert {each["call_sid"] for each in conference["participants"]} == {call["sid"] for call in calls}


async def test_wrong_answers_are_shown_with_twilios_code(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", "<Sing/>")

    called = await calling(sandbox)

    await call_of(sandbox, called["sid"])
    (problem,) = (await sandbox.control("GET", "problems"))["problems"]
    assert (problem["code"], problem["call_sid"], problem["url"]) == (12200, called["sid"], account.url("/voice"))


async def test_callbacks_of_everybody_misbehave_in_calls_too(sandbox: Sandbox, account: Account) -> None:
    await sandbox.misbehave(callbacks="duplicated")
    status = f'statusCallback="{account.url("/status")}"'
    account.url("/voice", f"<Dial><Number {status}>{OTHER_PHONE}</Number></Dial>")
    await sandbox.control("PUT", f"phones/{OTHER_PHONE}", json={"hangs_up_after_ms": 1000})

    await calling(sandbox)

    told = await account.get("/status", 2)
    assert told[0] == told[1]


async def test_reset_ends_calls_and_forgets_them(sandbox: Sandbox, account: Account) -> None:
    account.url("/voice", '<Say>Hold</Say><Pause length="600"/>')
    called = await calling(sandbox)
    await call_of(sandbox, called["sid"], "in-progress")
    await sandbox.control("PUT", f"phones/{PHONE}", json={"pickup": "busy"})

    await sandbox.control("POST", "reset")

    assert (await sandbox.control("GET", "calls"))["calls"] == []
    assert await sandbox.control("GET", "phones") == {}
