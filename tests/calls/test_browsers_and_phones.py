"""Browsers' and contacts' calls end to end: the sandbox's phones and browsers, posting through a real Envoy."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from pydantic import SecretStr

from server.api import running_api
from server.calls.checks import CheckWorker
from server.config import Settings
from server.db import Database
from server.notifications import Notifications
from server.providers import registry
from server.providers.sandbox.callbacks import signature
from server.providers.sandbox.settings import VoiceApp
from server.stack.ports import free_port
from server.storage import Storage
from tests.clients import Client
from tests.conftest import TWILIO_API_KEY_SECRET, TWILIO_API_KEY_SID, TWILIO_TWIML_APP_SID
from tests.factories import RECEIVER, SENDER, create_message, make_messaging_service
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, PATIENCE, Sandbox, running_sandbox
from tests.rest.front import Front, running_envoy, until_healthy

NOT_A_CHOICE = "Sorry, that is not one of the choices."
SILENCE = "No key was pressed."
GOODBYE = "No choice was made. Goodbye."
OPTED_OUT = "You will not be called from this number any more. Goodbye."
VOICEMAIL = "Please leave your message after the tone. When you are done, hang up or press the pound key."


@dataclass
class System:
    """Phones and browsers, the public door, the worker that asks after calls, and a caller of ours."""

    sandbox: Sandbox
    front: Front
    caller: Client
    checks: CheckWorker
    db: Database

    async def rest(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of a call that succeeds."""
        headers = {"Authorization": f"Bearer {self.caller.token}"}
        url = f"{self.front.url}/api/v1/{path}"
        async with self.sandbox.http.request(method, url, headers=headers, **request) as response:
            assert response.status in (200, 201), await response.text()
            return await response.json()

    async def token(self, **over: Any) -> Any:
        """A staff member's token."""
        fields = {"moderator_id": "teacher-1", "conversation_id": "conversation-1", **over}
        return await self.rest("POST", "sdk_calls/voice_token", json={"conversation": fields})

    async def browser_calls(self, token: Any, **params: str) -> str:
        """A browser calls with its token; the sid of its call."""
        body = {"token": token["token"], "params": params}
        call = await self.sandbox.control("POST", f"clients/{token['identity']}/calls", json=body)
        return str(call["sid"])

    async def phone_calls(self, *presses: str, says: str = "", number: str = RECEIVER) -> str:
        """A contact's phone calls our number, and presses these keys in the menus; the sid of its call."""
        await self.phone(number, presses=list(presses), says=[says] if says else [])
        call = await self.sandbox.control("POST", "calls", json={"from": number, "to": SENDER})
        return str(call["sid"])

    async def phone(self, number: str, **behaviour: Any) -> None:
        """How a phone behaves from now on."""
        await self.sandbox.control("PUT", f"phones/{number}", json=behaviour)

    async def tells_nothing(self) -> None:
        """No callback of calls that begin from now on is posted."""
        await self.sandbox.control("PUT", "misbehaviour", json={"callbacks": "missing"})

    async def posts(self, path: str, **fields: str) -> str:
        """The carrier posts a form to us; the TwiML it is answered."""
        url = f"{self.front.url}/api/v1/{path}"
        headers = {"X-Twilio-Signature": signature(AUTH_TOKEN, url, fields)}
        async with self.sandbox.http.post(url, data=fields, headers=headers) as response:
            assert response.status == 200, await response.text()
            return await response.text()

    async def over(self, sid: str) -> list[str]:
        """What was said to whoever is on the phone, once their call is over."""
        async with asyncio.timeout(PATIENCE):
            while (call := await self.sandbox.control("GET", f"calls/{sid}"))["ended"] is None:
                pass
        return [heard["text"] for heard in call["heard"] if heard["kind"] == "say"]

    async def until_rings(self, identity: str) -> None:
        """Until a browser rings."""
        path = f"calls?phone=client:{identity}&status=ringing"
        async with asyncio.timeout(PATIENCE):
            while not (await self.sandbox.control("GET", path))["calls"]:
                pass

    async def until(self, holds: Callable[[Any], object]) -> Any:
        """The only call there is, once it is so."""
        async with asyncio.timeout(PATIENCE):
            while not (uuids := await self._uuids()) or not holds(shown := await self.rest("GET", f"calls/{uuids[0]}")):
                pass
        assert len(uuids) == 1
        return shown

    async def until_status(self, status: str) -> Any:
        """The only call there is, once it is in a status."""
        return await self.until(lambda call: call["internal_status"] == status)

    async def ask_after_calls(self) -> None:
        """As if nothing had been heard of the calls for a while."""
        await self.db.execute("UPDATE call_legs SET check_at = now() WHERE check_at IS NOT NULL")
        while await self.checks.step():
            pass

    async def _uuids(self) -> list[Any]:
        async with self.db.connection() as connection:
            return [uuid for (uuid,) in await (await connection.execute("SELECT uuid FROM calls")).fetchall()]

    async def nothing_was_wrong(self) -> bool:
        """Whether the carrier found nothing to complain of in our answers."""
        found = await self.sandbox.control("GET", "problems")
        assert found["problems"] == []
        return True


