"""How the sandbox's Zoom posts its webhooks: signed, again, twice, in another order, not at all."""

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.providers import zoom_account as zoom
from tests.providers.servers import Receiver, Sandbox, closed_port_url, listening, running_sandbox
from tests.providers.zoom_account import WEBHOOK_SECRET_TOKEN, act, join, next_event, next_names


@pytest.fixture
async def sandbox(receiver: Receiver) -> AsyncIterator[Sandbox]:
    async with running_sandbox(zoom=zoom.account(f"{receiver.base_url}/zoom?a=b")) as made:
        yield made


async def test_webhook_is_posted_as_zoom_does(sandbox: Sandbox, receiver: Receiver) -> None:
    await join(sandbox, name="Zoë")

    first, second = [await receiver.next() for _ in range(2)]

    assert first.url == f"{receiver.base_url}/zoom?a=b"
    assert first.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "Zoë".encode() in second.body
    ids = [received.headers["x-zm-trackingid"] for received in (first, second)]
    assert ids[0].startswith("v=2.0;clid=")
    assert ids[0] != ids[1]


async def test_webhook_that_is_not_taken_is_posted_again_signed_anew(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.statuses = [500, 200, 302, 200]

    joined = await join(sandbox)

    assert [(told["status"], told["failure"]) for told in joined["told"]] == [(500, "5xx"), (200, None)]
    first, came, again, once_more = [await next_event(receiver) for _ in range(4)]
    assert first == again == once_more
    assert [event["event"] for event in (first, came)] == ["session.started", "session.user_joined"]


async def test_webhook_is_given_up_after_three_more(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.statuses = [403, 200, 500, 500, 500]

    joined = await join(sandbox)
    names = await next_names(receiver, 5)
    await act(sandbox, "leave")

    assert joined["told"][0]["failure"] == "4xx"
    assert names == ["started", "user_joined", "started", "started", "started"]
    assert await next_names(receiver, 2) == ["user_left", "ended"]


async def test_nobody_there_is_said() -> None:
    async with running_sandbox(zoom=zoom.account(closed_port_url())) as sandbox:
        joined = await join(sandbox)

    assert [(told["status"], told["failure"]) for told in joined["told"]] == [(None, "ct")] * 2


async def test_restart_posts_what_was_not_taken(receiver: Receiver, tmp_path: Path) -> None:
    async with running_sandbox(zoom=zoom.account(closed_port_url()), data_dir=tmp_path) as sandbox:
        await join(sandbox)
    async with running_sandbox(zoom=zoom.account(receiver.base_url), data_dir=tmp_path):
        names = await next_names(receiver, 2)

    assert sorted(names) == ["started", "user_joined"]


async def test_duplicated_webhooks_come_twice(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.misbehave(callbacks="duplicated")

    joined = await join(sandbox)

    events = [await next_event(receiver) for _ in range(4)]
    assert events[0] == events[1]
    assert events[2] == events[3]
    assert len(joined["told"]) == 2


async def test_missing_webhooks_never_come(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.misbehave(callbacks="missing")
    joined = await join(sandbox, host=True)
    await sandbox.control("DELETE", "misbehaviour")
    await act(sandbox, "end")

    assert (joined["told"], joined["callbacks"]) == ([], "missing")
    assert await next_names(receiver, 2) == ["user_left", "ended"]


async def test_reordered_webhooks_come_newest_first_when_the_session_has_ended(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    await sandbox.misbehave(callbacks="reordered")
    joined = await join(sandbox, host=True)
    await join(sandbox)
    ended = await act(sandbox, "end")

    assert joined["told"] == []
    expected = ["ended", "user_left", "user_left", "user_joined", "user_joined", "started"]
    assert [told["event"].partition(".")[2] for told in ended["told"]] == expected
    events = [await next_event(receiver) for _ in range(6)]
    assert [event["event"].partition(".")[2] for event in events] == expected
    assert [event["event_ts"] for event in events] == sorted((event["event_ts"] for event in events), reverse=True)


async def test_held_webhooks_come_after_the_next_that_is_in_order(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.misbehave(callbacks="reordered")
    await join(sandbox, host=True)
    await sandbox.control("DELETE", "misbehaviour")
    await join(sandbox)

    assert await next_names(receiver, 3) == ["user_joined", "user_joined", "started"]


async def test_held_webhooks_survive_a_restart(receiver: Receiver, tmp_path: Path) -> None:
    account = zoom.account(receiver.base_url)
    async with running_sandbox(zoom=account, data_dir=tmp_path) as sandbox:
        await sandbox.misbehave(callbacks="reordered")
        await join(sandbox)
    async with running_sandbox(zoom=account, data_dir=tmp_path) as sandbox:
        await act(sandbox, "leave")

    assert await next_names(receiver, 4) == ["user_left", "ended", "user_joined", "started"]


async def test_trigger_in_a_sessions_name_counts_for_that_session(sandbox: Sandbox, receiver: Receiver) -> None:
    await join(sandbox, tpc="[sandbox:callbacks=missing] Algebra")
    await join(sandbox, tpc="[sandbox:callbacks=duplicated] Geometry", session_key="another")

    assert await next_names(receiver, 4) == ["started", "started", "user_joined", "user_joined"]


async def test_any_event_can_be_told(sandbox: Sandbox, receiver: Receiver) -> None:
    session = (await join(sandbox))["session"]
    await next_names(receiver, 2)

    told = await act(sandbox, "events", event="session.alert", object={"issues": ["Call Reconnection"]})

    event = await next_event(receiver)
    assert (event["event"], event["payload"]["object"]["issues"]) == ("session.alert", ["Call Reconnection"])
    assert event["payload"]["object"]["session_id"] == session["id"]
    assert [each["event"] for each in told["told"]] == ["session.alert"]


@asynccontextmanager
async def answering(**over: Any) -> AsyncIterator[str]:
    """An endpoint that proves to know the secret token, but for what is said otherwise."""

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        signed = f"v0:{request.headers['x-zm-request-timestamp']}:".encode() + body
        digest = hmac.new(WEBHOOK_SECRET_TOKEN.encode(), signed, hashlib.sha256).hexdigest()
        assert request.headers["x-zm-signature"] == f"v0={digest}"
        event = json.loads(body)
        assert event["event"] == "endpoint.url_validation"
        assert abs(event["event_ts"] / 1000 - time.time()) < 60
        plain = event["payload"]["plainToken"]
        encrypted = hmac.new(WEBHOOK_SECRET_TOKEN.encode(), plain.encode(), hashlib.sha256).hexdigest()
        fields = {"plainToken": plain, "encryptedToken": encrypted} | over.get("fields", {})
        return web.Response(status=over.get("status", 200), text=over.get("text", json.dumps(fields)))

    app = web.Application()
    app.router.add_post("/", handle)
    async with listening(app) as base_url:
        yield base_url


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({}, (True, 200, None)),
        ({"status": 500}, (False, 500, "it must answer 200")),
        ({"status": 204}, (False, 204, "it must answer 200")),
        ({"text": "pong"}, (False, 200, "the answer is not JSON")),
        ({"text": "[]"}, (False, 200, "the answer is not a JSON object")),
        ({"fields": {"plainToken": "x"}}, (False, 200, "plainToken must be as Zoom computes it")),
        (
            {"text": "{}"},
            (False, 200, "plainToken and encryptedToken must be as Zoom computes it"),
        ),
    ],
)
async def test_endpoint_is_validated(over: dict[str, Any], expected: tuple[bool, int, str | None]) -> None:
    async with answering(**over) as url, running_sandbox(zoom=zoom.account(url)) as sandbox:
        found = await act(sandbox, "validation")

    assert (found["valid"], found["status"], found["problem"]) == expected


async def test_endpoint_that_does_not_answer_is_not_valid() -> None:
    async with running_sandbox(zoom=zoom.account(closed_port_url())) as sandbox:
        found = await act(sandbox, "validation")

    assert found == {"valid": False, "status": None, "problem": "it did not answer"}
