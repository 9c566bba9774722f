"""<Dial>: connects a call with whoever answers first, or with a conference."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from server.providers.sandbox.voice_lines import Interrupted, Line
from server.providers.sandbox.voice_progress import Teller
from server.providers.sandbox.voice_records import (
    CallStatus,
    Direction,
    Entry,
    MachineDetection,
    ParticipantStatus,
    StatusCallback,
    Webhook,
)
from server.providers.sandbox.voice_rooms import HUNG_UP, UPDATED, Rooms
from server.providers.sandbox.voice_switchboard import Switchboard
from server.providers.sandbox.voice_tapes import Tape, Tapes
from server.providers.sandbox.voice_verbs import Conference, Dial, Noun, Number

# Makes an absolute URL of one in the document.
Resolve = Callable[[str], str]

# Of several who were dialled in vain, which one's end tells how the <Dial> ended.
_IN_VAIN = (CallStatus.NO_ANSWER, CallStatus.BUSY, CallStatus.CANCELED, CallStatus.FAILED)


@dataclass(frozen=True)
class Ended:
    """How a verb ended: what its action is told, None where it is not asked, and whether the call was interrupted."""

    fields: dict[str, str] | None
    is_interrupted: bool


class Dialler:
    """Carries out <Dial>."""

    def __init__(self, switchboard: Switchboard, rooms: Rooms, tapes: Tapes, *, teller: Teller) -> None:
        self._switchboard = switchboard
        self._rooms = rooms
        self._tapes = tapes
        self._teller = teller

    async def dial(self, line: Line, dial: Dial, resolve: Resolve) -> Ended:
        """Until whoever was dialled, or the caller, is gone. A caller who hangs up leaves nobody ringing.

        Of several who ring, those who were too late are `canceled` (twilio.com/docs/voice/twiml/client). A caller who
        hangs up first was not answered: Twilio keeps `canceled` for what the account cancels (its support article on
        call statuses), and names no other word for it.
        """
        if isinstance(dial.nouns[0], Conference):
            return await self._confer(line, dial, dial.nouns[0], resolve)
        return await self._call(line, dial, resolve)

    async def _confer(self, line: Line, dial: Dial, noun: Conference, resolve: Resolve) -> Ended:
        entry = Entry(
            label=noun.participant_label,
            muted=noun.muted,
            start_conference_on_enter=noun.start_conference_on_enter,
            end_conference_on_exit=noun.end_conference_on_exit,
            status_callback=_callback(
                noun.status_callback, noun.status_callback_method, noun.status_callback_event, resolve
            ),
            record=noun.record == "record-from-start",
            recording_status_callback=_callback(
                noun.recording_status_callback,
                noun.recording_status_callback_method,
                noun.recording_status_callback_event,
                resolve,
            ),
        )
        call = line.call
        room = self._rooms.named(noun.name, entry, base_url=call.base_url, callbacks=line.stream.callbacks)
        seat = room.expect(line, entry, status=ParticipantStatus.CONNECTED)
        room.enter(seat)
        is_interrupted = False
        try:
            await line.wait(seat.left, seconds=dial.time_limit)
        except Interrupted:
            is_interrupted = True
        finally:
            room.leave(seat, UPDATED if is_interrupted and not call.is_over else HUNG_UP)
        return Ended({"DialBridged": "true", "DialCallStatus": "answered"}, is_interrupted)

    async def _call(self, line: Line, dial: Dial, resolve: Resolve) -> Ended:
        connection = _Connection(line, dial, resolve, self._tapes)
        children: list[Line] = []
        is_interrupted = False
        try:
            for noun in dial.nouns:
                if (child := self._ring(line, dial, noun, resolve)) is not None:
                    children.append(child)
            await connection.run(children)
        except Interrupted:
            is_interrupted = True
        finally:
            connection.close()
            for child in children:
                # One that was sent elsewhere goes on there.
                if not child.departed.done():
                    child.finish(CallStatus.NO_ANSWER)
        return Ended(connection.fields(children), is_interrupted)

    def _ring(self, line: Line, dial: Dial, noun: Noun, resolve: Resolve) -> Line | None:
        """The call to one of the nouns; None where it cannot be called."""
        assert not isinstance(noun, Conference), "a conference is not rung"
        caller_id = dial.caller_id or line.call.from_
        if isinstance(noun, Number) and caller_id.startswith("client:"):
            message = f"<Number> cannot be dialled from {caller_id}: <Dial> needs a callerId"
            self._teller.complain(13214, message, url=None, call_sid=line.call.sid)
            return None
        status_callback = _callback(
            noun.status_callback, noun.status_callback_method, noun.status_callback_event, resolve
        )
        detection = None
        if isinstance(noun, Number) and noun.machine_detection is not None:
            callback = noun.amd_status_callback
            told = None if callback is None else Webhook(resolve(callback), noun.amd_status_callback_method)
            detection = MachineDetection(noun.machine_detection, told)
        child = self._switchboard.open(
            to=noun.phone_number if isinstance(noun, Number) else f"client:{noun.identity}",
            from_=caller_id,
            direction=Direction.DIAL,
            callbacks=line.stream.callbacks,
            base_url=line.call.base_url,
            parent_call_sid=line.call.sid,
            status_callback=status_callback,
            timeout=dial.timeout,
            machine_detection=detection,
            parameters={} if isinstance(noun, Number) else {each.name: each.value for each in noun.parameters},
        )
        self._teller.start(self._live(child))
        return child

    async def _live(self, child: Line) -> None:
        detection = child.call.machine_detection
        if await self._switchboard.ring(child) and detection is not None and detection.async_callback is not None:
            await self._switchboard.detect_meanwhile(child, detection, detection.async_callback)


class _Connection:
    """A caller and whoever answers first, and the recording of what they say."""

    def __init__(self, caller: Line, dial: Dial, resolve: Resolve, tapes: Tapes) -> None:
        self._caller = caller
        self._dial = dial
        self._tapes = tapes
        self._callback = _callback(
            dial.recording_status_callback,
            dial.recording_status_callback_method,
            dial.recording_status_callback_event,
            resolve,
        )
        self._answered: Line | None = None
        # Whoever picks up and hangs up at once leaves nothing on the tape.
        self._is_heard = False
        self._tape: Tape | None = None
        self._heard = ExitStack()

    async def run(self, children: list[Line]) -> None:
        """Until whoever answered is gone, or all were called in vain. Raises Interrupted."""
        if self._dial.record.startswith("record-from-ringing"):
            self._record()
        ringing = set(children)
        while ringing and self._answered is None:
            await self._caller.wait(*(future for child in ringing for future in (child.answered, child.over)))
            self._answered = next((child for child in children if child in ringing and child.answered.done()), None)
            ringing = {child for child in ringing if not child.over.done()}
        if self._answered is None:
            return
        for child in children:
            if child is not self._answered:
                child.finish(CallStatus.CANCELED)
        await self._connect(self._answered)

    def close(self) -> None:
        """They are not connected any more; of a recording in which they never were nothing is left."""
        self._heard.close()
        if self._tape is not None:
            self._tapes.stop(
                self._tape, callback=self._callback, stream=self._caller.stream, is_absent=not self._is_heard
            )

    def fields(self, children: list[Line]) -> dict[str, str]:
        """What the action is told."""
        answered = self._answered
        if answered is not None:
            fields = {
                "DialBridged": "true",
                "DialCallSid": answered.call.sid,
                "DialCallStatus": CallStatus.COMPLETED.value,
            }
            # Of one that was sent elsewhere Twilio does not tell it.
            if answered.call.is_over:
                fields["DialCallDuration"] = str(answered.seconds())
        elif not children:
            fields = {"DialBridged": "false", "DialCallStatus": CallStatus.FAILED.value}
        else:
            statuses = {child.call.status: child.call.sid for child in reversed(children)}
            status = next(status for status in _IN_VAIN if status in statuses)
            fields = {"DialBridged": "false", "DialCallSid": statuses[status], "DialCallStatus": status.value}
        if self._tape is not None and self._is_heard:
            fields["RecordingUrl"] = self._tapes.url(self._tape.recording)
        return fields

    async def _connect(self, answered: Line) -> None:
        self._is_heard = not answered.over.done()
        self._caller.pick_up()
        if self._dial.record.startswith("record-from-answer"):
            self._record()
        if self._tape is not None:
            self._heard.enter_context(self._caller.heard_by(self._tape.ear(0)))
            self._heard.enter_context(answered.heard_by(self._tape.ear(1)))
        if not await self._caller.wait(answered.departed, seconds=self._dial.time_limit):
            answered.finish(CallStatus.COMPLETED)

    def _record(self) -> None:
        self._tape = self._tapes.start(
            "DialVerb",
            base_url=self._caller.call.base_url,
            channels=2 if self._dial.record.endswith("-dual") else 1,
            callback=self._callback,
            stream=self._caller.stream,
            call_sid=self._caller.call.sid,
        )


def _callback(url: str | None, method: str, events: tuple[str, ...], resolve: Resolve) -> StatusCallback | None:
    return None if url is None else StatusCallback(resolve(url), method, frozenset(events))
