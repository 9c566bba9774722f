"""What people do at Zoom, and what follows from it.

The first who joins starts the session, the last who leaves ends it; a host in it, or the API, ends it for all. Once it
has ended, what was recorded becomes files: a step later `session.recording_completed` tells of an MP4 and an M4A of
each recording, another step later `session.recording_transcript_completed` of its VTT.

Every act answers the tasks that post its events. How those are treated is what everybody's callbacks are told to do, or
a trigger in the session's name.
"""

import asyncio
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.misbehaviour import Callbacks, asked_in
from server.providers.sandbox.settings import ZoomAccount
from server.providers.sandbox.zoom_events import (
    RECORDING_COMPLETED,
    TRANSCRIPT_COMPLETED,
    Json,
    files_ready,
    recording_changed,
    recordings_moved,
    session_ended,
    session_started,
    user_joined,
    user_left,
)
from server.providers.sandbox.zoom_media import m4a, mp4, vtt
from server.providers.sandbox.zoom_processing import Processing
from server.providers.sandbox.zoom_records import File, Session, Shelf, Take, User, new_session_id
from server.providers.sandbox.zoom_state import ZoomState
from server.providers.sandbox.zoom_tokens import Admission, TokenRefused, download_token
from server.providers.sandbox.zoom_webhooks import Told, Webhooks

Telling = list[asyncio.Task[Told]]

# Of each act: what the recording may be before, what it is then, and the event's name.
RECORDING_ACTS: dict[str, tuple[tuple[str | None, ...], str | None, str]] = {
    "start": ((None,), "started", "started"),
    "pause": (("started",), "paused", "paused"),
    "resume": (("paused",), "started", "resumed"),
    "stop": (("started", "paused"), None, "stopped"),
}
# Of each act: where the recordings may be before, where they are then, and the event's name.
SHELF_ACTS: dict[str, tuple[tuple[str, ...], Shelf, str]] = {
    "trash": ((Shelf.KEPT,), Shelf.TRASHED, "trashed"),
    "delete": ((Shelf.KEPT, Shelf.TRASHED), Shelf.DELETED, "deleted"),
    "recover": ((Shelf.TRASHED,), Shelf.KEPT, "recovered"),
}


class NotNow(Exception):
    """An act that means nothing in the session's present state; the text says why."""


@dataclass(frozen=True)
class Joined:
    """Who came, and where to."""

    session: Session
    user: User
    telling: Telling


