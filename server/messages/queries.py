"""The statements of messages. Each is one round trip, and none looks at more rows the larger the table is."""

from dataclasses import fields

from server.events import outbox
from server.messages.message import BEARER_DELETED, OPTED_OUT, PAIRED_ELSEWHERE, Message
from server.numbers import opt_outs

_OF_CONVERSATION = ("client_conversation_id", "internal_conversation_id", "global_id")
# The columns of the table that a Message holds.
COLUMNS = tuple(f.name for f in fields(Message) if f.name not in (*_OF_CONVERSATION, "phone_number_type"))
# What makes a Message of a row `m` of messages, and where it comes from.
SELECTED = ", ".join(
    [*(f"m.{c}" for c in COLUMNS), *(f"c.{c}" for c in _OF_CONVERSATION), "l.line_type AS phone_number_type"]
)
JOINED = """LEFT JOIN conversations c ON c.id = m.conversation_id
LEFT JOIN line_types l
     ON l.phone_number = CASE m.direction WHEN 'inbound' THEN m.sender_number ELSE m.receiver_number END
"""
_FROM = f"FROM messages m {JOINED}"

# What a save may change; the rest of a message is as it was created.
_SAVED = (
    "internal_status",
    "provider_status",
    "provider_rank",
    "message_sid",
    "error_code",
    "error_description",
    "sent_at",
    "delivered_at",
    "failed_at",
    "updated_at",
    "sequence",
    "due_at",
    "in_doubt",
    "check_at",
    "checks",
)


GET = f"SELECT {SELECTED} {_FROM} WHERE m.message_uuid = %(message_uuid)s"

GET_OWN = f"{GET} AND m.bearer_id = %(bearer_id)s"

GET_BY_SID = f"SELECT {SELECTED} {_FROM} WHERE m.provider = %(provider)s AND m.message_sid = %(message_sid)s"

LIST = f"""
SELECT {SELECTED} {_FROM}
WHERE m.sender_number = %(sender_number)s AND m.receiver_number = %(receiver_number)s
  AND m.id < coalesce(%(after_id)s, 9223372036854775807)
ORDER BY m.id DESC LIMIT %(limit)s
"""

LIST_OWN = LIST.replace("WHERE ", "WHERE m.bearer_id = %(bearer_id)s AND ", 1)

OWNS_CONVERSATION = """
SELECT 1 FROM conversations
WHERE id = %(conversation_id)s AND bearer_id = coalesce(%(owner_id)s, bearer_id)
"""

LIST_OF_CONVERSATION = f"""
SELECT {SELECTED} {_FROM}
WHERE m.conversation_id = %(conversation_id)s AND m.id < coalesce(%(after_id)s, 9223372036854775807)
ORDER BY m.id DESC LIMIT %(limit)s
"""

_OPTED_OUT_AT = opt_outs.opted_out_at(
    number="m.sender_number", service="m.messaging_service_id", contact="m.receiver_number"
)

# Why a message `m` that was accepted is not to be sent any more, as an error_code: its bearer is no more, its receiver
# takes no messages, or what they answer would go to another conversation. (Scalar, as `opted_out_at` is.)
_NOT_TO_BE_SENT = f"""CASE
    WHEN (SELECT b.deleted_at FROM bearers b WHERE b.id = m.bearer_id) IS NOT NULL THEN '{BEARER_DELETED}'
    WHEN {_OPTED_OUT_AT} IS NOT NULL THEN '{OPTED_OUT}'
    WHEN (SELECT x.conversation_id IS DISTINCT FROM m.conversation_id FROM pairings x
          WHERE x.twilio_number = m.sender_number AND x.phone_number = m.receiver_number) THEN '{PAIRED_ELSEWHERE}'
END"""

# Leases up to `limit` due messages of a lane. `was_in_doubt` tells that an earlier claim has no recorded outcome,
# `not_to_be_sent` why it must not be sent any more.
CLAIM = f"""
WITH due AS (
    SELECT id FROM messages WHERE priority = %(priority)s AND due_at <= now()
    ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
m AS (
    UPDATE messages SET due_at = now() + %(lease)s, attempts = attempts + 1, in_doubt = true,
        internal_status = 'processing', enqueued_at = coalesce(enqueued_at, now()),
        first_claimed_at = coalesce(first_claimed_at, now()), updated_at = now()
    FROM due WHERE messages.id = due.id
    RETURNING messages.*, old.in_doubt AS was_in_doubt
)
SELECT {SELECTED}, m.was_in_doubt, {_NOT_TO_BE_SENT} AS not_to_be_sent
FROM m {JOINED}
"""

_SAVE = f"""
saved AS (
    UPDATE messages SET {", ".join(f"{c} = %({c})s" for c in _SAVED)}
    WHERE id = %(id)s AND sequence = %(seen_sequence)s AND attempts = %(attempts)s RETURNING id
),
event AS ({outbox.append_from("saved")})
"""

# Writes a change and its event if the message is still the one that was read; else answers no row.
SAVE = f"WITH {_SAVE} SELECT id FROM saved"

_CALLBACK_COLUMNS = (
    "message_id, provider, message_sid, provider_status, provider_rank, internal_status, error_code, error_url, "
    "recipient_opted_out, body"
)
_CALLBACK_VALUES = (
    "%(provider)s, %(callback_message_sid)s, %(callback_provider_status)s, %(callback_provider_rank)s, "
    "%(callback_internal_status)s, %(callback_error_code)s, %(callback_error_url)s, "
    "%(callback_recipient_opted_out)s, %(callback_body)s"
)

SAVE_WITH_CALLBACK = f"""
WITH {_SAVE},
kept AS (INSERT INTO message_callbacks ({_CALLBACK_COLUMNS}) SELECT id, {_CALLBACK_VALUES} FROM saved)
SELECT id FROM saved
"""

KEEP_CALLBACK = f"INSERT INTO message_callbacks ({_CALLBACK_COLUMNS}) VALUES (%(message_id)s, {_CALLBACK_VALUES})"

# The callbacks that came before this message's sid was known, now its own.
TAKE_UNMATCHED_CALLBACKS = """
UPDATE message_callbacks SET message_id = %(message_id)s
WHERE provider = %(provider)s AND message_sid = %(message_sid)s AND message_id IS NULL
RETURNING provider_status, provider_rank, internal_status, error_code, error_url, recipient_opted_out
"""

# Deletes up to `limit` of the callbacks that came so long ago.
FORGET_CALLBACKS = """
DELETE FROM message_callbacks WHERE id IN (
    SELECT id FROM message_callbacks WHERE received_at < now() - %(keep)s
    ORDER BY received_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
"""

# Begins the lease of a claim anew; touches no row if the message is settled or another worker's.
RENEW = """
UPDATE messages SET due_at = now() + %(lease)s
WHERE id = %(id)s AND attempts = %(attempts)s AND due_at IS NOT NULL
"""

# Gives a claim back for later. Without `in_doubt` it is certain that the provider has nothing of it.
POSTPONE = """
UPDATE messages SET due_at = now() + %(delay)s, in_doubt = %(in_doubt)s, updated_at = now()
WHERE id = %(id)s AND attempts = %(attempts)s AND due_at IS NOT NULL
"""
