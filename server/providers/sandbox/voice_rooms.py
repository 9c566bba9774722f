"""Conferences: who comes into them and leaves, when they start and end, and what the account is told of it.

A conference starts when two are in it and one of them has startConferenceOnEnter; whoever is alone hears music. So
says twilio.com/docs/voice/twiml/conference of the event `start`, and that a recording begins then.
"""

import asyncio
import itertools
import secrets
from contextlib import ExitStack

from server.providers.sandbox.answers import rfc2822
from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.voice_lines import Line
from server.providers.sandbox.voice_progress import Stream, Teller
from server.providers.sandbox.voice_records import (
    CallStatus,
    Conference,
    ConferenceStatus,
    Entry,
    NotFound,
    NotInProgress,
    Participant,
    ParticipantStatus,
    StatusCallback,
)
from server.providers.sandbox.voice_tapes import Tape, Tapes
from server.providers.sandbox.voice_time import Clock

HUNG_UP = "participant_hung_up"
UPDATED = "participant_updated_via_api"
ADD_FAILED = "participant_add_failed"
_ENDED_VIA_API = "conference_ended_via_api"
_MODERATOR_ENDED = "moderator_ended_conference"

# ReasonConferenceEnded, and the same in the words of Reason.
_REASONS = {
    "conference-ended-via-api": "Conference ended via API",
    "last-participant-left": "Last participant left conference",
    "last-participant-kicked": "Last participant was kicked from conference",
    "participant-with-end-conference-on-exit-left": "Participant with endConferenceOnExit left conference",
    "participant-with-end-conference-on-exit-kicked": "Participant with endConferenceOnExit was kicked from conference",
}

_FEWEST_TO_START = 2


class Seat:
    """One call's place in a conference, from the moment it is called until it has left; then `left` is done."""

    def __init__(self, participant: Participant, line: Line) -> None:
        self.participant = participant
        self.line = line
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard = ExitStack()


class Room:
    """A conference that lasts."""

    def __init__(
        self, conference: Conference, entry: Entry, *, teller: Teller, tapes: Tapes, clock: Clock, callbacks: Callbacks
    ) -> None:
        self.conference = conference
        self.seats: dict[str, Seat] = {}
        # What the first participant says counts for all.
        self._status_callback: StatusCallback | None = entry.status_callback
        self._records = entry.record
        self._recording_callback = entry.recording_status_callback
        self._teller = teller
        self._tapes = tapes
        self._clock = clock
        self._stream: Stream = teller.stream(callbacks)
        self._sequence_numbers = itertools.count(1)
        self._tape: Tape | None = None

    def expect(self, line: Line, entry: Entry, *, status: ParticipantStatus) -> Seat:
        """Somebody is called, or comes at once."""
        now = self._clock.now()
        participant = Participant(
            call_sid=line.call.sid,
            conference_sid=self.conference.sid,
            created=now,
            updated=now,
            label=entry.label,
            muted=entry.muted,
            start_conference_on_enter=entry.start_conference_on_enter,
            end_conference_on_exit=entry.end_conference_on_exit,
            status=status,
        )
        self.conference.participants[line.call.sid] = participant
        seat = self.seats[line.call.sid] = Seat(participant, line)
        return seat

    def enter(self, seat: Seat) -> None:
        """Somebody is there."""
        participant = seat.participant
        participant.is_present = True
        participant.status = ParticipantStatus.CONNECTED
        self._touch(participant)
        seat.heard.enter_context(seat.line.heard_by(lambda text: self._hear(participant, text)))
        self._tell("join", "participant-join", participant)
        present = self.conference.present
        if self.conference.status is ConferenceStatus.INIT and (
            len(present) >= _FEWEST_TO_START and any(each.start_conference_on_enter for each in present)
        ):
            self._start()

    def leave(self, seat: Seat, reason: str, *, is_kicked: bool = False) -> None:
        """Somebody is gone, or was called in vain. With the last, or with whom it depends on, the conference ends."""
        if not self._remove(seat, reason):
            return
        participant, how = seat.participant, "kicked" if is_kicked else "left"
        if participant.end_conference_on_exit and reason != ADD_FAILED:
            self._end(f"participant-with-end-conference-on-exit-{how}", _MODERATOR_ENDED, participant)
        elif not self.seats:
            self._end(f"last-participant-{how}", HUNG_UP, participant)

    def end(self) -> None:
        """End it for all, as the account asks."""
        self._end("conference-ended-via-api", _ENDED_VIA_API, None)

    def update(
        self, participant: Participant, *, muted: bool | None, hold: bool | None, end_conference_on_exit: bool | None
    ) -> None:
        """Change somebody; what is so already is not told."""
        if muted is not None and muted != participant.muted:
            participant.muted = muted
            self._tell("mute", "participant-mute" if muted else "participant-unmute", participant)
        if hold is not None and hold != participant.hold:
            participant.hold = hold
            self._tell("hold", "participant-hold" if hold else "participant-unhold", participant)
        if end_conference_on_exit is not None and end_conference_on_exit != participant.end_conference_on_exit:
            participant.end_conference_on_exit = end_conference_on_exit
            self._tell("modify", "participant-modify", participant)
        self._touch(participant)

    def announced(self, url: str, participant: Participant | None, *, failure: str | None) -> None:
        """An announcement was heard to its end, or could not be; of a conference that is over nobody is told."""
        if self.conference.status is ConferenceStatus.COMPLETED:
            return
        more = {"AnnounceUrl": url} | ({} if failure is None else {"ReasonAnnouncementFailed": failure})
        self._tell("announcement", "announcement-end" if failure is None else "announcement-fail", participant, more)

    def _start(self) -> None:
        self.conference.status = ConferenceStatus.IN_PROGRESS
        self._touch()
        self._tell("start", "conference-start", None)
        if self._records:
            self._tape = self._tapes.start(
                "Conference",
                base_url=self.conference.base_url,
                channels=1,
                callback=self._recording_callback,
                stream=self._stream,
                conference_sid=self.conference.sid,
            )

    def _end(self, reason: str, reason_left: str, ending: Participant | None) -> None:
        conference = self.conference
        if conference.status is ConferenceStatus.COMPLETED:
            return
        conference.status = ConferenceStatus.COMPLETED
        for seat in list(self.seats.values()):
            self._remove(seat, reason_left)
        conference.reason_ended = reason
        conference.call_sid_ending = None if ending is None else ending.call_sid
        self._touch()
        if self._tape is not None:
            self._tapes.stop(self._tape, callback=self._recording_callback, stream=self._stream)
        more = {"ReasonConferenceEnded": reason, "Reason": _REASONS[reason]}
        if ending is not None:
            more["CallSidEndingConference"] = ending.call_sid
            if ending.label is not None:
                more["ParticipantLabelEndingConference"] = ending.label
        self._tell("end", "conference-end", None, more)
        self._stream.release()

    def _remove(self, seat: Seat, reason: str) -> bool:
        """Whether somebody was there, or was to come, until now."""
        participant, call = seat.participant, seat.line.call
        if self.seats.pop(participant.call_sid, None) is None:
            return False
        was_present, participant.is_present = participant.is_present, False
        participant.reason_left = reason
        participant.status = ParticipantStatus.FAILED if reason == ADD_FAILED else ParticipantStatus.COMPLETE
        seat.heard.close()
        self._touch(participant)
        if was_present or reason == ADD_FAILED:
            more = {"ParticipantCallStatus": call.status.value, "ReasonParticipantLeft": reason}
            self._tell("leave", "participant-leave", participant, more)
        if not was_present and reason != ADD_FAILED:
            # Whoever is still being called is not wanted any more.
            seat.line.finish(CallStatus.CANCELED)
        if not seat.left.done():
            seat.left.set_result(None)
        return True

    def _hear(self, participant: Participant, text: str) -> None:
        if self._tape is not None and not participant.muted and not participant.hold:
            self._tape.hear(text, channel=0)

    def _touch(self, participant: Participant | None = None) -> None:
        self.conference.updated = self._clock.now()
        if participant is not None:
            participant.updated = self.conference.updated

    def _tell(
        self, asked: str, event: str, participant: Participant | None, more: dict[str, str] | None = None
    ) -> None:
        callback = self._status_callback
        if callback is None or asked not in callback.events:
            return
        fields = {
            "AccountSid": self._teller.account_sid,
            "ConferenceSid": self.conference.sid,
            "FriendlyName": self.conference.friendly_name,
            "SequenceNumber": str(next(self._sequence_numbers)),
            "StatusCallbackEvent": event,
            "Timestamp": rfc2822(self._clock.now()) or "",
        }
        if participant is not None:
            fields |= {
                "CallSid": participant.call_sid,
                "Coaching": "false",
                "EndConferenceOnExit": _word(participant.end_conference_on_exit),
                "Hold": _word(participant.hold),
                "Muted": _word(participant.muted),
                "StartConferenceOnEnter": _word(participant.start_conference_on_enter),
            }
            if participant.label is not None:
                fields["ParticipantLabel"] = participant.label
        self._stream.tell(callback.webhook, fields | (more or {}))


