"""Bandwidth's words for statuses: the list's, and those of events."""

import pytest

from server.providers.bandwidth import statuses
from server.providers.ports import MessageReport, MessageStatus


def read(provider_status: str) -> MessageReport:
    return statuses.report(message_sid="1", provider_status=provider_status, error_code=None)


@pytest.mark.parametrize(
    ("listed", "posted"),
    [
        ("SENDING", "message-sending"),
        ("SENT", "message-sent"),
        ("DELIVERED", "message-delivered"),
        ("UNDELIVERED", "message-failed"),
        ("FAILED", "message-failed"),
    ],
)
def test_list_and_events_tell_a_status_in_one_spelling(listed: str, posted: str) -> None:
    assert read(listed) == read(posted)
    assert read(listed).provider_status == posted


@pytest.mark.parametrize(("word", "rank"), [("RECEIVED", 0), ("ACCEPTED", 1), ("QUEUED", 2)])
def test_status_that_no_event_tells_keeps_the_lists_word(word: str, rank: int) -> None:
    assert read(word) == MessageReport("1", word, MessageStatus.PROCESSING, rank)
