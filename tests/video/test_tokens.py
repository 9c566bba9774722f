"""When tokens stop being good, and who gets none."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.video_ports import VideoAdmission
from server.video.tables import VideoCallParticipantRow, VideoCallRow
from server.video.tokens import good_until, token_for
from server.video.video_calls import EXPIRES_AFTER

CREATED = datetime(2026, 11, 23, 12, tzinfo=UTC)
PROVIDERS_LONGEST = timedelta(hours=48)

lengths = st.integers(0, 120).map(lambda minutes: timedelta(minutes=minutes))
waits = st.timedeltas(timedelta(0), EXPIRES_AFTER)


class Register:
    """Writes admissions down instead of signing them."""

    def __init__(self) -> None:
        self.admissions: list[VideoAdmission] = []

    def sign(self, admission: VideoAdmission) -> str:
        """The admission's number."""
        self.admissions.append(admission)
        return str(len(self.admissions))


def a_call(**over: object) -> VideoCallRow:
    given = {
        "session_key": UUID(int=1),
        "session_name": "a name",
        "maximum_call_length": 60,
        "internal_status": "pending",
        "expires_at": CREATED + EXPIRES_AFTER,
        "end_at": None,
    }
    return VideoCallRow(**{**given, **over})


def a_participant(*, is_host: bool = False) -> VideoCallParticipantRow:
    return VideoCallParticipantRow(user_key=UUID(int=2), is_host=is_host)


@given(lengths, waits)
def test_token_of_a_call_outlasts_it_whenever_it_begins(length: timedelta, wait: timedelta) -> None:
    began = CREATED + wait
    expires_at = CREATED + EXPIRES_AFTER

    before = good_until(expires_at=expires_at, end_at=None, maximum_call_length=length)
    after = good_until(expires_at=expires_at, end_at=began + length, maximum_call_length=length)

    assert after == began + length <= before <= CREATED + PROVIDERS_LONGEST


@given(lengths)
def test_token_is_good_no_longer_than_a_call_that_began_at_the_last_moment(length: timedelta) -> None:
    expires_at = CREATED + EXPIRES_AFTER

    assert good_until(expires_at=expires_at, end_at=None, maximum_call_length=length) == expires_at + length


@pytest.mark.parametrize("is_host", [True, False])
def test_token_admits_one_person_to_one_session(is_host: bool) -> None:
    register = Register()

    token = token_for(a_participant(is_host=is_host), a_call(), tokens=register, now=CREATED)

    assert token == "1"
    assert register.admissions == [
        VideoAdmission(
            session_name="a name",
            session_key=UUID(int=1),
            user_key=UUID(int=2),
            is_host=is_host,
            issued_at=CREATED,
            expires_at=CREATED + EXPIRES_AFTER + timedelta(minutes=60),
        )
    ]


@pytest.mark.parametrize("internal_status", ["finished", "expired"])
def test_nobody_gets_a_token_of_a_call_that_is_over(internal_status: str) -> None:
    register = Register()

    call = a_call(internal_status=internal_status)

    assert token_for(a_participant(), call, tokens=register, now=CREATED) is None
    assert register.admissions == []


def test_there_are_no_tokens_without_a_provider() -> None:
    assert token_for(a_participant(), a_call(), tokens=None, now=CREATED) is None