class People:
    """The sessions of one account."""

    def __init__(
        self,
        carrier: Carrier,
        state: ZoomState,
        webhooks: Webhooks,
        account: ZoomAccount,
        *,
        step_delay: timedelta,
    ) -> None:
        self._carrier = carrier
        self._state = state
        self._webhooks = webhooks
        self._account = account
        self._processing = Processing(self._publish, step_delay=step_delay)

    def resume(self) -> None:
        """Take up the sessions whose files are still to come."""
        for session in self._state.sessions.values():
            self._processing.start(session)

    async def stop(self) -> None:
        """Make no more files; the journal knows which are due."""
        await self._processing.stop()

    def callbacks(self, session_name: str) -> Callbacks:
        """How a session's webhooks are treated now. Raises TriggerUnknown."""
        everybody, _ = self._carrier.misbehaviour()
        return asked_in(session_name, attempt=1).over(everybody).callbacks

    def join(self, admission: Admission, *, name: str, base_url: str) -> Joined:
        """Come with a token. Raises TokenRefused and TriggerUnknown."""
        self.callbacks(admission.session_name)
        session = next((each for each in self._state.named(admission.session_name) if each.is_live), None)
        if session is not None and session.key != admission.session_key:
            raise TokenRefused({"token.session_key": "must be that of the others in the session"})
        now = self._state.now()
        if session is None:
            session = Session(new_session_id(), admission.session_name, admission.session_key, now, base_url)
        return self._add(session, name=name, user_key=admission.user_key, is_host=admission.is_host, at=now)

    def dial_in(self, session: Session, *, name: str, phone_number: str) -> Joined:
        """Come by telephone."""
        return self._add(session, name=name, phone_number=phone_number, at=self._state.now())

    def leave(self, session: Session, user: User) -> Telling:
        """Go."""
        now = self._state.now()
        user.leave_time, user.leave_reason = now, f"{user.name} left the session."
        if session.present:
            return self._tell(session, [user_left(session, user)])
        return self._close(session, [user], at=now)

    def end(self, session: Session) -> Telling:
        """End it for everybody, as a host does, or the API."""
        now = self._state.now()
        present = session.present
        for user in present:
            user.leave_time = now
            user.leave_reason = f"{user.name} left the session.<br>Reason: Host ended the session."
        return self._close(session, present, at=now)

    def record(self, session: Session, act: str) -> Telling:
        """One of RECORDING_ACTS. Raises NotNow."""
        before, after, change = RECORDING_ACTS[act]
        if session.recording not in before:
            raise NotNow(f"the recording is {_RECORDING_WORDS[session.recording]}")
        return self._tell(session, [self._record(session, after, change, at=self._state.now())])

    def move(self, session: Session, act: str) -> Telling:
        """One of SHELF_ACTS, with all of a session's recordings. Raises NotNow."""
        before, after, moved = SHELF_ACTS[act]
        if not session.files:
            raise NotNow("the session has no recordings")
        if session.shelf not in before:
            raise NotNow(f"the recordings are {session.shelf}")
        session.shelf = after
        return self._tell(session, [recordings_moved(session, moved, at=self._state.now())])

    def say(self, session: Session, event: Json) -> Telling:
        """Tell any event."""
        return self._tell(session, [event])

    def _add(
        self,
        session: Session,
        *,
        name: str,
        user_key: str | None = None,
        is_host: bool = False,
        phone_number: str | None = None,
        at: float,
    ) -> Joined:
        user = User(
            id=self._state.new_user_id(),
            name=name,
            participant_uuid=str(uuid.uuid4()).upper(),
            join_time=at,
            is_host=is_host,
            user_key=user_key,
            phone_number=phone_number,
        )
        beginning = [] if session.users else [session_started(session)]
        session.users.append(user)
        return Joined(session, user, self._tell(session, [*beginning, user_joined(session, user)]))

    def _close(self, session: Session, leaving: list[User], *, at: float) -> Telling:
        """The session ends as the last of them leave."""
        stopping = [] if session.recording is None else [self._record(session, None, "stopped", at=at)]
        session.end_time = at
        if session.takes:
            session.due = [RECORDING_COMPLETED, TRANSCRIPT_COMPLETED]
            self._processing.start(session)
        return self._tell(session, [*stopping, *(user_left(session, user) for user in leaving), session_ended(session)])

    def _record(self, session: Session, recording: str | None, change: str, *, at: float) -> Json:
        session.recording = recording
        if change == "started":
            session.takes.append(Take(at))
        elif change == "stopped":
            session.takes[-1].end = at
        return recording_changed(session, change, at=at)

    def _publish(self, session: Session, due: str) -> Telling:
        made = [file for take in session.takes for file in _files_of(session, take, due)]
        session.files += made
        session.due.remove(due)
        now = self._state.now()
        token = download_token(session.id, self._account, now=now)
        return self._tell(session, [files_ready(session, due, made, download_token=token, at=now)])

    def _tell(self, session: Session, events: Iterable[Json]) -> Telling:
        self._state.save(session)
        return self._webhooks.tell(session, events, self.callbacks(session.name))


_RECORDING_WORDS = {None: "off", "started": "on", "paused": "paused"}


def content_of(session: Session, file: File) -> bytes:
    """What is in a file."""
    seconds = max(round(file.end - file.start), 1)
    if file.file_type == "TRANSCRIPT":
        return vtt([user.name for user in session.users], seconds)
    return mp4(seconds) if file.file_type == "MP4" else m4a(seconds)


def _files_of(session: Session, take: Take, due: str) -> list[File]:
    return [_file(session, take, *kind) for kind in _KINDS[due]]


def _file(session: Session, take: Take, file_type: str, extension: str, recording_type: str) -> File:
    assert take.end is not None, "what is still recorded is no file"
    empty = File(
        id=str(uuid.uuid4()),
        file_type=file_type,
        file_extension=extension,
        recording_type=recording_type,
        start=take.start,
        end=take.end,
        size=0,
        key=secrets.token_urlsafe(16),
    )
    return File(**{**vars(empty), "size": len(content_of(session, empty))})


_KINDS = {
    RECORDING_COMPLETED: (("MP4", "MP4", "shared_screen_with_speaker_view"), ("M4A", "M4A", "audio_only")),
    TRANSCRIPT_COMPLETED: (("TRANSCRIPT", "VTT", "audio_transcript"),),
}
