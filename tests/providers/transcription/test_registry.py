"""Which transcriber there is, and what loading callbacks' reader brings."""

import subprocess
import sys
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet

from server.config import Settings
from server.providers import registry
from server.providers.ports import CallbackMalformed, SignatureInvalid, SignedRequest
from server.providers.transcription.callback_url import CallbackUrls
from server.providers.transcription.offline import OfflineTranscriber
from server.providers.transcription.voicebase import VoiceBaseTranscriber

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def settings(**voicebase: str) -> Settings:
    return Settings.model_validate(
        {
            "database_url": "postgresql://localhost/x",
            "public_base_url": "https://api.example",
            "encryption_keys": f"{NEW},{OLD}",
            "twilio_account_sid": "AC1",
            "twilio_auth_token": "a-token",
            "storage_url": "file:///files",
        }
        | voicebase
    )


async def test_without_an_account_this_machine_transcribes() -> None:
    transcriber = registry.transcriber(settings())

    assert isinstance(transcriber, OfflineTranscriber)
    assert transcriber.name == "offline"
    assert registry.transcript_report_reader(settings()) is None
    await transcriber.aclose()


async def test_with_an_account_voicebase_does() -> None:
    transcriber = registry.transcriber(settings(voicebase_token="a-token"))

    assert isinstance(transcriber, VoiceBaseTranscriber)
    assert transcriber.name == "voicebase"
    await transcriber.aclose()


def test_reader_takes_codes_of_every_key() -> None:
    reader = registry.transcript_report_reader(settings(voicebase_token="a-token"))
    assert reader is not None

    for key in (OLD, NEW):
        url = CallbackUrls([key]).url("https://api.example/", uuid4())
        with pytest.raises(CallbackMalformed):
            reader.read(SignedRequest(url=url, body=b"", headers={}))
    with pytest.raises(SignatureInvalid):
        reader.read(SignedRequest(url="https://api.example/", body=b"", headers={}))


@pytest.mark.parametrize(
    ("module", "library"), [("voicebase_callback", "aiohttp"), ("offline", "faster_whisper"), ("offline", "numpy")]
)
def test_what_only_recordings_need_is_loaded_for_them_alone(module: str, library: str) -> None:
    program = (
        f"import sys, server.providers.registry, server.providers.transcription.{module};"
        f" sys.exit({library!r} in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
