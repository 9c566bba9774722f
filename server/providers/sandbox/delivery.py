"""Moves messages on, one status after the other, and has their callbacks posted."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from server.providers.sandbox.answers import API_VERSION
from server.providers.sandbox.callbacks import CallbackSender
from server.providers.sandbox.carrier import Carrier, Message
from server.providers.sandbox.misbehaviour import Callbacks

log = structlog.get_logger(__name__)


class Delivery:
    """One task per message that is on its way; a restart takes each up where it was."""

    def __init__(self, carrier: Carrier, callbacks: CallbackSender, *, step_delay: timedelta) -> None:
        self._carrier = carrier
        self._callbacks = callbacks
        self._step_delay = step_delay.total_seconds()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def resume(self) -> None:
        """Take up every message that the journal shows on its way."""
        for message in self._carrier.messages.values():
            if message.next_status() is not None or message.callbacks_due:
                self.start(message)

    def start(self, message: Message) -> None:
        """Take a message up, also one that is being delivered already and was changed."""
        self.stop(message.sid)
        task = asyncio.create_task(self._deliver(message), name=f"deliver {message.sid}")
        self._tasks[message.sid] = task
        task.add_done_callback(lambda done: self._ended(message.sid, done))

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

    def _ended(self, message_sid: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(message_sid) is task:
            del self._tasks[message_sid]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sandbox.delivery.broken", message_sid=message_sid, exc_info=error)

    async def _deliver(self, message: Message) -> None:
        held_back = message.callbacks == Callbacks.REORDERED
        if not held_back:
            await self._report(message)
        while (status := message.next_status()) is not None:
            await asyncio.sleep(self._wait(message))
            self._carrier.advance(message, status)
            if not held_back:
                await self._report(message)
        await self._report(message)

    def _wait(self, message: Message) -> float:
        if message.status == "scheduled" and message.send_at is not None:
            return max(message.send_at - self._carrier.now(), 0)
        return self._step_delay

    async def _report(self, message: Message) -> None:
        """Post the callbacks that are due; only one that is done is forgotten, so a restart posts it again."""
        newest_first = message.callbacks == Callbacks.REORDERED
        while message.callbacks_due:
            due = message.callbacks_due[-1 if newest_first else 0]
            status, token = due
            assert message.status_callback is not None, "without a URL no callback becomes due"
            for _ in range(2 if message.callbacks == Callbacks.DUPLICATED else 1):
                fields = _fields(message, status, account_sid=self._carrier.account_sid)
                await self._callbacks.post(message.status_callback, fields, idempotency_token=token)
            message.callbacks_due.remove(due)
            self._carrier.save(message)


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
