"""The Zoom side of the sandbox's tests: an account, tokens of ours, its REST API, and a receiver of its webhooks."""

import asyncio
import hashlib
import hmac
import json
import time
from typing import Any
from urllib.parse import quote

import jwt
from yarl import URL

from server.providers.sandbox.settings import ZoomAccount
from tests.providers.servers import PATIENCE, Receiver, Sandbox

SDK_KEY = "the-sdk-key"
SDK_SECRET = "the-sdk-secret-of-32-bytes-or-more"
API_KEY = "the-api-key"
API_SECRET = "the-api-secret-of-32-bytes-or-more"
WEBHOOK_SECRET_TOKEN = "the-webhook-secret-token"
SESSION_KEY = "5e551017" * 4


def account(webhook_url: str) -> ZoomAccount:
    """The account that the sandbox plays."""
    return ZoomAccount(
        sdk_key=SDK_KEY,
        sdk_secret=SDK_SECRET,
        api_key=API_KEY,
        api_secret=API_SECRET,
        webhook_secret_token=WEBHOOK_SECRET_TOKEN,
        webhook_url=webhook_url,
    )


def token(*, host: bool = False, secret: str = SDK_SECRET, **over: Any) -> str:
    """A token to join Algebra with, good where nothing else is said; None leaves a claim out."""
    now = int(time.time())
    claims = {
        "app_key": SDK_KEY,
        "tpc": "Algebra",
        "role_type": 1 if host else 0,
        "version": 1,
        "iat": now,
        "exp": now + 7200,
        "user_identity": ("a" if host else "b") * 32,
        "session_key": SESSION_KEY,
    } | over
    known = {claim: value for claim, value in claims.items() if value is not None}
    return jwt.encode(known, secret, algorithm="HS256")


async def act(sandbox: Sandbox, path: str, /, *, expect: int = 200, **fields: Any) -> Any:
    """Have people do something."""
    return await sandbox.control("POST", f"video/{path}", expect=expect, json=fields)


async def join(sandbox: Sandbox, *, name: str | None = None, host: bool = False, **claims: Any) -> Any:
    """Somebody comes with a good token."""
    return await act(sandbox, "join", token=token(host=host, **claims), name=name)


async def sessions(sandbox: Sandbox) -> list[dict[str, Any]]:
    """What the control API knows of sessions."""
    found: list[dict[str, Any]] = (await sandbox.control("GET", "video/sessions"))["sessions"]
    return found


async def recorded(sandbox: Sandbox, *, files: int = 3) -> dict[str, Any]:
    """The last session, once it has so many files."""
    async with asyncio.timeout(PATIENCE):
        while len((session := (await sessions(sandbox))[-1])["files"]) < files:
            pass
    return session


def path_of(session_id: str, rest: str = "") -> str:
    """Where the REST API has a session: its id is encoded twice."""
    return f"/v2/videosdk/sessions/{quote(quote(session_id, safe=''), safe='')}{rest}"


def bearer(*, secret: str = API_SECRET, **over: Any) -> dict[str, str]:
    """What lets a request in, good where nothing else is said."""
    claims = {"iss": API_KEY, "exp": int(time.time()) + 3600} | over
    return {"Authorization": f"Bearer {jwt.encode(claims, secret, algorithm='HS256')}"}


async def request(
    sandbox: Sandbox, method: str, path: str, *, headers: dict[str, str] | None = None, **request: Any
) -> tuple[int, Any]:
    """One request of the REST API, its path as it is; status and JSON."""
    url = URL(sandbox.base_url + path, encoded=True)
    async with sandbox.http.request(method, url, headers=headers or bearer(), **request) as response:
        return response.status, await response.json() if response.content_type == "application/json" else None


async def next_event(receiver: Receiver) -> dict[str, Any]:
    """The next webhook, waited for, its signature computed here once more; tests that move the clock do by minutes."""
    received = await receiver.next()
    timestamp = received.headers["x-zm-request-timestamp"]
    signed = b"v0:" + timestamp.encode() + b":" + received.body
    signature = hmac.new(WEBHOOK_SECRET_TOKEN.encode(), signed, hashlib.sha256).hexdigest()
    assert received.headers["x-zm-signature"] == f"v0={signature}"
    assert abs(int(timestamp) - time.time()) < 300
    event: dict[str, Any] = json.loads(received.body)
    assert received.body == json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    return event


async def next_names(receiver: Receiver, count: int) -> list[str]:
    """The names of the next webhooks, without `session.`."""
    return [(await next_event(receiver))["event"].removeprefix("session.") for _ in range(count)]
