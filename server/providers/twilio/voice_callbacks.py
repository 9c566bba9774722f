"""Proves and reads Twilio's callbacks about calls. Imports no HTTP client: every api process loads this."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from server.providers.ports import CallbackMalformed, ProviderError, SignedRequest
from server.providers.twilio import statuses
from server.providers.twilio.signature import Verifier
from server.providers.voice_ports import (
    ConferenceEvent,
    DialResult,
    IncomingCall,
    LegAnswer,
    LegProgress,
    MenuChoice,
    RecordingReport,
)

_CLIENT = "client:"

# Of the action of a `<Record>`, which says no status: the file may not be there yet.
_RECORDED = "in-progress"

# What Twilio says of every call; the other fields of a browser's are its token's and its page's own. `To` is both.
_PLACES = ("City", "State", "Zip", "Country")
_OF_EVERY_CALL = frozenset(
    {
        *("AccountSid", "ApiVersion", "ApplicationSid", "CallSid", "CallStatus", "CallToken", "CallerId", "CallerName"),
        *("Called", "Caller", "From", "Direction", "ForwardedFrom", "ParentCallSid", "AddOns", "MessagingServiceSid"),
        *("CallbackSource", "SequenceNumber", "Timestamp", "SipResponseCode", "ErrorCode", "ErrorUrl"),
        *("StirStatus", "StirVerstat", "StirPassportToken", "CallDuration", "Duration", "AnsweredBy"),
        *(f"{party}{place}" for party in ("To", "From", "Called", "Caller") for place in _PLACES),
    }
)

# More digits than anything that is counted in seconds, channels or attempts has.
_MOST_DIGITS = 9


class TwilioVoiceCallbackReader:
    """voice_ports.VoiceCallbackReader for callbacks signed with one account's auth token.

    Words are passed on as they are, also those that Twilio adds later. Numbers and times that are none are left out.
    """

    def __init__(self, *, auth_token: str) -> None:
        self._verifier = Verifier(auth_token=auth_token)

    def read_incoming_call(self, request: SignedRequest) -> IncomingCall:
        """A call to one of our numbers, or a browser's, of which alone there need not be a `To`."""
        fields = self._verifier.storable_fields(request)
        from_number = fields.get("From", "")
        is_client = from_number.startswith(_CLIENT)
        _need(fields, "CallSid", "CallStatus", "From", *([] if is_client else ["To"]))
        return IncomingCall(
            call_sid=fields["CallSid"],
            provider_status=fields["CallStatus"],
            from_number=from_number,
            to_number=fields.get("To", ""),
            from_identity=from_number.removeprefix(_CLIENT) if is_client else None,
            parameters=_parameters(fields) if is_client else {},
        )

    def read_leg_answer(self, request: SignedRequest) -> LegAnswer:
        """A leg of a conference that asks for its script."""
        fields = self._verifier.storable_fields(request)
        query = _Query(request.url)
        _need(fields, "CallSid", "CallStatus", query=query, named=("conference_uuid",))
        return LegAnswer(
            progress=_progress(fields, query),
            conference_uuid=query.needed_uuid("conference_uuid"),
            is_welcomed=query.get("welcomed") is not None,
        )

    def read_leg_progress(self, request: SignedRequest) -> LegProgress:
        """The progress of a leg. Of a detection there is no status, and of the number only what Twilio says."""
        fields = self._verifier.storable_fields(request)
        _need(fields, "CallSid", *([] if fields.get("AnsweredBy") else ["CallStatus"]))
        return _progress(fields, _Query(request.url))

    def read_conference_event(self, request: SignedRequest) -> ConferenceEvent:
        """An event of a conference."""
        fields = self._verifier.storable_fields(request)
        _need(fields, "StatusCallbackEvent", "ConferenceSid")
        return ConferenceEvent(
            name=fields["StatusCallbackEvent"],
            conference_sid=fields["ConferenceSid"],
            conference_uuid=_Query(request.url).uuid("conference_uuid") or _uuid(fields.get("FriendlyName", "")),
            call_sid=fields.get("CallSid") or None,
            occurred_at=_time(fields.get("Timestamp")),
            participant_call_status=fields.get("ParticipantCallStatus") or None,
        )

    def read_recording(self, request: SignedRequest) -> RecordingReport:
        """A recording's status, or a `<Record>`'s result."""
        fields = self._verifier.storable_fields(request)
        _need(fields, "RecordingSid")
        return RecordingReport(
            recording_sid=fields["RecordingSid"],
            provider_status=fields.get("RecordingStatus") or _RECORDED,
            url=fields.get("RecordingUrl") or None,
            duration=_count(fields.get("RecordingDuration")),
            channels=_count(fields.get("RecordingChannels")),
            call_sid=fields.get("CallSid") or None,
            conference_sid=fields.get("ConferenceSid") or None,
            call_uuid=_Query(request.url).uuid("call_uuid"),
            source=fields.get("RecordingSource") or None,
        )

    def read_menu_choice(self, request: SignedRequest) -> MenuChoice:
        """Digits, or that there were none."""
        fields = self._verifier.storable_fields(request)
        query = _Query(request.url)
        _need(fields, "CallSid", query=query, named=("call_uuid", "attempt"))
        attempt = _count(query.get("attempt"))
        if not attempt:
            raise CallbackMalformed("attempt in the URL is not a number from 1")
        return MenuChoice(
            call_uuid=query.needed_uuid("call_uuid"),
            digits=fields.get("Digits", ""),
            attempt=attempt,
        )

    def read_dial_result(self, request: SignedRequest) -> DialResult:
        """How a dial ended."""
        fields = self._verifier.storable_fields(request)
        query = _Query(request.url)
        _need(fields, "CallSid", "DialCallStatus", query=query, named=("call_uuid",))
        return DialResult(
            call_sid=fields["CallSid"],
            call_uuid=query.needed_uuid("call_uuid"),
            provider_status=fields.get("CallStatus") or None,
            dial_status=fields["DialCallStatus"],
            dial_call_sid=fields.get("DialCallSid") or None,
        )

    def verify(self, request: SignedRequest) -> None:
        """That a request without a body to read is Twilio's."""
        self._verifier.fields(request)


