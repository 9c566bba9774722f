"""complete messaging: pairings, opt-outs, inbound messages and their media, line types, number synchronisation."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "line_types",
        sa.Column("phone_number", sa.String(), nullable=False),
        sa.Column("line_type", sa.String(), nullable=True),
        sa.Column("looked_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("phone_number", name=op.f("pk_line_types")),
    )
    op.create_index("ix_line_types_due", "line_types", ["due_at"], unique=False, postgresql_where="due_at IS NOT NULL")
    op.create_table(
        "number_syncs",
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("added", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("moved", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("released", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("restored", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_number_syncs")),
    )
    op.create_table(
        "unknown_sender_answers",
        sa.Column("phone_number", sa.String(), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("phone_number", name=op.f("pk_unknown_sender_answers")),
    )
    op.create_table(
        "opt_outs",
        sa.Column("messaging_service_id", sa.BigInteger(), nullable=False),
        sa.Column("phone_number", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("opted_out_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("opted_in_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("source IN ('keyword', 'provider')", name=op.f("ck_opt_outs_source")),
        sa.CheckConstraint("opted_out_at IS NOT NULL OR opted_in_at IS NOT NULL", name=op.f("ck_opt_outs_was_said")),
        sa.ForeignKeyConstraint(
            ["messaging_service_id"],
            ["messaging_services.id"],
            name=op.f("fk_opt_outs_messaging_service_id_messaging_services"),
        ),
        sa.PrimaryKeyConstraint("messaging_service_id", "phone_number", name=op.f("pk_opt_outs")),
    )
    op.create_table(
        "number_opt_outs",
        sa.Column("twilio_number", sa.String(), nullable=False),
        sa.Column("phone_number", sa.String(), nullable=False),
        sa.Column("messaging_service_id", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("opted_out_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("opted_in_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("source IN ('keyword', 'provider')", name=op.f("ck_number_opt_outs_source")),
        sa.CheckConstraint(
            "opted_out_at IS NOT NULL OR opted_in_at IS NOT NULL", name=op.f("ck_number_opt_outs_was_said")
        ),
        sa.ForeignKeyConstraint(
            ["messaging_service_id"],
            ["messaging_services.id"],
            name=op.f("fk_number_opt_outs_messaging_service_id_messaging_services"),
        ),
        sa.PrimaryKeyConstraint("twilio_number", "phone_number", name=op.f("pk_number_opt_outs")),
    )
    op.create_table(
        "participants",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("conversation_id", sa.BigInteger(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("phone_number", sa.String(), nullable=True),
        sa.Column("client_participant_id", sa.String(), nullable=True),
        sa.Column("twilio_number", sa.String(), nullable=True),
        sa.Column("pairing_deactivated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "role = 'moderator' OR phone_number IS NOT NULL", name=op.f("ck_participants_contact_has_number")
        ),
        sa.CheckConstraint("role IN ('moderator', 'contact')", name=op.f("ck_participants_role")),
        sa.CheckConstraint(
            "phone_number IS NOT NULL OR client_participant_id IS NOT NULL", name=op.f("ck_participants_is_known")
        ),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_participants_conversation_id_conversations")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_participants")),
        sa.UniqueConstraint(
            "conversation_id",
            "role",
            "client_participant_id",
            name=op.f("uq_participants_conversation_id_role_client_participant_id"),
        ),
        sa.UniqueConstraint(
            "conversation_id", "role", "phone_number", name=op.f("uq_participants_conversation_id_role_phone_number")
        ),
    )
    op.create_table(
        "media_files",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("content_type", sa.String(), nullable=False),
        sa.Column("storage_key", sa.String(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(due_at IS NULL) = (storage_key IS NOT NULL OR error IS NOT NULL)", name=op.f("ck_media_files_settled")
        ),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name=op.f("fk_media_files_message_id_messages")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_media_files")),
        sa.UniqueConstraint("message_id", "place", name=op.f("uq_media_files_message_id_place")),
    )
    op.create_index(
        "ix_media_files_due", "media_files", ["due_at"], unique=False, postgresql_where="due_at IS NOT NULL"
    )
    op.create_table(
        "pairings",
        sa.Column("twilio_number", sa.String(), nullable=False),
        sa.Column("phone_number", sa.String(), nullable=False),
        sa.Column("participant_id", sa.BigInteger(), nullable=False),
        sa.Column("conversation_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_pairings_conversation_id_conversations")
        ),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participants.id"], name=op.f("fk_pairings_participant_id_participants")
        ),
        sa.PrimaryKeyConstraint("twilio_number", "phone_number", name=op.f("pk_pairings")),
    )
    op.create_index(op.f("ix_pairings_conversation_id"), "pairings", ["conversation_id"], unique=False)
    op.create_index(op.f("ix_pairings_participant_id"), "pairings", ["participant_id"], unique=False)
    op.create_index(op.f("ix_pairings_phone_number"), "pairings", ["phone_number"], unique=False)
    op.add_column("conversations", sa.Column("messaging_service_id", sa.BigInteger(), nullable=True))
    op.add_column(
        "conversations",
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    op.alter_column("conversations", "client_conversation_id", existing_type=sa.VARCHAR(), nullable=True)
    op.create_index("ix_conversations_bearer_id", "conversations", ["bearer_id", "id"], unique=False)
    op.create_foreign_key(
        op.f("fk_conversations_messaging_service_id_messaging_services"),
        "conversations",
        "messaging_services",
        ["messaging_service_id"],
        ["id"],
    )
    op.add_column("customers", sa.Column("customer_name", sa.String(), nullable=True))
    op.add_column("customers", sa.Column("state", sa.String(), nullable=True))
    op.add_column("customers", sa.Column("number_pool", sa.String(), server_default="dedicated", nullable=False))
    op.add_column("customers", sa.Column("business_profile_sid", sa.String(), nullable=True))
    op.add_column("customers", sa.Column("shaken_stir_product_sid", sa.String(), nullable=True))
    op.add_column(
        "customers",
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    op.add_column("messages", sa.Column("direction", sa.String(), server_default="outbound", nullable=False))
    op.add_column("messages", sa.Column("messaging_service_id", sa.BigInteger(), nullable=True))
    op.add_column("messages", sa.Column("stored_media", sa.ARRAY(sa.Text()), server_default="{}", nullable=False))
    op.add_column("messages", sa.Column("check_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("messages", sa.Column("checks", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column(
        "message_callbacks", sa.Column("recipient_opted_out", sa.Boolean(), server_default="false", nullable=False)
    )
    op.drop_index(op.f("ix_message_callbacks_message_id"), table_name="message_callbacks")
    op.create_index(op.f("ix_message_callbacks_received_at"), "message_callbacks", ["received_at"], unique=False)
    op.drop_index(op.f("ix_messages_conversation_id"), table_name="messages")
    op.create_index("ix_messages_conversation_id", "messages", ["conversation_id", "id"], unique=False)
    op.create_index(
        "ix_messages_check", "messages", ["check_at"], unique=False, postgresql_where="check_at IS NOT NULL"
    )
    op.create_foreign_key(
        op.f("fk_messages_messaging_service_id_messaging_services"),
        "messages",
        "messaging_services",
        ["messaging_service_id"],
        ["id"],
    )
    op.add_column("messaging_services", sa.Column("is_k12_pool", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("messaging_services", sa.Column("bearer_id", sa.BigInteger(), nullable=True))
    op.alter_column("messaging_services", "twilio_messaging_sid", existing_type=sa.VARCHAR(), nullable=True)
    op.create_foreign_key(
        op.f("fk_messaging_services_bearer_id_bearers"), "messaging_services", "bearers", ["bearer_id"], ["id"]
    )
    op.add_column("twilio_numbers", sa.Column("state_code", sa.String(), nullable=True))
    op.add_column("twilio_numbers", sa.Column("phone_number_sid", sa.String(), nullable=True))
    op.add_column("twilio_numbers", sa.Column("released_at", sa.DateTime(timezone=True), nullable=True))
    op.alter_column("twilio_numbers", "messaging_service_id", existing_type=sa.BIGINT(), nullable=True)
    op.drop_index(op.f("ix_twilio_numbers_messaging_service_id"), table_name="twilio_numbers")
    op.create_index(
        "ix_twilio_numbers_messaging_service_id", "twilio_numbers", ["messaging_service_id", "id"], unique=False
    )
    op.create_index(
        "ix_twilio_numbers_state_code", "twilio_numbers", ["state_code", "messaging_service_id"], unique=False
    )
    op.create_check_constraint(op.f("ck_customers_number_pool"), "customers", "number_pool IN ('dedicated', 'k12')")
    op.create_check_constraint(
        op.f("ck_customers_k12_has_state"), "customers", "number_pool <> 'k12' OR state IS NOT NULL"
    )
    op.create_check_constraint(
        op.f("ck_messaging_services_provider"), "messaging_services", "provider IN ('twilio', 'bandwidth')"
    )
    op.create_check_constraint(
        op.f("ck_messaging_services_sid_of_provider"),
        "messaging_services",
        "CASE provider WHEN 'twilio' THEN twilio_messaging_sid ELSE bandwidth_messaging_sid END IS NOT NULL",
    )
    op.create_check_constraint(op.f("ck_messages_direction"), "messages", "direction IN ('outbound', 'inbound')")
    op.create_check_constraint(
        op.f("ck_messages_inbound_has_sid"), "messages", "direction = 'outbound' OR message_sid IS NOT NULL"
    )
    # Which messaging service's messages a receiver may opt out of, and which messages the provider is to be asked about.
    op.execute(
        "UPDATE messages SET messaging_service_id = s.id FROM messaging_services s"
        " WHERE s.twilio_messaging_sid = messages.messaging_service_sid"
    )
    op.execute(
        "UPDATE messages SET check_at = now()"
        " WHERE message_sid IS NOT NULL AND internal_status NOT IN ('delivered', 'failed', 'cancelled')"
    )
    # The last conversation of two numbers is the one that answers belong to; nobody hears answers to a deleted bearer.
    op.execute(
        """
        WITH last AS (
            SELECT DISTINCT ON (m.sender_number, m.receiver_number)
                   m.sender_number, m.receiver_number, m.conversation_id
            FROM messages m JOIN conversations c ON c.id = m.conversation_id
                            JOIN bearers b ON b.id = c.bearer_id AND b.deleted_at IS NULL
            ORDER BY m.sender_number, m.receiver_number, m.id DESC
        ), participant AS (
            INSERT INTO participants (conversation_id, role, phone_number, twilio_number)
            SELECT DISTINCT ON (conversation_id, receiver_number)
                   conversation_id, 'contact', receiver_number, sender_number
            FROM last ORDER BY conversation_id, receiver_number, sender_number
            RETURNING id, conversation_id, phone_number
        )
        INSERT INTO pairings (twilio_number, phone_number, participant_id, conversation_id)
        SELECT last.sender_number, last.receiver_number, participant.id, last.conversation_id
        FROM last JOIN participant ON participant.conversation_id = last.conversation_id
                                  AND participant.phone_number = last.receiver_number
        """
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table, name in (
        ("messages", "inbound_has_sid"),
        ("messages", "direction"),
        ("messaging_services", "sid_of_provider"),
        ("messaging_services", "provider"),
        ("customers", "k12_has_state"),
        ("customers", "number_pool"),
    ):
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table, type_="check")
    op.drop_index("ix_twilio_numbers_state_code", table_name="twilio_numbers")
    op.drop_index("ix_twilio_numbers_messaging_service_id", table_name="twilio_numbers")
    op.create_index(
        op.f("ix_twilio_numbers_messaging_service_id"), "twilio_numbers", ["messaging_service_id"], unique=False
    )
    op.alter_column("twilio_numbers", "messaging_service_id", existing_type=sa.BIGINT(), nullable=False)
    op.drop_column("twilio_numbers", "released_at")
    op.drop_column("twilio_numbers", "phone_number_sid")
    op.drop_column("twilio_numbers", "state_code")
    op.drop_constraint(op.f("fk_messaging_services_bearer_id_bearers"), "messaging_services", type_="foreignkey")
    op.alter_column("messaging_services", "twilio_messaging_sid", existing_type=sa.VARCHAR(), nullable=False)
    op.drop_column("messaging_services", "bearer_id")
    op.drop_column("messaging_services", "is_k12_pool")
    op.drop_constraint(op.f("fk_messages_messaging_service_id_messaging_services"), "messages", type_="foreignkey")
    op.drop_index("ix_messages_check", table_name="messages", postgresql_where="check_at IS NOT NULL")
    op.drop_index("ix_messages_conversation_id", table_name="messages")
    op.create_index(op.f("ix_messages_conversation_id"), "messages", ["conversation_id"], unique=False)
    op.drop_index(op.f("ix_message_callbacks_received_at"), table_name="message_callbacks")
    op.create_index(op.f("ix_message_callbacks_message_id"), "message_callbacks", ["message_id"], unique=False)
    op.drop_column("message_callbacks", "recipient_opted_out")
    op.drop_column("messages", "checks")
    op.drop_column("messages", "check_at")
    op.drop_column("messages", "stored_media")
    op.drop_column("messages", "messaging_service_id")
    op.drop_column("messages", "direction")
    op.drop_column("customers", "updated_at")
    op.drop_column("customers", "shaken_stir_product_sid")
    op.drop_column("customers", "business_profile_sid")
    op.drop_column("customers", "number_pool")
    op.drop_column("customers", "state")
    op.drop_column("customers", "customer_name")
    op.drop_constraint(
        op.f("fk_conversations_messaging_service_id_messaging_services"), "conversations", type_="foreignkey"
    )
    op.drop_index("ix_conversations_bearer_id", table_name="conversations")
    op.alter_column("conversations", "client_conversation_id", existing_type=sa.VARCHAR(), nullable=False)
    op.drop_column("conversations", "updated_at")
    op.drop_column("conversations", "messaging_service_id")
    op.drop_index(op.f("ix_pairings_phone_number"), table_name="pairings")
    op.drop_index(op.f("ix_pairings_participant_id"), table_name="pairings")
    op.drop_index(op.f("ix_pairings_conversation_id"), table_name="pairings")
    op.drop_table("pairings")
    op.drop_index("ix_media_files_due", table_name="media_files", postgresql_where="due_at IS NOT NULL")
    op.drop_table("media_files")
    op.drop_table("participants")
    op.drop_table("number_opt_outs")
    op.drop_table("opt_outs")
    op.drop_table("unknown_sender_answers")
    op.drop_table("number_syncs")
    op.drop_index("ix_line_types_due", table_name="line_types", postgresql_where="due_at IS NOT NULL")
    op.drop_table("line_types")
