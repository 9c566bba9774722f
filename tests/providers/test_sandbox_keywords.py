"""Carrier keywords as Twilio handles them without being asked, and with Advanced Opt-Out."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from server.providers.sandbox.carrier import phone_number_sid
from server.providers.sandbox.keywords import ANSWERS, Keyword, keyword_in
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID
from server.providers.twilio.client import Refusal, TwilioClient
from tests.providers.servers import PATIENCE, Receiver, Sandbox, running_sandbox

OTHER_NUMBER = {"From": "+12065550101"}
SERVICE = {"From": None, "MessagingServiceSid": MESSAGING_SERVICE_SID}


async def code_of(sandbox: Sandbox, **form: Any) -> int | None:
    _, answer = await sandbox.create(**form)
    return answer.get("code") if isinstance(answer.get("code"), int) else None


async def carriers_answers(sandbox: Sandbox) -> list[str]:
    """What the carrier itself has said, once it is delivered."""
    async with asyncio.timeout(PATIENCE):
        while True:
            said = [taken for taken in await sandbox.taken() if taken["by_carrier"]]
            if all(taken["status"] == "delivered" for taken in said):
                return [taken["body"] for taken in said]


@pytest.mark.parametrize(
    ("body", "keyword"),
    [
        *((word, Keyword.STOP) for word in ("STOP", "unsubscribe", "End", "quit", "STOPALL", "revoke", "OptOut")),
        *((word, Keyword.STOP) for word in ("cancel", " stop\n")),
        *((word, Keyword.START) for word in ("START", "yes", "Unstop")),
        *((word, Keyword.HELP) for word in ("help", "INFO")),
        *((word, None) for word in ("", "stop it", "STOP!", "no", "OPT_OUT", "yes please")),
    ],
)
def test_keyword_is_the_whole_message_in_any_case(body: str, keyword: Keyword | None) -> None:
    assert keyword_in(body) is keyword


@pytest.mark.parametrize("sender", [{}, OTHER_NUMBER, SERVICE], ids=["number", "other number", "service"])
async def test_stop_blocks_the_whole_service_until_start(sandbox: Sandbox, sender: dict[str, Any]) -> None:
    assert await code_of(sandbox, **sender) is None

    await sandbox.text(body="Stop")
    assert await code_of(sandbox, **sender) == 21610
    assert await code_of(sandbox, **sender, To="+14155550124") is None

    await sandbox.text(body="yes")
    assert await code_of(sandbox, **sender) is None


async def test_number_outside_of_services_is_blocked_alone(sandbox: Sandbox, twilio: TwilioClient) -> None:
    numbers = twilio.messaging.v1.services(MESSAGING_SERVICE_SID).phone_numbers
    await numbers(phone_number_sid("+12065550100")).delete_async()

    await sandbox.text(body="STOP")

    assert await code_of(sandbox) == 21610
    assert await code_of(sandbox, **OTHER_NUMBER) is None
    assert await code_of(sandbox, **SERVICE) is None


async def test_carrier_answers_keywords_itself_and_out_of_the_accounts_sight(
    sandbox: Sandbox, twilio: TwilioClient
) -> None:
    for word in ("STOP", "START", "HELP"):
        await sandbox.text(body=word)

    assert await carriers_answers(sandbox) == [ANSWERS[word] for word in (Keyword.STOP, Keyword.START, Keyword.HELP)]
    answer = (await sandbox.taken(direction="outbound-reply"))[0]
    assert (answer["from"], answer["to"]) == ("+12065550100", "+14155550123")
    assert {message.direction for message in await twilio.messages.list_async()} == {"inbound"}
    with pytest.raises(Refusal, match="20404"):
        await twilio.messages(answer["sid"]).fetch_async()


async def test_yes_of_somebody_who_never_stopped_is_only_a_word(sandbox: Sandbox) -> None:
    await sandbox.text(body="YES")

    assert await carriers_answers(sandbox) == []


@pytest.mark.parametrize("word", ["STOP", "START", "HELP"])
async def test_opt_out_type_is_sent_with_advanced_opt_out_alone(receiver: Receiver, word: str) -> None:
    told = []
    async with running_sandbox(inbound_url=f"{receiver.base_url}/inbound") as sandbox:
        for advanced in (False, True):
            setting = {"advanced_opt_out": advanced}
            answer = await sandbox.control("PUT", f"services/{MESSAGING_SERVICE_SID}", json=setting)
            assert answer == {"sid": MESSAGING_SERVICE_SID, "advanced_opt_out": advanced}
            await sandbox.text(body=word)
            await sandbox.text(body="hello")
            told += [dict(parse_qsl((await receiver.next()).body.decode())) for _ in range(2)]
        answers = await carriers_answers(sandbox)

    assert [fields.get("OptOutType") for fields in told] == [None, None, word, None]
    assert [fields["Body"] for fields in told] == [word, "hello"] * 2
    assert answers[-1] == ANSWERS[Keyword(word)]


async def test_twiml_to_somebody_who_stopped_is_refused(receiver: Receiver) -> None:
    receiver.answer = ("text/xml", "<Response><Message>Bye</Message></Response>")
    async with running_sandbox(inbound_url=f"{receiver.base_url}/inbound") as sandbox:
        sent = await sandbox.text(body="STOP")

    (answer,) = sent["webhook"]["answers"]
    assert answer["problem"] == "21610: Attempt to send to unsubscribed recipient"


async def test_special_handset_stays_opted_out_whatever_it_texts(sandbox: Sandbox) -> None:
    await sandbox.control("PUT", "handsets/+14155550123", json={"opted_out": True})

    await sandbox.text(body="START")

    assert await code_of(sandbox) == 21610


async def test_restarted_carrier_knows_who_stopped_and_a_reset_one_does_not(tmp_path: Path) -> None:
    async with running_sandbox(data_dir=tmp_path) as sandbox:
        await sandbox.control("PUT", f"services/{MESSAGING_SERVICE_SID}", json={"advanced_opt_out": True})
        await sandbox.text(body="STOP")
        await sandbox.text(body="STOP", from_="+14155550124")
        await sandbox.text(body="START", from_="+14155550124")

    async with running_sandbox(data_dir=tmp_path) as sandbox:
        assert await code_of(sandbox) == 21610
        assert await code_of(sandbox, To="+14155550124") is None
        await sandbox.control("POST", "reset")
        assert await code_of(sandbox) is None


@pytest.mark.parametrize(
    ("sid", "body", "field"),
    [
        ("MG" + "9" * 32, {"advanced_opt_out": True}, "sid"),
        (MESSAGING_SERVICE_SID, {"advanced_opt_out": 1}, "advanced_opt_out"),
        (MESSAGING_SERVICE_SID, {"opt_out": True}, "opt_out"),
    ],
)
async def test_impossible_setting_of_a_service_is_refused(
    sandbox: Sandbox, sid: str, body: dict[str, Any], field: str
) -> None:
    refused = await sandbox.control("PUT", f"services/{sid}", json=body, expect=400)

    assert [error["field"] for error in refused["errors"]] == [field]
