"""What Twilio's refusals mean, whatever was asked of it."""

from server.providers.ports import ProviderFailure, ProviderOutcomeUnknown, ProviderRejected, ProviderUnavailable
from server.providers.twilio import statuses
from server.providers.twilio.client import Refusal

# Twilio has room later: too many requests, too many calls at once, the sender's queue is full, the account's queue is.
_LATER = frozenset({20429, 10004, 21611, 30001})

# The account, its credentials or its address are wrong: an operator puts that right, and then it can be done.
_OPERATOR = frozenset({10001, 20003, 20005, 20404, 30002})

_NOT_FOUND = 404


def unavailable(refusal: Refusal) -> ProviderUnavailable:
    """Later may do."""
    return ProviderUnavailable(str(refusal), retry_after=refusal.retry_after)


def says_there_is_none(refusal: Refusal) -> bool:
    """Whether Twilio itself, and not somebody in between, has nothing by that sid."""
    return refusal.status == _NOT_FOUND and refusal.code is not None


def create_failure(refusal: Refusal) -> ProviderFailure:
    """What a refused create means.

    429 and 503 are said before any work is begun, so nothing was taken. 500, 502 and 504 are said by something that
    gave up midway: Twilio has no idempotent create, so it may have been taken, and is looked for before it is asked
    again. Asking at once risks a parent's second text or call, looking costs one list. Only a code of Twilio's own
    rejects for good; without one somebody in between answered, and nothing that we accepted is dropped for that.
    """
    if refusal.status in (429, 503) or refusal.code in _LATER:
        return unavailable(refusal)
    if refusal.status >= 500:
        return ProviderOutcomeUnknown(str(refusal))
    return _refused(refusal)


def change_failure(refusal: Refusal) -> ProviderFailure:
    """What a refused change means, which may be asked again whatever came of it: it says how things are to be."""
    if refusal.status == 429 or refusal.status >= 500 or refusal.code in _LATER:
        return unavailable(refusal)
    return _refused(refusal)


def _refused(refusal: Refusal) -> ProviderFailure:
    if refusal.status == 401 or refusal.code is None or refusal.code in _OPERATOR:
        return unavailable(refusal)
    return ProviderRejected(statuses.provider_error(str(refusal.code)))
