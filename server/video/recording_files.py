"""The files of a call's recordings, as Zoom's events list them and say what became of them there."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.encryption import Cipher
from server.providers.video_ports import RecordingFile, VideoEvent
from server.video.tables import VideoCallRecordingRow, VideoCallRow, VideoSessionRow
from server.video.video_call import FILE_WORDS, FILES_COMPLETED, Word, file_word, last_word, word_of

PENDING = "pending"
STORED = "stored"
FAILED = "failed"

_NOWHERE = "Zoom does not say where the file is."

_COMPLETED = "completed"

# What is told of a file in one event and may be missing in another.
_DETAILS = ("file_extension", "recording_type", "file_size", "recording_start", "recording_end")


async def apply_files(
    tx: AsyncSession,
    call: VideoCallRow,
    session: VideoSessionRow | None,
    *,
    event: VideoEvent,
    cipher: Cipher,
    now: datetime,
) -> None:
    """Keep what an event tells of files of the call, which the transaction holds; what can be had of them is due."""
    word = file_word(event)
    if word is not None and session is not None:
        await _apply_word(tx, session, word)
    if event.name not in FILES_COMPLETED:
        return
    query = select(VideoCallRecordingRow).where(VideoCallRecordingRow.video_call_id == call.id)
    known = {row.provider_id: row for row in await tx.scalars(query)}
    for file in event.files:
        row = known.get(file.file_id)
        if row is None:
            row = VideoCallRecordingRow(
                video_call_id=call.id,
                provider_id=file.file_id,
                file_type=file.file_type,
                internal_status=FAILED,
                error_description=_NOWHERE,
                created_at=now,
            )
            tx.add(row)
        _take(row, file, event, session=session, cipher=cipher, now=now)
    await tx.flush()


async def _apply_word(tx: AsyncSession, session: VideoSessionRow, word: Word) -> None:
    """What is said of a session's files is said of those that are told of later, too."""
    session.recordings_status, session.recordings_status_at = _last(
        word, word_of(session.recordings_status, session.recordings_status_at)
    )
    query = select(VideoCallRecordingRow).where(VideoCallRecordingRow.video_session_id == session.id)
    for row in await tx.scalars(query):
        row.provider_status, row.provider_status_at = _last(word, word_of(row.provider_status, row.provider_status_at))


def _take(
    row: VideoCallRecordingRow,
    file: RecordingFile,
    event: VideoEvent,
    *,
    session: VideoSessionRow | None,
    cipher: Cipher,
    now: datetime,
) -> None:
    for name in _DETAILS:
        if getattr(row, name) is None:
            setattr(row, name, getattr(file, name))
    is_news = row.url is None or row.provider_status_at is None or event.occurred_at > row.provider_status_at
    if file.url is not None and is_news and row.internal_status != STORED:
        token = event.download_token
        row.url = file.url
        row.download_token_encrypted = cipher.encrypt(token.encode()) if token is not None else None
        row.internal_status = PENDING
        row.error_description = None
        # A worker that has it keeps it for as long as it said.
        row.due_at = row.due_at or now
    said = [Word(_COMPLETED, event.occurred_at), word_of(row.provider_status, row.provider_status_at)]
    if session is not None:
        row.video_session_id = row.video_session_id or session.id
        said.append(word_of(session.recordings_status, session.recordings_status_at))
    row.provider_status, row.provider_status_at = _last(*said)


def _last(*said: Word | None) -> tuple[str, datetime]:
    last = last_word(FILE_WORDS, *said)
    assert last is not None, "one of them was said now"
    return last.word, last.at
