"""Bandwidth's callbacks: arrays of one event, posted again until they are taken, with credentials only when asked."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import aiohttp
import structlog

from server.providers.sandbox.records import Direction, Message
from server.providers.sandbox.segments import segments
from server.providers.sandbox.settings import BANDWIDTH_APPLICATION_ID, BandwidthAccount

log = structlog.get_logger(__name__)

_AT_ONCE = 64
_TIMEOUT = aiohttp.ClientTimeout(total=10)

# Bandwidth tries for 24 hours; who waits beside the sandbox would not.
_WAITS_SECONDS = (0.05, 0.2, 0.8)

_EVENTS = {
    "received": ("message-received", "Incoming message received"),
    "sending": ("message-sending", "Message is sending to carrier"),
    "sent": ("message-sent", "Message sent to carrier"),
    "delivered": ("message-delivered", "ok"),
    "undelivered": ("message-failed", "delivery failed"),
    "failed": ("message-failed", "delivery failed"),
}


class BandwidthCallbacks:
    """Posts to where the account's messaging application says; made inside a running event loop."""

    def __init__(self, account: BandwidthAccount) -> None:
        self._authorization = aiohttp.encode_basic_auth(account.callback_username, account.callback_password)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "BandwidthAPI/v2", "Content-Type": "application/json; charset=utf-8"},
            timeout=_TIMEOUT,
        )
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def post(self, url: str, message: Message, status: str) -> tuple[int | None, str | None]:
        """Post the event until it is taken or the tries are used up; answers the last HTTP status and, where it was not
        taken, why, in the words of Twilio's retry policies."""
        body = json.dumps([event_of(message, status)]).encode()
        async with self._slots:
            for wait in (*_WAITS_SECONDS, None):
                answered, failure = await self._attempt(url, body)
                if failure is None:
                    return answered, None
                if wait is not None:
                    await asyncio.sleep(wait)
        log.info("sandbox.callback.lost", status=status, failure=failure)
        return answered, failure

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _attempt(self, url: str, body: bytes) -> tuple[int | None, str | None]:
        try:
            status, is_challenged = await self._exchange(url, body, {})
            if is_challenged:
                status, _ = await self._exchange(url, body, {"Authorization": self._authorization})
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return None, "ct"
        except (aiohttp.ClientError, TimeoutError):
            return None, "rt"
        return status, None if 200 <= status < 300 else "4xx" if status < 500 else "5xx"

    async def _exchange(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[int, bool]:
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            return response.status, response.status == 401 and "WWW-Authenticate" in response.headers


def event_of(message: Message, status: str) -> dict[str, Any]:
    """What is posted of a message: of our own it has the tag, but not the text, which Bandwidth does not keep."""
    event_type, description = _EVENTS[status]
    kept = {} if message.direction == Direction.INBOUND else {"text": ""}
    error = {"errorCode": message.final_error} if event_type == "message-failed" else {}
    return {
        "time": iso8601(message.updated),
        "type": event_type,
        "to": message.to,
        "description": description,
        "message": {**resource_of(message), **kept},
        **error,
    }


def resource_of(message: Message) -> dict[str, Any]:
    """A message as the answer to its create shows it."""
    is_inbound = message.direction == Direction.INBOUND
    resource = {
        "id": message.sid,
        "owner": message.to if is_inbound else message.from_,
        "applicationId": message.messaging_service_sid or BANDWIDTH_APPLICATION_ID,
        "time": iso8601(message.created),
        "segmentCount": 1 if message.media_urls else segments(message.body),
        "direction": "in" if is_inbound else "out",
        "to": [message.to],
        "from": message.from_,
        "text": message.body,
    }
    if message.media_urls:
        resource["media"] = message.media_urls
    if message.tag:
        resource["tag"] = message.tag
    return resource


def iso8601(timestamp: float) -> str:
    """A time as Bandwidth writes it."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
