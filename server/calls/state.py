"""What a provider's words mean for a call, and what follows from all that is known of it: pure.

Callbacks come in any order, more than once or not at all. Each is taken for the facts that it tells, which are the same
in whatever order they are put together; the status of a call is what follows from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from server.providers.voice_ports import FINAL_STATUSES

IN_PROGRESS = "in-progress"

# A leg's statuses, of which a higher one replaces a lower. A leg has one final status; of two, which no provider tells,
# it would be the higher one in whatever order they came.
LEG_STATUSES = ("queued", "initiated", "ringing", IN_PROGRESS, "busy", "no-answer", "failed", "canceled", "completed")

# A conference's events that it is shown by, and in which order they replace each other.
CONFERENCE_START = "conference-start"
PARTICIPANT_JOIN = "participant-join"
CONFERENCE_END = "conference-end"

# A recording's.
RECORDING_STATUSES = ("in-progress", "failed", "absent", "completed")

CONFERENCE = "conference"
DIRECT = "direct"
RETURN = "return"

MODERATOR = "moderator"
CONTACT = "contact"
SDK = "sdk"


class CallStatus(StrEnum):
    """`internal_status` of a call, as documented."""

    PENDING = "pending"
    INVITING = "inviting"
    CANCELED = "canceled"
    FINISHED = "finished"
    FAILED = "failed"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    VOICEMAIL = "voicemail"
    RECORDED = "recorded"
    TRANSCRIPTED = "transcripted"


_STATUS_OF_LEG = {
    "completed": CallStatus.FINISHED,
    "canceled": CallStatus.CANCELED,
    "failed": CallStatus.FAILED,
    "no-answer": CallStatus.NO_ANSWER,
    "busy": CallStatus.BUSY,
}

# Of calls that were spoken in, what becomes of the recording is told by the status too.
_SPOKEN = (CallStatus.FINISHED, CallStatus.VOICEMAIL)


@dataclass(frozen=True)
class Leg:
    """What is known of a leg. It was refused where it could not be made a call at the provider, or nothing was ever
    heard of it; withdrawn where nobody wanted it any more before it was one."""

    kind: str
    provider_status: str | None = None
    answered_by: str | None = None
    has_joined: bool = False
    is_refused: bool = False
    is_withdrawn: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.is_refused or self.is_withdrawn or self.provider_status in FINAL_STATUSES

    @property
    def has_failed(self) -> bool:
        """Whether it could not be put through."""
        return self.is_refused or self.provider_status == "failed"


@dataclass(frozen=True)
class Conference:
    """What is known of a conference beside its legs."""

    is_canceled: bool = False
    has_started: bool = False
    has_joined: bool = False
    has_ended: bool = False


@dataclass(frozen=True)
class State:
    """What follows for a call."""

    internal_status: CallStatus
    provider_status: str | None
    is_over: bool
    # Whether somebody was spoken to, or sent to voicemail, and nobody is any more: the provider has a recording of it,
    # or none.
    was_recorded: bool = False


def later(words: Sequence[str], known: str | None, told: str | None) -> str | None:
    """The one of two words that comes later in their order; a word that is not among them replaces none but nothing."""
    if known is None or told is None:
        return told or known
    if told not in words:
        return known
    return told if known not in words or words.index(told) > words.index(known) else known


def is_machine(answered_by: str | None) -> bool | None:
    """Whether what answered is a machine or a fax; None where nobody knows."""
    if answered_by is None or answered_by == "unknown":
        return None
    return answered_by.startswith("machine") or answered_by == "fax"


def better_answered_by(known: str | None, told: str | None) -> str | None:
    """What answered, of two words: a detection replaces that there was none yet; of two detections the first in order
    is kept, so that it is one in whatever order they came."""
    if known is None or told is None:
        return told or known
    if "unknown" in (known, told):
        return told if known == "unknown" else known
    return min(known, told)


def state_of_conference(conference: Conference, legs: Sequence[Leg]) -> State:
    """What follows for a conference. A moderator's machine is nobody who joined."""
    [moderator] = [leg for leg in legs if leg.kind == MODERATOR]
    contacts = [leg for leg in legs if leg.kind == CONTACT]
    has_moderator = moderator.has_joined and not is_machine(moderator.answered_by)
    has_contact = any(leg.has_joined for leg in contacts)
    is_over = (
        conference.is_canceled or conference.has_ended or moderator.is_over or all(leg.is_over for leg in contacts)
    )
    if conference.is_canceled:
        status = CallStatus.CANCELED
    elif not is_over:
        status = CallStatus.INVITING if has_moderator else CallStatus.PENDING
    elif has_moderator and has_contact:
        status = CallStatus.FINISHED
    elif moderator.has_failed or all(leg.has_failed for leg in contacts):
        status = CallStatus.FAILED
    else:
        status = CallStatus.NO_ANSWER
    was_recorded = has_moderator and has_contact and is_over and all(leg.is_over for leg in legs)
    return State(status, _last_event(conference, moderator, legs), is_over, was_recorded)


