"""Which of our numbers talks to a contact: SQL that messages and conversations share, and why there may be none.

A number may be chosen only if it is not paired with the contact in another conversation. That is looked at here and
enforced by the primary key of `pairings`: whoever inserts second starts over.
"""

from collections.abc import Mapping

from server.db import Parameters
from server.errors import AlreadyExists, FailedPrecondition

# The LATERAL query `v`: the messaging service that is named, else the one of the conversation `c`. Parameters:
# messaging_service_sid, global_customer_id.
SERVICE = """
    SELECT m.id, m.twilio_messaging_sid, m.bandwidth_messaging_sid, cu.global_customer_id, cu.number_pool, cu.state
    FROM messaging_services m JOIN customers cu ON cu.id = m.customer_id
    WHERE m.id = CASE
        WHEN %(messaging_service_sid)s::text IS NOT NULL THEN (
            SELECT named.id FROM messaging_services named
            WHERE named.twilio_messaging_sid = %(messaging_service_sid)s
               OR named.bandwidth_messaging_sid = %(messaging_service_sid)s
            ORDER BY named.id LIMIT 1)
        WHEN %(global_customer_id)s::text IS NOT NULL THEN (
            SELECT named.id FROM messaging_services named JOIN customers customer ON customer.id = named.customer_id
            WHERE customer.global_customer_id = %(global_customer_id)s ORDER BY named.id LIMIT 1)
        ELSE c.messaging_service_id END
"""

# Neither paired with the contact in another conversation nor the contact itself: one of ours may be written to.
_FREE = """n.phone_number <> %(receiver_number)s AND NOT EXISTS (
            SELECT FROM pairings x WHERE x.twilio_number = n.phone_number AND x.phone_number = %(receiver_number)s
                                     AND x.conversation_id IS DISTINCT FROM c.id)"""

# What `number` goes by: the number that is given, as one of ours;
GIVEN = "%(sender_number)s"

# or one that the contact `p` of the conversation `c` had, else one that another contact of the conversation has, else
# the first of the service `v`, else one of the K-12 pool in the customer's state, over which contacts are spread by
# their number. COALESCE looks no further than it must.
CHOSEN = f"""coalesce(
        (SELECT n.phone_number FROM twilio_numbers n
         WHERE n.phone_number = p.twilio_number AND n.messaging_service_id IS NOT NULL
           AND (n.released_at IS NULL OR p.pairing_deactivated_at IS NULL) AND {_FREE}),
        (SELECT n.phone_number FROM participants other JOIN twilio_numbers n ON n.phone_number = other.twilio_number
         WHERE other.conversation_id = c.id AND n.messaging_service_id IS NOT NULL AND n.released_at IS NULL AND {_FREE}
         ORDER BY other.id LIMIT 1),
        (SELECT n.phone_number FROM twilio_numbers n
         WHERE n.messaging_service_id = v.id AND n.released_at IS NULL AND {_FREE} ORDER BY n.id LIMIT 1),
        (SELECT n.phone_number FROM twilio_numbers n JOIN messaging_services pool ON pool.id = n.messaging_service_id
         WHERE v.number_pool = 'k12' AND pool.is_k12_pool AND n.state_code = v.state AND n.released_at IS NULL
           AND {_FREE}
         ORDER BY hashtext(n.phone_number || %(receiver_number)s), n.id LIMIT 1))
"""


# or either. (A statement that is run often has one of the two: this one would be planned anew at each call.)
GIVEN_OR_CHOSEN = f"coalesce({GIVEN}::text, {CHOSEN})"


def number(by: str) -> str:
    """The LATERAL query `s`: the number that talks to the contact %(receiver_number)s, and what goes with it."""
    return f"""
    SELECT n.phone_number, m.provider, m.id AS messaging_service_id, m.is_k12_pool,
           CASE m.provider WHEN 'bandwidth' THEN m.bandwidth_messaging_sid ELSE m.twilio_messaging_sid END
               AS messaging_service_sid,
           x.conversation_id AS paired_conversation_id
    FROM twilio_numbers n
    JOIN messaging_services m ON m.id = n.messaging_service_id
    LEFT JOIN pairings x ON x.twilio_number = n.phone_number AND x.phone_number = %(receiver_number)s
    WHERE (n.released_at IS NULL OR x.conversation_id = c.id)
      AND n.phone_number = {by}
"""


# Whether the service `v` has a number at all that is not the contact, free or not.
HAS_NUMBERS = """
    EXISTS (
        SELECT FROM twilio_numbers n JOIN messaging_services m ON m.id = n.messaging_service_id
        WHERE n.released_at IS NULL AND n.phone_number <> %(receiver_number)s
          AND (m.id = v.id OR (v.number_pool = 'k12' AND m.is_k12_pool AND n.state_code = v.state)))
"""

# Held to the end of the transaction by whoever pairs a contact after a collision, so that the next look is the last.
LOCK_CONTACT = "SELECT pg_advisory_xact_lock(hashtextextended('pairing ' || %(receiver_number)s, 0))"


class PhoneNumberPaired(AlreadyExists):
    """The number is paired with the contact in another conversation."""

    reason = "PHONE_NUMBER_PAIRED"

    def __init__(self, phone_number: str) -> None:
        super().__init__(
            f"{phone_number} is paired with this contact in another conversation, to which the answers would go; "
            "deactivate that pairing, or send from another number",
            phone_number=phone_number,
        )


class SenderNumberNotOwned(FailedPrecondition):
    """The sender number is not one of ours, or not of the messaging service that was named."""

    reason = "SENDER_NUMBER_NOT_OWNED"

    def __init__(self, sender_number: str) -> None:
        super().__init__(f"{sender_number} is not a number of the messaging service", sender_number=sender_number)


class NoSenderNumber(FailedPrecondition):
    """The messaging service that was named does not exist, or what there is has no number."""

    reason = "NO_SENDER_NUMBER"

    def __init__(self, named: Mapping[str, str], *, is_there: bool) -> None:
        by = " and ".join(f"{name} {value}" for name, value in named.items())
        if is_there:
            service = f"messaging service with {by}" if by else "conversation's messaging service"
            said = f"the {service} has no number to send from"
        else:
            said = f"there is no messaging service with {by} to send from"
            if "global_customer_id" in named:
                said += "; a customer of the K-12 pool needs one, too"
        super().__init__(said, **named)


class NumberPoolExhausted(FailedPrecondition):
    """Every number is paired with the contact in another conversation."""

    reason = "NUMBER_POOL_EXHAUSTED"

    def __init__(self, receiver_number: str) -> None:
        super().__init__(
            "every number there is to send from is paired with this contact in another conversation; "
            "deactivate a pairing or add numbers",
            receiver_number=receiver_number,
        )


def parameters(
    *,
    sender_number: str | None,
    receiver_number: str,
    messaging_service_sid: str | None,
    global_customer_id: str | None,
) -> Parameters:
    """The parameters of SERVICE and `number`."""
    return {
        "sender_number": sender_number,
        "receiver_number": receiver_number,
        "messaging_service_sid": messaging_service_sid,
        "global_customer_id": global_customer_id,
    }
