"""Our side of Zoom's protocol against the sandbox's, over real sockets: tokens, webhooks, the end, recordings."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from server.providers.ports import MediaRefused, ProviderUnavailable, SignatureInvalid, SignedRequest
from server.providers.sandbox.app import make_app
from server.providers.sandbox.settings import SandboxSettings, ZoomAccount
from server.providers.video_ports import SessionOver, UrlValidation, VideoAdmission, VideoEvent
from server.providers.zoom.client import ZoomVideoSessions
from server.providers.zoom.recordings import ZoomRecordingFetcher
from server.providers.zoom.tokens import ZoomVideoTokens
from server.providers.zoom.webhook import ZoomVideoEventReader
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, PATIENCE, Receiver, Sandbox, listening

SDK_KEY = "an-sdk-key"
SDK_SECRET = "a-secret-of-the-video-sdk-of-36-signs"
API_KEY = "an-api-key"
API_SECRET = "a-secret-of-the-rest-api-of-36-signs!"
SECRET_TOKEN = "the-secret-token"

NAME = "Conference with Ms Lee"

TOKENS = ZoomVideoTokens(sdk_key=SDK_KEY, sdk_secret=SDK_SECRET)
READER = ZoomVideoEventReader(secret_token=SECRET_TOKEN)


@dataclass
class Zoom:
    """The sandbox's Zoom, and who takes its webhooks."""

    sandbox: Sandbox
    receiver: Receiver
    session_key: UUID

    def token(self, *, is_host: bool = True, user_key: UUID | None = None, **over: Any) -> str:
        """A token of ours, good for an hour."""
        now = datetime.now(UTC)
        fields: dict[str, Any] = {
            "session_name": NAME,
            "session_key": self.session_key,
            "user_key": user_key or uuid4(),
            "is_host": is_host,
            "issued_at": now,
            "expires_at": now + timedelta(hours=1),
        }
        return TOKENS.sign(VideoAdmission(**fields | over))

    async def act(self, what: str, **fields: Any) -> Any:
        """What a person does."""
        return await self.sandbox.control("POST", f"video/{what}", json=fields)

    async def next_request(self) -> SignedRequest:
        """The next webhook as it came."""
        received = await self.receiver.next()
        return SignedRequest(url=received.url, body=received.body, headers=received.headers)

    async def next_event(self) -> VideoEvent:
        """The next webhook, verified and read as our server would."""
        event = READER.read(await self.next_request(), now=datetime.now(UTC))
        assert isinstance(event, VideoEvent)
        return event

    async def next_named(self, name: str) -> VideoEvent:
        """The next event of a name; those before it are passed over."""
        async with asyncio.timeout(PATIENCE):
            while (event := await self.next_event()).name != name:
                pass
        return event


@pytest.fixture
async def zoom(receiver: Receiver) -> AsyncIterator[Zoom]:
    account = ZoomAccount(
        sdk_key=SDK_KEY,
        sdk_secret=SDK_SECRET,
        api_key=API_KEY,
        api_secret=API_SECRET,
        webhook_secret_token=SECRET_TOKEN,
        webhook_url=f"{receiver.base_url}/api/v1/zoom_requests/webhook",
    )
    settings = SandboxSettings(ACCOUNT_SID, AUTH_TOKEN, step_delay=timedelta(milliseconds=1), zoom=account)
    async with listening(make_app(settings)) as base_url, aiohttp.ClientSession() as http:
        yield Zoom(Sandbox(base_url, http), receiver, uuid4())


@asynccontextmanager
async def sessions(zoom: Zoom, **over: Any) -> AsyncIterator[ZoomVideoSessions]:
    fields: dict[str, Any] = {"api_key": API_KEY, "api_secret": API_SECRET, "api_base_url": zoom.sandbox.base_url}
    made = ZoomVideoSessions(**fields | over)
    yield made
    await made.aclose()


