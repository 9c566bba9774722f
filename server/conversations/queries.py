"""The statements of conversations: what to send from, on the fragments they share with messages, and the end of it."""

from server.numbers import selection

# What a conversation is to send from: the service that is named, else the one it has; and whose the number is that is
# named. A released number is one still where it is paired in the conversation.
FIND_SERVICE = f"""
SELECT v.id AS service_id, v.global_customer_id, m.id AS service_id_of_number, m.is_k12_pool AS number_is_of_pool
FROM (SELECT %(service_id)s::bigint AS messaging_service_id) c
LEFT JOIN LATERAL ({selection.SERVICE}) v ON true
LEFT JOIN twilio_numbers n ON n.phone_number = %(sender_number)s AND (
    n.released_at IS NULL
    OR EXISTS (SELECT FROM pairings x
               WHERE x.twilio_number = n.phone_number AND x.conversation_id = %(conversation_id)s))
LEFT JOIN messaging_services m ON m.id = n.messaging_service_id
"""

# The number to pair a contact of a conversation with, and what there is to say where there is none.
CHOOSE_NUMBER = f"""
SELECT s.phone_number, s.paired_conversation_id, v.global_customer_id,
       CASE WHEN s.phone_number IS NULL THEN {selection.HAS_NUMBERS} OR EXISTS (
           SELECT FROM twilio_numbers n
           WHERE n.phone_number = p.twilio_number AND n.messaging_service_id IS NOT NULL AND n.released_at IS NULL)
       END AS has_numbers
FROM participants p
JOIN conversations c ON c.id = p.conversation_id
LEFT JOIN LATERAL ({selection.SERVICE}) v ON true
LEFT JOIN LATERAL ({selection.number(selection.GIVEN_OR_CHOSEN)}) s ON true
WHERE p.id = %(participant_id)s
"""

# A statement of its own, as whoever deactivates one of these pairings holds the contact first, too. Counted, as nobody
# needs the rows, of which there may be very many.
HOLD_CONTACTS_OF_BEARER = """
SELECT count(*) FROM (
    SELECT FROM participants p WHERE p.id IN (
        SELECT x.participant_id FROM pairings x JOIN conversations c ON c.id = x.conversation_id
        WHERE c.bearer_id = %(bearer_id)s)
    ORDER BY p.id FOR NO KEY UPDATE OF p
) held
"""

END_PAIRINGS_OF_BEARER = """
WITH ended AS (
    DELETE FROM pairings x USING conversations c WHERE c.id = x.conversation_id AND c.bearer_id = %(bearer_id)s
    RETURNING x.participant_id
)
UPDATE participants SET pairing_deactivated_at = now(), updated_at = now()
WHERE id IN (SELECT participant_id FROM ended)
"""
