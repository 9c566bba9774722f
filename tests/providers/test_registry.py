import subprocess
import sys
from datetime import timedelta

from cryptography.fernet import Fernet
from pydantic import SecretStr

from server.config import Settings
from server.providers import registry
from server.providers.twilio.adapter import TwilioMessageSender
from server.providers.twilio.callback import TwilioMessageCallbackReader
from server.providers.twilio.client import TwilioClient
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, twilio_account


def settings() -> Settings:
    return Settings(
        database_url=SecretStr("postgresql://localhost/x"),
        public_base_url="https://api.example",
        encryption_keys=(SecretStr(Fernet.generate_key().decode()),),
        twilio_account_sid=ACCOUNT_SID,
        twilio_auth_token=SecretStr(AUTH_TOKEN),
        storage_url="file:///files",
    )


async def test_a_name_stands_for_its_adapter() -> None:
    sender = registry.message_senders(settings())["twilio"]
    reader = registry.message_callback_reader(settings())

    assert isinstance(sender, TwilioMessageSender)
    assert isinstance(reader, TwilioMessageCallbackReader)
    await sender.aclose()


def client_at(base_url: str | None) -> TwilioClient:
    return TwilioClient(twilio_account(base_url), connections=1, timeout=timedelta(seconds=1))


async def test_without_a_base_url_requests_go_to_twilio() -> None:
    client = client_at(None)

    assert client.get_hostname("https://api.twilio.com/a?b=c") == "https://api.twilio.com/a?b=c"
    await client.aclose()


async def test_a_base_url_stands_for_all_of_twilios_hosts() -> None:
    client = client_at("http://127.0.0.1:1234")

    assert client.get_hostname("https://lookups.twilio.com/v2/a?b=%2B1") == "http://127.0.0.1:1234/v2/a?b=%2B1"
    await client.aclose()


def test_reading_callbacks_loads_no_http_client() -> None:
    program = (
        "import sys, server.providers.registry, server.providers.twilio.callback, server.providers.twilio.inbound,"
        " server.providers.twilio.voice_callbacks, server.providers.twilio.twiml, server.providers.twilio.voice_tokens;"
        " sys.exit(bool({'aiohttp', 'twilio.rest'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
