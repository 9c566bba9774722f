"""What the commands of people in sessions ask of a running sandbox, and the lines they print. Light, as `client.py`."""

from datetime import UTC, datetime

from server.providers.sandbox.client import FAILURES, Json, SandboxClient, printable


class VideoClient(SandboxClient):
    """The control API of the sandbox's Zoom. What is None is not said, so that the sandbox finds the only one."""

    def join(self, *, token: str, session_name: str | None, name: str | None) -> Json:
        """Come with a token."""
        return self._ask("POST", "/sandbox/video/join", _given(token=token, session_name=session_name, name=name))

    def leave(self, *, user: str | None) -> Json:
        """Go."""
        return self._ask("POST", "/sandbox/video/leave", _given(user=user))

    def end(self, *, session: str | None) -> Json:
        """End a session for everybody."""
        return self._ask("POST", "/sandbox/video/end", _given(session=session))

    def record(self, *, act: str, session: str | None) -> Json:
        """Start, pause, resume or stop a recording."""
        return self._ask("POST", "/sandbox/video/recording", _given(act=act, session=session))

    def sessions(self) -> list[Json]:
        """Every session, oldest first."""
        sessions: list[Json] = self._ask("GET", "/sandbox/video/sessions")["sessions"]
        return sessions


def act_lines(done: Json, *, did: str) -> list[str]:
    """What somebody did in which session, and what the account answered to each event."""
    session = done["session"]
    who = f"{printable(done['user']['name'])} ({done['user']['id']}) " if "user" in done else ""
    lines = [f"{who}{did} {printable(session['name'])}  {session['id']}"]
    for told in done["told"]:
        status = "not at all" if told["status"] is None else told["status"]
        lines.append(f"{told['event']} posted to {done['webhook_url']}, which answered {status}")
    if not done["told"] and done["callbacks"] == "reordered":
        lines.append("Callbacks are told to come in another order: these are posted when the session has ended.")
    return lines


def act_failure(done: Json) -> str | None:
    """Why the account does not know, None where it does, or will by itself."""
    if done["callbacks"] == "missing":
        return "Callbacks are told to go missing: nobody was told."
    failures = [(told["event"], told["failure"]) for told in done["told"] if told["failure"] is not None]
    if not failures:
        return None
    said = "; ".join(f"{event}: {FAILURES[failure]}" for event, failure in failures)
    return f"The server did not take {said}. Each is posted three more times."


def session_lines(session: Json) -> list[str]:
    """A session, then who is or was in it, then its files."""
    state = "live" if session["end_time"] is None else f"ended {_time(session['end_time'])}"
    recording = f"  recording {session['recording']}" if session["recording"] else ""
    lines = [f"{_time(session['start_time'])}  {state}  {printable(session['name'])}{recording}  {session['id']}"]
    for user in session["users"]:
        role = "host" if user["is_host"] else "participant"
        left = "" if user["leave_time"] is None else f", left {_time(user['leave_time'])}"
        lines.append(f"  {user['id']}  {printable(user['name'])}  {role}  joined {_time(user['join_time'])}{left}")
    shelf = "" if session["shelf"] == "kept" else f"  {session['shelf']}"
    lines += [
        f"  {file['file_type']}  {file['file_size']} bytes  {file['download_url']}{shelf}" for file in session["files"]
    ]
    return lines


def _given(**fields: str | None) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _time(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
