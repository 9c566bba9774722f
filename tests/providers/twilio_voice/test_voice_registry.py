"""What of voice a server is given, by its settings."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from cryptography.fernet import Fernet
from pydantic import SecretStr

from server.config import Settings
from server.providers import registry
from server.providers.twilio.recordings import TwilioCallRecordingFetcher
from server.providers.twilio.twiml import TwilioCallScripts
from server.providers.twilio.voice import TwilioVoiceCalls
from server.providers.twilio.voice_callbacks import TwilioVoiceCallbackReader
from server.providers.twilio.voice_tokens import TwilioVoiceTokens
from server.providers.voice_ports import (
    CallRecordingFetcher,
    CallScripts,
    VoiceCallbackReader,
    VoiceCalls,
    VoiceTokens,
)
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN
from tests.providers.twilio_voice.browser import API_KEY_SECRET, API_KEY_SID, TWIML_APP_SID
from tests.providers.twilio_voice.callbacks import CALL_BLOCK, INCOMING_URL, signed


def settings(**over: Any) -> Settings:
    return Settings(
        **{
            "database_url": SecretStr("postgresql://localhost/x"),
            "public_base_url": "https://school.example",
            "encryption_keys": (SecretStr(Fernet.generate_key().decode()),),
            "twilio_account_sid": ACCOUNT_SID,
            "twilio_auth_token": SecretStr(AUTH_TOKEN),
            "storage_url": "file:///files",
            **over,
        }
    )


async def test_twilio_makes_calls_and_has_their_recordings() -> None:
    calls: VoiceCalls = registry.voice_calls(settings())
    fetcher: CallRecordingFetcher = registry.call_recording_fetcher(settings())

    assert isinstance(calls, TwilioVoiceCalls)
    assert isinstance(fetcher, TwilioCallRecordingFetcher)
    await calls.aclose()
    await fetcher.aclose()


def test_scripts_name_the_server_that_is_reached() -> None:
    scripts: CallScripts = registry.call_scripts(settings())

    assert isinstance(scripts, TwilioCallScripts)
    assert b'"https://school.example/api/v1/twilio_calls/' in scripts.take_voicemail(call_uuid=uuid4())


def test_callbacks_are_proved_with_the_accounts_token() -> None:
    reader: VoiceCallbackReader = registry.voice_callback_reader(settings())

    assert isinstance(reader, TwilioVoiceCallbackReader)
    assert reader.read_incoming_call(signed(INCOMING_URL, CALL_BLOCK, token=AUTH_TOKEN)).to_number == "+12065550100"


def test_tokens_are_there_where_there_is_a_key_to_sign_them() -> None:
    key = {
        "twilio_api_key_sid": API_KEY_SID,
        "twilio_api_key_secret": SecretStr(API_KEY_SECRET),
        "twilio_twiml_app_sid": TWIML_APP_SID,
    }

    tokens: VoiceTokens | None = registry.voice_tokens(settings(**key))

    assert registry.voice_tokens(settings()) is None
    assert isinstance(tokens, TwilioVoiceTokens)
    assert tokens.sign(
        identity="staff_7", voice_token_uuid=uuid4(), issued_at=datetime.now(UTC), ttl=timedelta(hours=1)
    )
