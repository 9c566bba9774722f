"""The forms of Bandwidth's answers that are no success."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

PREFIX = "/api/v2/"


class BandwidthRefusal(Exception):
    """A request that Bandwidth would not carry out, with the type it says so by and one entry per bad field."""

    def __init__(
        self,
        status: int,
        kind: str,
        description: str,
        *,
        fields: Mapping[str, str] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(description)
        self._status = status
        self._body: dict[str, Any] = {"type": kind, "description": description}
        if fields:
            self._body["fieldErrors"] = [{"fieldName": name, "description": said} for name, said in fields.items()]
        self._headers = {} if retry_after is None else {"Retry-After": str(retry_after)}

    def answer(self) -> web.Response:
        """Bandwidth's error JSON."""
        return web.json_response(self._body, status=self._status, headers=self._headers)


class NotFound(BandwidthRefusal):
    """What is not there has an error of another form."""

    def __init__(self, status: int, error: str, path: str) -> None:
        super().__init__(status, "", error)
        self._body = {
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "status": status,
            "error": error,
            "message": error,
            "path": path,
        }


def not_found(path: str) -> NotFound:
    """What Bandwidth says of a path that is not there."""
    return NotFound(404, "Not Found", path)
