"""Why a leg failed, as its error_code and error_description tell it: pure.

A provider says it by a code of its own, or only by what the network answered, or not at all. Which one is kept of two
that were told does not depend on which came first.
"""

from dataclasses import dataclass

from server.providers.ports import ProviderError

# The error_code of a leg that failed where nobody says why.
CALL_FAILED = "CALL_FAILED"
_NOT_SAID = "The call could not be put through. The voice provider does not say why."

_SIP = "SIP_"

# The final answers of a network that refuses a call, or cannot put it through.
_REFUSALS = range(400, 700)

# Reason phrases of RFC 3261, section 21, and of RFC 8197 and RFC 8688.
_PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    410: "Gone",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    484: "Address Incomplete",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    606: "Not Acceptable",
    607: "Unwanted",
    608: "Rejected",
}


@dataclass(frozen=True)
class Reason:
    """An error_code, and the same in words."""

    code: str
    description: str


def reason_of(
    provider_status: str | None, *, error: ProviderError | None, sip_response_code: int | None
) -> Reason | None:
    """Why a leg failed of which this was told; None where it did not fail and has no error."""
    if error is not None:
        return Reason(error.code, describe(error))
    if provider_status != "failed":
        return None
    if sip_response_code is None or sip_response_code not in _REFUSALS:
        return Reason(CALL_FAILED, _NOT_SAID)
    phrase = _PHRASES.get(sip_response_code)
    answer = f"{sip_response_code} ({phrase})" if phrase else str(sip_response_code)
    return Reason(
        f"{_SIP}{sip_response_code}",
        f"The call could not be put through. The phone network answered with SIP {answer}.",
    )


def goes_before(code: str, known: str) -> bool:
    """Whether an error_code is to replace another: what says more, and of two that say as much the first in order."""
    return _place(code) < _place(known)


def describe(error: ProviderError) -> str:
    """A provider's error in words."""
    return f"There was an error with the voice provider. For more details visit: {error.url}"


def _place(code: str) -> tuple[int, str]:
    return (2 if code == CALL_FAILED else 1 if code.startswith(_SIP) else 0), code
