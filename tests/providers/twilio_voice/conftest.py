"""A sandbox whose calls ask our server, and our adapter between them, new for each test."""

from collections.abc import AsyncIterator

import pytest

from server.providers.sandbox.settings import VoiceApp
from server.providers.twilio.recordings import TwilioCallRecordingFetcher
from server.providers.twilio.voice import TwilioVoiceCalls
from tests.providers.servers import Sandbox, running_sandbox, twilio_account
from tests.providers.twilio_voice.browser import API_KEY_SECRET, API_KEY_SID, TWIML_APP_SID
from tests.providers.twilio_voice.server import Server, running_server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        yield running


@pytest.fixture
async def sandbox(server: Server) -> AsyncIterator[Sandbox]:
    app = VoiceApp(API_KEY_SID, API_KEY_SECRET, TWIML_APP_SID, f"{server.base_url}/api/v1/sdk_calls/response")
    incoming = f"{server.base_url}/api/v1/twilio_calls/incoming"
    async with running_sandbox(voice_url=incoming, voice_app=app) as running:
        yield running


@pytest.fixture
async def calls(sandbox: Sandbox, server: Server) -> AsyncIterator[TwilioVoiceCalls]:
    made = TwilioVoiceCalls(twilio_account(sandbox.base_url), public_base_url=server.base_url)
    yield made
    await made.aclose()


@pytest.fixture
async def fetcher(sandbox: Sandbox) -> AsyncIterator[TwilioCallRecordingFetcher]:
    made = TwilioCallRecordingFetcher(twilio_account(sandbox.base_url))
    yield made
    await made.aclose()
