"""Reads what the Video SDK's events say.

Their reference promises little and its own examples keep less, so nothing but an event's name is needed: what is not
as it should be is left out, and what no row can hold is replaced in a text and leaves out an id.
"""

from collections.abc import Container
from dataclasses import replace
from datetime import datetime
from itertools import chain, count

from server.providers.video_ports import RecordingFile, VideoEvent, VideoUser
from server.providers.zoom.fields import LONGEST_WORD, Fields
from server.providers.zoom.times import epoch_time

_FILE_LISTS = ("recording_files", "participant_audio_files", "participant_video_files")

# Of a file that is said to be nothing.
_UNKNOWN_TYPE = "UNKNOWN"


def video_event(name: str, body: Fields, *, sent_at: datetime) -> VideoEvent:
    """The event of this name, of the time it was sent where it tells no other."""
    session = body.part("payload").part("object")
    return VideoEvent(
        name=name,
        occurred_at=epoch_time(body["event_ts"]) or sent_at,
        session_id=session.identifier("session_id"),
        session_key=session.key("session_key"),
        session_name=session.text("session_name"),
        start_time=session.time("start_time"),
        end_time=session.time("end_time"),
        user=_user(session.part("user")),
        files=_files(session),
        download_token=body.token("download_token"),
    )


def _user(user: Fields) -> VideoUser | None:
    """Somebody; None without an id to tell them from others by."""
    user_id = user.identifier("id")
    if user_id is None:
        return None
    return VideoUser(
        user_id=user_id,
        user_key=user.key("user_key"),
        name=user.text("name") or "",
        join_time=user.time("join_time"),
        leave_time=user.time("leave_time"),
        leave_reason=user.text("leave_reason"),
    )


def _files(session: Fields) -> tuple[RecordingFile, ...]:
    """The files of all lists, each of an id of its own: the reference's example has one id twice."""
    found: dict[str, RecordingFile] = {}
    for listed in _FILE_LISTS:
        for fields in session.parts(listed):
            file = _file(fields)
            if file is not None:
                file_id = _free(file.file_id, found)
                found[file_id] = replace(file, file_id=file_id)
    return tuple(found.values())


def _file(file: Fields) -> RecordingFile | None:
    """A file; None of what is neither known by an id nor to be had."""
    file_id, url = file.identifier("id"), file.url("download_url")
    if file_id is None and url is None:
        return None
    extension = file.text("file_extension")
    return RecordingFile(
        file_id=file_id or _outline(file),
        file_type=file.text("file_type") or extension or _UNKNOWN_TYPE,
        file_extension=extension,
        recording_type=file.text("recording_type"),
        file_size=file.size("file_size"),
        recording_start=file.time("recording_start"),
        recording_end=file.time("recording_end"),
        # Absent where the account keeps its recordings in a store of its own.
        url=url,
    )


def _outline(file: Fields) -> str:
    """What a file without an id, such as a timeline, is known by when it is told again."""
    told = (file.text(name) for name in ("file_type", "recording_type", "recording_start", "user_id"))
    return " ".join(part for part in told if part is not None)[:LONGEST_WORD] or _UNKNOWN_TYPE


def _free(file_id: str, taken: Container[str]) -> str:
    return next(free for free in chain([file_id], (f"{file_id} {place}" for place in count(2))) if free not in taken)
