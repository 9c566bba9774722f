"""What Twilio posts of calls: every kind as it is documented, and how it is signed."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest

from server.providers.ports import SignedRequest
from server.providers.sandbox.callbacks import signature
from server.providers.twilio.voice_callbacks import TwilioVoiceCallbackReader
from server.providers.twilio.voice_urls import VoiceUrls

FORM = "application/x-www-form-urlencoded; charset=UTF-8"
TOKEN = "SKXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"
READER = TwilioVoiceCallbackReader(auth_token=TOKEN)
URLS = VoiceUrls("https://api.example")

CALL = UUID("0198c8a4-2b1c-7000-8000-00000000000c")
CONFERENCE = UUID("0198c8a4-2b1c-7000-8000-0000000000cf")
LEG = UUID("0198c8a4-2b1c-7000-8000-000000000001")

INCOMING_URL = "https://api.example/api/v1/twilio_calls/incoming"
SDK_URL = "https://api.example/api/v1/sdk_calls/response"
LEG_ANSWER_URL = URLS.leg_answer(conference_uuid=CONFERENCE, leg_uuid=LEG)
LEG_PROGRESS_URL = URLS.leg_progress(call_uuid=CALL, leg_uuid=LEG)
CONFERENCE_URL = URLS.conference_event(conference_uuid=CONFERENCE)
RECORDING_URL = URLS.recording(call_uuid=CALL)
MENU_URL = URLS.menu_choice(call_uuid=CALL, attempt=2)
DIAL_URL = URLS.dial_result(call_uuid=CALL)

CALL_SID = "CA" + "1" * 32
AT = datetime(2026, 11, 23, 9, 0, 5, tzinfo=UTC)
TIMESTAMP = "Mon, 23 Nov 2026 09:00:05 +0000"

# What Twilio posts of every call of a contact's.
CALL_BLOCK = {
    "AccountSid": "AC" + "1" * 32,
    "ApiVersion": "2010-04-01",
    "CallSid": CALL_SID,
    "CallStatus": "ringing",
    "Called": "+12065550100",
    "CalledCity": "SEATTLE",
    "CalledCountry": "US",
    "CalledState": "WA",
    "CalledZip": "98101",
    "Caller": "+14155550123",
    "CallerCity": "SAN FRANCISCO",
    "CallerCountry": "US",
    "CallerState": "CA",
    "CallerZip": "94102",
    "Direction": "inbound",
    "From": "+14155550123",
    "FromCity": "SAN FRANCISCO",
    "FromCountry": "US",
    "FromState": "CA",
    "FromZip": "94102",
    "StirVerstat": "TN-Validation-Passed-A",
    "To": "+12065550100",
    "ToCity": "SEATTLE",
    "ToCountry": "US",
    "ToState": "WA",
    "ToZip": "98101",
}
PROGRESS = CALL_BLOCK | {
    "CallStatus": "completed",
    "CallDuration": "61",
    "Duration": "2",
    "CallbackSource": "call-progress-events",
    "SequenceNumber": "3",
    "SipResponseCode": "200",
    "Timestamp": TIMESTAMP,
    "AnsweredBy": "machine_start",
    "ParentCallSid": "CA" + "2" * 32,
}
SDK = {
    "AccountSid": "AC" + "1" * 32,
    "ApiVersion": "2010-04-01",
    "ApplicationSid": "AP" + "3" * 32,
    "CallSid": CALL_SID,
    "CallStatus": "ringing",
    "Called": "",
    "Caller": "client:staff_7",
    "Direction": "inbound",
    "From": "client:staff_7",
    "To": "+14155550123",
    "voice_token_uuid": str(LEG),
    "client_conversation_id": "c-1",
}
CONFERENCE_EVENT = {
    "AccountSid": "AC" + "1" * 32,
    "CallSid": CALL_SID,
    "Coaching": "false",
    "ConferenceSid": "CF" + "1" * 32,
    "EndConferenceOnExit": "false",
    "FriendlyName": str(CONFERENCE),
    "Hold": "false",
    "Muted": "false",
    "ParticipantCallStatus": "completed",
    "ReasonParticipantLeft": "participant_hung_up",
    "SequenceNumber": "4",
    "StartConferenceOnEnter": "false",
    "StatusCallbackEvent": "participant-leave",
    "Timestamp": TIMESTAMP,
}
RECORDING = {
    "AccountSid": "AC" + "1" * 32,
    "CallSid": CALL_SID,
    "ErrorCode": "0",
    "RecordingChannels": "2",
    "RecordingDuration": "17",
    "RecordingSid": "RE" + "1" * 32,
    "RecordingSource": "DialVerb",
    "RecordingStartTime": TIMESTAMP,
    "RecordingStatus": "completed",
    "RecordingTrack": "both",
    "RecordingUrl": "https://api.twilio.com/2010-04-01/Accounts/AC1/Recordings/RE1",
}
MENU = CALL_BLOCK | {"CallStatus": "in-progress", "Digits": "1", "FinishedOnKey": "", "msg": "Gather End"}
DIAL = CALL_BLOCK | {
    "CallStatus": "in-progress",
    "DialBridged": "false",
    "DialCallSid": "CA" + "2" * 32,
    "DialCallStatus": "no-answer",
}

# Each kind: how it is read, where it is posted, and what is posted.
KINDS: dict[str, tuple[Callable[[SignedRequest], Any], str, dict[str, str]]] = {
    "incoming call": (READER.read_incoming_call, INCOMING_URL, CALL_BLOCK),
    "browser's call": (READER.read_incoming_call, SDK_URL, SDK),
    "leg answer": (READER.read_leg_answer, LEG_ANSWER_URL, PROGRESS),
    "leg progress": (READER.read_leg_progress, LEG_PROGRESS_URL, PROGRESS),
    "conference event": (READER.read_conference_event, CONFERENCE_URL, CONFERENCE_EVENT),
    "recording": (READER.read_recording, RECORDING_URL, RECORDING),
    "menu choice": (READER.read_menu_choice, MENU_URL, MENU),
    "dial result": (READER.read_dial_result, DIAL_URL, DIAL),
}
every_kind = pytest.mark.parametrize(("read", "url", "fields"), KINDS.values(), ids=KINDS)


def signed(url: str, fields: dict[str, str], *, token: str = TOKEN, body: str | None = None) -> SignedRequest:
    """A request as Twilio makes it, which keeps a URL's fragment to itself."""
    url = url.partition("#")[0]
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature(token, url, fields)}
    return SignedRequest(url=url, body=(urlencode(fields) if body is None else body).encode(), headers=headers)


def without(fields: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name not in names}
