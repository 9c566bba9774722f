"""What the account is told and asked of calls: the fields of each request, and when each goes out.

Callbacks are fired in order and posted as requests of their own, so they may overtake each other, as Twilio's do.
"""

import asyncio
import math
import secrets
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import structlog

from server.providers.sandbox.answers import API_VERSION, rfc2822
from server.providers.sandbox.callbacks import CallbackSender, Outcome
from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.voice_records import Call, CallStatus, Problem, Webhook
from server.providers.sandbox.voice_time import Clock

log = structlog.get_logger(__name__)

T = TypeVar("T")

_PROBLEMS_KEPT = 1_000

# What the network answers for a call that nobody took; one that was answered ends with 200.
_SIP_CODES = {
    CallStatus.COMPLETED: "200",
    CallStatus.BUSY: "486",
    CallStatus.NO_ANSWER: "487",
    CallStatus.CANCELED: "487",
    CallStatus.FAILED: "404",
}
_EVENTS = {
    CallStatus.INITIATED: "initiated",
    CallStatus.RINGING: "ringing",
    CallStatus.IN_PROGRESS: "answered",
}


def call_fields(call: Call, *, account_sid: str) -> dict[str, str]:
    """The fields of every request about a call; what is known of places is left empty, as Twilio does."""
    fields = {
        "AccountSid": account_sid,
        "ApiVersion": API_VERSION,
        "CallSid": call.sid,
        "CallStatus": call.status.value,
        "Called": call.to,
        "Caller": call.from_,
        "Direction": call.direction.value,
        "From": call.from_,
        "To": call.to,
    }
    for names, address in ((("From", "Caller"), call.from_), (("To", "Called"), call.to)):
        if address.startswith("+"):
            for name in names:
                fields |= {f"{name}{part}": "" for part in ("City", "State", "Zip")}
                fields[f"{name}Country"] = "US" if address.startswith("+1") else ""
    if call.parent_call_sid is not None:
        fields["ParentCallSid"] = call.parent_call_sid
    if call.application_sid is not None:
        fields["ApplicationSid"] = call.application_sid
    if call.answered_by is not None:
        fields["AnsweredBy"] = call.answered_by
    return fields


def progress_fields(call: Call, *, account_sid: str, sequence_number: int, at: float) -> dict[str, str]:
    """The fields of a callback of a call's progress to its present status."""
    fields = call_fields(call, account_sid=account_sid) | {
        "CallbackSource": "call-progress-events",
        "SequenceNumber": str(sequence_number),
        "Timestamp": rfc2822(at) or "",
    }
    if call.is_over:
        duration = call.duration or 0
        fields |= {
            "CallDuration": str(duration),
            "Duration": str(math.ceil(duration / 60)),
            "SipResponseCode": _SIP_CODES[call.status],
        }
    return fields


def event_of(status: CallStatus) -> str | None:
    """The event by which a status is told: every end is `completed`; of `queued` nobody is told."""
    return "completed" if status.is_final else _EVENTS.get(status)


class Stream:
    """The callbacks of one call or one conference, in the order they are fired, and how they misbehave."""

    def __init__(self, teller: "Teller", callbacks: Callbacks) -> None:
        self._teller = teller
        self.callbacks = callbacks
        self._held: list[tuple[Webhook, dict[str, str]]] | None = [] if callbacks is Callbacks.REORDERED else None

    def tell(self, webhook: Webhook, fields: dict[str, str]) -> None:
        """Fire a callback."""
        if self.callbacks is Callbacks.MISSING:
            return
        if self._held is not None:
            self._held.append((webhook, fields))
            return
        token = secrets.token_hex(16)
        for _ in range(2 if self.callbacks is Callbacks.DUPLICATED else 1):
            self._teller.start(self._teller.post(webhook, fields, token=token))

    def release(self) -> None:
        """Nothing more is waited for: those held back are posted, last first, each when the one before is done."""
        held, self._held = self._held, None
        if held:
            self._teller.start(self._post_all(held[::-1]))

    async def _post_all(self, held: list[tuple[Webhook, dict[str, str]]]) -> None:
        for webhook, fields in held:
            await self._teller.post(webhook, fields, token=secrets.token_hex(16))


class Teller:
    """Sends the requests, and remembers what was wrong with the answers."""

    def __init__(self, sender: CallbackSender, clock: Clock, *, account_sid: str) -> None:
        self.account_sid = account_sid
        self._sender = sender
        self._clock = clock
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._problems: deque[Problem] = deque(maxlen=_PROBLEMS_KEPT)

    def problems(self) -> list[Problem]:
        """What was wrong, oldest first."""
        return list(self._problems)

    def stream(self, callbacks: Callbacks) -> Stream:
        """The callbacks of one more call or conference."""
        return Stream(self, callbacks)

    async def post(self, webhook: Webhook, fields: Mapping[str, str], *, token: str | None = None) -> Outcome:
        """One request and its answer; one that was not taken is a problem, which the account is shown."""
        send = self._sender.get if webhook.method == "GET" else self._sender.post
        outcome = await send(webhook.url, fields, idempotency_token=token or secrets.token_hex(16))
        if outcome.failure is not None:
            code = 11205 if outcome.status is None else 11200
            answered = "not answered" if outcome.status is None else f"answered {outcome.status}"
            self.complain(code, f"{webhook.method} was {answered}", url=webhook.url, call_sid=fields.get("CallSid"))
        return outcome

    def complain(self, code: int, message: str, *, url: str | None, call_sid: str | None) -> None:
        """Remember what is wrong, with Twilio's code for it."""
        self._problems.append(Problem(self._clock.now(), code, message, url, call_sid))
        log.warning("sandbox.voice.problem", code=code, call_sid=call_sid)

    def ask(self, webhook: Webhook, fields: Mapping[str, str]) -> asyncio.Task[Outcome]:
        """One request, made meanwhile."""
        return self._task(self.post(webhook, fields))

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have something done meanwhile; nothing is begun once all has been let go of."""
        if self._is_closed:
            work.close()
        else:
            self._task(work)

    async def aclose(self) -> None:
        """Let go of all that is under way, and begin nothing more."""
        self._is_closed = True
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def reset(self) -> None:
        """Begin anew after `aclose`, without problems."""
        self._is_closed = False
        self._problems.clear()

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sandbox.voice.broken", exc_info=error)
