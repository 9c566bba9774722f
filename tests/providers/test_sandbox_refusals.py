from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.providers.sandbox.settings import MESSAGING_SERVICE_SID, OWNED_NUMBERS
from tests.providers.servers import ACCOUNT_SID, MESSAGES, Sandbox

SOON = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
LATER = (datetime.now(UTC) + timedelta(days=36)).isoformat()


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"To": None}, 400, 21604),
        ({"To": "4155550123"}, 400, 21211),
        ({"To": "+1415555012"}, 400, 21211),
        ({"To": "+11155550123"}, 400, 21211),
        ({"To": "+0123456789"}, 400, 21211),
        ({"To": "somebody"}, 400, 21211),
        ({"From": None}, 400, 21603),
        ({"From": "+12065550110"}, 400, 21606),
        ({"From": "12065550100"}, 400, 21606),
        ({"From": None, "MessagingServiceSid": "MG" + "9" * 32}, 400, 21701),
        ({"From": "+13035550100", "MessagingServiceSid": MESSAGING_SERVICE_SID}, 400, 21606),
        ({"Body": None}, 400, 21602),
        ({"Body": ""}, 400, 21602),
        ({"Body": "x" * 1601}, 400, 21617),
        ({"MediaUrl": ["https://media.example/1.jpg"] * 11}, 400, 21623),
        ({"MediaUrl": "file:///etc/passwd"}, 400, 21620),
        ({"StatusCallback": "not a url"}, 400, 21609),
        ({"StatusCallback": "ftp://api.example/cb"}, 400, 21609),
        ({"StatusCallback": "https://under_score.example/cb"}, 400, 21609),
        ({"StatusCallback": ""}, 400, 21609),
        ({"ScheduleType": "fixed", "SendAt": SOON}, 400, 35118),
        ({"ScheduleType": "fixed", "MessagingServiceSid": MESSAGING_SERVICE_SID}, 400, 35111),
        ({"ScheduleType": "fixed", "MessagingServiceSid": MESSAGING_SERVICE_SID, "SendAt": SOON}, 400, 35114),
        ({"ScheduleType": "fixed", "MessagingServiceSid": MESSAGING_SERVICE_SID, "SendAt": LATER}, 400, 35114),
        ({"ScheduleType": "fixed", "MessagingServiceSid": MESSAGING_SERVICE_SID, "SendAt": "noon"}, 400, 35114),
        ({"To": "+15005550001"}, 400, 21211),
        ({"To": "+15005550002"}, 400, 21612),
        ({"To": "+15005550003"}, 400, 21408),
        ({"To": "+15005550004"}, 400, 21610),
        ({"To": "+15005550009"}, 400, 21614),
        ({"From": "+15005550001"}, 400, 21212),
        ({"From": "+15005550008"}, 429, 21611),
        ({"Body": "[sandbox:explode]"}, 400, 90001),
    ],
)
async def test_create_is_refused_with_the_vendors_code(
    sandbox: Sandbox, form: dict[str, Any], status: int, code: int
) -> None:
    answered, body = await sandbox.create(**form)

    assert (answered, body["code"], body["status"]) == (status, code, status)
    assert body["message"]
    assert body["more_info"] == f"https://www.twilio.com/docs/errors/{code}"
    assert await sandbox.taken() == []


@pytest.mark.parametrize(
    "form",
    [
        {"Body": "x" * 1600},
        {"Body": None, "MediaUrl": ["https://media.example/1.jpg"] * 10},
        {"To": "+442079460123"},
        {"StatusCallback": "http://127.0.0.1:1/cb?message_uuid=1#rc=2"},
        {"From": None, "MessagingServiceSid": MESSAGING_SERVICE_SID},
        *({"From": number} for number in OWNED_NUMBERS),
    ],
)
async def test_create_at_the_bounds_is_taken(sandbox: Sandbox, form: dict[str, Any]) -> None:
    status, _ = await sandbox.create(**form)

    assert status == 201


async def test_opted_out_handset_is_refused_until_it_opts_in(sandbox: Sandbox) -> None:
    await sandbox.control("PUT", "handsets/+14155550123", json={"opted_out": True})
    status, body = await sandbox.create()
    assert (status, body["code"]) == (400, 21610)

    await sandbox.control("DELETE", "handsets/+14155550123")
    status, _ = await sandbox.create()
    assert status == 201


async def test_service_without_numbers_cannot_send(sandbox: Sandbox) -> None:
    numbers = f"/v1/Services/{MESSAGING_SERVICE_SID}/PhoneNumbers"
    _, listed = await sandbox.rest("GET", numbers)
    for number in listed["phone_numbers"]:
        await sandbox.rest("DELETE", f"{numbers}/{number['sid']}")

    status, body = await sandbox.create(From=None, MessagingServiceSid=MESSAGING_SERVICE_SID)

    assert (status, body["code"]) == (400, 21703)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/SM{'0' * 32}.json", 404, 20404),
        ("POST", f"/2010-04-01/Accounts/AC{'0' * 32}/Messages.json", 404, 20404),
        ("GET", f"/2010-04-01/Accounts/{ACCOUNT_SID}/Faxes.json", 404, 20404),
        ("PUT", MESSAGES, 405, 20004),
        ("GET", f"{MESSAGES}?PageSize=0", 400, 20001),
        ("GET", f"{MESSAGES}?Page=x", 400, 20001),
        ("GET", f"{MESSAGES}?DateSent=yesterday", 400, 20001),
    ],
)
async def test_impossible_request_is_refused(sandbox: Sandbox, method: str, path: str, status: int, code: int) -> None:
    answered, body = await sandbox.rest(method, path)

    assert (answered, body["code"]) == (status, code)


async def test_wrong_token_is_refused_and_recorded(sandbox: Sandbox) -> None:
    status, body = await sandbox.rest("GET", MESSAGES, token="wrong")

    assert (status, body["code"]) == (401, 20003)
    (asked,) = (await sandbox.control("GET", "requests"))["requests"]
    assert asked["status"] == 401


@pytest.mark.parametrize("header", ["", "Bearer x", "Basic !!", "Basic Zm9v"])
async def test_other_credentials_are_refused(sandbox: Sandbox, header: str) -> None:
    async with sandbox.http.get(sandbox.base_url + MESSAGES, headers={"Authorization": header}) as response:
        assert response.status == 401
