"""The verbs and nouns of voice TwiML as frozen values; `voice_twiml.py` reads them from a document.

Fields are named as the official SDK's `twilio.twiml.voice_response` names its arguments; those that Twilio gives a
value of its own where the document says nothing have that value here. URLs are as the document has them, absolute or
relative to it, and None where it has none. What a value may be is in the metadata of its field: `inner` is no attribute
but what is between the tags, `among` are words, `between` bounds, `keys` characters.
"""

from dataclasses import dataclass, field
from typing import Any, Final

# Nouns of one <Dial> that ring together.
MAX_RINGING: Final = 10

_KEYS = frozenset("0123456789*#")
_TONES = _KEYS | frozenset("wW,")
_METHODS = ("POST", "GET")
_PROGRESS = ("initiated", "ringing", "answered", "completed")
_RECORDING_EVENTS = ("in-progress", "completed", "absent")
_CONFERENCE_EVENTS = (
    *("start", "end", "join", "leave", "mute", "hold", "modify"),
    *("speaker", "announcement"),
)
_TRIMS = ("trim-silence", "do-not-trim")
_RECORDS = (
    *("do-not-record", "record-from-answer", "record-from-ringing"),
    *("record-from-answer-dual", "record-from-ringing-dual"),
)


def _among(*words: str, default: Any) -> Any:
    """A word, or several with spaces between where the type is a tuple."""
    return field(default=default, metadata={"among": words})


def _between(least: int, most: int, *, default: int | None) -> Any:
    return field(default=default, metadata={"between": (least, most)})


def _keys(allowed: frozenset[str], *, default: str | None) -> Any:
    return field(default=default, metadata={"keys": allowed})


def _inner(default: Any = ()) -> Any:
    """What is between the tags, which is no attribute."""
    return field(default=default, metadata={"inner": True})


def _method() -> Any:
    return _among(*_METHODS, default="POST")


@dataclass(frozen=True)
class Say:
    """Speaks; `text` without the tags of SSML. A `loop` of 0 speaks until the call ends."""

    text: str = _inner("")
    voice: str | None = None
    loop: int = _between(0, 1000, default=1)
    language: str | None = None


@dataclass(frozen=True)
class Play:
    """Plays a file, or where `digits` is given these tones. A `loop` of 0 plays until the call ends."""

    url: str = _inner("")
    loop: int = _between(0, 1000, default=1)
    digits: str | None = _keys(_TONES, default=None)


@dataclass(frozen=True)
class Pause:
    """Waits, so many seconds."""

    length: int = _between(0, 86_400, default=1)


Prompt = Say | Play | Pause


@dataclass(frozen=True)
class Gather:
    """Waits for digits or speech while it prompts. `num_digits` None is any number; `speech_timeout` may be `auto`.

    Without an `action` the document's own URL is asked.
    """

    prompts: tuple[Prompt, ...] = _inner()
    input: tuple[str, ...] = _among("dtmf", "speech", default=("dtmf",))
    action: str | None = None
    method: str = _method()
    timeout: int = _between(0, 3600, default=5)
    speech_timeout: str | None = None
    max_speech_time: int = _between(1, 3600, default=60)
    profanity_filter: bool = True
    finish_on_key: str = _keys(_KEYS, default="#")
    num_digits: int | None = _between(1, 1000, default=None)
    partial_result_callback: str | None = None
    partial_result_callback_method: str = _method()
    language: str = "en-US"
    hints: str | None = None
    barge_in: bool = True
    debug: bool = False
    action_on_empty_result: bool = False
    speech_model: str | None = None
    enhanced: bool = False


@dataclass(frozen=True)
class Number:
    """A telephone to dial. Thresholds are milliseconds, `machine_detection_timeout` seconds."""

    phone_number: str = _inner("")
    send_digits: str | None = _keys(_TONES, default=None)
    url: str | None = None
    method: str = _method()
    status_callback_event: tuple[str, ...] = _among(*_PROGRESS, default=("completed",))
    status_callback: str | None = None
    status_callback_method: str = _method()
    byoc: str | None = None
    machine_detection: str | None = _among("Enable", "DetectMessageEnd", default=None)
    amd_status_callback_method: str = _method()
    amd_status_callback: str | None = None
    machine_detection_timeout: int = _between(3, 60, default=30)
    machine_detection_speech_threshold: int = _between(1000, 6000, default=2400)
    machine_detection_speech_end_threshold: int = _between(500, 5000, default=1200)
    machine_detection_silence_timeout: int = _between(2000, 10_000, default=5000)


