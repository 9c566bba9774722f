"""Real HTTP servers on loopback for the provider tests: the sandbox, a receiver of callbacks, a scripted vendor."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from server.providers.ports import MessageCallback, SignedRequest
from server.providers.sandbox.app import make_app
from server.providers.sandbox.settings import (
    BANDWIDTH_TOKEN_PATH,
    BandwidthAccount,
    SandboxSettings,
    VoiceApp,
    ZoomAccount,
)
from server.providers.sandbox.voice_audio import hum
from server.providers.sandbox.voice_tapes import Speak
from server.providers.twilio.account import TwilioAccount
from server.providers.twilio.callback import TwilioMessageCallbackReader

ACCOUNT_SID = "AC" + "1" * 32
AUTH_TOKEN = "the-auth-token"
PATIENCE = 30


def twilio_account(api_base_url: str | None = None, *, auth_token: str = AUTH_TOKEN) -> TwilioAccount:
    """The account of the tests, at Twilio or where else it is said to be."""
    return TwilioAccount(sid=ACCOUNT_SID, auth_token=auth_token, api_base_url=api_base_url)


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    """Serve an application and answer its base URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@dataclass
class Sandbox:
    """A running sandbox, spoken to over HTTP."""

    base_url: str
    http: aiohttp.ClientSession

    async def control(self, method: str, path: str, *, expect: int = 200, **request: Any) -> Any:
        """One request to the control API and its JSON."""
        async with self.http.request(method, f"{self.base_url}/sandbox/{path}", **request) as response:
            assert response.status == expect, await response.text()
            return await response.json()

    async def misbehave(self, **fields: Any) -> None:
        """Misbehave towards everybody from the next request on."""
        await self.control("PUT", "misbehaviour", json=fields)

    async def taken(self, **filters: str) -> list[dict[str, Any]]:
        """The messages taken, oldest first."""
        messages: list[dict[str, Any]] = (await self.control("GET", "messages", params=filters))["messages"]
        return messages

    async def text(self, *, from_: Any = "+14155550123", expect: int = 200, **fields: Any) -> Any:
        """Have a phone send a text, valid where nothing else is said; the message, and how its webhook was answered."""
        text = {"from": from_, "to": "+12065550100", "body": "hello"} | fields
        # As a file, since aiohttp warns of a large body that is none.
        return await self.control("POST", "texts", expect=expect, data=BytesIO(json.dumps(text).encode()))

    async def rest(self, method: str, path: str, *, token: str = AUTH_TOKEN, **request: Any) -> tuple[int, Any]:
        """One request of the vendor's protocol, status and JSON."""
        headers = {"Authorization": aiohttp.encode_basic_auth(ACCOUNT_SID, token)}
        async with self.http.request(method, self.base_url + path, headers=headers, **request) as response:
            return response.status, await response.json() if response.status != 204 else None

    async def create(self, **form: Any) -> tuple[int, Any]:
        """Create a message as a bare form, valid where nothing else is said; None leaves a field out."""
        fields = {"To": "+14155550123", "From": "+12065550100", "Body": "hello"} | form
        pairs = [
            (name, item)
            for name, value in fields.items()
            if value is not None
            for item in (value if isinstance(value, list) else [value])
        ]
        return await self.rest("POST", MESSAGES, data=aiohttp.FormData(pairs))


MESSAGES = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json"


@asynccontextmanager
async def running_sandbox(
    *,
    data_dir: Path | None = None,
    step_delay: timedelta = timedelta(milliseconds=1),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    inbound_url: str | None = None,
    base_url: str | None = None,
    bandwidth: BandwidthAccount | None = None,
    zoom: ZoomAccount | None = None,
    voice_url: str | None = None,
    voice_status_url: str | None = None,
    voice_app: VoiceApp | None = None,
    voicebase_token: str | None = None,
    second: timedelta = timedelta(milliseconds=10),
    speak: Speak = hum,
) -> AsyncIterator[Sandbox]:
    """A sandbox with numbers and service of its own, as it starts; phones hum, as a voice takes seconds to load."""
    settings = SandboxSettings(
        ACCOUNT_SID,
        AUTH_TOKEN,
        data_dir=data_dir,
        step_delay=step_delay,
        inbound_url=inbound_url,
        base_url=base_url,
        bandwidth=bandwidth,
        zoom=zoom,
        voice_url=voice_url,
        voice_status_url=voice_status_url,
        voice_app=voice_app,
        voicebase_token=voicebase_token,
        second=second,
    )
    async with listening(make_app(settings, now=now, speak=speak)) as address, aiohttp.ClientSession() as http:
        yield Sandbox(address, http)


@dataclass
class Received:
    """A request that came in."""

    url: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A server that keeps what it gets and answers with the statuses it is given, then with 200.

    A success has the content type and the text of `answer`.
    """

    base_url: str = ""
    statuses: list[int] = field(default_factory=list)
    challenge: bool = False
    answer: tuple[str, str] = ("application/octet-stream", "")
    requests: asyncio.Queue[Received] = field(default_factory=asyncio.Queue)

    async def next(self) -> Received:
        """The next request, waited for."""
        return await asyncio.wait_for(self.requests.get(), PATIENCE)

    async def next_callback(self) -> MessageCallback:
        """The next request, verified and read as our server would."""
        received = await self.next()
        reader = TwilioMessageCallbackReader(auth_token=AUTH_TOKEN)
        return reader.read(SignedRequest(url=received.url, body=received.body, headers=received.headers))

    async def next_statuses(self, count: int) -> list[str]:
        """The statuses of the next callbacks."""
        return [(await self.next_callback()).report.provider_status for _ in range(count)]

    async def handle(self, request: web.Request) -> web.Response:
        """Keep a request and answer it."""
        url = self.base_url + request.raw_path
        self.requests.put_nowait(Received(url, dict(request.headers), await request.read()))
        if self.challenge and "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="callbacks"'})
        status = self.statuses.pop(0) if self.statuses else 200
        content_type, text = self.answer if status < 300 else ("text/html", "<h1>no</h1>")
        return web.Response(status=status, text=text, content_type=content_type)


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    """A receiver on a port of its own."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    async with listening(app) as base_url:
        receiver.base_url = base_url
        yield receiver


@asynccontextmanager
async def scripted_vendor(status: int, body: str, headers: dict[str, str] | None = None) -> AsyncIterator[str]:
    """A server that gives every request the same answer, and tokens to whoever asks for one."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers=headers or {}, content_type="application/json")

    async def token(_: web.Request) -> web.Response:
        return web.json_response({"access_token": "token", "expires_in": 3600})

    app = web.Application()
    app.router.add_post(BANDWIDTH_TOKEN_PATH, token)
    app.router.add_route("*", "/{path:.*}", handle)
    async with listening(app) as base_url:
        yield base_url


def closed_port_url() -> str:
    """An address that refuses connections: port 1 on loopback is nobody's."""
    return "http://127.0.0.1:1"