@pytest.fixture(scope="module")
async def _doors(settings: Settings) -> AsyncIterator[tuple[Settings, Sandbox, Front]]:
    port = free_port()
    ours = f"http://127.0.0.1:{port}"
    told = f"{ours}/api/v1/twilio_calls/participant_status_changes"
    app = VoiceApp(
        TWILIO_API_KEY_SID,
        TWILIO_API_KEY_SECRET,
        TWILIO_TWIML_APP_SID,
        f"{ours}/api/v1/sdk_calls/response",
        status_callback=told,
    )
    incoming = f"{ours}/api/v1/twilio_calls/incoming"
    async with running_sandbox(voice_url=incoming, voice_status_url=told, voice_app=app) as sandbox:
        update = {
            "public_base_url": ours,
            "twilio_account_sid": ACCOUNT_SID,
            "twilio_auth_token": SecretStr(AUTH_TOKEN),
            "twilio_api_base_url": sandbox.base_url,
        }
        live = settings.model_copy(update=update)
        async with (
            running_api(live, listen="127.0.0.1:0") as api,
            running_envoy([f"127.0.0.1:{api.port}"], port=port) as front,
        ):
            await until_healthy(front, 1)
            yield live, sandbox, front


@pytest.fixture
async def system(
    _doors: tuple[Settings, Sandbox, Front],
    client: Client,
    db: Database,
    notifications: Notifications,
    storage: Storage,
) -> AsyncIterator[System]:
    live, sandbox, front = _doors
    voice = registry.voice_calls(live)
    await make_messaging_service(db)
    await create_message(client)
    yield System(sandbox, front, client, CheckWorker(db, notifications, voice, storage), db)
    # Nothing of this test may call back into the next.
    await sandbox.control("POST", "reset")
    await voice.aclose()


async def test_browser_calls_a_phone_that_answers(system: System) -> None:
    await system.phone(RECEIVER, hangs_up_after_ms=3000)

    sid = await system.browser_calls(await system.token(client_call_id="call-7"))
    call = await system.until_status("finished")
    await system.over(sid)
    detected = await system.until(lambda shown: "machine_detected" in shown)

    assert (call["kind"], call["provider_status"], call["call_sid"]) == ("direct", "completed", sid)
    assert (call["provider_number"], call["participant_number"]) == (SENDER, RECEIVER)
    assert call["client_call_id"] == "call-7"
    assert detected["machine_detected"] is False
    assert await system.nothing_was_wrong()


async def test_browser_calls_a_machine(system: System) -> None:
    await system.phone(RECEIVER, pickup="machine", hangs_up_after_ms=10_000)

    await system.browser_calls(await system.token(phone_number=RECEIVER), To=RECEIVER)
    call = await system.until(lambda shown: shown["internal_status"] == "finished" and "machine_detected" in shown)

    assert call["machine_detected"] is True


