"""What the tests of the reconciler share: messages whose callbacks stopped, and what to look at afterwards."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import aiohttp
from commonservices.v1 import message_pb2

from server.background import Pace
from server.config import Settings
from server.db import Database
from server.messages.reconcile import Reconciler
from server.messages.send import SendWorker
from server.notifications import Notifications
from server.providers import registry
from server.providers.ports import MessageReport, MessageSender, OutboundMessage
from server.providers.sandbox.callbacks import signature
from tests.clients import Client
from tests.factories import create_message
from tests.messages.support import events_of, row_of, until
from tests.providers.servers import AUTH_TOKEN, Sandbox

SILENT = "[sandbox:callbacks=missing]"
MINUTE = timedelta(minutes=1)


def a_reconciler(db: Database, notifications: Notifications, senders: Mapping[str, MessageSender]) -> Reconciler:
    return Reconciler(db, notifications, senders, pace=Pace(1_000_000))


async def make_checks_due(db: Database) -> None:
    """As if the time of every check had come."""
    await db.execute("UPDATE messages SET check_at = now() WHERE check_at IS NOT NULL")


async def until_carried(carrier: Sandbox) -> None:
    """Wait until the carrier has done with every message, and has no callback left to post."""

    async def carried() -> bool:
        finals = ("delivered", "undelivered", "failed")
        return all(m["status"] in finals and not m["callbacks_due"] for m in await carrier.taken())

    await until(carried)


async def silent_messages(
    client: Client, worker: SendWorker, carrier: Sandbox, *texts: str
) -> list[message_pb2.Message]:
    """Messages that were sent and delivered while no callback came."""
    messages = [await create_message(client, message_body=SILENT + text) for text in texts]
    await worker.run_once()
    await until_carried(carrier)
    return messages


async def fetches(carrier: Sandbox) -> int:
    """How often the carrier was asked about one message."""
    asked = (await carrier.control("GET", "requests", params={"method": "GET", "path": "Messages/"}))["requests"]
    return len(asked)


async def told(db: Database, message: message_pb2.Message) -> list[str]:
    """The statuses that the message's events tell."""
    return [event.message.internal_status for event in await events_of(db, message)]


async def check_in(db: Database, message: message_pb2.Message) -> timedelta:
    """How long until the message is asked about."""
    row = await row_of(db, message)
    assert row.check_at is not None
    return row.check_at - datetime.now(UTC)


class Says:
    """A MessageSender that has one thing to say of every message."""

    def __init__(self, says: MessageReport | Exception | None) -> None:
        self._says = says

    async def fetch(self, message_sid: str) -> MessageReport | None:
        if isinstance(self._says, Exception):
            raise self._says
        return self._says

    async def send(self, message: OutboundMessage) -> MessageReport:
        raise AssertionError("a reconciler sends nothing")

    async def find_copies(self, message: OutboundMessage, *, since: datetime) -> list[MessageReport]:
        raise AssertionError("a reconciler looks for no copies")

    async def aclose(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def senders_of(settings: Settings) -> AsyncIterator[dict[str, MessageSender]]:
    """The real adapters of other settings."""
    senders = registry.message_senders(settings)
    try:
        yield senders
    finally:
        for sender in senders.values():
            await sender.aclose()


async def post_callback(http: aiohttp.ClientSession, live: Settings, *, message_sid: str, status: str) -> None:
    """A status callback as Twilio posts it to a messaging service's own URL."""
    path = "/api/v1/twilio_requests/webhook_message_updates"
    fields = {"MessageSid": message_sid, "MessageStatus": status}
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Twilio-Signature": signature(AUTH_TOKEN, live.public_base_url + path, fields),
    }
    async with http.post(path, data=urlencode(fields), headers=headers) as answer:
        assert answer.status == 200, await answer.text()
