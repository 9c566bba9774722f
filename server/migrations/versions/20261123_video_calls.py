"""video calls: sessions, participants and recordings at Zoom, and what its webhooks said."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "video_calls",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("session_key", sa.Uuid(), nullable=False),
        sa.Column("bearer_id", sa.BigInteger(), nullable=False),
        sa.Column("conversation_id", sa.BigInteger(), nullable=True),
        sa.Column("session_name", sa.String(), nullable=False),
        sa.Column("host_username", sa.String(), nullable=False),
        sa.Column("maximum_call_length", sa.BigInteger(), nullable=False),
        sa.Column("callback_url", sa.String(), nullable=True),
        sa.Column("internal_status", sa.String(), nullable=False),
        sa.Column("provider_status", sa.String(), nullable=True),
        sa.Column("provider_status_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recording_status", sa.String(), nullable=True),
        sa.Column("recording_status_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("provider_id", sa.String(), nullable=True),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "internal_status IN ('pending', 'in_progress', 'finished', 'expired')",
            name=op.f("ck_video_calls_internal_status"),
        ),
        sa.CheckConstraint("maximum_call_length BETWEEN 0 AND 120", name=op.f("ck_video_calls_maximum_call_length")),
        sa.ForeignKeyConstraint(["bearer_id"], ["bearers.id"], name=op.f("fk_video_calls_bearer_id_bearers")),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_video_calls_conversation_id_conversations")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_video_calls")),
        sa.UniqueConstraint("session_key", name=op.f("uq_video_calls_session_key")),
    )
    op.create_index(
        "ix_video_calls_expires",
        "video_calls",
        ["expires_at"],
        unique=False,
        postgresql_where="internal_status = 'pending'",
    )
    op.create_index(
        "uq_video_calls_session_name",
        "video_calls",
        [sa.text("lower(session_name)")],
        unique=True,
        postgresql_where="internal_status IN ('pending', 'in_progress')",
    )
    op.create_table(
        "video_sessions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("video_call_id", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("heard_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recordings_status", sa.String(), nullable=True),
        sa.Column("recordings_status_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["video_call_id"], ["video_calls.id"], name=op.f("fk_video_sessions_video_call_id_video_calls")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_video_sessions")),
        sa.UniqueConstraint("session_id", name=op.f("uq_video_sessions_session_id")),
    )
    op.create_index(
        "ix_video_sessions_due", "video_sessions", ["due_at"], unique=False, postgresql_where="due_at IS NOT NULL"
    )
    op.create_index(op.f("ix_video_sessions_video_call_id"), "video_sessions", ["video_call_id"], unique=False)
    op.create_table(
        "video_call_participants",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_key", sa.Uuid(), nullable=False),
        sa.Column("video_call_id", sa.BigInteger(), nullable=False),
        sa.Column("is_host", sa.Boolean(), nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=True),
        sa.Column("internal_status", sa.String(), nullable=False),
        sa.Column("join_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("leave_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("leave_reason", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "internal_status IN ('invited', 'joined', 'left')", name=op.f("ck_video_call_participants_internal_status")
        ),
        sa.ForeignKeyConstraint(
            ["video_call_id"], ["video_calls.id"], name=op.f("fk_video_call_participants_video_call_id_video_calls")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_video_call_participants")),
        sa.UniqueConstraint("user_key", name=op.f("uq_video_call_participants_user_key")),
    )
    op.create_index(
        op.f("ix_video_call_participants_video_call_id"), "video_call_participants", ["video_call_id"], unique=False
    )
    op.create_table(
        "video_call_stays",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("video_session_id", sa.BigInteger(), nullable=False),
        sa.Column("participant_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("join_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("leave_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("leave_reason", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["participant_id"],
            ["video_call_participants.id"],
            name=op.f("fk_video_call_stays_participant_id_video_call_participants"),
        ),
        sa.ForeignKeyConstraint(
            ["video_session_id"],
            ["video_sessions.id"],
            name=op.f("fk_video_call_stays_video_session_id_video_sessions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_video_call_stays")),
        sa.UniqueConstraint("video_session_id", "user_id", name=op.f("uq_video_call_stays_video_session_id_user_id")),
    )
    op.create_index(op.f("ix_video_call_stays_participant_id"), "video_call_stays", ["participant_id"], unique=False)
    op.create_table(
        "video_call_recordings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("video_call_id", sa.BigInteger(), nullable=False),
        sa.Column("video_session_id", sa.BigInteger(), nullable=True),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("file_type", sa.String(), nullable=False),
        sa.Column("file_extension", sa.String(), nullable=True),
        sa.Column("recording_type", sa.String(), nullable=True),
        sa.Column("file_size", sa.BigInteger(), nullable=True),
        sa.Column("recording_start", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recording_end", sa.DateTime(timezone=True), nullable=True),
        sa.Column("internal_status", sa.String(), nullable=False),
        sa.Column("provider_status", sa.String(), nullable=True),
        sa.Column("provider_status_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_description", sa.String(), nullable=True),
        sa.Column("storage_key", sa.String(), nullable=True),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("download_token_encrypted", sa.LargeBinary(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "due_at IS NULL OR internal_status = 'pending'", name=op.f("ck_video_call_recordings_settled_is_not_due")
        ),
        sa.CheckConstraint(
            "internal_status IN ('pending', 'stored', 'failed')", name=op.f("ck_video_call_recordings_internal_status")
        ),
        sa.ForeignKeyConstraint(
            ["video_call_id"], ["video_calls.id"], name=op.f("fk_video_call_recordings_video_call_id_video_calls")
        ),
        sa.ForeignKeyConstraint(
            ["video_session_id"],
            ["video_sessions.id"],
            name=op.f("fk_video_call_recordings_video_session_id_video_sessions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_video_call_recordings")),
        sa.UniqueConstraint(
            "video_call_id", "provider_id", name=op.f("uq_video_call_recordings_video_call_id_provider_id")
        ),
    )
    op.create_index(
        "ix_video_call_recordings_due",
        "video_call_recordings",
        ["due_at"],
        unique=False,
        postgresql_where="due_at IS NOT NULL",
    )
    op.create_index(
        op.f("ix_video_call_recordings_video_session_id"), "video_call_recordings", ["video_session_id"], unique=False
    )
    op.create_table(
        "zoom_events",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("video_call_id", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["video_call_id"], ["video_calls.id"], name=op.f("fk_zoom_events_video_call_id_video_calls")
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_zoom_events")),
    )
    op.create_index(op.f("ix_zoom_events_received_at"), "zoom_events", ["received_at"], unique=False)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index(op.f("ix_zoom_events_received_at"), table_name="zoom_events")
    op.drop_table("zoom_events")
    op.drop_index(op.f("ix_video_call_recordings_video_session_id"), table_name="video_call_recordings")
    op.drop_index(
        "ix_video_call_recordings_due", table_name="video_call_recordings", postgresql_where="due_at IS NOT NULL"
    )
    op.drop_table("video_call_recordings")
    op.drop_index(op.f("ix_video_call_stays_participant_id"), table_name="video_call_stays")
    op.drop_table("video_call_stays")
    op.drop_index(op.f("ix_video_call_participants_video_call_id"), table_name="video_call_participants")
    op.drop_table("video_call_participants")
    op.drop_index(op.f("ix_video_sessions_video_call_id"), table_name="video_sessions")
    op.drop_index("ix_video_sessions_due", table_name="video_sessions", postgresql_where="due_at IS NOT NULL")
    op.drop_table("video_sessions")
    op.drop_index(
        "uq_video_calls_session_name",
        table_name="video_calls",
        postgresql_where="internal_status IN ('pending', 'in_progress')",
    )
    op.drop_index("ix_video_calls_expires", table_name="video_calls", postgresql_where="internal_status = 'pending'")
    op.drop_table("video_calls")
