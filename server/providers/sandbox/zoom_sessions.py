"""Zoom's REST API, under `/v2/videosdk/`: sessions, who is in them, and ending them.

A session's id in a path is encoded once or twice; encoded once it is not found where it begins with a slash or has two
in a row, as at Zoom.
"""

from datetime import UTC, date, datetime
from urllib.parse import unquote

from aiohttp import web

from server.providers.sandbox.zoom_answers import ZoomRefusal, page_of, session_not_found
from server.providers.sandbox.zoom_events import Json, iso8601
from server.providers.sandbox.zoom_people import People
from server.providers.sandbox.zoom_records import Session, User
from server.providers.sandbox.zoom_state import ZoomState


def session_at(request: web.Request, state: ZoomState) -> Session:
    """The session that a path names. Raises ZoomRefusal."""
    written = request.match_info["session_id"]
    session_id = unquote(written)
    if written == session_id and (written.startswith("/") or "//" in written):
        raise session_not_found(written.lstrip("/"))
    session = state.sessions.get(session_id)
    if session is None:
        raise session_not_found(session_id)
    return session


class Sessions:
    """List and show sessions, and end them."""

    def __init__(self, state: ZoomState, people: People) -> None:
        self._state = state
        self._people = people

    def routes(self) -> list[web.RouteDef]:
        """Where the resources live, below the prefix."""
        return [
            web.get("/sessions", self.list),
            web.get("/sessions/{session_id}", self.fetch),
            web.get("/sessions/{session_id}/users", self.users),
            web.put("/sessions/{session_id}/status", self.update_status),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Live or past sessions that started between two days, newest first."""
        first, last = _day(request, "from"), _day(request, "to")
        is_live = _type(request, default="live") == "live"
        query = request.query
        found = [
            session
            for session in reversed(self._state.sessions.values())
            if session.is_live == is_live
            and first <= datetime.fromtimestamp(session.start_time, UTC).date() <= last
            and query.get("session_key") in (None, session.key)
            and query.get("session_name", session.name).lower() == session.name.lower()
        ]
        shown, page = page_of(request, found, ids=[session.id for session in found])
        sessions = [_resource(session, now=self._state.now()) for session in shown]
        return web.json_response({"from": query["from"], "to": query["to"], **page, "sessions": sessions})

    async def fetch(self, request: web.Request) -> web.Response:
        """One session."""
        return web.json_response(_resource(self._session(request), now=self._state.now()))

    async def users(self, request: web.Request) -> web.Response:
        """Who is or was in a session, once for each time of joining."""
        session = self._session(request)
        shown, page = page_of(request, session.users, ids=[user.id for user in session.users])
        return web.json_response({**page, "users": [_user(user) for user in shown]})

    async def update_status(self, request: web.Request) -> web.Response:
        """End a live session; the account is told of it as of every end."""
        session = session_at(request, self._state)
        try:
            body = await request.json()
        except ValueError as error:
            raise ZoomRefusal(400, 300, "Request Body should be a valid JSON object.") from error
        if not isinstance(body, dict) or body.get("action") != "end":
            raise ZoomRefusal(400, 300, "Invalid field: action.")
        if not session.is_live:
            raise session_not_found(session.id)
        self._people.end(session)
        return web.Response(status=204)

    def _session(self, request: web.Request) -> Session:
        session = session_at(request, self._state)
        wanted = _type(request, default="live" if session.is_live else "past")
        if (wanted == "live") != session.is_live:
            raise session_not_found(session.id)
        return session


def _resource(session: Session, *, now: float) -> Json:
    times = {} if session.end_time is None else {"end_time": iso8601(session.end_time)}
    key = {} if session.key is None else {"session_key": session.key}
    people = session.users
    return {
        "id": session.id,
        "session_name": session.name,
        "start_time": iso8601(session.start_time),
        **times,
        "duration": _duration((session.end_time or now) - session.start_time),
        "user_count": len(people),
        "has_voip": any(user.phone_number is None for user in people),
        "has_video": True,
        "has_screen_share": False,
        "has_recording": bool(session.takes),
        "has_pstn": any(user.phone_number is not None for user in people),
        **key,
    }


def _user(user: User) -> Json:
    left = {} if user.leave_time is None else {"leave_time": iso8601(user.leave_time)}
    key = {} if user.user_key is None else {"user_key": user.user_key}
    return {
        "id": user.id,
        "name": user.name,
        "device": "Phone" if user.phone_number else "Windows",
        "join_time": iso8601(user.join_time),
        **left,
        **key,
        "participant_uuid": user.participant_uuid,
    }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"


def _day(request: web.Request, name: str) -> date:
    try:
        return date.fromisoformat(request.query.get(name, ""))
    except ValueError as error:
        raise ZoomRefusal(400, 300, f"The '{name}' date must be yyyy-mm-dd.") from error


def _type(request: web.Request, *, default: str) -> str:
    wanted = request.query.get("type", default)
    if wanted not in ("live", "past"):
        raise ZoomRefusal(400, 300, "Invalid parameter: type.")
    return wanted
