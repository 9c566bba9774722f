"""What is known of a leg is the same in whatever order it was told."""

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from server.calls import legs
from server.calls.tables import CallLegRow
from server.providers.ports import ProviderError

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)

FACTS = st.fixed_dictionaries(
    {
        "provider_status": st.sampled_from([None, "ringing", "in-progress", "completed", "failed"]),
        "answered_by": st.sampled_from([None, "human", "machine_start", "unknown"]),
        "error": st.sampled_from([None, ProviderError("11200", "url"), ProviderError("13225", "url")]),
        "sip_response_code": st.sampled_from([None, 200, 404, 503]),
        "occurred_at": st.one_of(st.none(), st.integers(1, 5).map(lambda ago: NOW - timedelta(seconds=ago))),
    }
)


def new_leg() -> CallLegRow:
    """One that is being dialled."""
    return CallLegRow(kind="contact", address="+12065550190", position=1, in_doubt=True, dial_at=NOW, check_attempts=0)


@settings(max_examples=300)
@given(st.lists(FACTS, min_size=2, max_size=4))
def test_leg_is_the_same_in_whatever_order_it_was_told_of(facts: list[dict[str, object]]) -> None:
    known = set()
    for told in itertools.permutations(facts):
        leg = new_leg()
        for each in told:
            legs.record_sid(leg, "CA1", now=NOW)
            legs.apply_progress(leg, **each, now=NOW)  # type: ignore[arg-type] # as FACTS has them
        known.add((leg.provider_status, leg.answered_by, leg.error_code, leg.error_description, leg.ended_at))

    assert len(known) == 1
