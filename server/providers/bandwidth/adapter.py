"""Sends messages through one Bandwidth account, or through the sandbox, which speaks the same protocol."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from server.providers.bandwidth import statuses
from server.providers.bandwidth.client import BandwidthClient, Refusal
from server.providers.bandwidth.oauth import ClientCredentials
from server.providers.http import NoAnswer, NotReached
from server.providers.ports import (
    MessageReport,
    OutboundMessage,
    ProviderFailure,
    ProviderOutcomeUnknown,
    ProviderRejected,
    ProviderUnavailable,
)

# The account, its credentials or its address are wrong, or Bandwidth no longer takes what we speak: people put that
# right, and the message can go then.
_OPERATOR = frozenset({401, 403, 404, 405, 406, 415})

# Bandwidth's times are of its own clock.
_CLOCK_SLACK = timedelta(minutes=1)


class BandwidthMessageSender:
    """ports.MessageSender over Bandwidth's messages; made inside a running event loop.

    Callbacks go where the messaging application says, not where a message says: the tag, which every callback repeats,
    is what names our message.
    """

    def __init__(
        self,
        *,
        account_id: str,
        credentials: ClientCredentials,
        api_base_url: str,
        connections: int = 100,
        timeout: timedelta = timedelta(seconds=15),
    ) -> None:
        self._client = BandwidthClient(
            account_id=account_id,
            credentials=credentials,
            base_url=api_base_url,
            connections=connections,
            timeout=timeout,
        )

    async def send(self, message: OutboundMessage) -> MessageReport:
        """Hand the message over; its tag names it, so it is known even if the answer never arrives."""
        try:
            created = await self._client.create_message(_fields(message))
        except NotReached as error:
            raise ProviderUnavailable(str(error)) from error
        except NoAnswer as error:
            raise ProviderOutcomeUnknown(str(error)) from error
        except Refusal as refusal:
            raise _create_failure(refusal) from refusal
        message_sid = created.get("id")
        if not isinstance(message_sid, str) or not message_sid:
            raise ProviderOutcomeUnknown("the answer names no message")
        return statuses.report(message_sid=message_sid, provider_status=statuses.ACCEPTED, error_code=None)

    async def find_copies(self, message: OutboundMessage, *, since: datetime) -> list[MessageReport]:
        """Bandwidth's messages like this one, oldest first.

        Bandwidth keeps neither texts nor tags: a copy is told by the numbers and the type and, where the list says so,
        by the length of the text and the number of attachments (docs/decisions/0014-copies-at-bandwidth.md).
        """
        filters = {
            "sourceTn": message.sender_number,
            "destinationTn": message.receiver_number,
            "messageDirection": "OUTBOUND",
            "fromDateTime": _iso8601(since - _CLOCK_SLACK),
        }
        found = [item for item in await self._list(filters) if _is_copy(item, message)]
        # The order of the list is not documented; its times are, in one form that sorts as text.
        found.sort(key=lambda item: str(item.get("receiveTime")))
        return [_report(item) for item in found]

    async def fetch(self, message_sid: str) -> MessageReport | None:
        """Bandwidth's word on one message now; its list goes 14 days back."""
        return next((_report(item) for item in await self._list({"messageId": message_sid})), None)

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._client.aclose()

    async def _list(self, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        try:
            found = [item async for item in self._client.list_messages(filters)]
        except Refusal as refusal:
            raise _unavailable(refusal) from refusal
        except (NotReached, NoAnswer) as error:
            raise ProviderUnavailable(str(error)) from error
        if not all(isinstance(item.get(name), str) for item in found for name in ("messageId", "messageStatus")):
            raise ProviderUnavailable("the list has a message without id or status")
        return found


def _fields(message: OutboundMessage) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "to": [message.receiver_number],
        "from": message.sender_number,
        "tag": str(message.message_uuid),
    }
    if message.messaging_service_sid is not None:
        fields["applicationId"] = message.messaging_service_sid
    if message.message_body:
        fields["text"] = message.message_body
    if message.media_urls:
        fields["media"] = list(message.media_urls)
    else:
        # "Not supported on MMS."
        fields["priority"] = message.priority
    return fields


def _report(item: Mapping[str, Any]) -> MessageReport:
    # 0 is no error.
    error_code = item.get("errorCode") or None
    return statuses.report(
        message_sid=item["messageId"],
        provider_status=item["messageStatus"],
        error_code=None if error_code is None else str(error_code),
    )


def _is_copy(item: Mapping[str, Any], message: OutboundMessage) -> bool:
    """What the list does not say is not held against a copy: one that is missed is a parent's second text."""
    return (
        item.get("sourceTn") == message.sender_number
        and item.get("destinationTn") == message.receiver_number
        and item.get("messageDirection") == "OUTBOUND"
        and item.get("messageType") == ("mms" if message.media_urls else "sms")
        and item.get("messageLength") in (None, *_lengths(message.message_body))
        and (not message.media_urls or _attachments(item, message) >= len(message.media_urls))
    )


def _attachments(item: Mapping[str, Any], message: OutboundMessage) -> int:
    """As many as the list says, parts that are added on the way among them; as sent where it says nothing."""
    counted = item.get("attachmentCount")
    return counted if isinstance(counted, int) else len(message.media_urls)


def _lengths(text: str) -> tuple[int, ...]:
    """The length of a text in each unit that "the length of the message content" may mean."""
    return len(text), len(text.encode("utf-16-le")) // 2, len(text.encode())


def _iso8601(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unavailable(refusal: Refusal) -> ProviderUnavailable:
    return ProviderUnavailable(str(refusal), retry_after=refusal.retry_after)


def _create_failure(refusal: Refusal) -> ProviderFailure:
    """What a refused create means.

    429 (the account's queue is full) and 503 are said before any work is begun, so nothing was taken. 500, 502 and 504
    are said by something that gave up midway: Bandwidth has no idempotent create, so the message may be on its way, and
    is looked for before it is sent again. Only an error of Bandwidth's own form rejects for good; without one somebody
    in between answered, and no accepted message is dropped for that.
    """
    if refusal.status in (429, 503):
        return _unavailable(refusal)
    if refusal.status >= 500:
        return ProviderOutcomeUnknown(str(refusal))
    if refusal.kind is None or refusal.status in _OPERATOR:
        return _unavailable(refusal)
    return ProviderRejected(statuses.provider_error(refusal.kind))
