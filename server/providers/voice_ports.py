"""What the domain of calls may see of a provider: values, what it may ask for, and how its callbacks are read.

Statuses, events and detection results are the provider's own words; `server/calls` gives them their ranks and meaning.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from server.providers.ports import ProviderError, SignedRequest


@dataclass(frozen=True)
class OutboundCall:
    """A leg of a conference as a provider is asked to dial it. What is told of it names call_uuid and leg_uuid; once it
    is answered, by whom is detected and its script is asked for with conference_uuid and leg_uuid."""

    call_uuid: UUID
    conference_uuid: UUID
    leg_uuid: UUID
    from_number: str
    to_number: str
    ring_for: timedelta
    # The longest that it may last.
    time_limit: timedelta


@dataclass(frozen=True)
class LegReport:
    """What a provider says of a leg when it is asked, or answers when it takes one."""

    call_sid: str
    # `queued`, `initiated`, `ringing`, `in-progress`, `completed`, `busy`, `failed`, `no-answer`, `canceled`.
    provider_status: str
    # `human`, `machine_start`, `fax`, `unknown`, …; None where nothing was detected.
    answered_by: str | None = None
    ended_at: datetime | None = None
    # The call that dialled it, if one did.
    parent_call_sid: str | None = None


@dataclass(frozen=True)
class RecordingReport:
    """A callback about a recording, or what a provider says of it when it is asked."""

    recording_sid: str
    # `in-progress`, `completed`, `absent` or `failed`; of a `<Record>`'s own action, which says none, `in-progress`.
    # One that has ended and is not ready yet is in progress too.
    provider_status: str
    url: str | None
    # Seconds.
    duration: int | None
    channels: int | None
    call_sid: str | None
    conference_sid: str | None
    call_uuid: UUID | None
    # What had it made: `RecordVerb`, `DialVerb`, `Conference`, …; None where the provider does not say.
    source: str | None = None


class CallGone(Exception):
    """What was to be changed is over, or never was: there is nothing to change."""


class VoiceCalls(Protocol):
    """Makes and changes calls through one provider account."""

    async def dial(self, call: OutboundCall) -> LegReport:
        """Begin the leg. Raises ProviderRejected, ProviderUnavailable or ProviderOutcomeUnknown."""
        ...

    async def find_copies(self, call: OutboundCall, *, since: datetime) -> list[LegReport]:
        """The provider's calls between the same numbers made since then, oldest first: of one of them this leg's create
        may have been the maker. Raises ProviderUnavailable."""
        ...

    async def fetch(self, call_sid: str) -> LegReport | None:
        """What the provider says of a leg now; None where it has none. Raises ProviderUnavailable."""
        ...

    async def hang_up(self, call_sid: str) -> None:
        """End a leg, also one that still rings. Raises CallGone, ProviderRejected or ProviderUnavailable."""
        ...

    async def update_participant(self, conference_sid: str, call_sid: str, *, muted: bool, hold: bool) -> None:
        """Have somebody in a conference so. Raises CallGone, ProviderRejected or ProviderUnavailable."""
        ...

    async def list_recordings(
        self, *, call_sids: Sequence[str], conference_sid: str | None, conference_uuid: UUID | None
    ) -> list[RecordingReport]:
        """What the provider has recorded of these calls and of the conference, each once. A conference whose sid nobody
        was told is found by the name that its legs were given. Raises ProviderUnavailable."""
        ...

    async def delete_recording(self, recording_sid: str) -> None:
        """Delete the provider's copy, if there is one. Raises ProviderRejected or ProviderUnavailable."""
        ...

    async def aclose(self) -> None:
        """Release the connections."""
        ...


@dataclass(frozen=True)
class LegProgress:
    """A callback about one leg: `leg_uuid` is ours, where the URL named it."""

    call_sid: str
    # None in the callback of a detection that ended after the answer.
    provider_status: str | None
    answered_by: str | None
    occurred_at: datetime | None
    to_number: str
    # The provider's code of what went wrong, where it says one.
    error: ProviderError | None
    # What the network answered, once it is over: a SIP response code (RFC 3261), such as 404; None where nobody says.
    sip_response_code: int | None
    leg_uuid: UUID | None


@dataclass(frozen=True)
class LegAnswer:
    """A leg of a conference asks for its script; the second time it is one that has heard the welcome message."""

    progress: LegProgress
    conference_uuid: UUID
    is_welcomed: bool


@dataclass(frozen=True)
class ConferenceEvent:
    """A callback about a conference."""

    # `conference-start`, `participant-join`, `participant-leave`, `conference-end`, …
    name: str
    conference_sid: str
    # Where the URL, or else the conference's name, has ours.
    conference_uuid: UUID | None
    call_sid: str | None
    occurred_at: datetime | None
    # Of somebody who left: `in-progress`, `completed`, `no-answer`, ….
    participant_call_status: str | None