@pytest.mark.parametrize(
    ("pickup", "status"), [("busy", "busy"), ("no-answer", "no_answer"), ("unreachable", "failed")]
)
async def test_browser_calls_a_phone_that_is_not_answered(system: System, pickup: str, status: str) -> None:
    await system.phone(RECEIVER, pickup=pickup)

    sid = await system.browser_calls(await system.token())
    call = await system.until_status(status)

    assert ("failed_at" in call, "error_code" in call) == (status == "failed", status == "failed")
    assert await system.over(sid) == []
    await system.ask_after_calls()
    assert (await system.until_status(status))["internal_status"] == status


@pytest.mark.parametrize("is_told", [True, False])
async def test_browser_is_told_why_a_phone_cannot_be_reached(system: System, is_told: bool) -> None:
    await system.phone(RECEIVER, pickup="unreachable", callbacks="in-order" if is_told else "missing")

    await system.browser_calls(await system.token())
    await system.until_status("failed")
    await system.ask_after_calls()

    code = "SIP_404" if is_told else "CALL_FAILED"
    call = await system.until(lambda shown: shown.get("error_code") == code)
    assert call["error_description"].startswith("The call could not be put through. ")
    assert call["provider_status"] == "failed"


async def test_browser_that_hangs_up_while_it_rings_was_answered_by_nobody(system: System) -> None:
    await system.phone(RECEIVER, answers_after_ms=60_000)
    sid = await system.browser_calls(await system.token())
    await system.until(lambda shown: shown.get("provider_status") == "ringing")

    await system.sandbox.control("POST", f"calls/{sid}/hangup", json={})
    await system.over(sid)

    call = await system.until_status("no_answer")
    assert call["provider_status"] == "no-answer"


async def test_browser_that_hangs_up_before_anything_was_dialled_has_canceled(system: System) -> None:
    token = await system.token(phone_number=RECEIVER)
    browser = {"CallSid": f"CA{1:032x}", "AccountSid": ACCOUNT_SID, "From": f"client:{token['identity']}", "To": ""}
    granted = jwt.decode(token["token"], options={"verify_signature": False})["grants"]["voice"]
    named = granted["outgoing"]["params"]
    assert "<Dial" in await system.posts("sdk_calls/response", CallStatus="ringing", **browser, **named)
    assert (await system.until_status("pending"))["call_sid"] == browser["CallSid"]

    await system.posts("twilio_calls/participant_status_changes", CallStatus="no-answer", **browser)

    call = await system.until_status("canceled")
    assert "failed_at" not in call


async def test_phone_that_opted_out_is_not_called_and_the_browser_hears_why(system: System) -> None:
    heard = await system.over(await system.phone_calls("3"))
    ended = await system.until_status("no_answer")

    sid = await system.browser_calls(await system.token())
    reason = await system.over(sid)

    assert heard[-1] == OPTED_OUT
    assert ended["kind"] == "return"
    assert reason == ["This contact has asked not to be called from this number."]
    assert (await system.until_status("no_answer"))["uuid"] == ended["uuid"]
    assert await system.nothing_was_wrong()


async def test_phone_calls_back_and_is_connected_with_the_browser(system: System) -> None:
    token = await system.token()
    body = {"token": token["token"], "hangs_up_after_ms": 3000}
    await system.sandbox.control("POST", "clients", json=body)

    sid = await system.phone_calls("1")
    call = await system.until_status("finished")
    await system.over(sid)

    after = await system.until(lambda shown: shown["provider_status"] == "completed")
    assert (call["kind"], call["call_sid"]) == ("return", sid)
    assert after["internal_status"] == "finished"
    assert "voicemail" not in after
    assert await system.nothing_was_wrong()


@pytest.mark.parametrize("browser", ["none", "never registered", "does not answer"])
async def test_phone_calls_back_where_no_browser_answers_and_leaves_a_voicemail(system: System, browser: str) -> None:
    if browser != "none":
        token = await system.token()
    if browser == "does not answer":
        await system.sandbox.control("POST", "clients", json={"token": token["token"], "pickup": "no-answer"})

    heard = await system.over(await system.phone_calls("1", says="Please call me back."))

    call = await system.until(lambda shown: shown["internal_status"] == "voicemail")
    assert VOICEMAIL in heard
    assert call["voicemail"]["caller_id"] == RECEIVER
    assert await system.nothing_was_wrong()


