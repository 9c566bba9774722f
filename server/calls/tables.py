"""Calls, their legs at the provider, what was recorded and said in them, and the tokens that browsers call with."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base


class CallRow(Base):
    """A call of any kind. What the provider says is kept as facts, here and in its legs and recordings; the status
    follows from them, in whatever order they came."""

    __tablename__ = "calls"
    __table_args__ = (
        Index("ix_calls_expires", "expires_at", postgresql_where="expires_at IS NOT NULL"),
        Index("ix_calls_recordings_check", "recordings_check_at", postgresql_where="recordings_check_at IS NOT NULL"),
        CheckConstraint("kind IN ('conference', 'direct', 'return')", name="kind"),
        CheckConstraint(
            "internal_status IN ('pending', 'inviting', 'canceled', 'finished', 'failed', 'no_answer', 'busy', "
            "'voicemail', 'recorded', 'transcripted')",
            name="internal_status",
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    uuid: Mapped[UUID] = mapped_column(unique=True)
    kind: Mapped[str]
    bearer_id: Mapped[int] = mapped_column(ForeignKey("bearers.id"))
    conversation_id: Mapped[int | None] = mapped_column(ForeignKey("conversations.id"))
    client_call_id: Mapped[str | None]
    callback_url: Mapped[str | None]
    # Our number and the other side's; of a conference the moderator's.
    provider_number: Mapped[str]
    participant_number: Mapped[str]
    internal_status: Mapped[str]
    provider_status: Mapped[str | None]
    # Fact: the contact was sent to voicemail.
    voicemail_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    # A call that is not over by then, and that the provider knows nothing of, has failed.
    expires_at: Mapped[datetime | None]
    # Fact: the provider, asked after the call was over, had recorded nothing.
    recording_absent_at: Mapped[datetime | None]
    # While it is set the provider is to be asked then what it recorded: the lease of whoever does it. So often it was
    # asked in vain.
    recordings_check_at: Mapped[datetime | None]
    recordings_check_attempts: Mapped[int] = mapped_column(server_default="0")
    # The number of events told of this call.
    sequence: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ConferenceCallRow(Base):
    """What a conference has beside its call."""

    __tablename__ = "conference_calls"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    call_id: Mapped[int] = mapped_column(ForeignKey("calls.id"), unique=True)
    # Its own UUID, which is also its name at the provider.
    uuid: Mapped[UUID] = mapped_column(unique=True)
    welcome_message: Mapped[str]
    conference_sid: Mapped[str | None] = mapped_column(index=True)
    # Facts: canceled through the API; begun and ended at the provider; somebody joined.
    canceled_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    joined_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class CallLegRow(Base):
    """One call at the provider that belongs to a call of ours. While `dial_at` is set it is to be dialled then, while
    `control_at` is set it is to be muted, held or hung up on, while `check_at` is set the provider is to be asked about
    it: each is the lease of whoever does it.

    `kind` says whose phone it is: a moderator's or a contact's, or a browser (`sdk`).
    """

    __tablename__ = "call_legs"
    __table_args__ = (
        Index("ix_call_legs_dial", "dial_at", postgresql_where="dial_at IS NOT NULL"),
        Index("ix_call_legs_control", "control_at", postgresql_where="control_at IS NOT NULL"),
        Index("ix_call_legs_check", "check_at", postgresql_where="check_at IS NOT NULL"),
        CheckConstraint("kind IN ('moderator', 'contact', 'sdk')", name="kind"),
        CheckConstraint("dial_at IS NULL OR call_sid IS NULL", name="dialled_is_not_due"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    uuid: Mapped[UUID] = mapped_column(unique=True)
    call_id: Mapped[int] = mapped_column(ForeignKey("calls.id"), index=True)
    kind: Mapped[str]
    # E.164; of a browser its identity.
    address: Mapped[str]
    # In the order of the request, the moderator first.
    position: Mapped[int]
    call_sid: Mapped[str | None] = mapped_column(unique=True)
    # Facts. The status is the one of the highest rank that was told.
    provider_status: Mapped[str | None]
    answered_by: Mapped[str | None]
    joined_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error_description: Mapped[str | None]
    # What is wanted of it while it lasts.
    muted: Mapped[bool] = mapped_column(server_default="false")
    hold: Mapped[bool] = mapped_column(server_default="false")
    hangup_at: Mapped[datetime | None]
    # The dial's lease, as of messages: in doubt where a claim has no recorded outcome.
    dial_at: Mapped[datetime | None]
    dial_attempts: Mapped[int] = mapped_column(server_default="0")
    in_doubt: Mapped[bool] = mapped_column(server_default="false")
    first_claimed_at: Mapped[datetime | None]
    control_at: Mapped[datetime | None]
    control_attempts: Mapped[int] = mapped_column(server_default="0")
    check_at: Mapped[datetime | None]
    check_attempts: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CallRecordingRow(Base):
    """A recording of a call. While `due_at` is set it is to be fetched and stored; while `delete_at` is set the
    provider's copy is to be deleted."""

    __tablename__ = "call_recordings"
    __table_args__ = (
        Index("ix_call_recordings_due", "due_at", postgresql_where="due_at IS NOT NULL"),
        Index("ix_call_recordings_delete", "delete_at", postgresql_where="delete_at IS NOT NULL"),
        CheckConstraint("internal_status IN ('pending', 'stored', 'absent', 'failed')", name="internal_status"),
        CheckConstraint("due_at IS NULL OR internal_status = 'pending'", name="settled_is_not_due"),
        CheckConstraint("(storage_key IS NOT NULL) = (internal_status = 'stored')", name="stored_has_key"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    call_id: Mapped[int] = mapped_column(ForeignKey("calls.id"), index=True)
    recording_sid: Mapped[str] = mapped_column(unique=True)
    # `pending` until it is stored; `absent` where the provider recorded nothing; `failed` where it cannot be had.
    internal_status: Mapped[str]
    # Fact: the one of the highest rank that was told.
    provider_status: Mapped[str | None]
    url: Mapped[str | None]
    # Seconds.
    duration: Mapped[int | None]
    channels: Mapped[int | None]
    storage_key: Mapped[str | None]
    error_description: Mapped[str | None]
    due_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    delete_at: Mapped[datetime | None]
    delete_attempts: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TranscriptRow(Base):
    """What was said in a recording. While `due_at` is set it is to be transcribed, or the service is to be asked."""

    __tablename__ = "transcripts"
    __table_args__ = (
        Index("ix_transcripts_due", "due_at", postgresql_where="due_at IS NOT NULL"),
        CheckConstraint("internal_status IN ('pending', 'submitted', 'ready', 'failed')", name="internal_status"),
        CheckConstraint("(words IS NOT NULL) = (internal_status = 'ready')", name="ready_has_words"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    # What the service is told of it as our reference.
    uuid: Mapped[UUID] = mapped_column(unique=True)
    recording_id: Mapped[int] = mapped_column(ForeignKey("call_recordings.id"), unique=True)
    internal_status: Mapped[str]
    # The service's id of it, once it was submitted.
    media_id: Mapped[str | None] = mapped_column(index=True)
    # The one timed transcript that all formats are rendered from, as `transcript_formats.to_json` has it. It may be
    # megabytes: whoever shows it asks for it.
    words: Mapped[list[Any] | None] = mapped_column(JSONB, deferred=True, deferred_raiseload=True)
    error_description: Mapped[str | None]
    due_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class VoicemailRow(Base):
    """A voicemail of a contact's call; its recording is the call's that is named here, once the provider told of it."""

    __tablename__ = "voicemails"
    __table_args__ = (
        CheckConstraint("internal_status IN ('pending', 'recorded', 'transcripted', 'failed')", name="internal_status"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    call_id: Mapped[int] = mapped_column(ForeignKey("calls.id"), unique=True)
    recording_id: Mapped[int | None] = mapped_column(ForeignKey("call_recordings.id"))
    caller_id: Mapped[str | None]
    internal_status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class VoiceTokenRow(Base):
    """A token that was made for a staff member's browser. What calls back their contact in the conversation rings the
    identity of the newest one."""

    __tablename__ = "voice_tokens"
    __table_args__ = (Index("ix_voice_tokens_conversation_id", "conversation_id", "id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    uuid: Mapped[UUID] = mapped_column(unique=True)
    bearer_id: Mapped[int] = mapped_column(ForeignKey("bearers.id"))
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"))
    moderator_id: Mapped[str]
    identity: Mapped[str]
    client_call_id: Mapped[str | None]
    callback_url: Mapped[str | None]
    # Whom it calls, and what from, where that was given.
    phone_number: Mapped[str | None]
    messaging_service_sid: Mapped[str | None]
    global_customer_id: Mapped[str | None]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CallOptOutRow(Base):
    """Somebody who takes no calls from a messaging service's numbers while `opted_out_at` is set."""

    __tablename__ = "call_opt_outs"

    messaging_service_id: Mapped[int] = mapped_column(ForeignKey("messaging_services.id"), primary_key=True)
    phone_number: Mapped[str] = mapped_column(primary_key=True)
    opted_out_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    opted_in_at: Mapped[datetime | None]


class CallNumberOptOutRow(Base):
    """Somebody who has said to one of our numbers whether they take calls from it, wherever it goes."""

    __tablename__ = "call_number_opt_outs"
    __table_args__ = (CheckConstraint("opted_out_at IS NOT NULL OR opted_in_at IS NOT NULL", name="was_said"),)

    twilio_number: Mapped[str] = mapped_column(primary_key=True)
    phone_number: Mapped[str] = mapped_column(primary_key=True)
    # Whom the number spoke for then, of which `call_opt_outs` says what holds; null where for nobody.
    messaging_service_id: Mapped[int | None] = mapped_column(ForeignKey("messaging_services.id"))
    opted_out_at: Mapped[datetime | None]
    opted_in_at: Mapped[datetime | None]
