"""Numbers that are bought, released and pointed elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from server.providers.sandbox.carrier import phone_number_sid
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID, OWNED_NUMBERS
from server.providers.twilio.client import Refusal, TwilioClient
from tests.providers.servers import ACCOUNT_SID, PATIENCE, Sandbox, closed_port_url, running_sandbox

NEW = "+13035550111"
OLD = "+12065550100"
URL = closed_port_url()
DEFAULT_URL = f"{URL}/default"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A sandbox whose account has a default URL for texts."""
    async with running_sandbox(inbound_url=DEFAULT_URL) as running:
        yield running


async def owned(twilio: TwilioClient) -> list[str]:
    return [number.phone_number for number in await twilio.incoming_phone_numbers.list_async()]


async def in_service(twilio: TwilioClient) -> list[str]:
    numbers = twilio.messaging.v1.services(MESSAGING_SERVICE_SID).phone_numbers
    return [number.phone_number for number in await numbers.list_async()]


async def test_bought_number_is_the_accounts_and_in_no_service(sandbox: Sandbox, twilio: TwilioClient) -> None:
    bought = await sandbox.control("PUT", f"numbers/{NEW}")

    assert bought == {
        "number": NEW,
        "sid": phone_number_sid(NEW),
        "messaging_service_sid": None,
        "inbound_url": DEFAULT_URL,
        "voice_url": None,
    }
    assert await owned(twilio) == [*OWNED_NUMBERS, NEW]
    assert NEW not in await in_service(twilio)
    assert (await sandbox.create(From=NEW))[0] == 201
    assert (await sandbox.text(to=NEW))["message"]["messaging_service_sid"] is None


async def test_released_number_is_gone_from_account_and_service(sandbox: Sandbox, twilio: TwilioClient) -> None:
    await sandbox.control("DELETE", f"numbers/{OLD}")

    assert await owned(twilio) == list(OWNED_NUMBERS[1:])
    assert await in_service(twilio) == list(OWNED_NUMBERS[1:])
    assert (await sandbox.create())[1]["code"] == 21606
    with pytest.raises(Refusal, match="20404"):
        await twilio.incoming_phone_numbers(phone_number_sid(OLD)).fetch_async()
    refused = await sandbox.text(to=OLD, expect=400)
    assert [error["field"] for error in refused["errors"]] == ["to"]


async def test_number_bought_twice_is_one(sandbox: Sandbox, twilio: TwilioClient) -> None:
    for number in (NEW, NEW, OLD):
        await sandbox.control("PUT", f"numbers/{number}")

    assert await owned(twilio) == [*OWNED_NUMBERS, NEW]
    assert OLD in await in_service(twilio)


async def test_every_number_is_listed_with_its_service(sandbox: Sandbox) -> None:
    await sandbox.control("PUT", f"numbers/{NEW}")

    listed = (await sandbox.control("GET", "numbers"))["numbers"]

    services = {each["number"]: each["messaging_service_sid"] for each in listed}
    assert services == {**dict.fromkeys(OWNED_NUMBERS, MESSAGING_SERVICE_SID), NEW: None}


@pytest.mark.parametrize(("method", "number"), [("PUT", "+1303"), ("DELETE", NEW), ("DELETE", "+1")])
async def test_impossible_number_is_refused(sandbox: Sandbox, method: str, number: str) -> None:
    refused = await sandbox.control(method, f"numbers/{number}", expect=400)

    assert [error["field"] for error in refused["errors"]] == ["number"]


async def test_restarted_carrier_knows_what_was_bought_and_released(tmp_path: Path) -> None:
    async with running_sandbox(data_dir=tmp_path) as sandbox:
        await sandbox.control("PUT", f"numbers/{NEW}")
        await sandbox.control("DELETE", f"numbers/{OLD}")
        await sandbox.control("DELETE", f"numbers/{OWNED_NUMBERS[1]}")
        await sandbox.control("PUT", f"numbers/{OWNED_NUMBERS[1]}")
        before = await sandbox.control("GET", "numbers")

    async with running_sandbox(data_dir=tmp_path) as sandbox:
        after = await sandbox.control("GET", "numbers")
        assert sorted(map(str, after["numbers"])) == sorted(map(str, before["numbers"]))
        await sandbox.control("POST", "reset")
        assert [each["number"] for each in (await sandbox.control("GET", "numbers"))["numbers"]] == list(OWNED_NUMBERS)


async def test_service_that_lost_its_numbers_fails_what_it_accepted(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"From": None, "MessagingServiceSid": MESSAGING_SERVICE_SID}
    async with running_sandbox(data_dir=tmp_path, step_delay=timedelta(days=1)) as sandbox:
        _, accepted = await sandbox.create(**asked)
        for number in OWNED_NUMBERS:
            await sandbox.control("DELETE", f"numbers/{number}")
        assert (await sandbox.create(**asked))[1]["code"] == 21703

    async with running_sandbox(data_dir=tmp_path) as sandbox:
        async with asyncio.timeout(PATIENCE):
            while (message := (await sandbox.rest("GET", accepted["uri"]))[1])["status"] != "failed":
                pass
    assert (message["error_code"], message["from"]) == (21703, None)