class _Query:
    """What we have named in the URL that was called."""

    def __init__(self, url: str) -> None:
        self._values = parse_qs(urlsplit(url).query)

    def get(self, name: str) -> str | None:
        return self._values[name][0] if name in self._values else None

    def uuid(self, name: str) -> UUID | None:
        """None where the URL has none; one that is no UUID is malformed."""
        value = self.get(name)
        if value is None:
            return None
        found = _uuid(value)
        if found is None:
            raise CallbackMalformed(f"{name} in the URL is not a UUID")
        return found

    def needed_uuid(self, name: str) -> UUID:
        found = self.uuid(name)
        assert found is not None, "missed before"
        return found


def _need(fields: Mapping[str, str], *names: str, query: _Query | None = None, named: tuple[str, ...] = ()) -> None:
    missing = [name for name in names if not fields.get(name)]
    missing += [f"{name} in the URL" for name in named if query is None or not query.get(name)]
    if missing:
        raise CallbackMalformed(f"missing: {', '.join(missing)}")


def _progress(fields: Mapping[str, str], query: _Query) -> LegProgress:
    return LegProgress(
        call_sid=fields["CallSid"],
        provider_status=fields.get("CallStatus") or None,
        answered_by=fields.get("AnsweredBy") or None,
        occurred_at=_time(fields.get("Timestamp")),
        to_number=fields.get("To", ""),
        error=_error(fields.get("ErrorCode")),
        # Of a call that is over: 404 of a number that is not reachable, 487 of one that did not answer in time
        # (https://www.twilio.com/docs/voice/api/call-resource#statuscallback).
        sip_response_code=_count(fields.get("SipResponseCode")),
        leg_uuid=query.uuid("leg_uuid"),
    )


def _parameters(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name not in _OF_EVERY_CALL}


def _error(code: str | None) -> ProviderError | None:
    return statuses.provider_error(str(number)) if (number := _count(code)) else None


def _time(value: str | None) -> datetime | None:
    """A time of RFC 2822, in UTC; None of what is none."""
    try:
        at = parsedate_to_datetime(value or "")
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, IndexError, OverflowError):
        return None


def _count(value: str | None) -> int | None:
    if value is None or not (value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS):
        return None
    return int(value)


def _uuid(value: str) -> UUID | None:
    try:
        return UUID(value)
    except ValueError:
        return None
