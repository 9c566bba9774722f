"""Video calls end to end: people in sessions of the sandbox's Zoom, whose webhooks come through a real Envoy."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from server.api import running_api
from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from server.notifications import Notifications
from server.providers import registry
from server.providers.sandbox.settings import ZoomAccount
from server.providers.sandbox.zoom_media import m4a, mp4
from server.stack.ports import free_port
from server.storage import open_storage
from server.video.endings import EndingWorker
from server.video.recordings import RecordingWorker
from tests.clients import Client
from tests.files.support import signer_of
from tests.providers.servers import PATIENCE, Sandbox, running_sandbox
from tests.rest.front import Front, running_envoy, until_healthy

NAME = "Parents' evening, room 4"


def secret(value: SecretStr | None) -> str:
    assert value is not None
    return value.get_secret_value()


@dataclass
class System:
    """Zoom, the public door, the workers, and a caller of ours."""

    zoom: Sandbox
    front: Front
    caller: Client
    endings: EndingWorker
    recordings: RecordingWorker

    async def rest(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of a call that succeeds."""
        headers = {"Authorization": f"Bearer {self.caller.token}"}
        url = f"{self.front.url}/api/v1/{path}"
        async with self.zoom.http.request(method, url, headers=headers, **request) as response:
            assert response.status in (200, 201), await response.text()
            return await response.json()

    async def create(self, **over: Any) -> Any:
        """A call."""
        fields = {"session_name": NAME, "host_username": "Ms. Rivera"} | over
        return await self.rest("POST", "video_calls", json={"video_call": fields})

    async def let_in(self, call: Any, username: str) -> Any:
        """A participant of the call."""
        fields = {"shunkan_ido_session_key": call["shunkan_ido_session_key"], "username": username}
        return await self.rest("POST", "video_calls/participants", json={"participant": fields})

    async def get(self, call: Any) -> Any:
        """The call as it is now."""
        return await self.rest("GET", f"video_calls/{call['shunkan_ido_session_key']}")

    async def act(self, path: str, **fields: Any) -> Any:
        """People do something, and everything that is posted of it is taken."""
        done = await self.zoom.control("POST", f"video/{path}", json=fields)
        assert {told["failure"] for told in done["told"]} <= {None}
        return done

    async def join(self, token: str, name: str) -> Any:
        """Somebody comes."""
        return await self.act("join", token=token, name=name)

    async def until(self, call: Any, holds: Callable[[Any], object]) -> Any:
        """The call, once it is so."""
        async with asyncio.timeout(PATIENCE):
            while not holds(shown := await self.get(call)):
                pass
        return shown


@pytest.fixture(scope="module")
async def _doors(settings: Settings) -> AsyncIterator[tuple[Settings, Sandbox, Front]]:
    port = free_port()
    account = ZoomAccount(
        sdk_key=settings.zoom_sdk_key or "",
        sdk_secret=secret(settings.zoom_sdk_secret),
        api_key=settings.zoom_api_key or "",
        api_secret=secret(settings.zoom_api_secret),
        webhook_secret_token=secret(settings.zoom_webhook_secret_token),
        webhook_url=f"http://127.0.0.1:{port}/api/v1/zoom_requests/webhook",
    )
    async with running_sandbox(zoom=account) as zoom:
        update = {"public_base_url": f"http://127.0.0.1:{port}", "zoom_api_base_url": zoom.base_url}
        live = settings.model_copy(update=update)
        async with (
            running_api(live, listen="127.0.0.1:0") as api,
            running_envoy([f"127.0.0.1:{api.port}"], port=port) as front,
        ):
            await until_healthy(front, 1)
            yield live, zoom, front


@pytest.fixture
async def system(
    _doors: tuple[Settings, Sandbox, Front],
    client: Client,
    db: Database,
    notifications: Notifications,
    cipher: Cipher,
) -> AsyncIterator[System]:
    live, zoom, front = _doors
    storage = open_storage(live.storage_url, signer_of(live))
    sessions, fetcher = registry.video_sessions(live), registry.recording_fetcher(live)
    assert sessions is not None
    assert fetcher is not None
    yield System(
        zoom,
        front,
        client,
        EndingWorker(db, notifications, sessions, storage),
        RecordingWorker(db, notifications, fetcher, storage, cipher),
    )
    # Nothing of this test may call back into the next.
    await zoom.control("POST", "reset")
    await sessions.aclose()
    await fetcher.aclose()


async def every(step: Callable[[], Awaitable[bool]]) -> None:
    while await step():
        pass


