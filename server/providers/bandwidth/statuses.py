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

# Events are posted at least once and in no promised order. All final words share a rank: the first wins.
_STATUSES: dict[str, tuple[MessageStatus, int]] = {
    "RECEIVED": (MessageStatus.PROCESSING, 0),
    ACCEPTED: (MessageStatus.PROCESSING, 1),
    "QUEUED": (MessageStatus.PROCESSING, 2),
    "message-sending": (MessageStatus.SENDING, 3),
    "message-sent": (MessageStatus.SENT, 4),
    "message-delivered": (MessageStatus.DELIVERED, 5),
    "message-failed": (MessageStatus.FAILED, 5),
    "message-read": (MessageStatus.DELIVERED, 6),
}

# The list has words of its own for what events tell: a status is spelled as events spell it. What no event tells has
# the list's word only.
_LISTED = {
    "SENDING": "message-sending",
    "SENT": "message-sent",
    "DELIVERED": "message-delivered",
    "UNDELIVERED": "message-failed",
    "FAILED": "message-failed",
}

# A word Bandwidth adds later still names a message it has: at rank 0 it moves nothing that is known better.
_UNKNOWN = (MessageStatus.PROCESSING, 0)


def is_known(provider_status: str) -> bool:
    """Whether it is one of Bandwidth's words, as events spell it."""
    return provider_status in _STATUSES


def report(*, message_sid: str, provider_status: str, error_code: str | None) -> MessageReport:
    """Bandwidth's word on a message as a report; `error_code` is None where Bandwidth named none."""
    provider_status = _LISTED.get(provider_status, provider_status)
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
