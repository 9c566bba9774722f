"""What every MessageSender must do, whichever vendor it speaks to; proved against the carrier its subclass runs."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from server.providers.ports import (
    MessageCallback,
    MessageSender,
    MessageStatus,
    OutboundMessage,
    ProviderError,
    ProviderOutcomeUnknown,
    ProviderRejected,
    ProviderUnavailable,
)
from tests.providers.servers import Receiver, Sandbox


def make_message(**over: Any) -> OutboundMessage:
    """The smallest message that any carrier takes."""
    plain = OutboundMessage(
        message_uuid=uuid4(),
        sender_number="+12065550100",
        receiver_number="+14155550123",
        message_body="School is closed tomorrow",
        media_urls=(),
        message_type="sms",
        messaging_service_sid=None,
    )
    return replace(plain, **over)


class MessageSenderContract:
    """Subclasses say what is their carrier's own; the fixtures `sender` and `sandbox` are the two ends, and `receiver`
    is where callbacks go."""

    # A messaging service of the account, and what makes `make_message` one of the account's messages.
    messaging_service_sid: str
    plain: ClassVar[dict[str, Any]] = {}
    # Another number of the account.
    other_sender: str
    # What makes a message that the carrier refuses, and how it says so.
    refused: ClassVar[dict[str, Any]]
    refusal: ProviderError
    # What makes messages that the carrier's list tells from the plain one, besides numbers, media and lengths of texts.
    told_apart: ClassVar[tuple[dict[str, Any], ...]]

    def make_message(self, **over: Any) -> OutboundMessage:
        """The smallest message that this carrier takes."""
        return make_message(**{**self.plain, **over})

    async def next_callback(self, receiver: Receiver) -> MessageCallback:
        """The next callback, waited for and read as our server would."""
        raise NotImplementedError

    async def test_accepted_message_is_processing_under_a_sid(self, sender: MessageSender, sandbox: Sandbox) -> None:
        report = await sender.send(self.make_message())

        assert report.internal_status is MessageStatus.PROCESSING
        assert report.error is None
        assert [taken["sid"] for taken in await sandbox.taken()] == [report.message_sid]

    async def test_everything_that_was_to_be_sent_arrives(self, sender: MessageSender, sandbox: Sandbox) -> None:
        media = ("https://media.example/1.jpg", "https://media.example/2.png")
        text = "ü" * 1600
        message = self.make_message(
            message_body=text,
            media_urls=media,
            message_type="mms",
            messaging_service_sid=self.messaging_service_sid,
        )

        await sender.send(message)

        (taken,) = await sandbox.taken(to=message.receiver_number)
        assert taken["from"] == message.sender_number
        assert taken["body"] == text
        assert taken["media_urls"] == list(media)
        assert taken["messaging_service_sid"] == self.messaging_service_sid

    async def test_callback_names_our_message(self, sender: MessageSender, receiver: Receiver) -> None:
        message = self.make_message()

        report = await sender.send(message)

        callback = await self.next_callback(receiver)
        assert callback.message_uuid == message.message_uuid
        assert callback.report.message_sid == report.message_sid
        assert callback.report.rank > report.rank

    async def test_refused_message_is_rejected_with_its_code(self, sender: MessageSender, sandbox: Sandbox) -> None:
        with pytest.raises(ProviderRejected) as rejected:
            await sender.send(self.make_message(**self.refused))

        assert rejected.value.error == self.refusal
        assert await sandbox.taken() == []

    async def test_throttled_message_is_not_taken_and_waits(self, sender: MessageSender, sandbox: Sandbox) -> None:
        await sandbox.misbehave(answer="429", retry_after_ms=7000)

        with pytest.raises(ProviderUnavailable) as unavailable:
            await sender.send(self.make_message())

        assert unavailable.value.retry_after == timedelta(seconds=7)
        assert await sandbox.taken() == []

    async def test_refused_by_an_overloaded_carrier_is_not_taken(self, sender: MessageSender, sandbox: Sandbox) -> None:
        await sandbox.misbehave(answer="503")

        with pytest.raises(ProviderUnavailable):
            await sender.send(self.make_message())

        assert await sandbox.taken() == []

    @pytest.mark.parametrize("answer", ["lost-response", "garbled", "500-taken", "502-taken", "504-taken"])
    async def test_taken_message_without_an_answer_is_found(
        self, sender: MessageSender, sandbox: Sandbox, answer: str
    ) -> None:
        message, since = self.make_message(), datetime.now(UTC)
        await sandbox.misbehave(answer=answer, next_requests=1)

        with pytest.raises(ProviderOutcomeUnknown):
            await sender.send(message)

        (copy,) = await sender.find_copies(message, since=since)
        assert [taken["sid"] for taken in await sandbox.taken()] == [copy.message_sid]

    @pytest.mark.parametrize("answer", ["500", "502", "504"])
    async def test_failure_midway_is_unknown_and_nothing_is_found(
        self, sender: MessageSender, sandbox: Sandbox, answer: str
    ) -> None:
        message, since = self.make_message(), datetime.now(UTC)
        await sandbox.misbehave(answer=answer, next_requests=1)

        with pytest.raises(ProviderOutcomeUnknown):
            await sender.send(message)

        assert await sender.find_copies(message, since=since) == []

    async def test_only_the_same_numbers_text_and_media_are_copies(self, sender: MessageSender) -> None:
        message, since = self.make_message(media_urls=("https://media.example/1.jpg",)), datetime.now(UTC)
        for other in (
            replace(message, message_body="School is open tomorrow"),
            replace(message, message_body="School is closed tomorrow "),
            replace(message, media_urls=()),
            replace(message, sender_number=self.other_sender),
            replace(message, receiver_number="+14155550124"),
            *(replace(message, **difference) for difference in self.told_apart),
        ):
            await sender.send(other)
        sent = await sender.send(message)

        copies = await sender.find_copies(message, since=since)

        assert [copy.message_sid for copy in copies] == [sent.message_sid]

    async def test_twins_are_found_oldest_first_across_pages(self, sender: MessageSender) -> None:
        message, since = self.make_message(), datetime.now(UTC)
        first = await sender.send(message)
        for number in range(120):
            await sender.send(self.make_message(message_body=f"number {number}"))
        second = await sender.send(message)

        copies = await sender.find_copies(message, since=since)

        assert [copy.message_sid for copy in copies] == [first.message_sid, second.message_sid]

    async def test_copy_waiting_for_its_sender_is_found(self, sender: MessageSender) -> None:
        message, since = self.make_message(messaging_service_sid=self.messaging_service_sid), datetime.now(UTC)
        sent = await sender.send(message)

        copies = await sender.find_copies(message, since=since)

        assert [copy.message_sid for copy in copies] == [sent.message_sid]

    async def test_older_messages_are_no_copies(self, sender: MessageSender) -> None:
        message = self.make_message()
        await sender.send(message)

        assert await sender.find_copies(message, since=datetime.now(UTC) + timedelta(minutes=5)) == []

    @pytest.mark.parametrize("answer", ["429", "500", "502", "503", "lost-response", "garbled"])
    async def test_looking_in_vain_is_not_finding_nothing(
        self, sender: MessageSender, sandbox: Sandbox, answer: str
    ) -> None:
        await sandbox.misbehave(answer=answer)

        with pytest.raises(ProviderUnavailable):
            await sender.find_copies(self.make_message(), since=datetime.now(UTC))
