"""The one place where URLs are made that Twilio asks, or tells, about calls.

All are absolute, and what they name is read by `voice_callbacks.py`. Each is asked again where an answer was lost,
which would else end the call: whatever is told or pressed twice counts once.
"""

from urllib.parse import urlencode
from uuid import UUID

from server.providers.twilio.overrides import RETRIES


class VoiceUrls:
    """The URLs of one server, which Twilio reaches at `public_base_url`."""

    def __init__(self, public_base_url: str) -> None:
        self._folder = f"{public_base_url}/api/v1/twilio_calls"

    def leg_answer(self, *, conference_uuid: UUID, leg_uuid: UUID) -> str:
        """Asked for the script of a conference's leg, once it is answered."""
        return self._url("voice_responses", conference_uuid=conference_uuid, leg_uuid=leg_uuid)

    def welcomed_leg_answer(self, *, conference_uuid: UUID, leg_uuid: UUID) -> str:
        """Asked the same again, once the welcome message was heard."""
        return self._url("voice_responses", conference_uuid=conference_uuid, leg_uuid=leg_uuid, welcomed=1)

    def leg_progress(self, *, call_uuid: UUID, leg_uuid: UUID) -> str:
        """Told of a leg's progress, and of what was detected."""
        return self._url("participant_status_changes", call_uuid=call_uuid, leg_uuid=leg_uuid)

    def conference_event(self, *, conference_uuid: UUID) -> str:
        """Told of a conference's events."""
        return self._url("conference_status_changes", conference_uuid=conference_uuid)

    def recording(self, *, call_uuid: UUID) -> str:
        """Told of a recording's status."""
        return self._url("recording_status_changes", call_uuid=call_uuid)

    def voicemail(self, *, call_uuid: UUID) -> str:
        """Told of a voicemail, by the verb that records it and by its recording's status."""
        return self._url("create_voicemail", call_uuid=call_uuid)

    def dial_result(self, *, call_uuid: UUID) -> str:
        """Asked what comes after a dial."""
        return self._url("dial_results", call_uuid=call_uuid)

    def menu_choice(self, *, call_uuid: UUID, attempt: int) -> str:
        """Told what was pressed, and asked what comes of it."""
        return self._url("return_call_menu", call_uuid=call_uuid, attempt=attempt)

    def _url(self, path: str, **query: UUID | int) -> str:
        return f"{self._folder}/{path}?{urlencode(query)}{RETRIES}"
