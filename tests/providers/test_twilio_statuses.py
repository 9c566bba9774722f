from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from server.providers.ports import MessageReport, MessageStatus
from server.providers.twilio import statuses

RANKS = {
    "scheduled": 0,
    "accepted": 1,
    "queued": 2,
    "sending": 3,
    "sent": 4,
    "delivered": 5,
    "undelivered": 5,
    "failed": 5,
    "canceled": 5,
    "read": 6,
}


def report(provider_status: str) -> MessageReport:
    return statuses.report(message_sid="SM1", provider_status=provider_status, error_code=None)


@pytest.mark.parametrize(
    ("provider_status", "internal_status"),
    [
        ("scheduled", MessageStatus.PROCESSING),
        ("accepted", MessageStatus.PROCESSING),
        ("queued", MessageStatus.PROCESSING),
        ("sending", MessageStatus.SENDING),
        ("sent", MessageStatus.SENT),
        ("partially_delivered", MessageStatus.SENT),
        ("delivered", MessageStatus.DELIVERED),
        ("read", MessageStatus.DELIVERED),
        ("undelivered", MessageStatus.FAILED),
        ("failed", MessageStatus.FAILED),
        ("canceled", MessageStatus.CANCELLED),
    ],
)
def test_status_in_our_words(provider_status: str, internal_status: MessageStatus) -> None:
    assert report(provider_status).internal_status is internal_status


@pytest.mark.parametrize(("provider_status", "rank"), RANKS.items())
def test_status_has_its_rank(provider_status: str, rank: int) -> None:
    assert report(provider_status).rank == rank


def applied(so_far: MessageReport, new: MessageReport) -> MessageReport:
    return new if new.rank > so_far.rank else so_far


@given(st.lists(st.sampled_from(sorted(RANKS)), min_size=1))
def test_applied_by_rank_no_arrival_order_moves_a_message_backwards(arrived: list[str]) -> None:
    history = list(accumulate(map(report, arrived), applied))

    assert [each.rank for each in history] == sorted(each.rank for each in history)
    assert history[-1].rank == max(RANKS[status] for status in arrived)


@given(st.permutations(["queued", "sent", "delivered"]), st.data())
def test_any_order_and_any_repetition_ends_delivered(order: list[str], data: st.DataObject) -> None:
    repeated = data.draw(st.lists(st.sampled_from(order)))

    last = list(accumulate(map(report, order + repeated), applied))[-1]

    assert last.internal_status is MessageStatus.DELIVERED


@given(st.permutations(["delivered", "undelivered", "failed", "canceled"]))
def test_of_final_statuses_the_first_wins(order: list[str]) -> None:
    last = list(accumulate(map(report, order), applied))[-1]

    assert last.provider_status == order[0]


def test_status_nobody_has_heard_of_moves_nothing_and_is_told() -> None:
    with capture_logs() as logs:
        unknown = report("teleported")

    assert unknown.rank == 0
    assert unknown.provider_status == "teleported"
    assert [line["event"] for line in logs] == ["twilio.status_unknown"]
