"""What the voice exchange keeps: calls, conferences, who is in them, recordings, and what went wrong.

Times are Unix seconds of the real clock. Durations are whole seconds of the simulated one, which may run faster.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Direction(StrEnum):
    """Twilio's words for who called whom; a call that a <Dial> makes is the child of the one that dials."""

    INBOUND = "inbound"
    OUTBOUND = "outbound-api"
    DIAL = "outbound-dial"


class CallStatus(StrEnum):
    """Where a call is. The REST API shows INITIATED as `queued`; callbacks never tell of QUEUED."""

    QUEUED = "queued"
    INITIATED = "initiated"
    RINGING = "ringing"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    BUSY = "busy"
    FAILED = "failed"
    NO_ANSWER = "no-answer"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        """Whether nothing comes after it."""
        return self in _FINAL


_FINAL = frozenset(
    {CallStatus.COMPLETED, CallStatus.BUSY, CallStatus.FAILED, CallStatus.NO_ANSWER, CallStatus.CANCELED}
)


class ConferenceStatus(StrEnum):
    """INIT while somebody waits for it to start."""

    INIT = "init"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"


class ParticipantStatus(StrEnum):
    """Where a participant's call is. One that a <Dial> brings is CONNECTED from the first."""

    QUEUED = "queued"
    CONNECTING = "connecting"
    RINGING = "ringing"
    CONNECTED = "connected"
    COMPLETE = "complete"
    FAILED = "failed"


class RecordingStatus(StrEnum):
    """Twilio's words; ABSENT is one in which there is nothing. Nobody is told of PROCESSING."""

    IN_PROGRESS = "in-progress"
    PROCESSING = "processing"
    COMPLETED = "completed"
    ABSENT = "absent"


@dataclass(frozen=True)
class Webhook:
    """A URL of the account's, and how it is asked: POST or GET."""

    url: str
    method: str = "POST"


# What a call does: the URL that answers it, or TwiML itself.
Document = Webhook | str


@dataclass(frozen=True)
class StatusCallback:
    """Where events are told, and which. Of a call: initiated, ringing, answered, completed. Of a conference: start,
    end, join, leave, mute, hold, modify, announcement. Of a recording: in-progress, completed, absent."""

    url: str
    method: str = "POST"
    events: frozenset[str] = frozenset({"completed"})

    @property
    def webhook(self) -> Webhook:
        """Where, without which."""
        return Webhook(self.url, self.method)


@dataclass(frozen=True)
class MachineDetection:
    """Whether a person answers. With `async_callback` the call goes on meanwhile, and that URL is told the outcome."""

    mode: str = "Enable"
    async_callback: Webhook | None = None

    @property
    def waits_for_the_end(self) -> bool:
        """Whether a machine's greeting is heard out (DetectMessageEnd)."""
        return self.mode == "DetectMessageEnd"


@dataclass(frozen=True)
class Heard:
    """What whoever is on the phone heard, and when it began. `kind` is the verb: say, play, gather, record or dial.

    `text` is what was said, the URL or the tones that were played, and of a dial who was dialled; of others empty.
    """

    at: float
    kind: str
    text: str


@dataclass
class Call:
    """One call, between Twilio and one phone or browser. `timeout` and `time_limit` are simulated seconds.

    `base_url` is where the account reaches this sandbox; URLs of recordings begin with it.
    """

    sid: str
    to: str
    from_: str
    direction: Direction
    created: float
    base_url: str
    status: CallStatus = CallStatus.QUEUED
    parent_call_sid: str | None = None
    # AnsweredBy, once detection has found it out.
    answered_by: str | None = None
    # When it was answered, and when it was over.
    started: float | None = None
    ended: float | None = None
    # 0 of a call that nobody answered, None of one that lasts.
    duration: int | None = None
    document: Document | None = None
    status_callback: StatusCallback | None = None
    timeout: int = 60
    time_limit: int = 14_400
    machine_detection: MachineDetection | None = None
    # The TwiML App of a browser's call, and what the browser said with it.
    application_sid: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    # In the order it was heard.
    heard: list[Heard] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.status.is_final

    @property
    def rest_status(self) -> str:
        """The status as the REST API shows it."""
        return CallStatus.QUEUED if self.status is CallStatus.INITIATED else self.status


@dataclass
class Participant:
    """A call in a conference; it stays listed when it has left."""

    call_sid: str
    conference_sid: str
    created: float
    updated: float
    label: str | None = None
    muted: bool = False
    hold: bool = False
    start_conference_on_enter: bool = True
    end_conference_on_exit: bool = False
    status: ParticipantStatus = ParticipantStatus.CONNECTED
    # Whether it is in the conference now, and why it left.
    is_present: bool = False
    reason_left: str | None = None


@dataclass
class Conference:
    """A conference, from the first call that comes until the end; then the name is free for another."""

    sid: str
    friendly_name: str
    created: float
    updated: float
    base_url: str
    status: ConferenceStatus = ConferenceStatus.INIT
    # ReasonConferenceEnded, and the call whose leaving ended it.
    reason_ended: str | None = None
    call_sid_ending: str | None = None
    # By the sid of the call, in the order they came.
    participants: dict[str, Participant] = field(default_factory=dict)

    @property
    def present(self) -> list[Participant]:
        """Who is in it now."""
        return [participant for participant in self.participants.values() if participant.is_present]


@dataclass
class Recording:
    """A recording of a call or of a conference; its file is there once it is COMPLETED.

    `source` is Twilio's word for what asked for it: RecordVerb, DialVerb or Conference.
    """

    sid: str
    source: str
    channels: int
    start_time: float
    base_url: str
    # Of <Record> the call, of <Dial> the parent; None of a conference.
    call_sid: str | None = None
    conference_sid: str | None = None
    status: RecordingStatus = RecordingStatus.IN_PROGRESS
    duration: int | None = None
    ended: float | None = None
    error_code: int | None = None


@dataclass(frozen=True)
class Problem:
    """What Twilio's debugger would show: its code (11200 and others), the URL it was about, and words for a person."""

    at: float
    code: int
    message: str
    url: str | None
    call_sid: str | None


@dataclass(frozen=True)
class Entry:
    """How a call enters a conference: what a <Conference> noun or the creation of a participant says.

    Of callbacks and recording only the first participant's count, as at Twilio.
    """

    label: str | None = None
    muted: bool = False
    start_conference_on_enter: bool = True
    end_conference_on_exit: bool = False
    status_callback: StatusCallback | None = None
    record: bool = False
    recording_status_callback: StatusCallback | None = None


class NotFound(Exception):
    """There is no such call, conference, participant or recording; the text names it."""


class NotInProgress(Exception):
    """What is over, or has not begun, cannot do what is asked; the text says which."""
