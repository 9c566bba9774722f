"""One Twilio account, as every part of the adapter is told it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TwilioAccount:
    """Whose calls and messages they are. With an `api_base_url` all of Twilio's hosts are that one."""

    sid: str
    auth_token: str = field(repr=False)
    api_base_url: str | None = None
