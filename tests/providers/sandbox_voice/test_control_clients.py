"""Browsers, told by the control API: they register with access tokens, are called, and call out."""

from typing import Any

import pytest

from tests.providers.sandbox_voice.account import APP_SID, NO_SUCH, NUMBER, Account, access_token, call_of
from tests.providers.servers import Sandbox, running_sandbox


async def connecting(sandbox: Sandbox, token: str, *, expect: int = 200, **params: str) -> dict[str, Any]:
    """The browser of `staff` calls out."""
    answer: dict[str, Any] = await sandbox.control(
        "POST", "clients/staff/calls", json={"token": token, "params": params}, expect=expect
    )
    return answer


async def test_browser_calls_out_with_the_tokens_parameters(sandbox: Sandbox, account: Account) -> None:
    account.url("/app", "<Say>Connecting</Say>")

    call = await connecting(
        sandbox,
        access_token(outgoing_application_params={"voice_token_uuid": "7", "To": "+14155550123"}),
        page="home",
        voice_token_uuid="forged",
    )

    (asked,) = await account.get("/app")
    assert (asked["From"], asked["To"], asked["ApplicationSid"]) == ("client:staff", "+14155550123", APP_SID)
    assert (asked["voice_token_uuid"], asked["page"]) == ("7", "home")
    assert [heard["text"] for heard in (await call_of(sandbox, call["sid"]))["heard"]] == ["Connecting"]


async def test_end_of_a_browsers_call_is_told_to_the_app(sandbox: Sandbox, account: Account) -> None:
    account.url("/app", "<Say>Connecting</Say>")

    call = await connecting(sandbox, access_token())

    (told,) = await account.get("/app_status")
    assert (told["CallSid"], told["CallStatus"], told["ApplicationSid"]) == (call["sid"], "completed", APP_SID)
    assert account.got("/status") == []


async def test_registered_browser_is_called(sandbox: Sandbox, account: Account) -> None:
    registered = await sandbox.control("POST", "clients", json={"token": access_token(), "hangs_up_after_ms": 1000})
    account.url("/voice", '<Dial action="/dialled"><Client>staff</Client></Dial>')

    await sandbox.control("POST", "calls", json={"from": "+14155550123", "to": NUMBER})

    (dialled,) = await account.get("/dialled")
    assert (registered["identity"], registered["pickup"], registered["hangs_up_after_ms"]) == ("staff", "human", 1000)
    assert dialled["DialCallStatus"] == "completed"
    assert "client:staff" in await sandbox.control("GET", "phones")


async def test_closed_browser_is_not_reached(sandbox: Sandbox, account: Account) -> None:
    await sandbox.control("POST", "clients", json={"token": access_token()})
    await sandbox.control("DELETE", "clients/staff")
    account.url("/voice", '<Dial action="/dialled"><Client>staff</Client></Dial>')

    await sandbox.control("POST", "calls", json={"from": "+14155550123", "to": NUMBER})

    (dialled,) = await account.get("/dialled")
    assert dialled["DialCallStatus"] == "no-answer"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("no token", "(20101)"),
        (access_token(identity="somebody"), "must be of staff, not somebody"),
        (access_token(outgoing_application_sid="AP" + NO_SUCH), "(21218)"),
        (access_token(outgoing_application_sid=None), "(21218)"),
    ],
)
async def test_browser_with_a_bad_token_does_not_call(
    sandbox: Sandbox, account: Account, token: str, said: str
) -> None:
    answer = await connecting(sandbox, token, expect=400)

    assert said in answer["errors"][0]["description"]
    assert account.asked == []


async def test_browser_that_may_not_be_called_does_not_register(sandbox: Sandbox) -> None:
    body = {"token": access_token(incoming_allow=None)}

    answer = await sandbox.control("POST", "clients", json=body, expect=400)

    assert answer["errors"] == [{"field": "token", "description": "must grant incoming calls"}]


async def test_sandbox_without_a_twiml_app_lets_no_browser_in() -> None:
    async with running_sandbox() as sandbox:
        answer = await sandbox.control("POST", "clients", json={"token": access_token()}, expect=400)

    assert "without a TwiML App" in answer["message"]
