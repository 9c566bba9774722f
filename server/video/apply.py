"""Zoom's events applied: each is kept as it came, once, and what it tells of a call is told on if it is to be seen."""

import hashlib
from datetime import datetime
from functools import partial
from uuid import UUID, uuid5

import structlog
from psycopg.rows import scalar_row
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database, violated_constraint
from server.encryption import Cipher
from server.errors import Unavailable
from server.notifications import Channel, Notifications
from server.providers.video_ports import VideoEvent, VideoUser
from server.storage import Storage
from server.video.events import change_call
from server.video.recording_files import apply_files
from server.video.status import session_of, stay_of, update_status
from server.video.tables import (
    VideoCallParticipantRow,
    VideoCallRow,
    VideoCallStayRow,
    VideoSessionRow,
    ZoomEventRow,
)
from server.video.video_call import (
    FILES_COMPLETED,
    KNOWN_EVENTS,
    RECORDING_WORDS,
    SESSION_ENDED,
    SESSION_WORDS,
    USER_JOINED,
    USER_LEFT,
    ParticipantStatus,
    last_word,
    recording_word,
    session_after,
    session_word,
    stay_after,
    word_of,
)

log = structlog.get_logger()

_LIVE_NAME_IS_UNIQUE = "uq_video_calls_session_name"

# How often an event is applied anew because a call took the name of the one it begins anew.
_TRIES = 5

# The call of an event: by the key that our tokens name, else by Zoom's id, else by the name that clients join by.
_FIND = """
SELECT CASE
    WHEN %(session_key)s::uuid IS NOT NULL THEN (SELECT id FROM video_calls WHERE session_key = %(session_key)s::uuid)
    ELSE coalesce(
        (SELECT video_call_id FROM video_sessions WHERE session_id = %(session_id)s::text),
        (SELECT id FROM video_calls
         WHERE lower(session_name) = lower(%(session_name)s::text) AND internal_status IN ('pending', 'in_progress'))
    )
END
"""

_KEEP_OF_NOBODY = """
INSERT INTO zoom_events (digest, event, body) VALUES (%(digest)s, %(event)s, %(body)s) ON CONFLICT DO NOTHING
"""

# Where the keys of those who came without a token of ours begin.
_STRANGERS = UUID("b1d0b3f8-5a52-4c8c-9d7e-0d7c36c0a5e2")


async def apply_event(
    db: Database,
    notifications: Notifications,
    storage: Storage,
    cipher: Cipher,
    *,
    event: VideoEvent,
    body: bytes,
    now: datetime,
) -> None:
    """Keep a verified event and apply it to its call, in one transaction that holds the call. One that was kept before
    changes nothing; one of a session that is not ours is kept alone."""
    about = {"session_key": event.session_key, "session_id": event.session_id, "session_name": event.session_name}
    video_call_id = await db.fetch_one(_FIND, about, scalar_row)
    if video_call_id is None:
        await db.execute(_KEEP_OF_NOBODY, {"digest": _digest(body), "event": event.name, "body": body.decode()})
        log.info("zoom_event.of_nobody", zoom_event=event.name)
        return
    change = partial(_apply, event=event, body=body, cipher=cipher, now=now)
    for _ in range(_TRIES):
        try:
            is_told = await change_call(db, notifications, storage, video_call_id=video_call_id, change=change)
        except IntegrityError as error:
            if violated_constraint(error) != _LIVE_NAME_IS_UNIQUE:
                raise
            continue
        log.info("zoom_event.applied", zoom_event=event.name, video_call_id=video_call_id, told=is_told)
        if event.name in FILES_COMPLETED:
            notifications.notify(Channel.RECORDINGS)
        return
    raise Unavailable("calls of this session_name keep being made; try again")