@dataclass(frozen=True)
class IncomingCall:
    """A call to one of our numbers, or a browser's that asks what to dial.

    Of a contact's call the numbers are as the provider spells them. Of a browser's `from_identity` is its identity, and
    `parameters` are those that its token or its page gave.
    """

    call_sid: str
    provider_status: str
    from_number: str
    to_number: str
    from_identity: str | None
    parameters: dict[str, str]


@dataclass(frozen=True)
class MenuChoice:
    """What was pressed in a menu: nothing is an empty string. `attempt` counts from 1."""

    call_uuid: UUID
    digits: str
    attempt: int


@dataclass(frozen=True)
class DialResult:
    """How a dial inside a call ended: `completed`, `answered`, `busy`, `no-answer`, `failed` or `canceled`."""

    call_sid: str
    call_uuid: UUID
    # Of the call that dialled: it is over where its caller hung up. None where the provider does not say.
    provider_status: str | None
    dial_status: str
    dial_call_sid: str | None


class VoiceCallbackReader(Protocol):
    """Proves and reads a provider's callbacks about calls: each verifies the signature on the raw request, and raises
    SignatureInvalid or CallbackMalformed."""

    def read_incoming_call(self, request: SignedRequest) -> IncomingCall:
        """A call to one of our numbers, or a browser's."""
        ...

    def read_leg_answer(self, request: SignedRequest) -> LegAnswer:
        """A leg of a conference that asks for its script."""
        ...

    def read_leg_progress(self, request: SignedRequest) -> LegProgress:
        """The progress of a leg, or what detected who answered it."""
        ...

    def read_conference_event(self, request: SignedRequest) -> ConferenceEvent:
        """An event of a conference."""
        ...

    def read_recording(self, request: SignedRequest) -> RecordingReport:
        """A recording's status, or a `<Record>`'s result."""
        ...

    def read_menu_choice(self, request: SignedRequest) -> MenuChoice:
        """Digits, or that there were none."""
        ...

    def read_dial_result(self, request: SignedRequest) -> DialResult:
        """How a dial ended."""
        ...

    def verify(self, request: SignedRequest) -> None:
        """That a request without a body to read is the provider's."""
        ...


class CallScripts(Protocol):
    """Writes what the provider is to do in a call: TwiML documents, as bytes of text/xml."""

    def welcome(self, *, conference_uuid: UUID, leg_uuid: UUID, welcome_message: str) -> bytes:
        """Speak the message, then ask for the leg's script as one that has heard it: who hangs up before never does."""
        ...

    def join_conference(
        self, *, call_uuid: UUID, conference_uuid: UUID, is_moderator: bool, time_limit: timedelta
    ) -> bytes:
        """Join the conference, which is recorded from its start."""
        ...

    def dial_contact(
        self, *, call_uuid: UUID, leg_uuid: UUID, caller_id: str, phone_number: str, time_limit: timedelta
    ) -> bytes:
        """A browser's call goes on to a phone, recorded from the answer; then `dial_results` is asked."""
        ...

    def return_call_menu(self, *, call_uuid: UUID, attempt: int, pressed: str | None, opted_out: bool) -> bytes:
        """The menu's choices, and the wait for a digit. What was `pressed` before is none of them, which is said first:
        None at the first attempt, empty where it was nothing."""
        ...

    def ring_browser(
        self, *, call_uuid: UUID, leg_uuid: UUID, identity: str, caller_id: str, time_limit: timedelta
    ) -> bytes:
        """Ring the staff member's browsers, recorded from the answer; then `dial_results` is asked."""
        ...

    def take_voicemail(self, *, call_uuid: UUID) -> bytes:
        """Say so, and record after the tone."""
        ...

    def say_and_hang_up(self, text: str) -> bytes:
        """Speak, then end the call."""
        ...

    def say(self, text: str) -> bytes:
        """Speak, no more."""
        ...

    def hang_up(self) -> bytes:
        """End the call."""
        ...


class VoiceTokens(Protocol):
    """Signs tokens that browsers call with."""

    def sign(self, *, identity: str, voice_token_uuid: UUID, issued_at: datetime, ttl: timedelta) -> str:
        """An access token for the identity, to be rung and to call: its calls name voice_token_uuid."""
        ...


class CallRecordingFetcher(Protocol):
    """Fetches recordings with the provider's credentials."""

    def open(self, url: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The file, a WAV, as it arrives. Raises MediaRefused where it will never be had, ProviderUnavailable where
        later may do, also while it arrives."""
        ...

    async def aclose(self) -> None:
        """Release the connections."""
        ...


# The parameter of a browser's call that names the token's uuid.
VOICE_TOKEN_PARAMETER = "voice_token_uuid"  # noqa: S105 no secret

# The words a provider has for a leg that is over.
FINAL_STATUSES: Sequence[str] = ("completed", "busy", "failed", "no-answer", "canceled")
