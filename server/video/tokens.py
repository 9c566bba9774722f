"""Tokens: who may join which session as what, and until when. None is kept: each answer has one made for it."""

from datetime import datetime, timedelta

from server.providers.video_ports import VideoAdmission, VideoTokens
from server.video.tables import VideoCallParticipantRow, VideoCallRow

_OVER = frozenset({"finished", "expired"})


def is_over(call: VideoCallRow) -> bool:
    """Whether nobody is let in any more."""
    return call.internal_status in _OVER


def good_until(*, expires_at: datetime, end_at: datetime | None, maximum_call_length: timedelta) -> datetime:
    """When the call is over at the latest: one that nobody has joined yet may begin just before it expires."""
    return expires_at + maximum_call_length if end_at is None else end_at


def token_for(
    participant: VideoCallParticipantRow, call: VideoCallRow, *, tokens: VideoTokens | None, now: datetime
) -> str | None:
    """A new token; None where the call is over, or there is no provider to join it at."""
    if tokens is None or is_over(call):
        return None
    return tokens.sign(
        VideoAdmission(
            session_name=call.session_name,
            session_key=call.session_key,
            user_key=participant.user_key,
            is_host=participant.is_host,
            issued_at=now,
            expires_at=good_until(
                expires_at=call.expires_at,
                end_at=call.end_at,
                maximum_call_length=timedelta(minutes=call.maximum_call_length),
            ),
        )
    )
