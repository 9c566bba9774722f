"""The account's server: it checks what calls ask, answers with the TwiML it is told, and keeps what it was asked."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web
from twilio.jwt.access_token import AccessToken
from twilio.jwt.access_token.grants import VoiceGrant
from twilio.request_validator import RequestValidator

from server.providers.sandbox.settings import VoiceApp
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, PATIENCE, Sandbox, listening

NUMBER = "+12065550100"
PHONE = "+14155550123"
OTHER_PHONE = "+14155550124"

KEY_SID = "SK" + "2" * 32
KEY_SECRET = "the-secret-of-the-api-key-long-enough"
APP_SID = "AP" + "3" * 32

NO_SUCH = "0" * 32


@dataclass
class Account:
    """What it answers at each path, TwiML without its <Response>, and what it was asked."""

    base_url: str = ""
    pages: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str, twiml: str | None = None) -> str:
        """A path, which answers so from now on."""
        if twiml is not None:
            self.pages[urlsplit(path).path] = twiml
        return f"{self.base_url}{path}"

    def got(self, path: str) -> list[dict[str, str]]:
        """The fields of each request to a path so far."""
        return [fields for asked, fields in self.asked if asked == path]

    async def get(self, path: str, count: int = 1) -> list[dict[str, str]]:
        """The same, once there are so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.got(path)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.got(path)

    async def get_status(self, path: str, status: str) -> dict[str, str]:
        """The first callback at a path that tells of a call's status."""
        async with asyncio.timeout(PATIENCE):
            while not (told := [fields for fields in self.got(path) if fields["CallStatus"] == status]):
                self._changed.clear()
                await self._changed.wait()
        return told[0]

    async def handle(self, request: web.Request) -> web.Response:
        """Check a request's signature, keep it and answer it."""
        fields = dict(parse_qsl((await request.read()).decode(), keep_blank_values=True))
        url = self.base_url + request.raw_path
        assert RequestValidator(AUTH_TOKEN).validate(url, fields, request.headers["X-Twilio-Signature"])
        fields |= dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        self.asked.append((request.path, fields))
        self._changed.set()
        text = f"<Response>{self.pages.get(request.path, '')}</Response>"
        return web.Response(text=text, content_type="text/xml")


@asynccontextmanager
async def running_account() -> AsyncIterator[Account]:
    """The account's server on a port of its own."""
    account = Account()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", account.handle)
    async with listening(app) as account.base_url:
        yield account


def voice_app(account: Account) -> VoiceApp:
    """The TwiML App of the account, whose voice URL is `/app` and its status callback `/app_status`."""
    return VoiceApp(KEY_SID, KEY_SECRET, APP_SID, account.url("/app"), account.url("/app_status"))


def access_token(identity: str = "staff", **grant: Any) -> str:
    """A token as the official SDK signs it; it may call and be called where nothing else is said."""
    made = AccessToken(ACCOUNT_SID, KEY_SID, KEY_SECRET, identity=identity, ttl=21_600, nbf=int(time.time()))
    made.add_grant(VoiceGrant(**({"incoming_allow": True, "outgoing_application_sid": APP_SID} | grant)))
    return str(made.to_jwt())


async def call_of(sandbox: Sandbox, sid: str, status: str = "completed") -> dict[str, Any]:
    """A call as the control API shows it, once it has come to a status."""
    async with asyncio.timeout(PATIENCE):
        while True:
            call: dict[str, Any] = await sandbox.control("GET", f"calls/{sid}")
            if call["status"] == status:
                return call
            assert call["ended"] is None, f"it is {call['status']}"
            await asyncio.sleep(0.005)
