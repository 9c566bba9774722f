"""A provider that does not say what it has: nothing is changed."""

import asyncio

import pytest
from aiohttp import web

from server.db import Database
from server.numbers.sync import Change, NotSynchronised, NumberSync
from tests.factories import make_messaging_service
from tests.numbers.account import FIRST, OTHER, SEATTLE, Account, make_services, numbers_of, sync_row, synchronising
from tests.providers.servers import closed_port_url, listening, scripted_vendor


async def test_provider_that_is_down_changes_nothing(db: Database) -> None:
    await make_messaging_service(db, name="first", twilio_messaging_sid=FIRST, phone_numbers=[SEATTLE])
    before = await numbers_of(db)
    async with synchronising(db, closed_port_url()) as sync:
        stepped = await sync.step()
        by_hand = await asyncio.gather(sync.sync_now(), return_exceptions=True)

    row = await sync_row(db)
    assert stepped
    assert isinstance(by_hand[0], NotSynchronised)
    assert await numbers_of(db) == before
    assert "could not be listed" in str(row["error"])
    assert row["finished_at"] is not None
    assert row["waits"] == pytest.approx(300, abs=60)


@pytest.mark.parametrize("answer", ["503", "429", "500", "lost-response", "garbled"])
async def test_list_that_is_refused_changes_nothing(
    db: Database, account: Account, sync: NumberSync, answer: str
) -> None:
    await make_services(db)
    await sync.sync_now()
    before = await numbers_of(db)
    await account.release(SEATTLE, OTHER)
    await account.sandbox.misbehave(answer=answer)

    with pytest.raises(NotSynchronised, match="could not be listed"):
        await sync.sync_now()

    assert await numbers_of(db) == before
    await account.sandbox.misbehave()
    assert (await sync.sync_now())[Change.RELEASED] == [SEATTLE, OTHER]
    assert (await sync_row(db))["error"] is None


async def test_list_that_breaks_off_changes_nothing(db: Database) -> None:
    await make_messaging_service(db, name="first", twilio_messaging_sid=FIRST, phone_numbers=[SEATTLE])
    before = await numbers_of(db)

    async def answer(request: web.Request) -> web.Response:
        if "Page" in request.query:
            return web.json_response({"code": 20500, "message": "Internal Server Error"}, status=500)
        page = {"incoming_phone_numbers": [{"sid": "PN1", "phone_number": OTHER}], "next_page_uri": "/more?Page=1"}
        return web.json_response(page)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with listening(app) as base_url, synchronising(db, base_url) as sync:
        with pytest.raises(NotSynchronised, match="code 20500"):
            await sync.sync_now()

    assert await numbers_of(db) == before


async def test_empty_list_releases_nothing(db: Database, account: Account, sync: NumberSync) -> None:
    await make_services(db)
    await sync.sync_now()
    before = await numbers_of(db)
    await account.release_all()

    with pytest.raises(NotSynchronised, match="no numbers at all"):
        await sync.sync_now()

    assert await numbers_of(db) == before
    assert (await sync_row(db))["error"] == "the provider lists no numbers at all"


@pytest.mark.parametrize("body", ['{"surprise": 1, "another": 2}', '{"numbers": [{}]}', "[]", "null", "<html>"])
async def test_answer_that_is_no_list_changes_nothing(db: Database, body: str) -> None:
    await make_messaging_service(db, name="first", twilio_messaging_sid=FIRST, phone_numbers=[SEATTLE])
    before = await numbers_of(db)
    async with scripted_vendor(200, body) as base_url, synchronising(db, base_url) as sync:
        with pytest.raises(NotSynchronised):
            await sync.sync_now()

    assert await numbers_of(db) == before
