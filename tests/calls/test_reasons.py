"""Why a leg failed: what the provider says of it, in its order."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.calls.reasons import goes_before, reason_of
from server.providers.ports import ProviderError

ERROR = ProviderError("13224", "https://www.twilio.com/docs/api/errors/13224")
IN_ORDER = ["11200", "13224", "SIP_404", "SIP_503", "CALL_FAILED"]


@pytest.mark.parametrize("status", [None, "ringing", "in-progress", "busy", "no-answer", "canceled", "completed"])
def test_leg_that_did_not_fail_has_the_providers_error_or_none(status: str | None) -> None:
    told = reason_of(status, error=ERROR, sip_response_code=404)

    assert told is not None
    assert told.code == "13224"
    assert reason_of(status, error=None, sip_response_code=404) is None


@given(st.one_of(st.none(), st.integers()))
def test_leg_that_failed_always_says_why(sip_response_code: int | None) -> None:
    told = reason_of("failed", error=None, sip_response_code=sip_response_code)

    assert told is not None
    is_said = sip_response_code is not None and 400 <= sip_response_code < 700
    assert told.code == (f"SIP_{sip_response_code}" if is_said else "CALL_FAILED")
    assert (str(sip_response_code) in told.description) == is_said


@pytest.mark.parametrize(
    ("code", "words"), [(404, "SIP 404 (Not Found)."), (603, "SIP 603 (Decline)."), (499, "answered with SIP 499.")]
)
def test_answer_of_the_network_is_told_in_words(code: int, words: str) -> None:
    told = reason_of("failed", error=None, sip_response_code=code)

    assert told is not None
    assert told.description.endswith(words)


def test_code_that_says_more_goes_before_and_of_equals_the_first() -> None:
    for one, other in itertools.product(IN_ORDER, repeat=2):
        assert goes_before(one, other) == (IN_ORDER.index(one) < IN_ORDER.index(other))
