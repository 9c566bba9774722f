"""Recordings in Zoom's REST API, and the place their download URLs lead to.

A download URL needs `Authorization: Bearer` with the event's download token, good for a day, or with a token of the
REST API. It is a redirect, which Zoom's documentation asks to be prepared for, to an address with a secret in it.
"""

from hmac import compare_digest

from aiohttp import web

from server.providers.sandbox.settings import ZoomAccount
from server.providers.sandbox.zoom_answers import ZoomRefusal, recording_not_found
from server.providers.sandbox.zoom_events import Json, file_of, iso8601
from server.providers.sandbox.zoom_people import NotNow, People, content_of
from server.providers.sandbox.zoom_records import File, Session, Shelf
from server.providers.sandbox.zoom_sessions import session_at
from server.providers.sandbox.zoom_state import ZoomState
from server.providers.sandbox.zoom_tokens import download_token, may_download

_TYPES = {"MP4": "video/mp4", "M4A": "audio/mp4", "VTT": "text/vtt"}


class Recordings:
    """Show what was recorded in a session, move it to the trash or away for ever, and bring it back from the trash."""

    def __init__(self, state: ZoomState, people: People, account: ZoomAccount) -> None:
        self._state = state
        self._people = people
        self._account = account

    def routes(self) -> list[web.RouteDef]:
        """Where the resources live, below the prefix."""
        return [
            web.get("/sessions/{session_id}/recordings", self.list),
            web.delete("/sessions/{session_id}/recordings", self.delete),
            web.put("/sessions/{session_id}/recordings/status", self.recover),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Every file of a session, transcripts among them."""
        session = session_at(request, self._state)
        if not session.files or session.shelf != Shelf.KEPT:
            raise recording_not_found()
        resource = _resource(session)
        if "download_access_token" in request.query.get("include_fields", "").split(","):
            token = download_token(session.id, self._account, now=self._state.now())
            resource["download_access_token"] = token
        return web.json_response(resource)

    async def delete(self, request: web.Request) -> web.Response:
        """Move all to the trash, or with `action=delete` away for ever."""
        action = request.query.get("action", "trash")
        if action not in ("trash", "delete"):
            raise ZoomRefusal(400, 300, "Invalid parameter: action.")
        return self._move(request, action)

    async def recover(self, request: web.Request) -> web.Response:
        """Bring all back from the trash."""
        try:
            body = await request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or body.get("action") != "recover":
            raise ZoomRefusal(400, 300, "Invalid field: action.")
        return self._move(request, "recover")

    def _move(self, request: web.Request, act: str) -> web.Response:
        try:
            self._people.move(session_at(request, self._state), act)
        except NotNow as error:
            raise recording_not_found() from error
        return web.Response(status=204)


class Downloads:
    """Fetch a file."""

    def __init__(self, state: ZoomState, account: ZoomAccount) -> None:
        self._state = state
        self._account = account

    def routes(self) -> list[web.RouteDef]:
        """Where they are, below their prefix."""
        return [
            web.get("/webhook_download/{file_id}", self.redirect),
            web.get("/file/{file_id}/{key}", self.file),
        ]

    async def redirect(self, request: web.Request) -> web.Response:
        """Where the file is."""
        session, file = self._found(request)
        authorization = request.headers.get("Authorization", "")
        if not may_download(authorization, session.id, self._account, now=self._state.now()):
            raise ZoomRefusal(401, 124, "Invalid access token.")
        return web.Response(status=302, headers={"Location": f"{session.base_url}/rec/file/{file.id}/{file.key}"})

    async def file(self, request: web.Request) -> web.Response:
        """The file itself."""
        session, file = self._found(request)
        if not compare_digest(file.key.encode(), request.match_info["key"].encode()):
            raise recording_not_found()
        return web.Response(body=content_of(session, file), content_type=_TYPES[file.file_extension])

    def _found(self, request: web.Request) -> tuple[Session, File]:
        found = self._state.file(request.match_info["file_id"])
        if found is None or found[0].shelf != Shelf.KEPT:
            raise recording_not_found()
        return found


def _resource(session: Session) -> Json:
    assert session.end_time is not None, "files are made when a session has ended"
    key = {} if session.key is None else {"session_key": session.key}
    return {
        "session_id": session.id,
        "session_name": session.name,
        "start_time": iso8601(session.start_time),
        "duration": int(session.end_time - session.start_time) // 60,
        "total_size": sum(file.size for file in session.files),
        "recording_count": len(session.files),
        **key,
        "recording_files": [file_of(session, file) for file in session.files],
    }
