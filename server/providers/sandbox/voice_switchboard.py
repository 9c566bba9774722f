"""All calls by their sids, and how one that is made rings until somebody picks it up."""

import asyncio
import secrets
from typing import Any

from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.voice_lines import Line
from server.providers.sandbox.voice_phones import Phones, Pickup
from server.providers.sandbox.voice_progress import Teller
from server.providers.sandbox.voice_records import Call, CallStatus, Direction, MachineDetection, NotFound, Webhook
from server.providers.sandbox.voice_time import Clock, speech_seconds

# How long it takes to hear that a person answered, and that a machine did.
_HEARS_A_PERSON = 2.0
_HEARS_A_MACHINE = 3.0


class Switchboard:
    """Opens lines and keeps them."""

    def __init__(self, phones: Phones, *, teller: Teller, clock: Clock) -> None:
        self.phones = phones
        self._teller = teller
        self._clock = clock
        self._lines: dict[str, Line] = {}

    def open(self, *, to: str, from_: str, direction: Direction, callbacks: Callbacks, **call: Any) -> Line:
        """A call that is queued, or that comes in; the other fields are those of `Call`.

        Its callbacks misbehave as whoever makes it asked, else as is said of the phone.
        """
        address = from_ if direction is Direction.INBOUND else to
        phone = self.phones.of(address)
        if callbacks is Callbacks.IN_ORDER and phone is not None:
            callbacks = phone.callbacks
        line = Line(
            Call(
                sid=f"CA{secrets.token_hex(16)}",
                to=to,
                from_=from_,
                direction=direction,
                created=self._clock.now(),
                **call,
            ),
            phone,
            teller=self._teller,
            clock=self._clock,
            stream=self._teller.stream(callbacks),
        )
        self._lines[line.call.sid] = line
        return line

    def line(self, sid: str) -> Line:
        """One call. Raises NotFound."""
        if sid not in self._lines:
            raise NotFound(f"call {sid}")
        return self._lines[sid]

    def newest_first(self) -> list[Call]:
        """All calls."""
        return [line.call for line in reversed(self._lines.values())]

    def clear(self) -> None:
        """Forget all."""
        self._lines.clear()

    async def ring(self, line: Line) -> bool:
        """Dial and let it ring; answers whether somebody picked up, else the call is over.

        A browser that is not registered ends at once with `no-answer`, as Twilio's call log shows in
        github.com/twilio/voice-quickstart-server-node/issues/19: nobody was rung, and the call lasted 0 seconds.
        """
        if line.call.is_over:
            return False
        phone = line.phone
        line.advance(CallStatus.INITIATED)
        if not line.is_registered:
            line.finish(CallStatus.NO_ANSWER)
        elif phone.pickup is Pickup.UNREACHABLE:
            line.finish(CallStatus.FAILED)
        elif phone.pickup is Pickup.BUSY:
            line.finish(CallStatus.BUSY)
        else:
            line.advance(CallStatus.RINGING)
            answers_after = phone.answers_after_ms / 1000
            rings_out = phone.pickup is Pickup.NO_ANSWER or answers_after > line.call.timeout
            rings = line.call.timeout if rings_out else answers_after
            await asyncio.wait({line.over}, timeout=self._clock.real(rings))
            if rings_out:
                line.finish(CallStatus.NO_ANSWER)
            elif not line.call.is_over:
                line.answer()
        return not line.call.is_over

    async def detect(self, line: Line, detection: MachineDetection) -> float:
        """Hear who answered, and answer how long it took. Of a call that is over too soon it is `unknown`."""
        phone, is_machine = line.phone, line.phone.pickup is Pickup.MACHINE
        seconds = _HEARS_A_MACHINE if is_machine else _HEARS_A_PERSON
        if is_machine and detection.waits_for_the_end:
            seconds = max(seconds, speech_seconds(phone.greeting))
        await asyncio.wait({line.over}, timeout=self._clock.real(seconds))
        if line.call.is_over:
            line.call.answered_by = "unknown"
        elif is_machine:
            line.call.answered_by = "machine_end_beep" if detection.waits_for_the_end else "machine_start"
        else:
            line.call.answered_by = "human"
        return seconds

    async def detect_meanwhile(self, line: Line, detection: MachineDetection, callback: Webhook) -> None:
        """Hear who answered while the call goes on, and tell the account."""
        seconds = await self.detect(line, detection)
        fields = {
            "AccountSid": self._teller.account_sid,
            "AnsweredBy": line.call.answered_by or "unknown",
            "CallSid": line.call.sid,
            "MachineDetectionDuration": str(round(seconds * 1000)),
        }
        line.stream.tell(callback, fields)
