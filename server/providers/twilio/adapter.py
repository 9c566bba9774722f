"""Sends messages through one Twilio account, or through the sandbox, which speaks the same protocol."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from twilio.base.exceptions import TwilioException

from server.providers.http import NoAnswer, NotReached
from server.providers.ports import (
    MessageReport,
    OutboundMessage,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
)
from server.providers.twilio import statuses
from server.providers.twilio.account import TwilioAccount
from server.providers.twilio.client import Refusal, TwilioClient
from server.providers.twilio.failures import create_failure, says_there_is_none, unavailable
from server.providers.twilio.overrides import RETRIES

if TYPE_CHECKING:
    from twilio.rest.api.v2010.account.message import MessageInstance

# Twilio's times are whole seconds of its own clock.
_CLOCK_SLACK = timedelta(minutes=1)

# What a trial account's texts begin with; without cutting it off no copy would ever be found there.
_TRIAL_PREFIX = "Sent from your Twilio trial account - "

_PAGE_SIZE = 100


class TwilioMessageSender:
    """ports.MessageSender over Twilio's Messages resource; made inside a running event loop."""

    def __init__(
        self,
        account: TwilioAccount,
        *,
        public_base_url: str,
        connections: int = 100,
        timeout: timedelta = timedelta(seconds=15),
    ) -> None:
        self._client = TwilioClient(account, connections=connections, timeout=timeout)
        self._public_base_url = public_base_url

    async def send(self, message: OutboundMessage) -> MessageReport:
        """Hand the message over; the status callback names it, so it is known even if the answer never arrives."""
        try:
            created = await self._client.messages.create_async(**self._parameters(message))
        except NotReached as error:
            raise ProviderUnavailable(str(error)) from error
        except NoAnswer as error:
            raise ProviderOutcomeUnknown(str(error)) from error
        except Refusal as refusal:
            raise create_failure(refusal) from refusal
        if not created.sid or not created.status:
            raise ProviderOutcomeUnknown("the answer names no message")
        return _report(created)

    async def find_copies(self, message: OutboundMessage, *, since: datetime) -> list[MessageReport]:
        """Twilio's messages like this one, oldest first.

        There is no filter on DateSent because a message that waits to be sent has no such date. With a messaging
        service the sender may not be chosen yet either, so there the list is by receiver and our own eyes.
        """
        filters: dict[str, Any] = {"to": message.receiver_number}
        if message.messaging_service_sid is None:
            filters["from_"] = message.sender_number
        earliest = since.astimezone(UTC) - _CLOCK_SLACK
        copies: list[MessageReport] = []
        try:
            async for found in await self._client.messages.stream_async(**filters, page_size=_PAGE_SIZE):
                if found.date_created < earliest:
                    break
                if _is_copy(found, message):
                    copies.append(_report(found))
        except Refusal as refusal:
            raise unavailable(refusal) from refusal
        except (NotReached, NoAnswer, TwilioException) as error:
            raise ProviderUnavailable(str(error)) from error
        copies.reverse()
        return copies

    async def fetch(self, message_sid: str) -> MessageReport | None:
        """Twilio's word on one message now."""
        try:
            found = await self._client.messages(message_sid).fetch_async()
        except Refusal as refusal:
            if says_there_is_none(refusal):
                return None
            raise unavailable(refusal) from refusal
        except (NotReached, NoAnswer, TwilioException) as error:
            raise ProviderUnavailable(str(error)) from error
        if not found.sid or not found.status:
            raise ProviderUnavailable("the answer names no message")
        return _report(found)

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._client.aclose()

    def _parameters(self, message: OutboundMessage) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "to": message.receiver_number,
            "from_": message.sender_number,
            "status_callback": _status_callback(self._public_base_url, message.message_uuid),
        }
        if message.message_body:
            parameters["body"] = message.message_body
        if message.media_urls:
            parameters["media_url"] = list(message.media_urls)
        if message.messaging_service_sid is not None:
            parameters["messaging_service_sid"] = message.messaging_service_sid
        if message.message_type == "mms":
            parameters["send_as_mms"] = True
        return parameters


def _status_callback(public_base_url: str, message_uuid: UUID) -> str:
    return f"{public_base_url}/api/v1/twilio_requests/webhook_message_updates?message_uuid={message_uuid}{RETRIES}"


def _report(message: "MessageInstance") -> MessageReport:
    return statuses.report(
        message_sid=message.sid,
        provider_status=message.status,
        error_code=None if message.error_code is None else str(message.error_code),
    )


def _is_copy(found: "MessageInstance", message: OutboundMessage) -> bool:
    text = "" if found.body is None else found.body.removeprefix(_TRIAL_PREFIX)
    return (
        found.direction.startswith("outbound")
        and found.from_ in (message.sender_number, None)
        and text == message.message_body
        and int(found.num_media) == len(message.media_urls)
    )
