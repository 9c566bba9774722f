"""create tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "bearers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("bearer_name", sa.String(), nullable=False),
        sa.Column("bearer_type", sa.String(), nullable=False),
        sa.Column("callback_url", sa.String(), nullable=True),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("password_encrypted", sa.LargeBinary(), nullable=True),
        sa.Column("signing_secret_encrypted", sa.LargeBinary(), nullable=True),
        sa.Column("previous_signing_secret_encrypted", sa.LargeBinary(), nullable=True),
        sa.Column("previous_signing_secret_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("bearer_type IN ('Admin', 'Application', 'User')", name=op.f("ck_bearers_bearer_type")),
        sa.CheckConstraint(
            "(previous_signing_secret_encrypted IS NULL) = (previous_signing_secret_expires_at IS NULL)",
            name=op.f("ck_bearers_previous_secret_expires"),
        ),
        sa.CheckConstraint(
            "deleted_at IS NOT NULL OR (password_encrypted IS NOT NULL AND signing_secret_encrypted IS NOT NULL)",
            name=op.f("ck_bearers_live_has_credentials"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bearers")),
    )
    op.create_table(
        "customers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("global_customer_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_customers")),
        sa.UniqueConstraint("global_customer_id", name=op.f("uq_customers_global_customer_id")),
    )
    op.create_table(
        "event_log",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_position", sa.BigInteger(), nullable=False),
        sa.Column("oldest_position", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_event_log_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_log")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("bearer_id", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("token_prefix", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(token_hash) = 32", name=op.f("ck_api_keys_token_hash_is_sha256")),
        sa.ForeignKeyConstraint(["bearer_id"], ["bearers.id"], name=op.f("fk_api_keys_bearer_id_bearers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_keys_token_hash")),
    )
    op.create_index(op.f("ix_api_keys_bearer_id"), "api_keys", ["bearer_id"], unique=False)
    op.create_table(
        "conversations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("bearer_id", sa.BigInteger(), nullable=False),
        sa.Column("client_conversation_id", sa.String(), nullable=False),
        sa.Column("internal_conversation_id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("global_id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("callback_url", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["bearer_id"], ["bearers.id"], name=op.f("fk_conversations_bearer_id_bearers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversations")),
        sa.UniqueConstraint(
            "bearer_id", "client_conversation_id", name=op.f("uq_conversations_bearer_id_client_conversation_id")
        ),
        sa.UniqueConstraint("global_id", name=op.f("uq_conversations_global_id")),
        sa.UniqueConstraint("internal_conversation_id", name=op.f("uq_conversations_internal_conversation_id")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("bearer_id", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("resource_uuid", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("callback_url", sa.String(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("sequence > 0", name=op.f("ck_events_sequence_positive")),
        sa.ForeignKeyConstraint(["bearer_id"], ["bearers.id"], name=op.f("fk_events_bearer_id_bearers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("event_id", name=op.f("uq_events_event_id")),
        sa.UniqueConstraint("resource_uuid", "sequence", name=op.f("uq_events_resource_uuid_sequence")),
    )
    op.create_index(
        "ix_events_bearer_id_position",
        "events",
        ["bearer_id", "position"],
        unique=False,
        postgresql_where="position IS NOT NULL",
    )
    op.create_index("ix_events_unrelayed", "events", ["id"], unique=False, postgresql_where="position IS NULL")
    op.create_index("uq_events_position", "events", ["position"], unique=True, postgresql_where="position IS NOT NULL")
    op.create_table(
        "idempotency_keys",
        sa.Column("bearer_id", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("response_encrypted", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(fingerprint) = 32", name=op.f("ck_idempotency_keys_fingerprint_is_sha256")),
        sa.ForeignKeyConstraint(["bearer_id"], ["bearers.id"], name=op.f("fk_idempotency_keys_bearer_id_bearers")),
        sa.PrimaryKeyConstraint("bearer_id", "request_id", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "messaging_services",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("uuid", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("customer_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), server_default="twilio", nullable=False),
        sa.Column("twilio_messaging_sid", sa.String(), nullable=False),
        sa.Column("bandwidth_messaging_sid", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customers.id"], name=op.f("fk_messaging_services_customer_id_customers")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messaging_services")),
        sa.UniqueConstraint("bandwidth_messaging_sid", name=op.f("uq_messaging_services_bandwidth_messaging_sid")),
        sa.UniqueConstraint("name", name=op.f("uq_messaging_services_name")),
        sa.UniqueConstraint("twilio_messaging_sid", name=op.f("uq_messaging_services_twilio_messaging_sid")),
        sa.UniqueConstraint("uuid", name=op.f("uq_messaging_services_uuid")),
    )
    op.create_index(op.f("ix_messaging_services_customer_id"), "messaging_services", ["customer_id"], unique=False)
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("bearer_id", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["bearer_id"], ["bearers.id"], name=op.f("fk_webhook_endpoints_bearer_id_bearers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
        sa.UniqueConstraint("bearer_id", "url", name=op.f("uq_webhook_endpoints_bearer_id_url")),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("message_uuid", sa.Uuid(), nullable=False),
        sa.Column("bearer_id", sa.BigInteger(), nullable=False),
        sa.Column("conversation_id", sa.BigInteger(), nullable=True),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("messaging_service_sid", sa.String(), nullable=True),
        sa.Column("sender_number", sa.String(), nullable=False),
        sa.Column("receiver_number", sa.String(), nullable=False),
        sa.Column("message_body", sa.String(), nullable=False),
        sa.Column("media_urls", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("message_type", sa.String(), nullable=False),
        sa.Column("priority", sa.String(), nullable=False),
        sa.Column("callback_url", sa.String(), nullable=True),
        sa.Column("internal_status", sa.String(), nullable=False),
        sa.Column("provider_status", sa.String(), nullable=True),
        sa.Column("provider_rank", sa.BigInteger(), server_default="-1", nullable=False),
        sa.Column("message_sid", sa.String(), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_description", sa.String(), nullable=True),
        sa.Column("scheduled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("enqueued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("first_claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("in_doubt", sa.Boolean(), server_default="false", nullable=False),
        sa.CheckConstraint(
            "internal_status <> 'cancelled' OR due_at IS NULL", name=op.f("ck_messages_cancelled_is_not_due")
        ),
        sa.CheckConstraint(
            "internal_status IN ('pending', 'processing', 'sending', 'sent', 'delivered', 'failed', 'cancelled')",
            name=op.f("ck_messages_internal_status"),
        ),
        sa.CheckConstraint("message_type IN ('sms', 'mms')", name=op.f("ck_messages_message_type")),
        sa.CheckConstraint("priority IN ('default', 'high')", name=op.f("ck_messages_priority")),
        sa.CheckConstraint(
            "NOT (in_doubt AND message_sid IS NOT NULL)", name=op.f("ck_messages_known_is_not_in_doubt")
        ),
        sa.CheckConstraint("message_sid IS NULL OR due_at IS NULL", name=op.f("ck_messages_sent_is_not_due")),
        sa.ForeignKeyConstraint(["bearer_id"], ["bearers.id"], name=op.f("fk_messages_bearer_id_bearers")),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_messages_conversation_id_conversations")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint("message_uuid", name=op.f("uq_messages_message_uuid")),
    )
    op.create_index(op.f("ix_messages_conversation_id"), "messages", ["conversation_id"], unique=False)
    op.create_index(
        "ix_messages_due", "messages", ["priority", "due_at"], unique=False, postgresql_where="due_at IS NOT NULL"
    )
    op.create_index("ix_messages_numbers", "messages", ["sender_number", "receiver_number", "id"], unique=False)
    op.create_index("uq_messages_message_sid", "messages", ["provider", "message_sid"], unique=True)
    op.create_table(
        "twilio_numbers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("messaging_service_id", sa.BigInteger(), nullable=False),
        sa.Column("phone_number", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["messaging_service_id"],
            ["messaging_services.id"],
            name=op.f("fk_twilio_numbers_messaging_service_id_messaging_services"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_twilio_numbers")),
        sa.UniqueConstraint("phone_number", name=op.f("uq_twilio_numbers_phone_number")),
    )
    op.create_index(
        op.f("ix_twilio_numbers_messaging_service_id"), "twilio_numbers", ["messaging_service_id"], unique=False
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("uuid", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("endpoint_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("bearer_id", sa.BigInteger(), nullable=False),
        sa.Column("event_type", sa.String(), nullable=False),
        sa.Column("resource_uuid", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts_in_run", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_response_status", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'delivered') = (delivered_at IS NOT NULL)", name=op.f("ck_webhook_deliveries_delivered_has_time")
        ),
        sa.CheckConstraint(
            "status = 'pending' OR due_at IS NULL", name=op.f("ck_webhook_deliveries_only_pending_is_due")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'dead_lettered')", name=op.f("ck_webhook_deliveries_status")
        ),
        sa.ForeignKeyConstraint(["bearer_id"], ["bearers.id"], name=op.f("fk_webhook_deliveries_bearer_id_bearers")),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoints.id"], name=op.f("fk_webhook_deliveries_endpoint_id_webhook_endpoints")
        ),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_webhook_deliveries_event_id_events")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint("event_id", "endpoint_id", name=op.f("uq_webhook_deliveries_event_id_endpoint_id")),
        sa.UniqueConstraint("uuid", name=op.f("uq_webhook_deliveries_uuid")),
    )
    op.create_index("ix_webhook_deliveries_bearer_id_id", "webhook_deliveries", ["bearer_id", "id"], unique=False)
    op.create_index(
        "ix_webhook_deliveries_dead_lettered",
        "webhook_deliveries",
        ["bearer_id", "id"],
        unique=False,
        postgresql_where="status = 'dead_lettered'",
    )
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["endpoint_id", "due_at"],
        unique=False,
        postgresql_where="due_at IS NOT NULL",
    )
    op.create_index(
        "ix_webhook_deliveries_lane",
        "webhook_deliveries",
        ["endpoint_id", "resource_uuid", "id"],
        unique=False,
        postgresql_where="status = 'pending'",
    )
    op.create_table(
        "message_callbacks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("message_sid", sa.String(), nullable=False),
        sa.Column("provider_status", sa.String(), nullable=False),
        sa.Column("provider_rank", sa.BigInteger(), nullable=False),
        sa.Column("internal_status", sa.String(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_url", sa.String(), nullable=True),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name=op.f("fk_message_callbacks_message_id_messages")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message_callbacks")),
    )
    op.create_index(op.f("ix_message_callbacks_message_id"), "message_callbacks", ["message_id"], unique=False)
    op.create_index(
        "ix_message_callbacks_unmatched",
        "message_callbacks",
        ["provider", "message_sid"],
        unique=False,
        postgresql_where="message_id IS NULL",
    )
    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("response_status", sa.BigInteger(), nullable=True),
        sa.Column("response_body", sa.String(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["webhook_deliveries.id"],
            name=op.f("fk_webhook_attempts_delivery_id_webhook_deliveries"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_webhook_attempts")),
    )
    op.execute("INSERT INTO event_log (id, last_position, oldest_position) VALUES (1, 0, 0)")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("webhook_attempts")
    op.drop_index(
        "ix_message_callbacks_unmatched", table_name="message_callbacks", postgresql_where="message_id IS NULL"
    )
    op.drop_index(op.f("ix_message_callbacks_message_id"), table_name="message_callbacks")
    op.drop_table("message_callbacks")
    op.drop_index("ix_webhook_deliveries_lane", table_name="webhook_deliveries", postgresql_where="status = 'pending'")
    op.drop_index("ix_webhook_deliveries_due", table_name="webhook_deliveries", postgresql_where="due_at IS NOT NULL")
    op.drop_index(
        "ix_webhook_deliveries_dead_lettered",
        table_name="webhook_deliveries",
        postgresql_where="status = 'dead_lettered'",
    )
    op.drop_index("ix_webhook_deliveries_bearer_id_id", table_name="webhook_deliveries")
    op.drop_table("webhook_deliveries")
    op.drop_index(op.f("ix_twilio_numbers_messaging_service_id"), table_name="twilio_numbers")
    op.drop_table("twilio_numbers")
    op.drop_index("uq_messages_message_sid", table_name="messages")
    op.drop_index("ix_messages_numbers", table_name="messages")
    op.drop_index("ix_messages_due", table_name="messages", postgresql_where="due_at IS NOT NULL")
    op.drop_index(op.f("ix_messages_conversation_id"), table_name="messages")
    op.drop_table("messages")
    op.drop_table("webhook_endpoints")
    op.drop_index(op.f("ix_messaging_services_customer_id"), table_name="messaging_services")
    op.drop_table("messaging_services")
    op.drop_index(op.f("ix_idempotency_keys_created_at"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index("uq_events_position", table_name="events", postgresql_where="position IS NOT NULL")
    op.drop_index("ix_events_unrelayed", table_name="events", postgresql_where="position IS NULL")
    op.drop_index("ix_events_bearer_id_position", table_name="events", postgresql_where="position IS NOT NULL")
    op.drop_table("events")
    op.drop_table("conversations")
    op.drop_index(op.f("ix_api_keys_bearer_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("event_log")
    op.drop_table("customers")
    op.drop_table("bearers")
