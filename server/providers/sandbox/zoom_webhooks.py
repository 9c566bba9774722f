"""Zoom's webhooks: signed, and posted again until they are taken.

Posted with `x-zm-request-timestamp` (Unix seconds), `x-zm-signature` (`v0=` and the HMAC-SHA256 of
`v0:TIMESTAMP:BODY` with the secret token, in hexadecimal) and `x-zm-trackingid`, new each time. An answer of 200 to 299
within 3 s takes it. Else Zoom posts it again 5 minutes later, 20 after that and 60 after that, and then no more; the
sandbox 0.2, 0.8 and 2.4 s later. The first time the events of a session are posted one after the other; those that are
posted again come between.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog

from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.settings import ZoomAccount
from server.providers.sandbox.zoom_events import Json, url_validation
from server.providers.sandbox.zoom_records import Session, Webhook
from server.providers.sandbox.zoom_state import ZoomState

log = structlog.get_logger(__name__)

_AT_ONCE = 64
_TIMEOUT = aiohttp.ClientTimeout(total=3)
_WAITS_SECONDS = (0.2, 0.8, 2.4)


@dataclass(frozen=True)
class Told:
    """How the account took an event when it was first posted: the status it answered with, why it did not take it."""

    event: str
    status: int | None
    failure: str | None


@dataclass(frozen=True)
class Validation:
    """Whether the endpoint proved that it knows the secret token, and if not, why."""

    valid: bool
    status: int | None
    problem: str | None


def signature(secret_token: str, timestamp: str, body: bytes) -> str:
    """The value of x-zm-signature."""
    return f"v0={_hmac(secret_token, b'v0:' + timestamp.encode() + b':' + body)}"


def _hmac(secret_token: str, signed: bytes) -> str:
    return hmac.new(secret_token.encode(), signed, hashlib.sha256).hexdigest()


class Webhooks:
    """Posts to where the account says; made inside a running event loop."""

    def __init__(self, state: ZoomState, account: ZoomAccount) -> None:
        self._state = state
        self._url = account.webhook_url
        self._secret_token = account.webhook_secret_token
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_AT_ONCE),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "Zoom Marketplace/1.0a", "Content-Type": "application/json; charset=utf-8"},
            timeout=_TIMEOUT,
        )
        self._turns: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def resume(self) -> None:
        """Take up what the journal shows untold."""
        for webhook in self._state.webhooks.values():
            if not webhook.held:
                self._start(self._tell(webhook) if webhook.attempts == 0 else self._tell_again(webhook))

    def tell(self, session: Session, events: Iterable[Json], callbacks: Callbacks) -> list[asyncio.Task[Told]]:
        """Have events posted, oldest first; each task ends when its event was first posted.

        Reordered ones are held until the session has ended or callbacks are in order again, and then come newest first.
        """
        missing, reordered = callbacks is Callbacks.MISSING, callbacks is Callbacks.REORDERED
        times = 2 if callbacks is Callbacks.DUPLICATED else 1
        new = [] if missing else [_webhook(session, event, times=times) for event in events]
        before = [each for each in self._state.webhooks.values() if each.held and each.session_id == session.id]
        hold = reordered and session.is_live
        for webhook in [*before, *new]:
            webhook.held = hold
            self._state.save_webhook(webhook)
        if hold:
            return []
        ready = [*reversed(new), *reversed(before)] if reordered else [*new, *reversed(before)]
        return [self._start(self._tell(webhook)) for webhook in ready]

    async def validate(self) -> Validation:
        """Ask the endpoint whether it knows the secret token, as Zoom does when it is set and every 72 hours."""
        plain_token = secrets.token_urlsafe(16)
        status, _, answer = await self._post(_body(url_validation(plain_token, at=self._state.now())).encode())
        if status is None:
            return Validation(valid=False, status=None, problem="it did not answer")
        if status != 200:
            return Validation(valid=False, status=status, problem="it must answer 200")
        expected = {"plainToken": plain_token, "encryptedToken": _hmac(self._secret_token, plain_token.encode())}
        problem = _difference(answer, expected)
        return Validation(valid=problem is None, status=status, problem=problem)

    async def aclose(self) -> None:
        """Let go of all; the journal knows where they are."""
        await self.stop()
        await self._session.close()

    async def stop(self) -> None:
        """Post nothing more of what was told until now."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, telling: Coroutine[Any, Any, Told]) -> asyncio.Task[Told]:
        task = asyncio.create_task(telling)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Told]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sandbox.webhook.broken", exc_info=error)

    async def _tell(self, webhook: Webhook) -> Told:
        async with self._turns.setdefault(webhook.session_id, asyncio.Lock()):
            for _ in range(webhook.times):
                status, failure, _ = await self._post(webhook.body.encode())
        return self._settle(webhook, Told(webhook.event, status, failure))

    async def _tell_again(self, webhook: Webhook) -> Told:
        await asyncio.sleep(_WAITS_SECONDS[webhook.attempts - 1])
        status, failure, _ = await self._post(webhook.body.encode())
        return self._settle(webhook, Told(webhook.event, status, failure))

    def _settle(self, webhook: Webhook, told: Told) -> Told:
        webhook.attempts += 1
        if told.failure is not None and webhook.attempts <= len(_WAITS_SECONDS):
            self._state.save_webhook(webhook)
            self._start(self._tell_again(webhook))
            return told
        self._state.drop_webhook(webhook)
        if told.failure is not None:
            log.info("sandbox.webhook.lost", webhook_event=webhook.event, failure=told.failure)
        return told

    async def _post(self, body: bytes) -> tuple[int | None, str | None, bytes]:
        """The answer's status, why it takes nothing in the words of Twilio's retry policies, and its text."""
        timestamp = str(int(self._state.now()))
        headers = {
            "x-zm-request-timestamp": timestamp,
            "x-zm-signature": signature(self._secret_token, timestamp, body),
            "x-zm-trackingid": f"v=2.0;clid=sandbox;rid=WEB_{secrets.token_hex(16)}",
        }
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                answer = await response.content.read(65_536)
                status = response.status
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return None, "ct", b""
        except (aiohttp.ClientError, TimeoutError):
            return None, "rt", b""
        return status, None if 200 <= status < 300 else "4xx" if status < 500 else "5xx", answer


def _webhook(session: Session, event: Json, *, times: int) -> Webhook:
    return Webhook(secrets.token_hex(16), session.id, event["event"], _body(event), times)


def _body(event: Json) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _difference(answer: bytes, expected: dict[str, str]) -> str | None:
    try:
        given = json.loads(answer)
    except ValueError:
        return "the answer is not JSON"
    if not isinstance(given, dict):
        return "the answer is not a JSON object"
    wrong = [name for name, value in expected.items() if given.get(name) != value]
    return f"{' and '.join(wrong)} must be as Zoom computes it" if wrong else None
