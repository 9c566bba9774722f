"""The account's numbers as the adapter lists them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from server.providers.ports import ProviderNumber, ProviderUnavailable
from server.providers.sandbox.carrier import phone_number_sid
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID, OWNED_NUMBERS
from server.providers.twilio.numbers import TwilioNumberDirectory
from tests.providers.servers import AUTH_TOKEN, Sandbox, closed_port_url, scripted_vendor, twilio_account


@asynccontextmanager
async def directory_at(base_url: str, *, auth_token: str = AUTH_TOKEN) -> AsyncIterator[TwilioNumberDirectory]:
    directory = TwilioNumberDirectory(twilio_account(base_url, auth_token=auth_token), page_size=6)
    try:
        yield directory
    finally:
        await directory.aclose()


def owned(number: str, *, service_sid: str | None = MESSAGING_SERVICE_SID) -> ProviderNumber:
    return ProviderNumber(phone_number_sid(number), number, service_sid)


async def test_every_number_is_listed_once_with_its_service_page_by_page(sandbox: Sandbox) -> None:
    async with directory_at(sandbox.base_url) as directory:
        listed = await directory.list_numbers([MESSAGING_SERVICE_SID])

    assert listed == [owned(number) for number in OWNED_NUMBERS]


async def test_services_that_were_not_asked_for_are_not_told(sandbox: Sandbox) -> None:
    async with directory_at(sandbox.base_url) as directory:
        listed = await directory.list_numbers([])

    assert listed == [owned(number, service_sid=None) for number in OWNED_NUMBERS]


async def test_service_that_is_not_known_has_none(sandbox: Sandbox) -> None:
    async with directory_at(sandbox.base_url) as directory:
        listed = await directory.list_numbers(["MG" + "9" * 32, "a/b?c#d%20", MESSAGING_SERVICE_SID])

    assert listed == [owned(number) for number in OWNED_NUMBERS]


@pytest.mark.parametrize("answer", ["429", "500", "502", "503", "504", "lost-response", "garbled"])
async def test_list_that_cannot_be_had_is_no_list(sandbox: Sandbox, answer: str) -> None:
    await sandbox.misbehave(answer=answer)

    async with directory_at(sandbox.base_url) as directory:
        with pytest.raises(ProviderUnavailable):
            await directory.list_numbers([MESSAGING_SERVICE_SID])


async def test_wait_that_was_asked_for_is_told(sandbox: Sandbox) -> None:
    await sandbox.misbehave(answer="429", retry_after_ms=7000)

    async with directory_at(sandbox.base_url) as directory:
        with pytest.raises(ProviderUnavailable) as caught:
            await directory.list_numbers([])

    assert caught.value.retry_after == timedelta(seconds=7)


async def test_wrong_credentials_and_an_address_of_nobody_are_no_list(sandbox: Sandbox) -> None:
    async with directory_at(sandbox.base_url, auth_token="wrong") as directory:
        with pytest.raises(ProviderUnavailable, match="20003"):
            await directory.list_numbers([])
    async with directory_at(closed_port_url()) as directory:
        with pytest.raises(ProviderUnavailable):
            await directory.list_numbers([])


async def test_page_of_a_proxy_is_not_taken_for_a_service_that_is_not_known() -> None:
    async with scripted_vendor(404, "<html>not here</html>") as base_url, directory_at(base_url) as directory:
        with pytest.raises(ProviderUnavailable):
            await directory.list_numbers([MESSAGING_SERVICE_SID])
