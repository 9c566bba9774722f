"""How the carrier can be told to misbehave: for a while and everybody, or by a trigger in one message's text, or in the
TwiML that one call is made with.

A text may hold any number of triggers, `[sandbox:NAME]`, `[sandbox:NAMExCOUNT]` or `[sandbox:NAME=VALUE]`:

    429 500 502 503 504        answered so, nothing is taken
    500-taken 502-taken 504-taken    answered so although the message is taken
    lost-response              taken, then the connection is closed without an answer
    garbled                    taken, answered with a success that cannot be read
    retry-after=3s             the Retry-After of a 429 or 503
    delay=150ms                the answer comes this much later (at most 60s)
    callbacks=duplicated       each is sent twice; also `reordered` (last first), `missing`
    undelivered=30003          delivery ends so, with that error code; also failed=30007

An answer is given to the first attempt, `x3` to the first three, `x*` to all; several answers in one text follow each
other, so `[sandbox:429x2][sandbox:lost-response]` is two 429s, then a lost answer, then good behaviour.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

MAX_DELAY = timedelta(seconds=60)


class Answer(StrEnum):
    """How a request is answered instead of truthfully."""

    TOO_MANY_REQUESTS = "429"
    INTERNAL_ERROR = "500"
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    GATEWAY_TIMEOUT = "504"
    INTERNAL_ERROR_TAKEN = "500-taken"
    BAD_GATEWAY_TAKEN = "502-taken"
    GATEWAY_TIMEOUT_TAKEN = "504-taken"
    LOST_RESPONSE = "lost-response"
    GARBLED = "garbled"

    @property
    def taken(self) -> bool:
        """Whether the request is carried out all the same."""
        return self.value.endswith("-taken") or self in (Answer.LOST_RESPONSE, Answer.GARBLED)

    @property
    def status(self) -> int | None:
        """The HTTP status, None where there is no answer or a wrong one."""
        number = self.value.removesuffix("-taken")
        return int(number) if number.isdecimal() else None


class Callbacks(StrEnum):
    """What becomes of a message's callbacks."""

    IN_ORDER = "in-order"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    MISSING = "missing"


@dataclass(frozen=True)
class Misbehaviour:
    """What one request gets; the default is good behaviour. `delivery_failure` is a final status and its error code."""

    answer: Answer | None = None
    retry_after: timedelta | None = None
    delay: timedelta = timedelta(0)
    callbacks: Callbacks = Callbacks.IN_ORDER
    delivery_failure: tuple[str, int] | None = None

    def over(self, other: "Misbehaviour") -> "Misbehaviour":
        """Both, where they differ this one."""
        return Misbehaviour(
            answer=self.answer or other.answer,
            retry_after=other.retry_after if self.retry_after is None else self.retry_after,
            delay=self.delay or other.delay,
            callbacks=other.callbacks if self.callbacks is Callbacks.IN_ORDER else self.callbacks,
            delivery_failure=self.delivery_failure or other.delivery_failure,
        )


class TriggerUnknown(Exception):
    """A text holds triggers that mean nothing; the text names them."""


_TRIGGER = re.compile(r"\[sandbox:([^\]]*)\]", re.IGNORECASE)
_PARTS = re.compile(r"(?P<name>[a-z0-9-]+?)(?:=(?P<value>[a-z0-9-]+?))?(?:x(?P<count>\d{1,4}|\*))?")
_DURATION = re.compile(r"(\d{1,5})(ms|s)")
_ANSWERS = frozenset(Answer)
_CALLBACKS = frozenset(Callbacks)
_DELIVERY_FAILURES = ("undelivered", "failed")


def has_trigger(text: str) -> bool:
    """Whether `asked_in` would find anything."""
    return _TRIGGER.search(text) is not None


def asked_in(text: str, *, attempt: int) -> Misbehaviour:
    """What the triggers in a text ask for on an attempt, counted from 1. Raises TriggerUnknown."""
    asked = Misbehaviour()
    answers_before = 0
    unknown = []
    for written in _TRIGGER.findall(text):
        found = _PARTS.fullmatch(written.strip().lower())
        if found is None:
            unknown.append(written)
            continue
        name, value, count = found["name"], found["value"], found["count"]
        if name in _ANSWERS and value is None:
            last = None if count == "*" else answers_before + int(count or 1)
            if attempt > answers_before and (last is None or attempt <= last):
                asked = Misbehaviour(answer=Answer(name)).over(asked)
            answers_before = attempt if last is None else last
        elif (part := _without_count(name, value)) is not None and count is None:
            asked = part.over(asked)
        else:
            unknown.append(written)
    if unknown:
        raise TriggerUnknown(", ".join(f"[sandbox:{written}]" for written in unknown))
    return asked


def _without_count(name: str, value: str | None) -> Misbehaviour | None:
    if value is None:
        return None
    if name in ("delay", "retry-after"):
        duration = _duration(value)
        if duration is None or duration > MAX_DELAY:
            return None
        return Misbehaviour(delay=duration) if name == "delay" else Misbehaviour(retry_after=duration)
    if name == "callbacks" and value in _CALLBACKS:
        return Misbehaviour(callbacks=Callbacks(value))
    if name in _DELIVERY_FAILURES and value.isdecimal():
        return Misbehaviour(delivery_failure=(name, int(value)))
    return None


def _duration(value: str) -> timedelta | None:
    found = _DURATION.fullmatch(value)
    if found is None:
        return None
    return timedelta(milliseconds=int(found[1])) if found[2] == "ms" else timedelta(seconds=int(found[1]))