async def test_our_tokens_let_people_in_and_their_keys_come_back(zoom: Zoom) -> None:
    host, guest = uuid4(), uuid4()

    await zoom.act("join", token=zoom.token(user_key=host), session_name=NAME, name="Ms Lee")
    await zoom.act("join", token=zoom.token(is_host=False, user_key=guest), name="Jill Chill")
    await zoom.act("leave", user="Jill Chill")

    started, joined, came, left = [await zoom.next_event() for _ in range(4)]
    assert [each.name for each in (started, joined, came, left)] == [
        "session.started",
        "session.user_joined",
        "session.user_joined",
        "session.user_left",
    ]
    for told in (started, joined, came, left):
        assert (told.session_key, told.session_id) == (zoom.session_key, started.session_id)
        assert (told.session_name or "").lower() == NAME.lower()
        assert abs(told.occurred_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert started.start_time is not None
    assert joined.user is not None
    assert came.user is not None
    assert left.user is not None
    assert (joined.user.user_key, joined.user.name) == (host, "Ms Lee")
    assert (came.user.user_key, came.user.name) == (guest, "Jill Chill")
    assert (left.user.user_key, left.user.user_id) == (guest, came.user.user_id)
    assert came.user.join_time is not None
    assert left.user.leave_time is not None
    assert left.user.leave_reason


async def test_token_of_the_shortest_and_the_longest_life_are_taken(zoom: Zoom) -> None:
    now = datetime.now(UTC)

    await zoom.act("join", token=zoom.token(expires_at=now))
    await zoom.act("join", token=zoom.token(expires_at=now + timedelta(days=9)))


async def test_webhook_is_of_nobody_else_and_of_no_other_time(zoom: Zoom) -> None:
    await zoom.act("join", token=zoom.token())
    request = await zoom.next_request()

    with pytest.raises(SignatureInvalid, match="stale"):
        READER.read(request, now=datetime.now(UTC) + timedelta(minutes=6))
    with pytest.raises(SignatureInvalid, match="does not fit"):
        ZoomVideoEventReader(secret_token="another").read(request, now=datetime.now(UTC))


async def test_url_validation_is_read_and_proves_the_token(zoom: Zoom) -> None:
    asked = asyncio.create_task(zoom.act("validation"))
    read = READER.read(await zoom.next_request(), now=datetime.now(UTC))
    await asked

    assert isinstance(read, UrlValidation)
    assert read.plain_token
    assert len(read.encrypted_token) == 64


async def test_live_session_is_ended_and_a_second_end_finds_it_over(zoom: Zoom) -> None:
    await zoom.act("join", token=zoom.token())
    session_id = (await zoom.next_named("session.started")).session_id
    assert session_id is not None
    assert session_id.startswith("/")

    async with sessions(zoom) as ours:
        await ours.end(session_id)
        ended = await zoom.next_named("session.ended")
        with pytest.raises(SessionOver):
            await ours.end(session_id)
        with pytest.raises(SessionOver):
            await ours.end("nobody/has+this==")

    assert (ended.session_id, ended.session_key) == (session_id, zoom.session_key)
    assert ended.start_time is not None
    assert ended.end_time is not None


async def test_wrong_secret_ends_nothing_and_loses_nothing(zoom: Zoom) -> None:
    await zoom.act("join", token=zoom.token())
    session_id = (await zoom.next_named("session.started")).session_id
    assert session_id is not None

    async with sessions(zoom, api_secret="another-secret-of-the-rest-api-here!") as theirs:
        with pytest.raises(ProviderUnavailable):
            await theirs.end(session_id)
    async with sessions(zoom) as ours:
        await ours.end(session_id)


async def test_recording_is_fetched_with_the_token_of_its_event_alone(zoom: Zoom) -> None:
    await zoom.act("join", token=zoom.token())
    await zoom.act("recording", act="start")
    await zoom.act("recording", act="stop")
    await zoom.act("end")

    completed = await zoom.next_named("session.recording_completed")

    assert completed.session_key == zoom.session_key
    assert completed.download_token is not None
    assert {file.file_type for file in completed.files} >= {"MP4", "M4A"}
    fetcher = ZoomRecordingFetcher(api_base_url=zoom.sandbox.base_url, allowed_networks=())
    for file in completed.files:
        assert file.url is not None
        async with fetcher.open(file.url, download_token=completed.download_token) as chunks:
            data = b"".join([chunk async for chunk in chunks])
        assert len(data) == file.file_size
        with pytest.raises(ProviderUnavailable):
            async with fetcher.open(file.url, download_token="another"):
                pass
        with pytest.raises(MediaRefused):
            async with fetcher.open(file.url, download_token=None):
                pass
    await fetcher.aclose()
