"""What Zoom tells of a session: the bodies of its webhooks, with the vendor's fields and no others.

{"event", "event_ts" in milliseconds, "payload": {"account_id", "object"}}; `download_token` beside them where there are
files, `operator` and `operator_id` in the payload where somebody moved recordings. Times are ISO 8601, whole seconds.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from server.providers.sandbox.settings import ZOOM_ACCOUNT_ID
from server.providers.sandbox.zoom_records import File, Session, User

Json = dict[str, Any]

RECORDING_COMPLETED = "session.recording_completed"
TRANSCRIPT_COMPLETED = "session.recording_transcript_completed"

_OPERATOR = {"operator": "somebody@sandbox.example", "operator_id": "SandboxZoomOperator001"}
_TIMEZONE = "UTC"


def iso8601(timestamp: float) -> str:
    """A time as Zoom writes it."""
    return datetime.fromtimestamp(int(timestamp), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def event_of(name: str, obj: Json, *, at: float, download_token: str | None = None) -> Json:
    """Any event about `obj`."""
    token = {} if download_token is None else {"download_token": download_token}
    payload = {"account_id": ZOOM_ACCOUNT_ID, "object": obj}
    return {"event": name, "event_ts": int(at * 1000), **token, "payload": payload}


def session_started(session: Session) -> Json:
    """Somebody came first."""
    obj = {**session_of(session), "start_time": iso8601(session.start_time)}
    return event_of("session.started", obj, at=session.start_time)


def session_ended(session: Session) -> Json:
    """The last one left, or a host or the API ended it."""
    assert session.end_time is not None, "a live session has not ended"
    times = {"start_time": iso8601(session.start_time), "end_time": iso8601(session.end_time)}
    return event_of("session.ended", {**session_of(session), **times}, at=session.end_time)


def user_joined(session: Session, user: User) -> Json:
    """Somebody came."""
    obj = {**session_of(session), "user": {**_user(user), "join_time": iso8601(user.join_time)}}
    return event_of("session.user_joined", obj, at=user.join_time)


def user_left(session: Session, user: User) -> Json:
    """Somebody went."""
    assert user.leave_time is not None, "who is in a session has not left"
    left = {"leave_time": iso8601(user.leave_time), "leave_reason": user.leave_reason}
    return event_of("session.user_left", {**session_of(session), "user": {**_user(user), **left}}, at=user.leave_time)


def recording_changed(session: Session, change: str, *, at: float) -> Json:
    """The recording was `started`, `paused`, `resumed` or `stopped`."""
    take = session.takes[-1]
    times = {"recording_start": iso8601(take.start)}
    if take.end is not None:
        times["recording_end"] = iso8601(take.end)
    return event_of(f"session.recording_{change}", {**_recorded(session), "recording_file": times}, at=at)


def files_ready(session: Session, name: str, files: Sequence[File], *, download_token: str, at: float) -> Json:
    """Files can be fetched: those of the recording, or the transcripts."""
    obj = {**_recorded(session), "recording_files": [file_of(session, file) for file in files]}
    return event_of(name, obj, at=at, download_token=download_token)


def recordings_moved(session: Session, move: str, *, at: float) -> Json:
    """All of a session's recordings were `trashed`, `deleted` or `recovered`."""
    event = event_of(f"session.recording_{move}", _recorded(session), at=at)
    event["payload"] |= _OPERATOR
    return event


def url_validation(plain_token: str, *, at: float) -> Json:
    """Zoom asks whether the endpoint knows the secret token."""
    return {"event": "endpoint.url_validation", "event_ts": int(at * 1000), "payload": {"plainToken": plain_token}}


def file_of(session: Session, file: File) -> Json:
    """A file as webhooks and the REST API show it."""
    return {
        "id": file.id,
        "recording_start": iso8601(file.start),
        "recording_end": iso8601(file.end),
        "file_type": file.file_type,
        "file_size": file.size,
        "file_extension": file.file_extension,
        "download_url": f"{session.base_url}/rec/webhook_download/{file.id}",
        "status": "completed",
        "recording_type": file.recording_type,
    }


def session_of(session: Session) -> Json:
    """What tells a session from others."""
    key = {} if session.key is None else {"session_key": session.key}
    return {"id": session.id, "session_id": session.id, "session_name": session.name, **key}


def _recorded(session: Session) -> Json:
    """The same in the events of recordings, which always have a key."""
    return {
        "session_id": session.id,
        "session_name": session.name,
        "session_key": session.key or "",
        "start_time": iso8601(session.start_time),
        "timezone": _TIMEZONE,
    }


def _user(user: User) -> Json:
    optional = {"user_key": user.user_key, "phone_number": user.phone_number}
    known = {name: value for name, value in optional.items() if value is not None}
    return {"id": user.id, "name": user.name, **known, "participant_uuid": user.participant_uuid}
