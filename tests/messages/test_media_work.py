"""The loops of a worker: a file that is slow to arrive holds up no other."""

import asyncio
from pathlib import Path

from aiohttp import web

from server.config import Settings
from server.db import Database
from server.messages.media.work import media_work
from server.notifications import Notifications
from server.providers.twilio.media import TwilioMediaFetcher
from server.storage import open_storage
from tests.clients import Client
from tests.factories import create_message, make_messaging_service
from tests.files.support import signer_of
from tests.messages.media import PNG, receive, running_vendor
from tests.messages.support import row_of, until
from tests.providers.servers import twilio_account


async def test_file_that_is_slow_to_arrive_holds_up_no_other(
    db: Database, client: Client, admin: Client, settings: Settings, tmp_path: Path
) -> None:
    await make_messaging_service(db)
    await create_message(client)
    arrives = asyncio.Event()

    async def slow(_request: web.Request) -> web.StreamResponse:
        await arrives.wait()
        return web.Response(body=PNG, headers={"Content-Type": "image/png"})

    notifications = Notifications(settings.database_url.get_secret_value(), db)
    storage = open_storage(tmp_path.as_uri(), signer_of(settings))
    async with running_vendor() as vendor:
        vendor.answers["slow"] = slow
        fetcher = TwilioMediaFetcher(twilio_account(vendor.base_url))
        loops = media_work(db, notifications, {"twilio": fetcher}, storage)
        running = [asyncio.create_task(loop()) for loop in (*loops, notifications.run)]
        try:
            late = await receive(db, notifications, vendor.urls("slow"))
            await until(lambda: vendor.fetched["slow"])

            prompt = await receive(db, notifications, vendor.urls("a"))

            async def is_stored() -> bool:
                return bool((await row_of(db, prompt)).stored_media)

            # Sooner than anybody waits for the other.
            await until(is_stored, seconds=10)
            assert (await row_of(db, late)).stored_media == []
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            arrives.set()
            await fetcher.aclose()
    await storage.aclose()
