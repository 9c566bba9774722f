"""The exchange itself: every call that is made or comes in, and what the account and the people on the phones do to it.

A call is a task that lives in the running event loop. Calls, conferences and problems are in memory alone; recordings
survive a restart where there is a folder for them.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from server.providers.sandbox.callbacks import CallbackSender
from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.voice_dial import Dialler
from server.providers.sandbox.voice_interpreter import Interpreter
from server.providers.sandbox.voice_lines import Line
from server.providers.sandbox.voice_phones import Phones, Scenario
from server.providers.sandbox.voice_progress import Teller
from server.providers.sandbox.voice_records import (
    Call,
    CallStatus,
    Conference,
    Direction,
    Document,
    Entry,
    MachineDetection,
    NotFound,
    NotInProgress,
    Participant,
    ParticipantStatus,
    Problem,
    Recording,
    StatusCallback,
    Webhook,
)
from server.providers.sandbox.voice_rooms import ADD_FAILED, HUNG_UP, UPDATED, Room, Rooms, Seat
from server.providers.sandbox.voice_scenario import MockedOrder
from server.providers.sandbox.voice_speech import speak
from server.providers.sandbox.voice_switchboard import Switchboard
from server.providers.sandbox.voice_tapes import Speak, Tapes
from server.providers.sandbox.voice_time import Clock


class Exchange:
    """All calls of one account. `second` is how long a simulated second of ringing, pausing and speaking really takes.

    `phones` says how those who are called behave, `speak` how their words sound in recordings. Made inside a running
    event loop.
    """

    def __init__(
        self,
        *,
        account_sid: str,
        callbacks: CallbackSender,
        second: timedelta,
        now: Callable[[], datetime],
        data_dir: Path | None = None,
        speak: Speak = speak,
    ) -> None:
        self.phones = Phones()
        self._clock = Clock(second, now=now)
        self._teller = Teller(callbacks, self._clock, account_sid=account_sid)
        self._switchboard = Switchboard(self.phones, teller=self._teller, clock=self._clock)
        folder = None if data_dir is None else data_dir / "recordings"
        self._tapes = Tapes(self._teller, self._clock, folder=folder, speak=speak)
        self._rooms = Rooms(teller=self._teller, tapes=self._tapes, clock=self._clock)
        dialler = Dialler(self._switchboard, self._rooms, self._tapes, teller=self._teller)
        self._interpreter = Interpreter(dialler, self._tapes, teller=self._teller, clock=self._clock)
        self._mocked_order = MockedOrder(self._tapes, teller=self._teller)

    # What the account asks for.

    def create_call(
        self,
        *,
        to: str,
        from_: str,
        document: Document,
        base_url: str,
        status_callback: StatusCallback | None = None,
        timeout: int = 60,
        time_limit: int = 14_400,
        machine_detection: MachineDetection | None = None,
        callbacks: Callbacks = Callbacks.IN_ORDER,
    ) -> Call:
        """Call a phone (or `client:` and an identity); answered at once, while the call is still queued."""
        line = self._switchboard.open(
            to=to,
            from_=from_,
            direction=Direction.OUTBOUND,
            callbacks=callbacks,
            base_url=base_url,
            document=document,
            status_callback=status_callback,
            timeout=timeout,
            time_limit=time_limit,
            machine_detection=machine_detection,
        )
        self._teller.start(self._place(line, document))
        return line.call

    def update_call(self, call_sid: str, *, status: str | None = None, document: Document | None = None) -> Call:
        """Redirect a call that is in progress, or end one: `completed` ends any, `canceled` one that was not answered.

        Raises NotFound, and NotInProgress of a redirect of a call that is not in progress, or of a cancel of one that
        is. Ending a call that is over changes nothing.
        """
        line = self._switchboard.line(call_sid)
        call = line.call
        if status == "canceled" and call.status is CallStatus.IN_PROGRESS:
            raise NotInProgress(f"call {call_sid} is {call.status} and cannot be canceled")
        if status is not None:
            line.finish(CallStatus.CANCELED)
        elif document is not None:
            if call.status is not CallStatus.IN_PROGRESS:
                raise NotInProgress(f"call {call_sid} is {call.status} and cannot be redirected")
            line.redirect(document)
            if not line.has_document:
                self._teller.start(self._interpreter.take_over(line))
        return call

    def add_participant(
        self,
        conference: str,
        *,
        to: str,
        from_: str,
        base_url: str,
        entry: Entry,
        status_callback: StatusCallback | None = None,
        timeout: int = 60,
        time_limit: int = 14_400,
        callbacks: Callbacks = Callbacks.IN_ORDER,
    ) -> Participant:
        """Call somebody into a conference, named by its sid or its friendly name; a new name is a new conference.

        Raises NotFound of an unknown sid, NotInProgress of a conference that is over.
        """
        if conference.startswith("CF"):
            room = self._rooms.lasting(conference)
        else:
            room = self._rooms.named(conference, entry, base_url=base_url, callbacks=callbacks)
        line = self._switchboard.open(
            to=to,
            from_=from_,
            direction=Direction.OUTBOUND,
            callbacks=callbacks,
            base_url=base_url,
            status_callback=status_callback,
            timeout=timeout,
            time_limit=time_limit,
        )
        seat = room.expect(line, entry, status=ParticipantStatus.QUEUED)
        self._teller.start(self._attend(room, seat))
        return seat.participant

    def update_participant(
        self,
        conference_sid: str,
        call_sid: str,
        *,
        muted: bool | None = None,
        hold: bool | None = None,
        end_conference_on_exit: bool | None = None,
        announce: Webhook | None = None,
    ) -> Participant:
        """Change a participant, who is named by its call or its label, or have it hear what a URL's TwiML says.

        Raises NotFound of one who is not in the conference.
        """
        room, seat = self._rooms.seat(conference_sid, call_sid)
        room.update(seat.participant, muted=muted, hold=hold, end_conference_on_exit=end_conference_on_exit)
        if announce is not None:
            self._teller.start(self._announce(room, seat, announce, participant=seat.participant))
        return seat.participant

    def remove_participant(self, conference_sid: str, call_sid: str) -> None:
        """Kick a participant; its call goes on with what follows its <Dial>. Raises NotFound."""
        room, seat = self._rooms.seat(conference_sid, call_sid)
        room.leave(seat, UPDATED, is_kicked=True)

    def end_conference(self, conference_sid: str) -> Conference:
        """End it for all; one that is over stays as it is. Raises NotFound."""
        room = self._rooms.room(conference_sid)
        room.end()
        return room.conference

    def announce(self, conference_sid: str, announcement: Webhook) -> Conference:
        """Have everybody in it hear what a URL's TwiML says. Raises NotFound, NotInProgress."""
        room = self._rooms.lasting(conference_sid)
        present = [seat for seat in room.seats.values() if seat.participant.is_present]
        if not present:
            raise NotInProgress(f"nobody is in conference {conference_sid}")
        self._teller.start(self._announce(room, present[0], announcement, participant=None))
        return room.conference

    # What people do.

    def phone_calls(
        self,
        *,
        from_: str,
        to: str,
        document: Webhook,
        base_url: str,
        status_callback: StatusCallback | None = None,
        callbacks: Callbacks = Callbacks.IN_ORDER,
    ) -> Call:
        """A phone calls one of the account's numbers, whose voice URL and status callback these are."""
        line = self._switchboard.open(
            to=to,
            from_=from_,
            direction=Direction.INBOUND,
            callbacks=callbacks,
            base_url=base_url,
            document=document,
            status_callback=status_callback,
        )
        return self._come_in(line, document)

    def client_connects(
        self,
        *,
        identity: str,
        application_sid: str,
        document: Webhook,
        parameters: Mapping[str, str],
        base_url: str,
        status_callback: StatusCallback | None = None,
        callbacks: Callbacks = Callbacks.IN_ORDER,
    ) -> Call:
        """A browser calls out: the voice URL of its TwiML App is asked with From=client:identity and the parameters,
        and its status callback is told how the call ended.

        `To` of the call is the parameter of that name, else empty, as at Twilio.
        """
        line = self._switchboard.open(
            to=parameters.get("To", ""),
            from_=f"client:{identity}",
            direction=Direction.INBOUND,
            callbacks=callbacks,
            base_url=base_url,
            document=document,
            status_callback=status_callback,
            application_sid=application_sid,
            parameters=dict(parameters),
        )
        return self._come_in(line, document)

    def press(self, call_sid: str, digits: str) -> None:
        """Whoever is on the phone presses keys; where nothing listens yet they are kept for what listens next.

        Raises NotFound, NotInProgress.
        """
        self._talking(call_sid).press(digits)

    def say(self, call_sid: str, text: str) -> None:
        """Whoever is on the phone says something; where nothing records yet it is kept for what records next.

        Raises NotFound, NotInProgress.
        """
        self._talking(call_sid).say(text)

    def hang_up(self, call_sid: str) -> Call:
        """Whoever is on the phone hangs up: declines while it rings. Raises NotFound, NotInProgress."""
        line = self._switchboard.line(call_sid)
        if line.call.is_over:
            raise NotInProgress(f"call {call_sid} is {line.call.status}")
        line.hang_up()
        return line.call

    # What there is.

    def call(self, sid: str) -> Call:
        """One call. Raises NotFound."""
        return self._switchboard.line(sid).call

    def calls(self) -> list[Call]:
        """All calls, newest first."""
        return self._switchboard.newest_first()

    def conference(self, sid: str) -> Conference:
        """One conference. Raises NotFound."""
        return self._rooms.room(sid).conference

    def conferences(self) -> list[Conference]:
        """All conferences, newest first."""
        return self._rooms.newest_first()

    def participant(self, conference_sid: str, call_sid: str) -> Participant:
        """Somebody in a conference, by the sid of the call or by label. Raises NotFound."""
        for participant in self.conference(conference_sid).participants.values():
            if call_sid in (participant.call_sid, participant.label):
                return participant
        raise NotFound(f"participant {call_sid} of conference {conference_sid}")

    def recording(self, sid: str) -> Recording:
        """One recording. Raises NotFound."""
        return self._tapes.get(sid)

    def recordings(self) -> list[Recording]:
        """All recordings, newest first."""
        return self._tapes.newest_first()

    def recording_file(self, sid: str) -> bytes:
        """The WAV file of a completed recording. Raises NotFound, NotInProgress while it is recorded or empty."""
        return self._tapes.file(sid)

    def delete_recording(self, sid: str) -> None:
        """Forget a recording and its file. Raises NotFound."""
        self._tapes.delete(sid)

    def problems(self) -> list[Problem]:
        """What the account's answers had wrong, oldest first (the last 1,000)."""
        return self._teller.problems()

    async def reset(self) -> None:
        """End all and forget all, phones too; nothing more is told."""
        await self.aclose()
        self._rooms.clear()
        self._switchboard.clear()
        self._tapes.clear()
        self.phones.clear()
        self._teller.reset()

    async def aclose(self) -> None:
        """End all calls without telling anybody."""
        for call in self._switchboard.newest_first():
            self._switchboard.line(call.sid).drop()
        await self._teller.aclose()

    def _come_in(self, line: Line, document: Webhook) -> Call:
        line.advance(CallStatus.RINGING)
        self._teller.start(self._interpreter.run(line, document, parameters=line.call.parameters))
        return line.call

    def _talking(self, call_sid: str) -> Line:
        line = self._switchboard.line(call_sid)
        if line.call.status is not CallStatus.IN_PROGRESS:
            raise NotInProgress(f"call {call_sid} is {line.call.status}")
        return line

    async def _place(self, line: Line, document: Document) -> None:
        """A call that the account makes, until it is over."""
        if line.phone.scenario is Scenario.MOCKED and isinstance(document, Webhook):
            await self._mocked_order.play(line)
            return
        if not await self._switchboard.ring(line):
            return
        detection = line.call.machine_detection
        if detection is not None and detection.async_callback is not None:
            meanwhile = self._switchboard.detect_meanwhile(line, detection, detection.async_callback)
            self._teller.start(meanwhile)
        elif detection is not None:
            await self._switchboard.detect(line, detection)
        if not line.departed.done():
            await self._interpreter.run(line, document)

    async def _attend(self, room: Room, seat: Seat) -> None:
        """A call into a conference, until it has left it."""
        line, participant = seat.line, seat.participant
        participant.status = ParticipantStatus.RINGING
        if not await self._switchboard.ring(line):
            room.leave(seat, ADD_FAILED)
            return
        room.enter(seat)
        await asyncio.wait({seat.left, line.departed}, return_when=asyncio.FIRST_COMPLETED)
        room.leave(seat, HUNG_UP if line.call.is_over or not line.departed.done() else UPDATED)
        if not line.departed.done():
            line.finish(CallStatus.COMPLETED)

    async def _announce(
        self, room: Room, seat: Seat, announcement: Webhook, *, participant: Participant | None
    ) -> None:
        failure = await self._interpreter.announce(seat.line, announcement)
        room.announced(announcement.url, participant, failure=failure)
