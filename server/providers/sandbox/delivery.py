"""Moves messages on, one status after the other, and has their callbacks posted."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from server.providers.sandbox.answers import API_VERSION, Refusal
from server.providers.sandbox.bandwidth_callbacks import BandwidthCallbacks
from server.providers.sandbox.callbacks import CallbackSender
from server.providers.sandbox.carrier import Carrier, phone_number_sid
from server.providers.sandbox.misbehaviour import Callbacks, Misbehaviour
from server.providers.sandbox.records import Direction, Message, Vendor
from server.providers.sandbox.twiml import Reply, TwimlInvalid, replies
from server.providers.sandbox.validity import check_message

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Told:
    """How the account took one callback: the status it answered with, why the callback was lost, what was wrong."""

    status: int | None
    failure: str | None
    problem: str | None


class Delivery:
    """One task per message that is on its way; a restart takes each up where it was."""

    def __init__(
        self,
        carrier: Carrier,
        callbacks: CallbackSender,
        *,
        step_delay: timedelta,
        bandwidth: BandwidthCallbacks | None = None,
    ) -> None:
        self._carrier = carrier
        self._callbacks = callbacks
        self._bandwidth = bandwidth
        self._step_delay = step_delay.total_seconds()
        self._tasks: dict[str, asyncio.Task[list[Told]]] = {}

    def resume(self) -> None:
        """Take up every message that the journal shows on its way."""
        for message in self._carrier.messages.values():
            if message.next_status() is not None or message.callbacks_due:
                self.start(message)

    def start(self, message: Message) -> asyncio.Task[list[Told]]:
        """Take a message up, also one that is being delivered already and was changed; the task tells its callbacks."""
        self.stop(message.sid)
        task = asyncio.create_task(self._deliver(message), name=f"deliver {message.sid}")
        self._tasks[message.sid] = task
        task.add_done_callback(lambda done: self._ended(message.sid, done))
        return task

    def stop(self, message_sid: str) -> None:
        """Let go of a message."""
        if (task := self._tasks.pop(message_sid, None)) is not None:
            task.cancel()

    async def aclose(self) -> None:
        """Let go of all; the journal knows where they are."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, message_sid: str, task: asyncio.Task[list[Told]]) -> None:
        if self._tasks.get(message_sid) is task:
            del self._tasks[message_sid]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sandbox.delivery.broken", message_sid=message_sid, exc_info=error)

    async def _deliver(self, message: Message) -> list[Told]:
        held_back = message.callbacks == Callbacks.REORDERED
        told = [] if held_back else await self._report(message)
        while (status := message.next_status()) is not None:
            await asyncio.sleep(self._wait(message))
            self._carrier.advance(message, status)
            if not held_back:
                told += await self._report(message)
        return told + await self._report(message)

    def _wait(self, message: Message) -> float:
        if message.status == "scheduled" and message.send_at is not None:
            return max(message.send_at - self._carrier.now(), 0)
        return self._step_delay

    async def _report(self, message: Message) -> list[Told]:
        """Post the callbacks that are due; only one that is done is forgotten, so a restart posts it again."""
        newest_first = message.callbacks == Callbacks.REORDERED
        told = []
        while message.callbacks_due:
            due = message.callbacks_due[-1 if newest_first else 0]
            for _ in range(2 if message.callbacks == Callbacks.DUPLICATED else 1):
                told.append(await self._post(message, *due))
            message.callbacks_due.remove(due)
            self._carrier.save(message)
        return told

    async def _post(self, message: Message, status: str, token: str) -> Told:
        assert message.callback_url is not None, "without a URL no callback becomes due"
        if message.vendor == Vendor.BANDWIDTH:
            assert self._bandwidth is not None, "an account that is gone takes its messages with it"
            status_code, failure = await self._bandwidth.post(message.callback_url, message, status)
            return Told(status_code, failure, problem=None)
        if message.direction != Direction.INBOUND:
            fields = _fields(message, status, account_sid=self._carrier.account_sid)
            outcome = await self._callbacks.post(message.callback_url, fields, idempotency_token=token)
            return Told(outcome.status, outcome.failure, problem=None)
        outcome = await self._callbacks.post(message.callback_url, message.inbound_form, idempotency_token=token)
        problem = None
        if outcome.failure is None:
            try:
                for reply in replies(outcome.content_type, outcome.body):
                    self._send(reply, to=message)
            except (TwimlInvalid, Refusal) as error:
                problem = f"{error.code}: {error}"
                log.warning("sandbox.answer.invalid", message_sid=message.sid, code=error.code)
        return Told(outcome.status, outcome.failure, problem)

    def _send(self, reply: Reply, *, to: Message) -> None:
        """What goes back comes from the number that was texted. Raises Refusal."""
        assert to.from_ is not None, "whoever texts has a number"
        service = self._carrier.service_of(phone_number_sid(to.to))
        service_sid = None if service is None else service.sid
        form = {"To": to.from_, "From": to.to, "Body": reply.body}
        check_message(self._carrier, form, media_urls=list(reply.media_urls))
        message = self._carrier.take(
            to=to.from_,
            from_=to.to,
            service_sid=service_sid,
            body=reply.body,
            media_urls=list(reply.media_urls),
            is_mms=bool(reply.media_urls),
            status_callback=None,
            send_at=None,
            misbehaviour=Misbehaviour(),
            direction=Direction.REPLY,
        )
        self.start(message)


def _fields(message: Message, status: str, *, account_sid: str) -> dict[str, str]:
    fields = {
        "AccountSid": account_sid,
        "ApiVersion": API_VERSION,
        "MessageSid": message.sid,
        "MessageStatus": status,
        "SmsSid": message.sid,
        "SmsStatus": status,
        "To": message.to,
    }
    if message.from_ is not None:
        fields["From"] = message.from_
    if message.messaging_service_sid is not None:
        fields["MessagingServiceSid"] = message.messaging_service_sid
    if status == message.final_status and message.error_code is not None:
        fields["ErrorCode"] = str(message.error_code)
    if status in ("delivered", "undelivered"):
        fields["RawDlrDoneDate"] = datetime.fromtimestamp(message.updated, UTC).strftime("%y%m%d%H%M")
    return fields