async def inbound_url(sandbox: Sandbox, number: str = OLD) -> str | None:
    listed = (await sandbox.control("GET", "numbers"))["numbers"]
    (url,) = [each["inbound_url"] for each in listed if each["number"] == number]
    assert (await sandbox.text(to=number))["webhook"]["url"] == url
    return url if url is None else str(url)


async def test_default_url_is_shown_as_the_vendor_shows_it(sandbox: Sandbox, twilio: TwilioClient) -> None:
    number = await twilio.incoming_phone_numbers(phone_number_sid(OLD)).fetch_async()
    service = await twilio.messaging.v1.services(MESSAGING_SERVICE_SID).fetch_async()

    assert (number.sms_url, service.inbound_request_url) == (DEFAULT_URL, DEFAULT_URL)
    assert service.use_inbound_webhook_on_number is False
    assert await inbound_url(sandbox) == DEFAULT_URL


async def test_service_has_its_say_before_the_number(sandbox: Sandbox, twilio: TwilioClient) -> None:
    service = twilio.messaging.v1.services(MESSAGING_SERVICE_SID)
    number = await twilio.incoming_phone_numbers(phone_number_sid(OLD)).update_async(sms_url=f"{URL}/number")
    assert number.sms_url == f"{URL}/number"
    assert await inbound_url(sandbox) == DEFAULT_URL

    changed = await service.update_async(inbound_request_url=f"{URL}/service#rc=2")
    assert changed.inbound_request_url == f"{URL}/service#rc=2"
    assert await inbound_url(sandbox) == f"{URL}/service#rc=2"

    changed = await service.update_async(use_inbound_webhook_on_number=True)
    assert (changed.use_inbound_webhook_on_number, changed.inbound_request_url) == (True, f"{URL}/service#rc=2")
    assert await inbound_url(sandbox) == f"{URL}/number"

    await service.update_async(use_inbound_webhook_on_number=False)
    assert await inbound_url(sandbox) == f"{URL}/service#rc=2"


async def test_number_in_no_service_speaks_for_itself(sandbox: Sandbox, twilio: TwilioClient) -> None:
    await sandbox.control("PUT", f"numbers/{NEW}")
    await twilio.messaging.v1.services(MESSAGING_SERVICE_SID).update_async(inbound_request_url=f"{URL}/service")
    assert await inbound_url(sandbox, NEW) == DEFAULT_URL

    await twilio.incoming_phone_numbers(phone_number_sid(NEW)).update_async(sms_url=f"{URL}/number")
    assert await inbound_url(sandbox, NEW) == f"{URL}/number"


async def test_without_a_url_a_text_is_kept_and_told_to_nobody(sandbox: Sandbox, twilio: TwilioClient) -> None:
    service = await twilio.messaging.v1.services(MESSAGING_SERVICE_SID).update_async(inbound_request_url="")
    number = await twilio.incoming_phone_numbers(phone_number_sid(OLD)).update_async(sms_url="")
    assert (service.inbound_request_url, number.sms_url) == (None, "")

    sent = await sandbox.text()

    assert sent["webhook"] == {"url": None, "answers": []}
    assert [taken["sid"] for taken in await sandbox.taken()] == [sent["message"]["sid"]]


@pytest.mark.parametrize("url", ["ftp://api.example/in", "/in", "https://under_score.example/in"])
async def test_impossible_url_is_refused(sandbox: Sandbox, twilio: TwilioClient, url: str) -> None:
    with pytest.raises(Refusal, match="21402"):
        await twilio.incoming_phone_numbers(phone_number_sid(OLD)).update_async(sms_url=url)
    with pytest.raises(Refusal, match="20001"):
        await twilio.messaging.v1.services(MESSAGING_SERVICE_SID).update_async(inbound_request_url=url)
    path = f"/v1/Services/{MESSAGING_SERVICE_SID}"
    status, _ = await sandbox.rest("POST", path, data={"UseInboundWebhookOnNumber": "perhaps"})

    assert status == 400
    assert await inbound_url(sandbox) == DEFAULT_URL


async def test_update_of_what_is_not_there_is_refused(twilio: TwilioClient) -> None:
    with pytest.raises(Refusal, match="20404"):
        await twilio.incoming_phone_numbers(phone_number_sid(NEW)).update_async(sms_url=URL)
    with pytest.raises(Refusal, match="20404"):
        await twilio.messaging.v1.services("MG" + "9" * 32).update_async(inbound_request_url=URL)


async def test_restarted_carrier_knows_where_texts_go(tmp_path: Path) -> None:
    async with running_sandbox(data_dir=tmp_path, inbound_url=DEFAULT_URL) as sandbox:
        path = f"/v1/Services/{MESSAGING_SERVICE_SID}"
        await sandbox.rest("POST", path, data={"InboundRequestUrl": "", "UseInboundWebhookOnNumber": "true"})
        path = f"/2010-04-01/Accounts/{ACCOUNT_SID}/IncomingPhoneNumbers/{phone_number_sid(OLD)}.json"
        await sandbox.rest("POST", path, data={"SmsUrl": f"{URL}/number"})

    async with running_sandbox(data_dir=tmp_path, inbound_url=DEFAULT_URL) as sandbox:
        assert await inbound_url(sandbox) == f"{URL}/number"
        assert await inbound_url(sandbox, OWNED_NUMBERS[1]) == DEFAULT_URL
        await sandbox.control("POST", "reset")
        assert await inbound_url(sandbox) == DEFAULT_URL