async def _apply(
    tx: AsyncSession, call: VideoCallRow, *, event: VideoEvent, body: bytes, cipher: Cipher, now: datetime
) -> None:
    is_new = await _keep(tx, call, event, body)
    if not is_new or event.name not in KNOWN_EVENTS:
        return
    session = await _session(tx, event)
    if session is not None and session.video_call_id != call.id:
        log.warning("zoom_event.session_of_other_call", zoom_event=event.name, video_call_id=call.id)
        return
    if event.session_id is not None:
        session = await _apply_session(tx, call, session, event.session_id, event)
    said = last_word(SESSION_WORDS, word_of(call.provider_status, call.provider_status_at), session_word(event))
    if said is not None:
        call.provider_status, call.provider_status_at = said.word, said.at
    said = last_word(RECORDING_WORDS, word_of(call.recording_status, call.recording_status_at), recording_word(event))
    if said is not None:
        call.recording_status, call.recording_status_at = said.word, said.at
    moved: list[int] | None = []
    if session is not None and event.user is not None and event.name in (USER_JOINED, USER_LEFT):
        moved = [await _apply_user(tx, call, session, event.user, event=event, now=now)]
    if event.name == SESSION_ENDED:
        moved = None
    await apply_files(tx, call, session, event=event, cipher=cipher, now=now)
    await update_status(tx, call, moved=moved, now=now)


async def _keep(tx: AsyncSession, call: VideoCallRow, event: VideoEvent, body: bytes) -> bool:
    """Whether it was not kept before."""
    kept = insert(ZoomEventRow).values(
        digest=_digest(body), event=event.name, video_call_id=call.id, body=body.decode()
    )
    new = await tx.scalars(kept.on_conflict_do_nothing().returning(ZoomEventRow.digest))
    return new.one_or_none() is not None


async def _session(tx: AsyncSession, event: VideoEvent) -> VideoSessionRow | None:
    if event.session_id is None:
        return None
    return (
        await tx.scalars(select(VideoSessionRow).where(VideoSessionRow.session_id == event.session_id))
    ).one_or_none()


async def _apply_session(
    tx: AsyncSession, call: VideoCallRow, row: VideoSessionRow | None, session_id: str, event: VideoEvent
) -> VideoSessionRow:
    session = session_after(session_of(row) if row is not None else None, session_id, event)
    if row is None:
        row = VideoSessionRow(video_call_id=call.id, session_id=session_id, attempts=0)
        tx.add(row)
    row.heard_at, row.start_time, row.end_time = session.heard_at, session.start_time, session.end_time
    await tx.flush()
    return row


async def _apply_user(
    tx: AsyncSession, call: VideoCallRow, session: VideoSessionRow, user: VideoUser, *, event: VideoEvent, now: datetime
) -> int:
    """Somebody came or left: the participant whom their token names, else whoever this user of Zoom's is known as, else
    a participant of their own. Answers the participant's id."""
    stranger_key = uuid5(_STRANGERS, f"{session.session_id}/{user.user_id}")
    named = await _participant(tx, call, user.user_key) if user.user_key is not None else None
    query = select(VideoCallStayRow).where(
        VideoCallStayRow.video_session_id == session.id, VideoCallStayRow.user_id == user.user_id
    )
    row = (await tx.scalars(query)).one_or_none()
    if row is None:
        participant = named or await _stranger(tx, call, stranger_key, user, now=now)
        row = VideoCallStayRow(video_session_id=session.id, participant_id=participant.id, user_id=user.user_id)
        tx.add(row)
    elif named is not None:
        stranger = await _participant(tx, call, stranger_key)
        if stranger is not None:
            # An event without their key came first, and took them for somebody else.
            row.participant_id = named.id
            await tx.flush()
            await tx.delete(stranger)
    stay = stay_after(stay_of(row), user, event)
    row.join_time, row.leave_time, row.leave_reason = stay.join_time, stay.leave_time, stay.leave_reason
    await tx.flush()
    return row.participant_id


async def _participant(tx: AsyncSession, call: VideoCallRow, user_key: UUID) -> VideoCallParticipantRow | None:
    query = select(VideoCallParticipantRow).where(
        VideoCallParticipantRow.video_call_id == call.id, VideoCallParticipantRow.user_key == user_key
    )
    return (await tx.scalars(query)).one_or_none()


async def _stranger(
    tx: AsyncSession, call: VideoCallRow, user_key: UUID, user: VideoUser, *, now: datetime
) -> VideoCallParticipantRow:
    row = VideoCallParticipantRow(
        user_key=user_key,
        video_call_id=call.id,
        is_host=False,
        username=user.name,
        internal_status=ParticipantStatus.LEFT,
        created_at=now,
        updated_at=now,
    )
    tx.add(row)
    await tx.flush()
    return row


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
