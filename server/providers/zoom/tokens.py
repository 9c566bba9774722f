"""Signs the tokens that clients join sessions of Zoom's Video SDK with."""

from datetime import timedelta
from typing import Any

import jwt

from server.providers.video_ports import VideoAdmission

_SHORTEST = timedelta(minutes=30)
_LONGEST = timedelta(hours=48)

_SESSION_NAME_BELOW = 200


class ZoomVideoTokens:
    """video_ports.VideoTokens of one Video SDK account."""

    def __init__(self, *, sdk_key: str, sdk_secret: str) -> None:
        self._sdk_key = sdk_key
        self._sdk_secret = sdk_secret

    def sign(self, admission: VideoAdmission) -> str:
        """The token. Zoom takes none that is good for less than half an hour, or for more than two days."""
        return jwt.encode(_claims(admission, self._sdk_key), self._sdk_secret, algorithm="HS256")


def _claims(admission: VideoAdmission, sdk_key: str) -> dict[str, Any]:
    """What the token says. Nothing of recordings: a host may record without it, as one video of everybody, and who
    wants a file of each or transcripts needs an account that has them (docs/decisions/0018-zooms-protocol.md)."""
    assert len(admission.session_name) < _SESSION_NAME_BELOW, "checked by the create"
    issued_at = int(admission.issued_at.timestamp())
    lifetime = min(max(admission.expires_at - admission.issued_at, _SHORTEST), _LONGEST)
    # As hexadecimal digits: the claims may not be as long as a hyphenated UUID.
    user_key = admission.user_key.hex
    return {
        "app_key": sdk_key,
        "tpc": admission.session_name,
        "role_type": 1 if admission.is_host else 0,
        "version": 1,
        "iat": issued_at,
        "exp": issued_at + int(lifetime.total_seconds()),
        # One claim under both its names: the reference has the new one, Zoom's samples and events' reference the old.
        "user_identity": user_key,
        "user_key": user_key,
        "session_key": admission.session_key.hex,
    }