def _last_event(conference: Conference, moderator: Leg, legs: Sequence[Leg]) -> str | None:
    """The provider's last word on a conference. One that the moderator was in has ended when nobody can be in it any
    more, though its end may never be told."""
    if conference.has_ended or (moderator.has_joined and all(leg.is_over for leg in legs)):
        return CONFERENCE_END
    if conference.has_joined:
        return PARTICIPANT_JOIN
    return CONFERENCE_START if conference.has_started else None


def state_of_direct_call(legs: Sequence[Leg], *, is_recorded: bool, is_transcribed: bool) -> State:
    """What follows for a browser's call: what became of the contact's leg. One that lasted when the browser's ended has
    ended with it; a browser that hung up before the contact was called has canceled it. How a leg ended that rang then
    is told next, and waited for: an end is final."""
    [browser] = [leg for leg in legs if leg.kind == SDK]
    [contact] = [leg for leg in legs if leg.kind == CONTACT]
    if contact.provider_status in _STATUS_OF_LEG:
        status = _STATUS_OF_LEG[contact.provider_status]
    elif contact.is_over:
        status = CallStatus.FAILED if contact.is_refused else CallStatus.CANCELED
    elif browser.is_over and contact.provider_status == IN_PROGRESS:
        status = CallStatus.FINISHED
    elif browser.is_over and contact.provider_status is None:
        status = CallStatus.FAILED if browser.has_failed else CallStatus.CANCELED
    else:
        return State(CallStatus.PENDING, contact.provider_status, is_over=False)
    return State(
        _with_recording(status, is_recorded, is_transcribed),
        contact.provider_status,
        is_over=True,
        was_recorded=status in _SPOKEN,
    )


def state_of_return_call(legs: Sequence[Leg], *, has_voicemail: bool, is_recorded: bool, is_transcribed: bool) -> State:
    """What follows for a contact's call: whether they were sent to voicemail, else whether a staff member answered.

    `provider_status` is the contact's own leg's, which lasts while they listen to the menu.
    """
    [contact] = [leg for leg in legs if leg.kind == CONTACT]
    answered = [leg for leg in legs if leg.kind == SDK and leg.provider_status in (IN_PROGRESS, "completed")]
    if has_voicemail:
        status = CallStatus.VOICEMAIL
    elif answered and (contact.is_over or all(leg.is_over for leg in answered)):
        status = CallStatus.FINISHED
    elif contact.is_over:
        status = CallStatus.FAILED if contact.has_failed else CallStatus.NO_ANSWER
    else:
        return State(CallStatus.PENDING, contact.provider_status, is_over=False)
    return State(
        _with_recording(status, is_recorded, is_transcribed),
        contact.provider_status,
        is_over=True,
        # Who was sent to voicemail may be speaking still.
        was_recorded=status in _SPOKEN and contact.is_over,
    )


def _with_recording(status: CallStatus, is_recorded: bool, is_transcribed: bool) -> CallStatus:
    if status not in _SPOKEN:
        return status
    if is_transcribed:
        return CallStatus.TRANSCRIPTED
    return CallStatus.RECORDED if is_recorded else status
