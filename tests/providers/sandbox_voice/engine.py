"""An exchange of calls, and the account's server that it asks, over real sockets; a second passes in milliseconds.

Phones hum: the voice that they have elsewhere takes seconds to load.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web
from twilio.request_validator import RequestValidator

from server.providers.sandbox.callbacks import CallbackSender
from server.providers.sandbox.voice_audio import hum
from server.providers.sandbox.voice_exchange import Exchange
from server.providers.sandbox.voice_phones import Phone
from server.providers.sandbox.voice_records import Call, Recording, RecordingStatus, StatusCallback, Webhook
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, PATIENCE, listening

SECOND = timedelta(milliseconds=5)
OUR_NUMBER = "+12065550100"
PHONE = "+14155550123"
OTHER_PHONE = "+14155550124"
SANDBOX_URL = "http://sandbox.test"
PROGRESS = frozenset({"initiated", "ringing", "answered", "completed"})

# A request that no test asks of: of what a test asserts about requests it is no part.
_MARKER = "/marker"


@dataclass(frozen=True)
class Asked:
    """A request that the account's server got, its signature found right."""

    method: str
    path: str
    fields: dict[str, str]
    token: str


@dataclass
class Engine:
    """The exchange, what the account's server answers at each path (the last answer again and again), and what it got.

    An answer of a number is that status without TwiML, of a tuple a content type and a text.
    """

    exchange: Exchange
    callbacks: CallbackSender
    base_url: str = ""
    pages: dict[str, list[str | int | tuple[str, str]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def answers(self, path: str, *twiml: str | int | tuple[str, str]) -> Webhook:
        """Answer so at a path; TwiML stands without its <Response>."""
        self.pages[path] = list(twiml)
        return self.url(path)

    def url(self, path: str) -> Webhook:
        """A path as the exchange is told of it."""
        return Webhook(f"{self.base_url}{path}")

    def told(self, path: str, *events: str) -> StatusCallback:
        """A callback at a path, of these events, or of all of a call's progress."""
        return StatusCallback(f"{self.base_url}{path}", events=frozenset(events) or PROGRESS)

    def call(self, document: Webhook | str, *, to: str = PHONE, phone: Phone | None = None, **more: Any) -> Call:
        """Call a phone."""
        if phone is not None:
            self.exchange.phones.put(to, phone)
        return self.exchange.create_call(to=to, from_=OUR_NUMBER, document=document, base_url=SANDBOX_URL, **more)

    def come_in(self, document: Webhook, *, phone: Phone | None = None, **more: Any) -> Call:
        """Have a phone call our number."""
        if phone is not None:
            self.exchange.phones.put(PHONE, phone)
        return self.exchange.phone_calls(from_=PHONE, to=OUR_NUMBER, document=document, base_url=SANDBOX_URL, **more)

    def got(self, path: str) -> list[dict[str, str]]:
        """The fields of each request to a path so far."""
        return [each.fields for each in self.asked if each.path == path]

    async def get(self, path: str, count: int = 1) -> list[dict[str, str]]:
        """The same, once there are so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.got(path)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.got(path)

    async def eventually(self, condition: Callable[[], object]) -> None:
        """Once something is true. What lasts a simulated second is not missed: in one event loop what is due first
        comes first, however late both are.
        """
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 the exchange tells nobody of its state
                await asyncio.sleep(0.001)

    async def until(self, call: Call, status: str = "completed") -> Call:
        """A call, once it has come to a status."""
        await self.eventually(lambda: call.status == status or call.is_over)
        assert call.status == status, f"it is {call.status}"
        return call

    async def until_it_does(self, call: Call, verb: str) -> None:
        """Once a call's document does something: say, play, gather, record or dial."""
        await self.eventually(lambda: any(heard.kind == verb for heard in call.heard))

    async def dialled(self, caller: Call, status: str) -> Call:
        """The call to whom a <Dial> of another rings, once it has come to a status."""

        def children() -> list[Call]:
            return [call for call in self.exchange.calls() if call.parent_call_sid == caller.sid]

        await self.eventually(children)
        return await self.until(children()[0], status)

    async def talking(self, caller: Call) -> Call:
        """The same, once both talk with each other."""
        child = await self.dialled(caller, "in-progress")
        await self.settled()
        return child

    async def recorded(self) -> Recording:
        """The newest recording, once its file is there."""
        ended = (RecordingStatus.COMPLETED, RecordingStatus.ABSENT)
        await self.eventually(lambda: any(each.status in ended for each in self.exchange.recordings()))
        newest = self.exchange.recordings()[0]
        assert newest.status is RecordingStatus.COMPLETED
        return newest

    async def settled(self) -> None:
        """Once what is under way has come, where a test says that nothing comes.

        Requests that are sent one after the other, each after ten simulated seconds, have been answered: the exchange
        and the account's server share an event loop with them, and what was due and sent before is there before.
        """
        for _ in range(3):
            await asyncio.sleep(10 * SECOND.total_seconds())
            outcome = await self.callbacks.post(self.url(_MARKER).url, {}, idempotency_token="")
            assert outcome.failure is None

    async def handle(self, request: web.Request) -> web.Response:
        """Check a request's signature, keep it and answer it."""
        if request.path == _MARKER:
            return web.Response()
        body = (await request.read()).decode()
        fields = dict(parse_qsl(body, keep_blank_values=True))
        url = self.base_url + request.raw_path
        validator = RequestValidator(AUTH_TOKEN)
        assert validator.validate(url, fields, request.headers["X-Twilio-Signature"])
        fields |= dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        token = request.headers["I-Twilio-Idempotency-Token"]
        self.asked.append(Asked(request.method, request.path, fields, token))
        self._changed.set()
        pages = self.pages.get(request.path, [""])
        page = pages.pop(0) if len(pages) > 1 else pages[0]
        if isinstance(page, int):
            return web.Response(status=page)
        content_type, text = page if isinstance(page, tuple) else ("text/xml", f"<Response>{page}</Response>")
        return web.Response(text=text, content_type=content_type)


@asynccontextmanager
async def running_engine(*, second: timedelta = SECOND, data_dir: Path | None = None) -> AsyncIterator[Engine]:
    """An exchange and the account's server."""
    callbacks = CallbackSender(auth_token=AUTH_TOKEN)
    exchange = Exchange(
        account_sid=ACCOUNT_SID,
        callbacks=callbacks,
        second=second,
        now=lambda: datetime.now(UTC),
        data_dir=data_dir,
        speak=hum,
    )
    engine = Engine(exchange, callbacks)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.handle)
    try:
        async with listening(app) as engine.base_url:
            yield engine
            await exchange.aclose()
    finally:
        await exchange.aclose()
        await callbacks.aclose()


def in_order(callbacks: list[dict[str, str]]) -> list[dict[str, str]]:
    """By sequence number: as posted they may overtake each other."""
    return sorted(callbacks, key=lambda each: int(each["SequenceNumber"]))
