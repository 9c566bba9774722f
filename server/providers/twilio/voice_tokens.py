"""Signs the tokens that browsers call and are called with: access tokens with a voice grant."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from twilio.jwt.access_token import AccessToken
from twilio.jwt.access_token.grants import VoiceGrant

from server.providers.voice_ports import VOICE_TOKEN_PARAMETER


class TwilioVoiceTokens:
    """voice_ports.VoiceTokens, signed with an API key; a browser's call asks the TwiML App what to dial."""

    def __init__(self, *, account_sid: str, api_key_sid: str, api_key_secret: str, twiml_app_sid: str) -> None:
        self._account_sid = account_sid
        self._api_key_sid = api_key_sid
        self._api_key_secret = api_key_secret
        self._twiml_app_sid = twiml_app_sid

    def sign(self, *, identity: str, voice_token_uuid: UUID, issued_at: datetime, ttl: timedelta) -> str:
        """The token. Twilio takes none that is good for more than a day."""
        seconds = int(issued_at.timestamp())
        grant = VoiceGrant(
            incoming_allow=True,
            outgoing_application_sid=self._twiml_app_sid,
            outgoing_application_params={VOICE_TOKEN_PARAMETER: str(voice_token_uuid)},
        )
        token = _Token(
            self._account_sid,
            self._api_key_sid,
            self._api_key_secret,
            identity=identity,
            grants=[grant],
            # Left out: a server whose clock is a moment ahead would sign what is not good yet.
            nbf=None,
            valid_until=seconds + int(ttl.total_seconds()),
        )
        token.issued_at = seconds
        return str(token.to_jwt())


class _Token(AccessToken):  # type: ignore[misc] # the SDK publishes no types
    """The SDK's token, with the time it is told for the process's."""

    issued_at: int

    def _generate_payload(self) -> dict[str, Any]:
        named = {"jti": f"{self.signing_key_sid}-{self.issued_at}", "iat": self.issued_at}
        return {**super()._generate_payload(), **named}
