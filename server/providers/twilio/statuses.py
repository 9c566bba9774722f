"""Twilio's words for where a message is, in our words and in order."""

import structlog

from server.providers.ports import MessageReport, MessageStatus, ProviderError

log = structlog.get_logger(__name__)

_ERROR_PAGE = "https://www.twilio.com/docs/api/errors/"

# "Attempt to send to unsubscribed recipient".
_UNSUBSCRIBED = "21610"

# Callbacks carry no time and arrive in any order, so the order is ours. All final words share a rank: the first wins.
# Even `scheduled` is "processing": handing over has happened. `partially_delivered` says nothing final.
_STATUSES: dict[str, tuple[MessageStatus, int]] = {
    "scheduled": (MessageStatus.PROCESSING, 0),
    "accepted": (MessageStatus.PROCESSING, 1),
    "queued": (MessageStatus.PROCESSING, 2),
    "sending": (MessageStatus.SENDING, 3),
    "sent": (MessageStatus.SENT, 4),
    "partially_delivered": (MessageStatus.SENT, 4),
    "delivered": (MessageStatus.DELIVERED, 5),
    "undelivered": (MessageStatus.FAILED, 5),
    "failed": (MessageStatus.FAILED, 5),
    "canceled": (MessageStatus.CANCELLED, 5),
    "read": (MessageStatus.DELIVERED, 6),
}

# A word Twilio adds later still names a message it has: at rank 0 it moves nothing that is known better.
_UNKNOWN = (MessageStatus.PROCESSING, 0)


def report(*, message_sid: str, provider_status: str, error_code: str | None) -> MessageReport:
    """Twilio's word on a message as a report; `error_code` is None where Twilio named none."""
    if provider_status not in _STATUSES:
        log.warning("twilio.status_unknown", message_sid=message_sid, provider_status=provider_status)
    internal_status, rank = _STATUSES.get(provider_status, _UNKNOWN)
    return MessageReport(
        message_sid=message_sid,
        provider_status=provider_status,
        internal_status=internal_status,
        rank=rank,
        error=None if error_code is None else provider_error(error_code),
    )


def provider_error(code: str) -> ProviderError:
    """The error with the page on which Twilio explains it."""
    return ProviderError(code=code, url=_ERROR_PAGE + code, recipient_opted_out=code == _UNSUBSCRIBED)
