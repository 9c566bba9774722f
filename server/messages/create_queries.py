"""The two statements of a create: what it must know, and everything it writes."""

from functools import cache

from server import idempotency
from server.events import outbox
from server.messages.queries import COLUMNS
from server.numbers import line_types, opt_outs, selection

_NAMED = "SELECT * FROM conversations WHERE bearer_id = b.id AND {key} = %(conversation_key)s"

# The bearer's own in which the receiver is paired with the sender number.
_PAIRED = """
    SELECT own.* FROM pairings x JOIN conversations own ON own.id = x.conversation_id AND own.bearer_id = b.id
    WHERE x.twilio_number = %(sender_number)s AND x.phone_number = %(receiver_number)s
"""

# The bearer's own last one with the receiver that sends from the messaging service.
_OF_SERVICE = """
    SELECT own.* FROM pairings x JOIN conversations own ON own.id = x.conversation_id AND own.bearer_id = b.id
    JOIN messaging_services m ON m.id = own.messaging_service_id JOIN customers cu ON cu.id = m.customer_id
    WHERE x.phone_number = %(receiver_number)s AND {named}
    ORDER BY x.created_at DESC, x.twilio_number LIMIT 1
"""

# By what the message says of its conversation. Statements of their own, so that each has one plan, made once.
_CONVERSATIONS = {
    **{key: _NAMED.format(key=key) for key in ("client_conversation_id", "internal_conversation_id", "global_id")},
    "sender_number": _PAIRED,
    "messaging_service_sid": _OF_SERVICE.format(
        named="%(messaging_service_sid)s IN (m.twilio_messaging_sid, m.bandwidth_messaging_sid)"
    ),
    "global_customer_id": _OF_SERVICE.format(named="cu.global_customer_id = %(global_customer_id)s"),
}

_OPTED_OUT_AT = opt_outs.opted_out_at(
    number="s.phone_number", service="s.messaging_service_id", contact="%(receiver_number)s"
)


@cache
def resolve(conversation: str, *, sender_given: bool) -> str:
    """All that a create needs to know, the ids it will use, and the answer it may have been given before.

    `conversation` is the field of the message that tells its conversation.
    """
    return f"""
SELECT nextval('messages_id_seq') AS id, uuidv7() AS message_uuid, now() AS now,
       b.callback_url AS bearer_callback_url,
       c.id AS conversation_id, c.client_conversation_id, c.callback_url AS conversation_callback_url,
       coalesce(c.internal_conversation_id, uuidv7()) AS internal_conversation_id,
       coalesce(c.global_id, uuidv7()) AS global_id,
       v.id AS named_service_id, v.twilio_messaging_sid, v.bandwidth_messaging_sid, v.global_customer_id,
       s.phone_number, s.provider, s.messaging_service_id, s.messaging_service_sid, s.is_k12_pool,
       s.paired_conversation_id,
       CASE WHEN s.phone_number IS NULL AND v.id IS NOT NULL THEN {selection.HAS_NUMBERS} END AS service_has_numbers,
       {_OPTED_OUT_AT} IS NOT NULL AS recipient_opted_out,
       l.line_type AS phone_number_type, coalesce({line_types.IS_KNOWN}, false) AS line_type_is_known,
       k.fingerprint, k.response_encrypted
FROM bearers b
LEFT JOIN LATERAL ({_CONVERSATIONS[conversation]}) c ON true
LEFT JOIN participants p
     ON p.conversation_id = c.id AND p.role = 'contact' AND p.phone_number = %(receiver_number)s
LEFT JOIN LATERAL ({selection.SERVICE}) v ON true
LEFT JOIN LATERAL ({selection.number(selection.GIVEN if sender_given else selection.CHOSEN)}) s ON true
LEFT JOIN line_types l ON l.phone_number = %(receiver_number)s
LEFT JOIN idempotency_keys k ON k.bearer_id = b.id AND k.request_id = %(request_id)s
     AND k.created_at >= {idempotency.REMEMBERED_SINCE}
WHERE b.id = %(bearer_id)s
"""


# Another create or update made the conversation, or paired the two numbers, between the two statements.
COLLISIONS = frozenset({"uq_conversations_bearer_id_client_conversation_id", "pk_pairings"})

_NEW_CONVERSATION = """INSERT INTO conversations
    (bearer_id, client_conversation_id, internal_conversation_id, global_id, callback_url, messaging_service_id)
    SELECT %(bearer_id)s, %(client_conversation_id)s, %(internal_conversation_id)s, %(global_id)s,
           %(conversation_callback_url)s, %(conversation_service_id)s FROM request RETURNING id"""

# The contact joins, or comes back with the number it is paired with now; one that has a number keeps it as its first.
# The bearer is held before the contact, as its end does it, which takes every pairing: after it there is none to make.
_PAIRING = """
live AS (SELECT FROM bearers WHERE id = %(bearer_id)s AND deleted_at IS NULL FOR KEY SHARE),
participant AS (
    INSERT INTO participants (conversation_id, role, phone_number, twilio_number)
    SELECT id, 'contact', %(receiver_number)s, %(sender_number)s FROM conversation, live
    ON CONFLICT (conversation_id, role, phone_number) DO UPDATE
    SET twilio_number = CASE WHEN participants.pairing_deactivated_at IS NULL
                             THEN coalesce(participants.twilio_number, excluded.twilio_number)
                             ELSE excluded.twilio_number END,
        pairing_deactivated_at = NULL, updated_at = now()
    RETURNING id, conversation_id
),
pairing AS (
    INSERT INTO pairings (twilio_number, phone_number, participant_id, conversation_id)
    SELECT %(sender_number)s, %(receiver_number)s, id, conversation_id FROM participant
),"""


@cache
def insert(*, with_request_id: bool, with_new_conversation: bool, with_new_pairing: bool, with_line_type: bool) -> str:
    """The message, its first event, and where asked for its request id, its conversation, its pairing and the number's
    lookup: all or nothing.

    Answers no row where the request id was taken meanwhile. Violates one of COLLISIONS where the conversation or the
    pairing was made meanwhile: skipping it instead would leave the request id with the answer of a message that is not
    there, or send what is answered to another conversation.
    """
    request = f"{idempotency.CLAIM} RETURNING 1" if with_request_id else "SELECT 1"
    conversation = (
        _NEW_CONVERSATION if with_new_conversation else "SELECT %(conversation_id)s::bigint AS id FROM request"
    )
    inserted = [c for c in COLUMNS if c != "conversation_id"]
    return f"""
WITH request AS ({request}),
conversation AS ({conversation}),
{_PAIRING if with_new_pairing else ""}
{f"line_type AS ({line_types.ENQUEUE})," if with_line_type else ""}
message AS (
    INSERT INTO messages (conversation_id, {", ".join(inserted)})
    SELECT conversation.id, {", ".join(f"%({c})s" for c in inserted)} FROM conversation
    RETURNING id
),
event AS ({outbox.append_from("message")})
SELECT id FROM message
"""