async def test_phone_that_hangs_up_while_a_browser_rings_leaves_no_voicemail(system: System) -> None:
    token = await system.token()
    await system.sandbox.control("POST", "clients", json={"token": token["token"], "answers_after_ms": 60_000})
    sid = await system.phone_calls("1")
    await system.until_rings(token["identity"])

    await system.sandbox.control("POST", f"calls/{sid}/hangup", json={})
    await system.over(sid)

    call = await system.until_status("no_answer")
    assert "voicemail" not in call
    assert await system.nothing_was_wrong()


@pytest.mark.parametrize("presses", [("2",), ("9", "2"), ("", "9", "2")])
async def test_phone_leaves_a_voicemail(system: System, presses: tuple[str, ...]) -> None:
    heard = await system.over(await system.phone_calls(*presses, says="Please call me back."))

    call = await system.until(lambda shown: "recording_duration" in shown["voicemail"])
    ended = await system.until(lambda shown: shown["provider_status"] == "completed")
    assert VOICEMAIL in heard
    assert (call["internal_status"], call["voicemail"]["internal_status"]) == ("voicemail", "pending")
    assert ended["internal_status"] == "voicemail"
    assert await system.nothing_was_wrong()


@pytest.mark.parametrize("presses", [(), ("9", "9", "9"), ("*", "", "0")])
async def test_phone_that_chooses_nothing_hears_goodbye(system: System, presses: tuple[str, ...]) -> None:
    heard = await system.over(await system.phone_calls(*presses))

    answers = [text.split(" To speak")[0] for text in heard[1:-1]]
    assert answers == [NOT_A_CHOICE if pressed else SILENCE for pressed in (*presses, "", "")[:2]]
    call = await system.until_status("no_answer")
    assert len([text for text in heard if "press 1" in text]) == 3
    assert heard[-1] == GOODBYE
    assert (call["provider_status"], "voicemail" in call) == ("completed", False)
    assert await system.nothing_was_wrong()


@pytest.mark.parametrize("callbacks", ["in-order", "duplicated", "reordered"])
async def test_phone_that_hangs_up_in_the_menu_is_told_of_at_once(system: System, callbacks: str) -> None:
    await system.sandbox.control("PUT", "misbehaviour", json={"callbacks": callbacks})
    sid = await system.phone_calls()
    await system.until_status("pending")

    await system.sandbox.control("POST", f"calls/{sid}/hangup", json={})

    call = await system.until_status("no_answer")
    assert (call["call_sid"], call["provider_status"]) == (sid, "completed")
    assert await system.nothing_was_wrong()


async def test_phone_that_hangs_up_in_the_menu_is_found_out_by_asking(system: System) -> None:
    await system.tells_nothing()
    sid = await system.phone_calls()
    await system.until_status("pending")

    await system.sandbox.control("POST", f"calls/{sid}/hangup", json={})
    await system.over(sid)
    await system.ask_after_calls()

    assert (await system.until_status("no_answer"))["call_sid"] == sid


async def test_phone_that_nobody_knows_hears_the_configured_text(system: System, settings: Settings) -> None:
    heard = await system.over(await system.phone_calls("2", number="+13035550111"))

    assert heard == [settings.unknown_caller_answer]
    assert await system.nothing_was_wrong()


async def test_call_of_an_api_caller_that_nobody_began_has_failed_after_an_hour(system: System) -> None:
    headers = {"Authorization": f"Bearer {system.caller.token}"}
    url = f"{system.front.url}/api/v1/sdk_calls/response"
    body = {"client_conversation_id": "conversation-1"}
    async with system.sandbox.http.post(url, json=body, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/xml")
    await system.ask_after_calls()
    before = await system.until_status("pending")

    await system.db.execute("UPDATE calls SET expires_at = expires_at - interval '1 hour'")
    await system.ask_after_calls()

    after = await system.until_status("failed")
    assert before["uuid"] == after["uuid"]
    assert after["error_code"] == "CALL_NOT_COMPLETED"
    assert "failed_at" in after
