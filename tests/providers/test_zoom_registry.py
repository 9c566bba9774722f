"""Which of Zoom's adapters there are, and what loading them brings."""

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet

from server.config import Settings
from server.providers import registry
from server.providers.ports import SignatureInvalid, SignedRequest
from server.providers.zoom.client import ZoomVideoSessions
from server.providers.zoom.recordings import ZoomRecordingFetcher
from server.providers.zoom.tokens import ZoomVideoTokens
from tests.providers.test_zoom_tokens import SDK_KEY, SDK_SECRET, admission, claims_of
from tests.providers.test_zoom_webhook import BODY, NOW, SECRET_TOKEN, headers

ZOOM = {
    "zoom_sdk_key": SDK_KEY,
    "zoom_sdk_secret": SDK_SECRET,
    "zoom_api_key": "an-api-key",
    "zoom_api_secret": "a-secret-of-the-rest-api-of-36-signs!",
    "zoom_webhook_secret_token": SECRET_TOKEN,
}


def settings(**zoom: Any) -> Settings:
    return Settings.model_validate(
        {
            "database_url": "postgresql://localhost/x",
            "public_base_url": "https://api.example",
            "encryption_keys": [Fernet.generate_key().decode()],
            "twilio_account_sid": "AC1",
            "twilio_auth_token": "a-token",
            "storage_url": "file:///files",
        }
        | zoom
    )


async def test_adapters_are_of_the_configured_account() -> None:
    tokens = registry.video_tokens(settings(**ZOOM))
    sessions = registry.video_sessions(settings(**ZOOM))
    reader = registry.video_event_reader(settings(**ZOOM))
    fetcher = registry.recording_fetcher(settings(**ZOOM))

    assert isinstance(tokens, ZoomVideoTokens)
    assert claims_of(tokens.sign(admission()))["app_key"] == SDK_KEY
    assert isinstance(sessions, ZoomVideoSessions)
    assert isinstance(fetcher, ZoomRecordingFetcher)
    assert reader is not None
    request = SignedRequest(url="https://api.example/", body=BODY, headers=headers(BODY))
    assert reader.read(request, now=NOW)
    with pytest.raises(SignatureInvalid):
        reader.read(request, now=datetime.now(UTC).replace(year=2030))
    await sessions.aclose()
    await fetcher.aclose()


def test_without_an_account_there_are_none() -> None:
    bare = settings()

    assert registry.video_tokens(bare) is None
    assert registry.video_sessions(bare) is None
    assert registry.video_event_reader(bare) is None
    assert registry.recording_fetcher(bare) is None


def test_tokens_and_webhooks_load_no_http_client() -> None:
    program = (
        "import sys, server.providers.registry, server.providers.zoom.tokens, server.providers.zoom.webhook;"
        " sys.exit('aiohttp' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
