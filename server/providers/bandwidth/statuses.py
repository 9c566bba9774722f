"""Bandwidth's words for where a message is, in our words and in order."""

import structlog

from server.providers.ports import MessageReport, MessageStatus, ProviderError

log = structlog.get_logger(__name__)

# One page explains all codes, those of deliveries and those of refused requests.
_ERROR_PAGE = "https://dev.bandwidth.com/docs/messaging/errors"

# "Carrier Rejected due to user opt out"; 4482, a number on Bandwidth's black list, is nobody's wish.
_OPTED_OUT = "4775"

# What 202 Accepted says of a message.
ACCEPTED = "ACCEPTED"

# Events are posted at least once and in no promised order. They and the list have words of their own for the same
# things; all final words share a rank: the first wins.
_STATUSES: dict[str, tuple[MessageStatus, int]] = {
    "RECEIVED": (MessageStatus.PROCESSING, 0),
    ACCEPTED: (MessageStatus.PROCESSING, 1),
    "QUEUED": (MessageStatus.PROCESSING, 2),
    "SENDING": (MessageStatus.SENDING, 3),
    "message-sending": (MessageStatus.SENDING, 3),
    "SENT": (MessageStatus.SENT, 4),
    "message-sent": (MessageStatus.SENT, 4),
    "DELIVERED": (MessageStatus.DELIVERED, 5),
    "message-delivered": (MessageStatus.DELIVERED, 5),
    "UNDELIVERED": (MessageStatus.FAILED, 5),
    "FAILED": (MessageStatus.FAILED, 5),
    "message-failed": (MessageStatus.FAILED, 5),
    "message-read": (MessageStatus.DELIVERED, 6),
}

# A word Bandwidth adds later still names a message it has: at rank 0 it moves nothing that is known better.
_UNKNOWN = (MessageStatus.PROCESSING, 0)


def is_known(provider_status: str) -> bool:
    """Whether it is one of Bandwidth's words."""
    return provider_status in _STATUSES


def report(*, message_sid: str, provider_status: str, error_code: str | None) -> MessageReport:
    """Bandwidth's word on a message as a report; `error_code` is None where Bandwidth named none."""
    if not is_known(provider_status):
        log.warning("bandwidth.status_unknown", message_sid=message_sid, provider_status=provider_status)
    internal_status, rank = _STATUSES.get(provider_status, _UNKNOWN)
    return MessageReport(
        message_sid=message_sid,
        provider_status=provider_status,
        internal_status=internal_status,
        rank=rank,
        error=None if error_code is None else provider_error(error_code),
    )


def provider_error(code: str) -> ProviderError:
    """The error with the page on which Bandwidth explains it."""
    return ProviderError(code=code, url=_ERROR_PAGE, recipient_opted_out=code == _OPTED_OUT)
