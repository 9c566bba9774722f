"""Settings: one frozen object, read from the environment once, validated at start, handed on in parts."""

from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from pydantic import (
    Field,
    HttpUrl,
    PostgresDsn,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Network = IPv4Network | IPv6Network


def _comma_separated(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


# Each is worth nothing without the rest of its group.
_SET_TOGETHER = (
    ("twilio_api_key_sid", "twilio_api_key_secret", "twilio_twiml_app_sid"),
    (
        "bandwidth_account_id",
        "bandwidth_client_id",
        "bandwidth_client_secret",
        "bandwidth_callback_username",
        "bandwidth_callback_password",
    ),
    ("zoom_sdk_key", "zoom_sdk_secret", "zoom_api_key", "zoom_api_secret", "zoom_webhook_secret_token"),
)


class DatabaseSettings(BaseSettings):
    """What commands on the database alone are told."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    database_url: SecretStr
    encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode, Field(min_length=1)]

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: SecretStr) -> SecretStr:
        TypeAdapter(PostgresDsn).validate_python(value.get_secret_value())
        return value

    @field_validator("encryption_keys", mode="before")
    @classmethod
    def _key_list(cls, value: object) -> object:
        return _comma_separated(value)

    @field_validator("encryption_keys")
    @classmethod
    def _fernet_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in value:
            Fernet(key.get_secret_value())
        return value


class Settings(DatabaseSettings):
    """What api and worker processes are told; each field is described in `.env.example`."""

    public_base_url: str
    twilio_account_sid: str
    twilio_auth_token: SecretStr
    twilio_api_base_url: str | None = None
    twilio_api_key_sid: str | None = None
    twilio_api_key_secret: SecretStr | None = None
    twilio_twiml_app_sid: str | None = None
    bandwidth_account_id: str | None = None
    bandwidth_client_id: str | None = None
    bandwidth_client_secret: SecretStr | None = None
    bandwidth_callback_username: str | None = None
    bandwidth_callback_password: SecretStr | None = None
    bandwidth_api_base_url: str = "https://messaging.bandwidth.com"
    bandwidth_token_url: str = "https://api.bandwidth.com/api/v1/oauth2/token"  # noqa: S105 no secret
    zoom_sdk_key: str | None = None
    zoom_sdk_secret: SecretStr | None = None
    zoom_api_key: str | None = None
    zoom_api_secret: SecretStr | None = None
    zoom_webhook_secret_token: SecretStr | None = None
    zoom_api_base_url: str = "https://api.zoom.us"
    voicebase_token: SecretStr | None = None
    voicebase_api_base_url: str = "https://apis.voicebase.com"
    storage_url: str
    unknown_sender_answer: Annotated[str, Field(max_length=1600)] = (
        "We could not tell who this message is for, and nobody has read it. Please contact your school."
    )
    unknown_caller_answer: Annotated[str, Field(max_length=1000)] = (
        "We could not tell who this call is for. Please call your school. Goodbye."
    )
    conference_welcome_message: Annotated[str, Field(max_length=1000)] = (
        "This is a call from your school. It is recorded. Please hold while you are connected."
    )
    maximum_call_minutes: Annotated[int, Field(ge=1, le=240)] = 120
    delete_provider_recordings: bool = False
    webhook_allowed_networks: Annotated[tuple[Network, ...], NoDecode] = ()
    event_retention_days: Annotated[int, Field(ge=2, le=3650)] = 30

    @field_validator("storage_url")
    @classmethod
    def _folder_or_bucket(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme == "file" and not url.netloc and url.path.startswith("/"):
            return value
        if url.scheme == "s3" and url.netloc and not url.query:
            return value
        raise ValueError("must be file:///FOLDER or s3://BUCKET/PREFIX")

    @model_validator(mode="after")
    def _whole_accounts(self) -> Self:
        for names in _SET_TOGETHER:
            if len({getattr(self, name) is None for name in names}) != 1:
                *first, last = (name.upper() for name in names)
                raise ValueError(f"{', '.join(first)} and {last} must be set together, or none of them")
        return self

    @field_validator("bandwidth_client_id")
    @classmethod
    def _id_without_colon(cls, value: str | None) -> str | None:
        if value is not None and ":" in value:
            raise ValueError("must not have a colon, which ends it in basic authentication")
        return value

    @field_validator("bandwidth_token_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        HttpUrl(value)
        return value

    @field_validator(
        "public_base_url",
        "twilio_api_base_url",
        "bandwidth_api_base_url",
        "zoom_api_base_url",
        "voicebase_api_base_url",
    )
    @classmethod
    def _url_without_path(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = HttpUrl(value)
        if url.path not in (None, "/") or url.query or url.fragment:
            raise ValueError("must be scheme, host and port only")
        return value.rstrip("/")

    @field_validator("webhook_allowed_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        parts = _comma_separated(value)
        return [ip_network(part) for part in parts] if isinstance(parts, list) else parts

    @property
    def event_retention(self) -> timedelta:
        """How long events stay in the log."""
        return timedelta(days=self.event_retention_days)

    @property
    def maximum_call_length(self) -> timedelta:
        """How long a call may last."""
        return timedelta(minutes=self.maximum_call_minutes)


class LocalSettings(BaseSettings):
    """What `python -m server run` is told; it makes the rest of `Settings` itself where the environment does not."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    common_services_port: Annotated[int, Field(ge=1, le=65535)] = 8080
    common_services_data_dir: Path = Path(".data")
    envoy_bin: Path | None = None
    database_url: SecretStr | None = None
    public_base_url: str | None = None
    encryption_keys: SecretStr | None = None
    twilio_account_sid: str | None = None
    twilio_auth_token: SecretStr | None = None
    twilio_api_base_url: str | None = None
    twilio_api_key_sid: str | None = None
    # That there is one; the rest of it is for the processes.
    bandwidth_account_id: str | None = None
    zoom_sdk_key: str | None = None
    storage_url: str | None = None
    # The receivers of a newcomer are on this machine.
    webhook_allowed_networks: str = "127.0.0.0/8,::1/128"

    @model_validator(mode="after")
    def _whole_twilio_account(self) -> Self:
        if (self.twilio_account_sid is None) != (self.twilio_auth_token is None):
            raise ValueError("TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN must be set together, or neither")
        if self.twilio_api_base_url is not None and self.twilio_account_sid is None:
            raise ValueError("TWILIO_API_BASE_URL needs TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN")
        if self.twilio_api_key_sid is not None and self.twilio_account_sid is None:
            raise ValueError("TWILIO_API_KEY_SID needs TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN")
        return self


def bad_settings(error: ValidationError) -> str:
    """One sentence that names every bad setting, and none of their values: some are secrets."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'][:1]).upper() or 'settings'}: "
        f"{problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors(include_input=False, include_url=False)
    )