async def test_call_from_its_create_to_its_recording(system: System) -> None:
    call = await system.create()
    parent = await system.let_in(call, "A parent")
    ada = await system.join(call["host_token"], "Ms. Rivera")
    await system.join(parent["token_signature"], "A parent")
    live = await system.get(call)
    await system.act("recording", act="start")
    await system.act("leave", user="A parent")
    await system.act("recording", act="stop")
    await system.act("leave")
    recorded = await system.until(call, lambda shown: len(shown.get("video_call_recordings", [])) == 3)
    await every(system.recordings.step)
    over = await system.get(call)

    assert (live["internal_status"], live["provider_status"]) == ("in_progress", "session.started")
    assert live["provider_id"] == ada["session"]["id"]
    assert [each["internal_status"] for each in live["video_call_participants"]] == ["joined", "joined"]
    assert "host_token" in live
    assert (recorded["internal_status"], recorded["provider_status"]) == ("finished", "session.ended")
    assert {each["internal_status"] for each in recorded["video_call_recordings"]} == {"pending"}
    assert (over["recording_status"], "host_token" in over) == ("completed", False)
    host, guest = over["video_call_participants"]
    assert (host["is_host"], host["internal_status"], host["leave_reason"]) == (
        True,
        "left",
        "Ms. Rivera left the session.",
    )
    assert (guest["internal_status"], guest["shunkan_ido_user_key"]) == ("left", parent["shunkan_ido_user_key"])
    files = {each["file_type"]: each for each in over["video_call_recordings"]}
    assert {each["internal_status"] for each in files.values()} == {"stored"}
    (session,) = (await system.zoom.control("GET", "video/sessions"))["sessions"]
    seconds = max(round(session["takes"][0]["end"] - session["takes"][0]["start"]), 1)
    for file_type, expected in (("MP4", mp4(seconds)), ("M4A", m4a(seconds))):
        async with aiohttp.ClientSession() as anybody, anybody.get(files[file_type]["recording_url"]) as response:
            assert (response.status, await response.read()) == (200, expected)


async def test_call_is_ended_at_zoom_when_its_time_has_come(system: System) -> None:
    call = await system.create(maximum_call_length=0)
    await system.join(call["host_token"], "Ms. Rivera")
    await every(system.endings.step)
    over = await system.until(call, lambda shown: "leave_reason" in shown["video_call_participants"][0])

    (session,) = (await system.zoom.control("GET", "video/sessions"))["sessions"]
    assert session["end_time"] is not None
    assert (over["internal_status"], over["end_at"]) == ("finished", over["start_time"])
    assert over["video_call_participants"][0]["leave_reason"].endswith("Host ended the session.")


async def test_end_that_is_answered_to_nobody_is_an_end(system: System) -> None:
    call = await system.create(maximum_call_length=0)
    await system.join(call["host_token"], "Ms. Rivera")
    await system.zoom.misbehave(answer="lost-response", next_requests=1)

    await every(system.endings.step)

    assert (await system.get(call))["internal_status"] == "finished"


@pytest.mark.parametrize("callbacks", ["duplicated", "reordered"])
async def test_call_ends_the_same_however_its_webhooks_come(system: System, callbacks: str) -> None:
    await system.zoom.misbehave(callbacks=callbacks)
    call = await system.create()
    parent = await system.let_in(call, "A parent")
    await system.join(call["host_token"], "Ms. Rivera")
    await system.join(parent["token_signature"], "A parent")
    await system.act("recording", act="start")
    await system.act("leave", user="A parent")
    await system.act("end")
    over = await system.until(call, lambda shown: len(shown.get("video_call_recordings", [])) == 3)
    over = await system.until(call, lambda shown: shown.get("recording_status") == "completed")

    assert (over["internal_status"], over["provider_status"]) == ("finished", "session.ended")
    assert [each["internal_status"] for each in over["video_call_participants"]] == ["left", "left"]
    assert over["start_time"] <= over["end_time"]


async def test_call_that_is_joined_again_is_in_progress_again(system: System) -> None:
    call = await system.create()
    await system.join(call["host_token"], "Ms. Rivera")
    await system.act("leave")
    over = await system.get(call)
    await system.join(call["host_token"], "Ms. Rivera")
    again = await system.get(call)

    assert (over["internal_status"], "end_time" in over) == ("finished", True)
    assert (again["internal_status"], "end_time" in again) == ("in_progress", False)
    assert again["start_time"] == over["start_time"]
    assert [each["internal_status"] for each in again["video_call_participants"]] == ["joined"]


async def test_zoom_finds_the_endpoint_to_be_ours(system: System) -> None:
    validated = await system.zoom.control("POST", "video/validation", json={})

    assert validated == {"valid": True, "status": 200, "problem": None}


async def test_events_that_mean_nothing_to_us_are_taken(system: System) -> None:
    call = await system.create()
    await system.join(call["host_token"], "Ms. Rivera")
    before = await system.get(call)

    await system.act("events", event="session.alert", object={"issues": ["Call Reconnection"]})
    await system.act("events", event="session.something_new")

    after = await system.get(call)
    for shown in (before, after):
        shown.pop("host_token")
    assert after == before
