"""The forms of Zoom's REST answers: errors and pages. As https://developers.zoom.us/docs/api/video-sdk/ has them."""

import base64
from collections.abc import Sequence
from typing import Any, TypeVar

from aiohttp import web

ZOOM_PREFIX = "/v2/videosdk/"
DOWNLOAD_PREFIX = "/rec/"

_DEFAULT_PAGE_SIZE = 30
_MAX_PAGE_SIZE = 300

T = TypeVar("T")


class ZoomRefusal(Exception):
    """A request that Zoom would not carry out, with the code it says so by."""

    def __init__(self, status: int, code: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self._status = status
        self._body = {"code": code, "message": message}
        self._headers = {} if retry_after is None else {"Retry-After": str(retry_after)}

    def answer(self) -> web.Response:
        """Zoom's error JSON."""
        return web.json_response(self._body, status=self._status, headers=self._headers)


def session_not_found(session_id: str) -> ZoomRefusal:
    """There is no such session, or none that is as it was asked for."""
    return ZoomRefusal(404, 3001, f"Session does not exist: {session_id}.")


def recording_not_found() -> ZoomRefusal:
    """There is no recording, or none that is not in the trash."""
    return ZoomRefusal(404, 3301, "There is no recording for this session.")


def page_of(request: web.Request, records: Sequence[T], *, ids: Sequence[str]) -> tuple[Sequence[T], dict[str, Any]]:
    """The page asked for, and what is said of it; a token stands for the id of the last record of the page before."""
    written = request.query.get("page_size", str(_DEFAULT_PAGE_SIZE))
    if not written.isdecimal() or not 1 <= int(written) <= _MAX_PAGE_SIZE:
        raise ZoomRefusal(400, 300, f"The page_size must be 1 to {_MAX_PAGE_SIZE}.")
    size = int(written)
    tokens = ["", *(base64.urlsafe_b64encode(each.encode()).decode().rstrip("=") for each in ids)]
    token = request.query.get("next_page_token", "")
    if token not in tokens:
        raise ZoomRefusal(400, 300, "The next page token is invalid or expired.")
    start = tokens.index(token)
    end = start + size
    return records[start:end], {"page_size": size, "next_page_token": tokens[end] if end < len(records) else ""}
