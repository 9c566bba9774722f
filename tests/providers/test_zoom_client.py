"""Ending sessions at Zoom: what is asked, and what its answers mean."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import structlog.testing
from aiohttp import web

from server.providers.ports import ProviderError, ProviderRejected, ProviderUnavailable
from server.providers.video_ports import SessionOver
from server.providers.zoom.client import ZoomVideoSessions
from tests.providers.servers import Receiver, closed_port_url, listening, scripted_vendor

API_KEY = "an-api-key"
API_SECRET = "a-secret-of-the-rest-api-of-36-signs!"
SESSION_ID = "/gr8+Gh/SkCp2x4Hg4LyPg=="


@asynccontextmanager
async def sessions_at(api_base_url: str, **over: Any) -> AsyncIterator[ZoomVideoSessions]:
    fields: dict[str, Any] = {"api_key": API_KEY, "api_secret": API_SECRET, "api_base_url": api_base_url}
    sessions = ZoomVideoSessions(**fields | over)
    try:
        yield sessions
    finally:
        await sessions.aclose()


async def end(api_base_url: str, session_id: str = SESSION_ID, **over: Any) -> None:
    async with sessions_at(api_base_url, **over) as sessions:
        await sessions.end(session_id)


async def answered(status: int, body: object, headers: dict[str, str] | None = None) -> None:
    """End a session at a server that answers so."""
    text = body if isinstance(body, str) else json.dumps(body)
    async with scripted_vendor(status, text, headers) as base_url:
        await end(base_url)


async def test_session_is_ended_with_a_token_of_a_minute_or_two(receiver: Receiver) -> None:
    receiver.statuses = [204]

    await end(receiver.base_url)

    asked = await receiver.next()
    assert asked.url == f"{receiver.base_url}/v2/videosdk/sessions/%252Fgr8%252BGh%252FSkCp2x4Hg4LyPg%253D%253D/status"
    assert json.loads(asked.body) == {"action": "end"}
    assert asked.headers["Content-Type"] == "application/json"
    scheme, _, token = asked.headers["Authorization"].partition(" ")
    assert scheme == "Bearer"
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    claims = jwt.decode(token, API_SECRET, algorithms=["HS256"], issuer=API_KEY)
    assert set(claims) == {"iss", "iat", "exp"}
    assert claims["exp"] - claims["iat"] == 120
    assert abs(claims["iat"] - datetime.now(UTC).timestamp()) < 30


@pytest.mark.parametrize(
    ("session_id", "in_path"),
    [
        ("4444AAAiAAAAAiAiAiiAii==", "4444AAAiAAAAAiAiAiiAii%3D%3D"),
        ("a/b", "a%252Fb"),
        ("+ab", "%252Bab"),
        ("//", "%252F%252F"),
        ("a?b#c%d é", "a%3Fb%23c%25d%20%C3%A9"),
    ],
)
async def test_ids_that_a_gateway_would_take_apart_are_encoded_twice(
    receiver: Receiver, session_id: str, in_path: str
) -> None:
    await end(receiver.base_url, session_id)

    assert (await receiver.next()).url == f"{receiver.base_url}/v2/videosdk/sessions/{in_path}/status"


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_every_success_is_one(status: int) -> None:
    await answered(status, "")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        # Of Zoom's reference of this call.
        (404, 3001, "Session does not exist: /gr8+Gh/SkCp2x4Hg4LyPg==."),
        (400, 300, "Session ID does not exist."),
        (400, 300, "Invalid session ID."),
        # In other words, or by another status.
        (404, 3000, "The requested resource could not be found."),
        (400, 3001, ""),
        (400, 3000, "This session has ended."),
        (400, 3000, "The session has already expired."),
        (409, 3000, "Session not found."),
        (400, 3000, "This session is not in progress."),
    ],
)
async def test_session_that_is_over_is_said_to_be(status: int, code: int, message: str) -> None:
    with pytest.raises(SessionOver):
        await answered(status, {"code": code, "message": message})


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"code": 124, "message": "Invalid access token."}),
        (401, {"code": 124, "message": "Access token is expired."}),
        (401, ""),
        (403, {"code": 403, "message": "The session has ended, perhaps, but not for you."}),
        (400, {"code": 200, "message": "This API is only available for Video SDK accounts."}),
        (400, {"code": 4711, "message": "Invalid access token, does not contain scopes."}),
        (404, {"code": 1001, "message": "User does not exist: {0}."}),
        (404, {"code": 2300, "message": "This API endpoint is not recognized."}),
        (404, "<h1>Not Found</h1>"),
        (404, ""),
        (400, "[]"),
        (400, "[" * 100_000),
        (400, {"message": "Session does not exist."}),
        (302, ""),
    ],
)
async def test_what_the_operator_has_to_put_right_is_logged_and_may_pass(status: int, body: object) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(ProviderUnavailable, match=f"status {status}"):
        await answered(status, body)

    code = body.get("code") if isinstance(body, dict) else None
    assert [(line["log_level"], line["event"], line["status"], line["code"]) for line in logs] == [
        ("error", "zoom.refused_us", status, code)
    ]
    assert API_SECRET not in str(logs)


async def test_redirect_takes_the_token_nowhere(receiver: Receiver) -> None:
    with pytest.raises(ProviderUnavailable):
        await answered(302, "", {"Location": f"{receiver.base_url}/elsewhere"})

    assert receiver.requests.empty()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_busy_zoom_is_asked_again_when_it_says(status: int) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(ProviderUnavailable) as unavailable:
        await answered(status, {"code": status, "message": "Try again later."}, {"Retry-After": "7"})

    assert unavailable.value.retry_after == timedelta(seconds=7)
    assert logs == []


async def test_daily_limit_names_a_time_in_iso_8601() -> None:
    until = datetime.now(UTC) + timedelta(hours=3)

    with pytest.raises(ProviderUnavailable) as unavailable:
        await answered(429, {"code": 429}, {"Retry-After": until.strftime("%Y-%m-%dT%H:%M:%SZ")})

    assert unavailable.value.retry_after is not None
    assert timedelta(hours=2, minutes=59) < unavailable.value.retry_after <= timedelta(hours=3)


@pytest.mark.parametrize("value", ["2020-05-31T00:00:00Z", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_time_that_is_past_is_no_wait(value: str) -> None:
    with pytest.raises(ProviderUnavailable) as unavailable:
        await answered(429, {"code": 429}, {"Retry-After": value})

    assert unavailable.value.retry_after == timedelta(0)


@pytest.mark.parametrize("headers", [None, {"Retry-After": "soon"}])
async def test_zoom_that_names_no_time_names_none(headers: dict[str, str] | None) -> None:
    with pytest.raises(ProviderUnavailable) as unavailable:
        await answered(503, "", headers)

    assert unavailable.value.retry_after is None


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, 300, "Request Body should be a valid JSON object."),
        (400, 300, "This API is not available for this account, please contact Zoom support."),
        (422, 3999, "Session is locked."),
    ],
)
async def test_other_refusals_are_for_good(status: int, code: int, message: str) -> None:
    with pytest.raises(ProviderRejected) as rejected:
        await answered(status, {"code": code, "message": message})

    assert rejected.value.error == ProviderError(str(code), "https://developers.zoom.us/docs/api/errors/")


async def test_nobody_there_may_pass() -> None:
    with pytest.raises(ProviderUnavailable):
        await end(closed_port_url())


async def test_silence_may_pass() -> None:
    asked = asyncio.Event()

    async def never(_request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", never)
    async with listening(app) as base_url:
        with pytest.raises(ProviderUnavailable):
            await end(base_url, timeout=timedelta(seconds=1))

    assert asked.is_set()
