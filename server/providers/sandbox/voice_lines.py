"""One call while it lasts: where it is, what interrupts it, and what the person on the phone presses and says."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from server.providers.sandbox.voice_phones import Phone, Pickup
from server.providers.sandbox.voice_progress import Stream, Teller, call_fields, event_of, progress_fields
from server.providers.sandbox.voice_records import Call, CallStatus, Direction, Document, Heard
from server.providers.sandbox.voice_time import Clock

# Takes what is said on a line.
Ear = Callable[[str], object]


class Interrupted(Exception):
    """The call is over or was sent elsewhere: what its document was doing ends here."""


class Line:
    """A call that lives. Its status changes here alone, and every change is told as the account asked for it."""

    def __init__(self, call: Call, phone: Phone | None, *, teller: Teller, clock: Clock, stream: Stream) -> None:
        self.call = call
        # A browser that is not registered is no phone at all.
        self.is_registered = phone is not None
        self.phone = phone or Phone()
        self.teller = teller
        self.clock = clock
        self.stream = stream
        loop = asyncio.get_running_loop()
        # Done when it was answered, when it is over, and when it is over or was sent elsewhere.
        self.answered: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.departed: asyncio.Future[None] = loop.create_future()
        self._interruption: asyncio.Future[None] = loop.create_future()
        self._redirect: Document | None = None
        # Whether there is a document that it follows; whoever is dialled or called into a conference has none.
        self.has_document = False
        self._answered_at = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        self._sequence_numbers = itertools.count()
        self._keys = ""
        self._key_pressed: asyncio.Future[None] = loop.create_future()
        self._presses = iter(self.phone.presses)
        self._says = iter(self.phone.says)
        self._unheard: list[str] = []
        self._ears: list[Ear] = []

    # What becomes of it.

    def advance(self, status: CallStatus) -> None:
        """It is dialled or rings."""
        self.call.status = status
        self._tell()

    def answer(self) -> None:
        """It is picked up; from here on its time runs."""
        self.call.status = CallStatus.IN_PROGRESS
        self.call.started = self.clock.now()
        self._answered_at = self.clock.reading()
        self._timers.append(self.clock.call_later(self.call.time_limit, lambda: self.finish(CallStatus.COMPLETED)))
        if self.phone.hangs_up_after_ms is not None:
            self._timers.append(self.clock.call_later(self.phone.hangs_up_after_ms / 1000, self.hang_up))
        if self.phone.pickup is Pickup.MACHINE:
            self._unheard.append(self.phone.greeting)
        self.answered.set_result(None)
        self._tell()

    def pick_up(self) -> None:
        """Answer a call that comes in, where that was not done."""
        if not self.answered.done() and not self.call.is_over:
            self.answer()

    def finish(self, unanswered: CallStatus) -> None:
        """It is over: completed where it was answered, else as is said here. One that is over stays as it is."""
        call = self.call
        if call.is_over:
            return
        was_answered = self.answered.done()
        call.duration = self.seconds()
        call.status = CallStatus.COMPLETED if was_answered else unanswered
        call.ended = self.clock.now()
        self.drop()
        self._tell()
        self.stream.release()
        for future in (self.over, self.departed, self._interruption):
            if not future.done():
                future.set_result(None)

    def seconds(self) -> int:
        """How long it lasts or lasted, in whole simulated seconds: at least 1 once it was answered."""
        if self.call.duration is not None:
            return self.call.duration
        return max(1, round(self.clock.reading() - self._answered_at)) if self.answered.done() else 0

    def drop(self) -> None:
        """Let go of it without telling anybody."""
        for timer in self._timers:
            timer.cancel()

    def hang_up(self) -> None:
        """Whoever is on the phone hangs up, or declines."""
        self.finish(CallStatus.BUSY if self.is_called else CallStatus.NO_ANSWER)

    def redirect(self, document: Document) -> None:
        """Send a call that is in progress elsewhere, away from whatever it does and whomever it is connected with."""
        self._redirect = document
        for future in (self.departed, self._interruption):
            if not future.done():
                future.set_result(None)

    def take_redirect(self) -> Document | None:
        """Where it was sent, None where it is over."""
        document, self._redirect = self._redirect, None
        if self.call.is_over:
            return None
        self._interruption = asyncio.get_running_loop().create_future()
        return document

    @property
    def is_called(self) -> bool:
        """Whether the person on the phone was called, and did not call."""
        return self.call.direction is not Direction.INBOUND

    def fields(self) -> dict[str, str]:
        """The fields of every request about it."""
        return call_fields(self.call, account_sid=self.teller.account_sid)

    def _tell(self) -> None:
        asked, event = self.call.status_callback, event_of(self.call.status)
        if asked is None or event not in asked.events:
            return
        fields = progress_fields(
            self.call,
            account_sid=self.teller.account_sid,
            sequence_number=next(self._sequence_numbers),
            at=self.clock.now(),
        )
        self.stream.tell(asked.webhook, fields)

    # What its document waits for.

    async def wait(self, *futures: asyncio.Future[Any], seconds: float | None = None) -> bool:
        """Wait for one of these, or so many simulated seconds; answers whether one is done. Raises Interrupted."""
        timeout = None if seconds is None else self.clock.real(seconds)
        waited_for = {self._interruption, *futures}
        await asyncio.wait(waited_for, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if self._interruption.done():
            raise Interrupted
        return any(future.done() for future in futures)

    # What the person hears.

    def hear(self, kind: str, text: str = "") -> None:
        """The call's document says or does something; see `Heard`."""
        self.call.heard.append(Heard(self.clock.now(), kind, text))

    # What the person does.

    def press(self, keys: str) -> None:
        """Press keys; they are kept until something listens."""
        self._keys += keys
        if keys and not self._key_pressed.done():
            self._key_pressed.set_result(None)

    def press_next(self) -> None:
        """Something listens for keys: press what this phone presses next."""
        self.press(next(self._presses, ""))

    @property
    def key_pressed(self) -> asyncio.Future[None]:
        """Done when there is a key that was not taken."""
        return self._key_pressed

    def take_key(self) -> str:
        """The first key that was not taken."""
        key, self._keys = self._keys[0], self._keys[1:]
        if not self._keys:
            self._key_pressed = asyncio.get_running_loop().create_future()
        return key

    def say(self, text: str) -> None:
        """Say something; it is kept until something records."""
        for ear in self._ears:
            ear(text)
        if not self._ears:
            self._unheard.append(text)

    @contextmanager
    def heard_by(self, ear: Ear) -> Iterator[None]:
        """Something records: it hears what was kept, what this phone says next, and what is said from now on."""
        self._ears.append(ear)
        unheard, self._unheard = self._unheard, []
        for text in [*unheard, next(self._says, "")]:
            if text:
                ear(text)
        try:
            yield
        finally:
            self._ears.remove(ear)
