"""The statements of messages. Each is one round trip, and none looks at more rows the larger the table is."""

from dataclasses import fields

from server import idempotency
from server.events import outbox
from server.messages.message import Message

_OF_CONVERSATION = ("client_conversation_id", "internal_conversation_id", "global_id")
_COLUMNS = tuple(f.name for f in fields(Message) if f.name not in (*_OF_CONVERSATION, "phone_number_type"))
_SELECTED = ", ".join(
    [*(f"m.{c}" for c in _COLUMNS), *(f"c.{c}" for c in _OF_CONVERSATION), "l.line_type AS phone_number_type"]
)
_JOINED = """LEFT JOIN conversations c ON c.id = m.conversation_id
LEFT JOIN line_types l
     ON l.phone_number = CASE m.direction WHEN 'inbound' THEN m.sender_number ELSE m.receiver_number END
"""
_FROM = f"FROM messages m {_JOINED}"

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


def _resolve(sender: str) -> str:
    return f"""
SELECT nextval('messages_id_seq') AS id, uuidv7() AS message_uuid, now() AS now,
       b.callback_url AS bearer_callback_url,
       c.id AS conversation_id, c.callback_url AS conversation_callback_url,
       coalesce(c.internal_conversation_id, uuidv7()) AS internal_conversation_id,
       coalesce(c.global_id, uuidv7()) AS global_id,
       s.phone_number, s.provider, s.messaging_service_id, s.twilio_messaging_sid, s.global_customer_id,
       k.fingerprint, k.response_encrypted
FROM bearers b
LEFT JOIN conversations c ON c.bearer_id = b.id AND c.client_conversation_id = %(client_conversation_id)s
LEFT JOIN LATERAL ({sender}) s ON true
LEFT JOIN idempotency_keys k ON k.bearer_id = b.id AND k.request_id = %(request_id)s
     AND k.created_at >= now() - interval '24 hours'
WHERE b.id = %(bearer_id)s
"""


_NUMBER_OF_SERVICE = """
    SELECT n.phone_number, m.provider, m.id AS messaging_service_id, m.twilio_messaging_sid, cu.global_customer_id
    FROM messaging_services m
    JOIN customers cu ON cu.id = m.customer_id
    JOIN twilio_numbers n ON n.messaging_service_id = m.id
    WHERE {named} ORDER BY m.id, n.id LIMIT 1
"""

# All that a create needs to know, the ids it will use, and the answer it may have been given before.
RESOLVE_BY_NUMBER = _resolve(_NUMBER_OF_SERVICE.format(named="n.phone_number = %(sender_number)s"))
RESOLVE_BY_SERVICE = _resolve(_NUMBER_OF_SERVICE.format(named="m.twilio_messaging_sid = %(messaging_service_sid)s"))
RESOLVE_BY_CUSTOMER = _resolve(_NUMBER_OF_SERVICE.format(named="cu.global_customer_id = %(global_customer_id)s"))


CONVERSATION_IS_UNIQUE = "uq_conversations_bearer_id_client_conversation_id"


def insert(*, with_request_id: bool, with_new_conversation: bool) -> str:
    """The message, its first event, and where asked for its request id and its conversation: all or nothing.

    Answers no row where the request id was taken meanwhile. Violates CONVERSATION_IS_UNIQUE where the conversation was
    made meanwhile: skipping it instead would leave the request id with the answer of a message that is not there.
    """
    request = f"{idempotency.CLAIM} RETURNING 1" if with_request_id else "SELECT 1"
    conversation = (
        """INSERT INTO conversations
    (bearer_id, client_conversation_id, internal_conversation_id, global_id, callback_url)
    SELECT %(bearer_id)s, %(client_conversation_id)s, %(internal_conversation_id)s, %(global_id)s,
           %(conversation_callback_url)s FROM request RETURNING id"""
        if with_new_conversation
        else "SELECT %(conversation_id)s::bigint AS id FROM request"
    )
    inserted = [c for c in _COLUMNS if c != "conversation_id"]
    return f"""
WITH request AS ({request}),
conversation AS ({conversation}),
message AS (
    INSERT INTO messages (conversation_id, {", ".join(inserted)})
    SELECT conversation.id, {", ".join(f"%({c})s" for c in inserted)} FROM conversation
    RETURNING id
),
event AS ({outbox.append_from("message")})
SELECT id FROM message
"""


GET = f"SELECT {_SELECTED} {_FROM} WHERE m.message_uuid = %(message_uuid)s"

GET_OWN = f"{GET} AND m.bearer_id = %(bearer_id)s"

GET_BY_SID = f"SELECT {_SELECTED} {_FROM} WHERE m.provider = %(provider)s AND m.message_sid = %(message_sid)s"

LIST = f"""
SELECT {_SELECTED} {_FROM}
WHERE m.sender_number = %(sender_number)s AND m.receiver_number = %(receiver_number)s
  AND m.id < coalesce(%(after_id)s, 9223372036854775807)
ORDER BY m.id DESC LIMIT %(limit)s
"""

LIST_OWN = LIST.replace("WHERE ", "WHERE m.bearer_id = %(bearer_id)s AND ", 1)

# Leases up to `limit` due messages of a lane. `was_in_doubt` tells that an earlier claim has no recorded outcome.
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
SELECT {_SELECTED}, m.was_in_doubt FROM m {_JOINED}
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
    "message_id, provider, message_sid, provider_status, provider_rank, internal_status, error_code, error_url, body"
)
_CALLBACK_VALUES = (
    "%(provider)s, %(callback_message_sid)s, %(callback_provider_status)s, %(callback_provider_rank)s, "
    "%(callback_internal_status)s, %(callback_error_code)s, %(callback_error_url)s, %(callback_body)s"
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
RETURNING provider_status, provider_rank, internal_status, error_code, error_url
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