class Rooms:
    """All conferences, and by their names those that last."""

    def __init__(self, *, teller: Teller, tapes: Tapes, clock: Clock) -> None:
        self._teller = teller
        self._tapes = tapes
        self._clock = clock
        self._rooms: dict[str, Room] = {}
        self._newest_named: dict[str, Room] = {}

    def named(self, name: str, entry: Entry, *, base_url: str, callbacks: Callbacks) -> Room:
        """The conference of that name that lasts, else a new one, for which this entry says what is told of it."""
        room = self._newest_named.get(name)
        if room is not None and room.conference.status is not ConferenceStatus.COMPLETED:
            return room
        now = self._clock.now()
        conference = Conference(f"CF{secrets.token_hex(16)}", name, created=now, updated=now, base_url=base_url)
        room = Room(conference, entry, teller=self._teller, tapes=self._tapes, clock=self._clock, callbacks=callbacks)
        self._rooms[conference.sid] = self._newest_named[name] = room
        return room

    def room(self, sid: str) -> Room:
        """One conference, also one that is over. Raises NotFound."""
        if sid not in self._rooms:
            raise NotFound(f"conference {sid}")
        return self._rooms[sid]

    def lasting(self, sid: str) -> Room:
        """One conference that lasts. Raises NotFound, NotInProgress."""
        room = self.room(sid)
        if room.conference.status is ConferenceStatus.COMPLETED:
            raise NotInProgress(f"conference {sid} is {room.conference.status}")
        return room

    def seat(self, sid: str, call_sid: str) -> tuple[Room, Seat]:
        """Somebody who is in a conference or is being called into it, by call or label. Raises NotFound."""
        room = self.room(sid)
        for seat in room.seats.values():
            if call_sid in (seat.participant.call_sid, seat.participant.label):
                return room, seat
        raise NotFound(f"participant {call_sid} of conference {sid}")

    def newest_first(self) -> list[Conference]:
        """All conferences."""
        return [room.conference for room in reversed(self._rooms.values())]

    def clear(self) -> None:
        """Forget all."""
        self._rooms.clear()
        self._newest_named.clear()


def _word(value: bool) -> str:
    return "true" if value else "false"