@dataclass(frozen=True)
class Parameter:
    """A value that goes along to a client, or with the end of a call."""

    name: str = ""
    value: str = ""


@dataclass(frozen=True)
class Client:
    """A browser or an app to dial, by its `identity`."""

    identity: str = _inner("")
    parameters: tuple[Parameter, ...] = _inner()
    url: str | None = None
    method: str = _method()
    status_callback_event: tuple[str, ...] = _among(*_PROGRESS, default=("completed",))
    status_callback: str | None = None
    status_callback_method: str = _method()


@dataclass(frozen=True)
class Conference:
    """A conference to come into. `beep` is one of true, false, onEnter, onExit.

    A `wait_url` of None is Twilio's own music, an empty one is silence.
    """

    name: str = _inner("")
    muted: bool = False
    beep: str = _among("true", "false", "onEnter", "onExit", default="true")
    start_conference_on_enter: bool = True
    end_conference_on_exit: bool = False
    wait_url: str | None = None
    wait_method: str = _method()
    max_participants: int = _between(2, 250, default=250)
    record: str = _among("do-not-record", "record-from-start", default="do-not-record")
    recording_configuration_id: str | None = None
    region: str | None = None
    coach: str | None = None
    trim: str = _among(*_TRIMS, default="trim-silence")
    status_callback_event: tuple[str, ...] = _among(*_CONFERENCE_EVENTS, default=())
    status_callback: str | None = None
    status_callback_method: str = _method()
    recording_status_callback: str | None = None
    recording_status_callback_method: str = _method()
    recording_status_callback_event: tuple[str, ...] = _among(*_RECORDING_EVENTS, default=("completed",))
    event_callback_url: str | None = None
    jitter_buffer_size: str = _among("small", "medium", "large", "off", default="large")
    participant_label: str | None = None


Noun = Number | Client | Conference


@dataclass(frozen=True)
class Dial:
    """Connects the call with whoever answers first, or with a conference.

    `timeout` and `time_limit` are seconds; a `caller_id` of None is the caller's own. Of `nouns` there are up to
    MAX_RINGING telephones and clients, or one conference.
    """

    nouns: tuple[Noun, ...] = _inner()
    action: str | None = None
    method: str = _method()
    timeout: int = _between(1, 600, default=30)
    hangup_on_star: bool = False
    time_limit: int = _between(1, 86_400, default=14_400)
    caller_id: str | None = None
    record: str = _among(*_RECORDS, default="do-not-record")
    trim: str = _among(*_TRIMS, default="do-not-trim")
    recording_status_callback: str | None = None
    recording_configuration_id: str | None = None
    recording_status_callback_method: str = _method()
    recording_status_callback_event: tuple[str, ...] = _among(*_RECORDING_EVENTS, default=("completed",))
    answer_on_bridge: bool = False
    ring_tone: str | None = None
    recording_track: str = _among("both", "inbound", "outbound", default="both")
    sequential: bool = False
    refer_url: str | None = None
    refer_method: str = _method()
    events: str | None = None
    passports: str | None = None


@dataclass(frozen=True)
class Record:
    """Records the caller. `timeout` is seconds of silence, 0 for any; `max_length` is seconds.

    Without an `action` the document's own URL is asked. An empty `finish_on_key` is no key.
    """

    action: str | None = None
    method: str = _method()
    timeout: int = _between(0, 3600, default=5)
    finish_on_key: str = _keys(_KEYS, default="1234567890*#")
    max_length: int = _between(2, 14_400, default=3600)
    play_beep: bool = True
    trim: str = _among(*_TRIMS, default="trim-silence")
    recording_status_callback: str | None = None
    recording_status_callback_method: str = _method()
    recording_status_callback_event: tuple[str, ...] = _among(*_RECORDING_EVENTS, default=("completed",))
    transcribe: bool = False
    transcribe_callback: str | None = None
    recording_configuration_id: str | None = None


@dataclass(frozen=True)
class Redirect:
    """Goes on with another document; an empty `url` is the document's own."""

    url: str = _inner("")
    method: str = _method()


@dataclass(frozen=True)
class Hangup:
    """Ends the call."""

    parameters: tuple[Parameter, ...] = _inner()


@dataclass(frozen=True)
class Reject:
    """Does not answer a call that comes in; as a first verb only it costs nothing."""

    parameters: tuple[Parameter, ...] = _inner()
    reason: str = _among("rejected", "busy", default="rejected")


Verb = Say | Play | Pause | Gather | Dial | Record | Redirect | Hangup | Reject
