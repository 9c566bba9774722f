"""Line types by Twilio's Lookups v2: against the sandbox, and against answers as its reference shows them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from server.providers.ports import ProviderUnavailable
from server.providers.sandbox.lookups import LINE_TYPES
from server.providers.twilio.lookups import TwilioLineTypeLookup
from tests.providers.servers import (
    AUTH_TOKEN,
    Sandbox,
    closed_port_url,
    scripted_vendor,
    twilio_account,
)

NUMBER = "+12065550190"


@asynccontextmanager
async def lookup_at(
    api_base_url: str, *, auth_token: str = AUTH_TOKEN, **over: Any
) -> AsyncIterator[TwilioLineTypeLookup]:
    lookup = TwilioLineTypeLookup(twilio_account(api_base_url, auth_token=auth_token), **over)
    try:
        yield lookup
    finally:
        await lookup.aclose()


@pytest.fixture
async def lookup(sandbox: Sandbox) -> AsyncIterator[TwilioLineTypeLookup]:
    async with lookup_at(sandbox.base_url) as lookup:
        yield lookup


@pytest.mark.parametrize("line_type", LINE_TYPES)
async def test_line_type_is_twilios_word(lookup: TwilioLineTypeLookup, sandbox: Sandbox, line_type: str) -> None:
    await sandbox.control("PUT", f"handsets/{NUMBER}", json={"line_type": line_type})

    assert await lookup.line_type(NUMBER) == line_type


async def test_number_is_asked_for_as_it_is_and_nothing_else_of_it(
    lookup: TwilioLineTypeLookup, sandbox: Sandbox
) -> None:
    await lookup.line_type(NUMBER)

    [asked] = (await sandbox.control("GET", "requests", params={"path": "PhoneNumbers"}))["requests"]
    assert (asked["method"], asked["path"], asked["status"]) == ("GET", f"/v2/PhoneNumbers/{NUMBER}", 200)


@pytest.mark.parametrize("number", ["+1", "72345", "SCHOOL", "../x?y#z", "ü"])
async def test_what_is_no_number_has_no_line_type(lookup: TwilioLineTypeLookup, sandbox: Sandbox, number: str) -> None:
    assert await lookup.line_type(number) is None

    [asked] = (await sandbox.control("GET", "requests"))["requests"]
    assert asked["status"] == 200


@pytest.mark.parametrize("answer", ["429", "500", "502", "503", "lost-response", "garbled"])
async def test_carrier_in_trouble_is_unavailable(lookup: TwilioLineTypeLookup, sandbox: Sandbox, answer: str) -> None:
    await sandbox.misbehave(answer=answer)

    with pytest.raises(ProviderUnavailable):
        await lookup.line_type(NUMBER)


async def test_retry_after_is_told(lookup: TwilioLineTypeLookup, sandbox: Sandbox) -> None:
    await sandbox.misbehave(answer="429", retry_after_ms=7000)

    with pytest.raises(ProviderUnavailable) as unavailable:
        await lookup.line_type(NUMBER)
    assert unavailable.value.retry_after == timedelta(seconds=7)


async def test_refused_connection_is_unavailable() -> None:
    async with lookup_at(closed_port_url()) as lookup:
        with pytest.raises(ProviderUnavailable):
            await lookup.line_type(NUMBER)


async def test_wrong_credentials_say_nothing_of_the_number(sandbox: Sandbox) -> None:
    async with lookup_at(sandbox.base_url, auth_token="another") as lookup:
        with pytest.raises(ProviderUnavailable):
            await lookup.line_type(NUMBER)


@pytest.mark.parametrize(
    ("status", "code"), [(401, 20003), (403, 20003), (403, 60601), (404, None), (400, None), (302, None), (500, 20500)]
)
async def test_refusal_that_is_not_of_the_number_is_unavailable(status: int, code: int | None) -> None:
    body = "<html>" if code is None else json.dumps({"code": code, "message": "why"})
    async with scripted_vendor(status, body) as url, lookup_at(url) as lookup:
        with pytest.raises(ProviderUnavailable):
            await lookup.line_type(NUMBER)


@pytest.mark.parametrize(("status", "code"), [(404, 20404), (400, 60200)])
async def test_refusal_of_the_number_is_no_line_type(status: int, code: int) -> None:
    async with (
        scripted_vendor(status, json.dumps({"code": code, "message": "why"})) as url,
        lookup_at(url) as lookup,
    ):
        assert await lookup.line_type(NUMBER) is None


@pytest.mark.parametrize("body", ["", "{}", "[]", "{"])
async def test_answer_that_tells_of_no_number_is_no_answer(body: str) -> None:
    async with scripted_vendor(200, body) as url, lookup_at(url) as lookup:
        with pytest.raises(ProviderUnavailable):
            await lookup.line_type(NUMBER)


@pytest.mark.parametrize(
    ("said", "line_type"),
    [
        ({"type": "mobile", "carrier_name": "T-Mobile", "error_code": None}, "mobile"),
        ({"type": None, "carrier_name": None, "error_code": 60600}, None),
        (None, None),
    ],
)
async def test_documented_answer_is_read(said: dict[str, Any] | None, line_type: str | None) -> None:
    answer = {
        "calling_country_code": "1",
        "country_code": "US",
        "phone_number": NUMBER,
        "national_format": "(206) 555-0190",
        "valid": True,
        "validation_errors": [],
        "line_type_intelligence": said,
        "url": f"https://lookups.twilio.com/v2/PhoneNumbers/{NUMBER}",
    }
    async with scripted_vendor(200, json.dumps(answer)) as url, lookup_at(url) as lookup:
        assert await lookup.line_type(NUMBER) == line_type
