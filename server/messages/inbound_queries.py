"""The statements of an inbound message: what must be known of it, what it writes, and the answer to a stranger."""

from functools import cache

from server.events import outbox
from server.messages.queries import COLUMNS
from server.numbers import opt_outs
from server.providers.ports import Keyword

# All that is to be known of a message from %(sender_number)s to %(receiver_number)s, and the ids to use. It belongs to
# the conversation that the two are paired in; else to the owner of the number's messaging service, and where there is
# none, or none any more, to the oldest Admin. `bearer_id` is null if there is not even that one. A number that has left
# its messaging service speaks to the contacts it is paired with for the conversation's.
RESOLVE = f"""
SELECT nextval('messages_id_seq') AS id, uuidv7() AS message_uuid,
       CASE WHEN c.id IS NULL THEN nextval('messages_id_seq') END AS answer_id, uuidv7() AS answer_uuid,
       r.contact, r.phone_number, b.id AS bearer_id, coalesce(c.callback_url, b.callback_url) AS callback_url,
       c.id AS conversation_id, c.client_conversation_id, c.internal_conversation_id, c.global_id,
       s.id AS messaging_service_id, s.provider AS service_provider,
       CASE %(provider)s WHEN 'bandwidth' THEN s.bandwidth_messaging_sid ELSE s.twilio_messaging_sid END
           AS messaging_service_sid,
       CASE s.provider WHEN 'bandwidth' THEN s.bandwidth_messaging_sid ELSE s.twilio_messaging_sid END
           AS answer_service_sid,
       l.line_type AS phone_number_type,
       {opt_outs.opted_out_at(number="r.phone_number", service="s.id", contact="r.contact")} IS NOT NULL
           AS has_opted_out,
       coalesce(a.answered_at > %(answered_since)s, false) AS was_answered
FROM (SELECT %(sender_number)s::text AS contact, %(receiver_number)s::text AS phone_number) r
LEFT JOIN pairings p ON p.twilio_number = r.phone_number AND p.phone_number = r.contact
LEFT JOIN conversations c ON c.id = p.conversation_id
     AND EXISTS (SELECT FROM bearers WHERE bearers.id = c.bearer_id AND bearers.deleted_at IS NULL)
LEFT JOIN twilio_numbers n ON n.phone_number = r.phone_number
LEFT JOIN messaging_services s ON s.id = coalesce(n.messaging_service_id, c.messaging_service_id)
LEFT JOIN bearers owner ON owner.id = s.bearer_id AND owner.deleted_at IS NULL
LEFT JOIN bearers b ON b.id = coalesce(c.bearer_id, owner.id, (
    SELECT id FROM bearers WHERE bearer_type = 'Admin' AND deleted_at IS NULL ORDER BY id LIMIT 1
))
LEFT JOIN line_types l ON l.phone_number = r.contact
LEFT JOIN unknown_sender_answers a ON a.phone_number = r.contact
"""

_MESSAGE = f"INSERT INTO messages ({', '.join(COLUMNS)})"
_VALUES = ", ".join(f"%({c})s" for c in COLUMNS)

_MEDIA = """
media AS (
    INSERT INTO media_files (message_id, place, url, content_type, due_at)
    SELECT message.id, media.number - 1, media.url, media.content_type, now()
    FROM message, unnest(%(media_urls)s::text[], %(media_content_types)s::text[])
         WITH ORDINALITY AS media (url, content_type, number)
),"""

_KEYWORDS = {
    Keyword.STOP: f"{opt_outs.record_keyword('message', contact='sender_number', number='receiver_number')},",
    Keyword.START: f"{opt_outs.opt_in('message', contact='sender_number', number='receiver_number')},",
}


@cache
def insert(*, keyword: Keyword | None, with_media: bool) -> str:
    """The message, its event, and what it asks for: all or nothing. Answers no row where it was received before; two
    of the same at once wait for each other."""
    return f"""
WITH message AS (
    {_MESSAGE} VALUES ({_VALUES})
    ON CONFLICT (provider, message_sid) DO NOTHING
    RETURNING id, messaging_service_id, sender_number, receiver_number
),
{_MEDIA if with_media else ""}
{_KEYWORDS.get(keyword, "") if keyword else ""}
event AS ({outbox.append_from("message")})
SELECT id FROM message
"""


# The answer to an unknown sender and its event, unless the sender has had one lately: whoever comes at the same moment
# waits, and then finds it.
ANSWER = f"""
WITH answered AS (
    INSERT INTO unknown_sender_answers (phone_number, answered_at) VALUES (%(receiver_number)s, %(now)s)
    ON CONFLICT (phone_number) DO UPDATE SET answered_at = excluded.answered_at
    WHERE unknown_sender_answers.answered_at <= %(answered_since)s
    RETURNING phone_number
),
message AS ({_MESSAGE} SELECT {_VALUES} FROM answered RETURNING id),
event AS ({outbox.append_from("message")})
SELECT id FROM message
"""
