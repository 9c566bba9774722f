"""Video calls, their sessions at Zoom, who is and was in them, what was recorded, and what Zoom said."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, LargeBinary, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base


class VideoCallRow(Base):
    """A video call. What Zoom says of it is kept as facts in the tables below; the times and statuses here follow from
    them, in whatever order they came."""

    __tablename__ = "video_calls"
    __table_args__ = (
        # Zoom knows a session by its name, whatever the case: two live calls of one name would be one session.
        Index(
            "uq_video_calls_session_name",
            text("lower(session_name)"),
            unique=True,
            postgresql_where="internal_status IN ('pending', 'in_progress')",
        ),
        Index("ix_video_calls_expires", "expires_at", postgresql_where="internal_status = 'pending'"),
        CheckConstraint("internal_status IN ('pending', 'in_progress', 'finished', 'expired')", name="internal_status"),
        CheckConstraint("maximum_call_length BETWEEN 0 AND 120", name="maximum_call_length"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    session_key: Mapped[UUID] = mapped_column(unique=True)
    bearer_id: Mapped[int] = mapped_column(ForeignKey("bearers.id"))
    conversation_id: Mapped[int | None] = mapped_column(ForeignKey("conversations.id"))
    session_name: Mapped[str]
    host_username: Mapped[str]
    maximum_call_length: Mapped[int]
    callback_url: Mapped[str | None]
    internal_status: Mapped[str]
    provider_status: Mapped[str | None]
    # When Zoom said so: a later word of Zoom's replaces it, whenever it arrives.
    provider_status_at: Mapped[datetime | None]
    recording_status: Mapped[str | None]
    recording_status_at: Mapped[datetime | None]
    provider_id: Mapped[str | None]
    start_time: Mapped[datetime | None]
    end_time: Mapped[datetime | None]
    end_at: Mapped[datetime | None]
    # A call that nobody joined until then is over.
    expires_at: Mapped[datetime]
    # The number of events told of this call.
    sequence: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class VideoSessionRow(Base):
    """One session at Zoom: a call that everybody left and somebody joined again has several. While `due_at` is set it
    is to be ended then.

    `end_time` is ours where we ended it, until Zoom says when that was.
    """

    __tablename__ = "video_sessions"
    __table_args__ = (Index("ix_video_sessions_due", "due_at", postgresql_where="due_at IS NOT NULL"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    video_call_id: Mapped[int] = mapped_column(ForeignKey("video_calls.id"), index=True)
    session_id: Mapped[str] = mapped_column(unique=True)
    # The time of the first that Zoom told of it: it had begun by then, even where its start was never told.
    heard_at: Mapped[datetime]
    start_time: Mapped[datetime | None]
    end_time: Mapped[datetime | None]
    # What became of all of its recordings at Zoom, which says so of the session and names no file.
    recordings_status: Mapped[str | None]
    recordings_status_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")


class VideoCallParticipantRow(Base):
    """Somebody who was let in, or who came without a token of ours (by telephone, say)."""

    __tablename__ = "video_call_participants"
    __table_args__ = (CheckConstraint("internal_status IN ('invited', 'joined', 'left')", name="internal_status"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_key: Mapped[UUID] = mapped_column(unique=True)
    video_call_id: Mapped[int] = mapped_column(ForeignKey("video_calls.id"), index=True)
    is_host: Mapped[bool]
    username: Mapped[str]
    provider_id: Mapped[str | None]
    internal_status: Mapped[str]
    join_time: Mapped[datetime | None]
    leave_time: Mapped[datetime | None]
    leave_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class VideoCallStayRow(Base):
    """Somebody's stay in a session, under the id that Zoom gave them for it: who reloads a page has two, of which the
    first may end after the second has begun. Zoom uses its ids again in every session."""

    __tablename__ = "video_call_stays"
    __table_args__ = (UniqueConstraint("video_session_id", "user_id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    video_session_id: Mapped[int] = mapped_column(ForeignKey("video_sessions.id"))
    participant_id: Mapped[int] = mapped_column(ForeignKey("video_call_participants.id"), index=True)
    user_id: Mapped[str]
    join_time: Mapped[datetime | None]
    leave_time: Mapped[datetime | None]
    leave_reason: Mapped[str | None]


class VideoCallRecordingRow(Base):
    """A file of a recording. While `due_at` is set it is to be fetched and stored."""

    __tablename__ = "video_call_recordings"
    __table_args__ = (
        UniqueConstraint("video_call_id", "provider_id"),
        Index("ix_video_call_recordings_due", "due_at", postgresql_where="due_at IS NOT NULL"),
        CheckConstraint("internal_status IN ('pending', 'stored', 'failed')", name="internal_status"),
        CheckConstraint("due_at IS NULL OR internal_status = 'pending'", name="settled_is_not_due"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    video_call_id: Mapped[int] = mapped_column(ForeignKey("video_calls.id"))
    # Which session was recorded, where Zoom said so.
    video_session_id: Mapped[int | None] = mapped_column(ForeignKey("video_sessions.id"), index=True)
    provider_id: Mapped[str]
    file_type: Mapped[str]
    file_extension: Mapped[str | None]
    recording_type: Mapped[str | None]
    file_size: Mapped[int | None]
    recording_start: Mapped[datetime | None]
    recording_end: Mapped[datetime | None]
    internal_status: Mapped[str]
    provider_status: Mapped[str | None]
    provider_status_at: Mapped[datetime | None]
    error_description: Mapped[str | None]
    storage_key: Mapped[str | None]
    # Where Zoom has it; one that Zoom does not say is never fetched.
    url: Mapped[str | None]
    # Lets its bearer fetch the file for a day; encrypted.
    download_token_encrypted: Mapped[bytes | None] = mapped_column(LargeBinary)
    due_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ZoomEventRow(Base):
    """A webhook of Zoom's as it came, once: what is posted again has the same digest."""

    __tablename__ = "zoom_events"

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    event: Mapped[str]
    video_call_id: Mapped[int | None] = mapped_column(ForeignKey("video_calls.id"))
    body: Mapped[str]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
