"""calls: conferences, browsers' calls and return calls, their legs, recordings, transcripts and voicemails."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "call_opt_outs",
        sa.Column("messaging_service_id", sa.BigInteger(), nullable=False),
        sa.Column("phone_number", sa.String(), nullable=False),
        sa.Column("opted_out_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("opted_in_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["messaging_service_id"],
            ["messaging_services.id"],
            name=op.f("fk_call_opt_outs_messaging_service_id_messaging_services"),
        ),
        sa.PrimaryKeyConstraint("messaging_service_id", "phone_number", name=op.f("pk_call_opt_outs")),
    )
    op.create_table(
        "call_number_opt_outs",
        sa.Column("twilio_number", sa.String(), nullable=False),
        sa.Column("phone_number", sa.String(), nullable=False),
        sa.Column("messaging_service_id", sa.BigInteger(), nullable=True),
        sa.Column("opted_out_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("opted_in_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "opted_out_at IS NOT NULL OR opted_in_at IS NOT NULL", name=op.f("ck_call_number_opt_outs_was_said")
        ),
        sa.ForeignKeyConstraint(
            ["messaging_service_id"],
            ["messaging_services.id"],
            name=op.f("fk_call_number_opt_outs_messaging_service_id_messaging_services"),
        ),
        sa.PrimaryKeyConstraint("twilio_number", "phone_number", name=op.f("pk_call_number_opt_outs")),
    )
    op.create_table(
        "calls",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("bearer_id", sa.BigInteger(), nullable=False),
        sa.Column("conversation_id", sa.BigInteger(), nullable=True),
        sa.Column("client_call_id", sa.String(), nullable=True),
        sa.Column("callback_url", sa.String(), nullable=True),
        sa.Column("provider_number", sa.String(), nullable=False),
        sa.Column("participant_number", sa.String(), nullable=False),
        sa.Column("internal_status", sa.String(), nullable=False),
        sa.Column("provider_status", sa.String(), nullable=True),
        sa.Column("voicemail_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recording_absent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recordings_check_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recordings_check_attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "internal_status IN ('pending', 'inviting', 'canceled', 'finished', 'failed', 'no_answer', 'busy', 'voicemail', 'recorded', 'transcripted')",
            name=op.f("ck_calls_internal_status"),
        ),
        sa.CheckConstraint("kind IN ('conference', 'direct', 'return')", name=op.f("ck_calls_kind")),
        sa.ForeignKeyConstraint(["bearer_id"], ["bearers.id"], name=op.f("fk_calls_bearer_id_bearers")),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_calls_conversation_id_conversations")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calls")),
        sa.UniqueConstraint("uuid", name=op.f("uq_calls_uuid")),
    )
    op.create_index(
        "ix_calls_expires", "calls", ["expires_at"], unique=False, postgresql_where="expires_at IS NOT NULL"
    )
    op.create_index(
        "ix_calls_recordings_check",
        "calls",
        ["recordings_check_at"],
        unique=False,
        postgresql_where="recordings_check_at IS NOT NULL",
    )
    op.create_table(
        "voice_tokens",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("bearer_id", sa.BigInteger(), nullable=False),
        sa.Column("conversation_id", sa.BigInteger(), nullable=False),
        sa.Column("moderator_id", sa.String(), nullable=False),
        sa.Column("identity", sa.String(), nullable=False),
        sa.Column("client_call_id", sa.String(), nullable=True),
        sa.Column("callback_url", sa.String(), nullable=True),
        sa.Column("phone_number", sa.String(), nullable=True),
        sa.Column("messaging_service_sid", sa.String(), nullable=True),
        sa.Column("global_customer_id", sa.String(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["bearer_id"], ["bearers.id"], name=op.f("fk_voice_tokens_bearer_id_bearers")),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_voice_tokens_conversation_id_conversations")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_voice_tokens")),
        sa.UniqueConstraint("uuid", name=op.f("uq_voice_tokens_uuid")),
    )
    op.create_index("ix_voice_tokens_conversation_id", "voice_tokens", ["conversation_id", "id"], unique=False)
    op.create_table(
        "call_legs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("call_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("call_sid", sa.String(), nullable=True),
        sa.Column("provider_status", sa.String(), nullable=True),
        sa.Column("answered_by", sa.String(), nullable=True),
        sa.Column("joined_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_description", sa.String(), nullable=True),
        sa.Column("muted", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("hold", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("hangup_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dial_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dial_attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("in_doubt", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("first_claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("control_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("control_attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("check_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("check_attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('moderator', 'contact', 'sdk')", name=op.f("ck_call_legs_kind")),
        sa.CheckConstraint("dial_at IS NULL OR call_sid IS NULL", name=op.f("ck_call_legs_dialled_is_not_due")),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_call_legs_call_id_calls")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_call_legs")),
        sa.UniqueConstraint("call_sid", name=op.f("uq_call_legs_call_sid")),
        sa.UniqueConstraint("uuid", name=op.f("uq_call_legs_uuid")),
    )
    op.create_index(op.f("ix_call_legs_call_id"), "call_legs", ["call_id"], unique=False)
    op.create_index(
        "ix_call_legs_check", "call_legs", ["check_at"], unique=False, postgresql_where="check_at IS NOT NULL"
    )
    op.create_index(
        "ix_call_legs_control", "call_legs", ["control_at"], unique=False, postgresql_where="control_at IS NOT NULL"
    )
    op.create_index("ix_call_legs_dial", "call_legs", ["dial_at"], unique=False, postgresql_where="dial_at IS NOT NULL")
    op.create_table(
        "call_recordings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("call_id", sa.BigInteger(), nullable=False),
        sa.Column("recording_sid", sa.String(), nullable=False),
        sa.Column("internal_status", sa.String(), nullable=False),
        sa.Column("provider_status", sa.String(), nullable=True),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("duration", sa.BigInteger(), nullable=True),
        sa.Column("channels", sa.BigInteger(), nullable=True),
        sa.Column("storage_key", sa.String(), nullable=True),
        sa.Column("error_description", sa.String(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("delete_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delete_attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(storage_key IS NOT NULL) = (internal_status = 'stored')", name=op.f("ck_call_recordings_stored_has_key")
        ),
        sa.CheckConstraint(
            "due_at IS NULL OR internal_status = 'pending'", name=op.f("ck_call_recordings_settled_is_not_due")
        ),
        sa.CheckConstraint(
            "internal_status IN ('pending', 'stored', 'absent', 'failed')",
            name=op.f("ck_call_recordings_internal_status"),
        ),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_call_recordings_call_id_calls")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_call_recordings")),
        sa.UniqueConstraint("recording_sid", name=op.f("uq_call_recordings_recording_sid")),
    )
    op.create_index(op.f("ix_call_recordings_call_id"), "call_recordings", ["call_id"], unique=False)
    op.create_index(
        "ix_call_recordings_delete",
        "call_recordings",
        ["delete_at"],
        unique=False,
        postgresql_where="delete_at IS NOT NULL",
    )
    op.create_index(
        "ix_call_recordings_due", "call_recordings", ["due_at"], unique=False, postgresql_where="due_at IS NOT NULL"
    )
    op.create_table(
        "conference_calls",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("call_id", sa.BigInteger(), nullable=False),
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("welcome_message", sa.String(), nullable=False),
        sa.Column("conference_sid", sa.String(), nullable=True),
        sa.Column("canceled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("joined_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_conference_calls_call_id_calls")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conference_calls")),
        sa.UniqueConstraint("call_id", name=op.f("uq_conference_calls_call_id")),
        sa.UniqueConstraint("uuid", name=op.f("uq_conference_calls_uuid")),
    )
    op.create_index(op.f("ix_conference_calls_conference_sid"), "conference_calls", ["conference_sid"], unique=False)
    op.create_table(
        "transcripts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("recording_id", sa.BigInteger(), nullable=False),
        sa.Column("internal_status", sa.String(), nullable=False),
        sa.Column("media_id", sa.String(), nullable=True),
        sa.Column("words", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error_description", sa.String(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(words IS NOT NULL) = (internal_status = 'ready')", name=op.f("ck_transcripts_ready_has_words")
        ),
        sa.CheckConstraint(
            "internal_status IN ('pending', 'submitted', 'ready', 'failed')",
            name=op.f("ck_transcripts_internal_status"),
        ),
        sa.ForeignKeyConstraint(
            ["recording_id"], ["call_recordings.id"], name=op.f("fk_transcripts_recording_id_call_recordings")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transcripts")),
        sa.UniqueConstraint("recording_id", name=op.f("uq_transcripts_recording_id")),
        sa.UniqueConstraint("uuid", name=op.f("uq_transcripts_uuid")),
    )
    op.create_index(
        "ix_transcripts_due", "transcripts", ["due_at"], unique=False, postgresql_where="due_at IS NOT NULL"
    )
    op.create_index(op.f("ix_transcripts_media_id"), "transcripts", ["media_id"], unique=False)
    op.create_table(
        "voicemails",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("call_id", sa.BigInteger(), nullable=False),
        sa.Column("recording_id", sa.BigInteger(), nullable=True),
        sa.Column("caller_id", sa.String(), nullable=True),
        sa.Column("internal_status", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "internal_status IN ('pending', 'recorded', 'transcripted', 'failed')",
            name=op.f("ck_voicemails_internal_status"),
        ),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_voicemails_call_id_calls")),
        sa.ForeignKeyConstraint(
            ["recording_id"], ["call_recordings.id"], name=op.f("fk_voicemails_recording_id_call_recordings")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_voicemails")),
        sa.UniqueConstraint("call_id", name=op.f("uq_voicemails_call_id")),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("voicemails")
    op.drop_index(op.f("ix_transcripts_media_id"), table_name="transcripts")
    op.drop_index("ix_transcripts_due", table_name="transcripts", postgresql_where="due_at IS NOT NULL")
    op.drop_table("transcripts")
    op.drop_index(op.f("ix_conference_calls_conference_sid"), table_name="conference_calls")
    op.drop_table("conference_calls")
    op.drop_index("ix_call_recordings_due", table_name="call_recordings", postgresql_where="due_at IS NOT NULL")
    op.drop_index("ix_call_recordings_delete", table_name="call_recordings", postgresql_where="delete_at IS NOT NULL")
    op.drop_index(op.f("ix_call_recordings_call_id"), table_name="call_recordings")
    op.drop_table("call_recordings")
    op.drop_index("ix_call_legs_dial", table_name="call_legs", postgresql_where="dial_at IS NOT NULL")
    op.drop_index("ix_call_legs_control", table_name="call_legs", postgresql_where="control_at IS NOT NULL")
    op.drop_index("ix_call_legs_check", table_name="call_legs", postgresql_where="check_at IS NOT NULL")
    op.drop_index(op.f("ix_call_legs_call_id"), table_name="call_legs")
    op.drop_table("call_legs")
    op.drop_index("ix_voice_tokens_conversation_id", table_name="voice_tokens")
    op.drop_table("voice_tokens")
    op.drop_index("ix_calls_expires", table_name="calls", postgresql_where="expires_at IS NOT NULL")
    op.drop_table("calls")
    op.drop_table("call_number_opt_outs")
    op.drop_table("call_opt_outs")
