"""Inbound media: a resource behind credentials that leads to a secret address, as at Twilio."""

from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from server.providers.twilio.client import Refusal, TwilioClient
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, Sandbox, running_sandbox

DATA = bytes(range(256))
CREDENTIALS = {"Authorization": aiohttp.encode_basic_auth(ACCOUNT_SID, AUTH_TOKEN)}


def upload(data: bytes = DATA, content_type: str = "image/png") -> dict[str, str]:
    return {"content_type": content_type, "data": b64encode(data).decode()}


async def texted(sandbox: Sandbox, *uploads: dict[str, str]) -> dict[str, Any]:
    message: dict[str, Any] = (await sandbox.text(media=list(uploads)))["message"]
    return message


async def get(sandbox: Sandbox, url: str, **request: Any) -> tuple[int, aiohttp.ClientResponse, bytes]:
    async with sandbox.http.get(url, allow_redirects=False, **request) as response:
        return response.status, response, await response.read()


async def cdn_url(sandbox: Sandbox, url: str) -> str:
    status, response, _ = await get(sandbox, url, headers=CREDENTIALS)
    assert status == 307
    return response.headers["Location"]


async def test_file_is_where_its_url_leads(sandbox: Sandbox) -> None:
    (url,) = (await texted(sandbox, upload(content_type="text/plain; charset=utf-8")))["media_urls"]

    status, response, body = await get(sandbox, await cdn_url(sandbox, url))

    assert (status, response.headers["Content-Type"], body) == (200, "text/plain; charset=utf-8", DATA)


@pytest.mark.parametrize("headers", [{}, {"Authorization": aiohttp.encode_basic_auth(ACCOUNT_SID, "guess")}])
async def test_url_asks_for_credentials(sandbox: Sandbox, headers: dict[str, str]) -> None:
    (url,) = (await texted(sandbox, upload()))["media_urls"]

    status, response, _ = await get(sandbox, url, headers=headers)

    assert (status, "Location" in response.headers) == (401, False)


async def test_address_of_the_file_cannot_be_guessed(sandbox: Sandbox) -> None:
    (url,) = (await texted(sandbox, upload()))["media_urls"]
    address = await cdn_url(sandbox, url)
    assert address.startswith(f"{sandbox.base_url}/cdn/")

    status, _, body = await get(sandbox, address[:-1] + ("0" if address[-1] != "0" else "1"))

    assert status == 404
    assert DATA not in body


async def test_store_refuses_credentials_that_were_taken_along(sandbox: Sandbox) -> None:
    (url,) = (await texted(sandbox, upload()))["media_urls"]

    status, _, body = await get(sandbox, await cdn_url(sandbox, url), headers=CREDENTIALS)

    assert status == 400
    assert DATA not in body


async def test_urls_begin_where_the_server_reaches_the_sandbox(sandbox: Sandbox) -> None:
    (asked,) = (await texted(sandbox, upload()))["media_urls"]
    async with running_sandbox(base_url="http://sandbox:8081") as told:
        (configured,) = (await texted(told, upload()))["media_urls"]

    assert asked.startswith(f"{sandbox.base_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/MM")
    assert configured.startswith(f"http://sandbox:8081/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/MM")


async def test_sdk_reads_the_files_of_a_message(sandbox: Sandbox, twilio: TwilioClient) -> None:
    await texted(sandbox, upload())
    message = await texted(sandbox, upload(), upload(content_type="image/gif"))

    listed = await twilio.messages(message["sid"]).media.list_async(page_size=1)
    fetched = await listed[1].fetch_async()

    assert [medium.content_type for medium in listed] == ["image/png", "image/gif"]
    assert [url.rpartition("/")[2] for url in message["media_urls"]] == [medium.sid for medium in listed]
    assert (fetched.sid, fetched.parent_sid, fetched.content_type) == (listed[1].sid, message["sid"], "image/gif")
    assert fetched.sid.startswith("ME")
    assert fetched.date_created is not None


async def test_medium_and_list_have_the_documented_keys(sandbox: Sandbox) -> None:
    message = await texted(sandbox, upload())

    path = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{message['sid']}/Media"
    _, listed = await sandbox.rest("GET", f"{path}.json")

    (medium,) = listed["media_list"]
    keys = ["account_sid", "content_type", "date_created", "date_updated", "parent_sid", "sid", "uri"]
    assert sorted(medium) == keys
    assert medium["uri"] == f"{path}/{medium['sid']}.json"
    assert (listed["start"], listed["end"], listed["next_page_uri"]) == (0, 0, None)


async def test_message_to_a_phone_has_no_files_here(sandbox: Sandbox, twilio: TwilioClient) -> None:
    _, created = await sandbox.create(MediaUrl="https://media.example/1.jpg")

    assert await twilio.messages(created["sid"]).media.list_async() == []


async def test_file_belongs_to_one_message(sandbox: Sandbox) -> None:
    first, second = await texted(sandbox, upload()), await texted(sandbox, upload())

    status, _, _ = await get(sandbox, first["media_urls"][0].replace(first["sid"], second["sid"]), headers=CREDENTIALS)

    assert status == 404


@pytest.mark.parametrize("whole_message", [False, True])
async def test_deleted_file_is_gone_everywhere(
    tmp_path: Path, sandbox: Sandbox, twilio: TwilioClient, whole_message: bool
) -> None:
    message = await texted(sandbox, upload())
    (url,) = message["media_urls"]
    address, sid = await cdn_url(sandbox, url), url.rpartition("/")[2]

    resource = twilio.messages(message["sid"])
    assert await (resource if whole_message else resource.media(sid)).delete_async()

    assert (await get(sandbox, url, headers=CREDENTIALS))[0] == 404
    assert (await get(sandbox, address))[0] == 404
    with pytest.raises(Refusal, match="20404"):
        await resource.media(sid).fetch_async()


async def test_carrier_misbehaves_here_too(sandbox: Sandbox) -> None:
    (url,) = (await texted(sandbox, upload()))["media_urls"]
    address = await cdn_url(sandbox, url)

    await sandbox.misbehave(answer="503", next_requests=2)

    assert (await get(sandbox, url, headers=CREDENTIALS))[0] == 503
    assert (await get(sandbox, address))[0] == 503
    assert (await get(sandbox, address))[2] == DATA


async def test_files_outlive_a_restart_and_end_with_a_reset(tmp_path: Path) -> None:
    async with running_sandbox(data_dir=tmp_path) as sandbox:
        (url,) = (await texted(sandbox, upload()))["media_urls"]
        kept = list((tmp_path / "media").iterdir())

    async with running_sandbox(data_dir=tmp_path) as sandbox:
        moved = sandbox.base_url + urlsplit(url).path
        assert (await get(sandbox, await cdn_url(sandbox, moved)))[2] == DATA
        await sandbox.control("POST", "reset")
        assert (await get(sandbox, moved, headers=CREDENTIALS))[0] == 404

    assert [path.name for path in kept] == [url.rpartition("/")[2]]
    assert list((tmp_path / "media").iterdir()) == []


async def test_ten_large_files_are_taken_and_no_more_than_that(sandbox: Sandbox) -> None:
    message = await texted(sandbox, *[upload(b"x" * 3 * 2**20)] * 10)
    assert len(message["media_urls"]) == 10

    refused = await sandbox.text(media=[upload(b"x" * 5 * 2**20)] * 7, expect=400)

    assert [error["field"] for error in refused["errors"]] == ["media"]
