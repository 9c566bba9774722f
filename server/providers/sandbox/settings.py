"""What a sandbox is started with, and what its account owns. Light: the local start imports it to seed from."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

OWNED_NUMBERS: Final = tuple(f"+1{area}555010{last}" for area in ("206", "512") for last in range(10))
MESSAGING_SERVICE_SID: Final = "MG00000000000000000000000000000001"
MESSAGING_SERVICE_NAME: Final = "local"

BANDWIDTH_NUMBERS: Final = tuple(f"+1303555010{last}" for last in range(10))
BANDWIDTH_APPLICATION_ID: Final = "b0000000-0000-4000-8000-000000000001"
BANDWIDTH_TOKEN_PATH: Final = "/api/v1/oauth2/token"  # noqa: S105 no secret

ZOOM_ACCOUNT_ID: Final = "SandboxZoomAccount0001"


@dataclass(frozen=True)
class BandwidthAccount:
    """An account at Bandwidth, which has BANDWIDTH_NUMBERS, and where its one messaging application calls back."""

    account_id: str
    client_id: str
    client_secret: str = field(repr=False)
    callback_url: str
    callback_username: str
    callback_password: str = field(repr=False)


@dataclass(frozen=True)
class ZoomAccount:
    """A Video SDK account at Zoom: the keys of its sessions, those of its REST API, and where events are posted."""

    sdk_key: str
    sdk_secret: str = field(repr=False)
    api_key: str
    api_secret: str = field(repr=False)
    webhook_secret_token: str = field(repr=False)
    webhook_url: str


@dataclass(frozen=True)
class VoiceApp:
    """What browsers call with: the API key that signs their access tokens, and the TwiML App with its voice URL.

    The end of each such call is posted to `status_callback`, None for nowhere.
    """

    api_key_sid: str
    api_key_secret: str = field(repr=False)
    twiml_app_sid: str
    voice_url: str
    status_callback: str | None = None


@dataclass(frozen=True)
class SandboxSettings:
    """`data_dir` None keeps everything in memory; `step_delay` passes between one status of a message and the next.

    Texts to a number are posted to `inbound_url`, where neither it nor its messaging service has a URL of its own; of
    calls to one without a URL `voice_url` is asked, and `voice_status_url` told how they ended. `second` passes while a
    second of ringing or speaking is simulated.
    `base_url` is where the account's server reaches the sandbox, None the address that whoever texts asked.
    """

    account_sid: str
    auth_token: str = field(repr=False)
    data_dir: Path | None = None
    step_delay: timedelta = timedelta(milliseconds=30)
    inbound_url: str | None = None
    voice_url: str | None = None
    voice_status_url: str | None = None
    second: timedelta = timedelta(seconds=1)
    base_url: str | None = None
    # None plays Twilio alone.
    bandwidth: BandwidthAccount | None = None
    # None plays no Zoom.
    zoom: ZoomAccount | None = None
    # None lets no browser call.
    voice_app: VoiceApp | None = None
    # None plays no VoiceBase.
    voicebase_token: str | None = field(default=None, repr=False)
