"""Who takes no messages of a messaging service or of a number. SQL to be part of what learns of it: all or nothing.

A word of a contact is told to one of our numbers and to the messaging service that the number speaks for, and is kept
for both: numbers move between services. While the number is in the service that it was told in last, the service's row
alone says what holds: what is said to any number of a service counts for all of them. Anywhere else the number's row
holds, too. Whoever writes both writes the number's first, so that nobody waits for whoever waits for them.
"""

from datetime import datetime

from server.db import Database

_SAYS = "source, opted_out_at, opted_in_at"

# Of somebody who has opted out already the first source and time stay; of a number's word it changes in which service
# that was told last.
_OPT_OUT = "source = excluded.source, opted_out_at = excluded.opted_out_at, opted_in_at = NULL"
_OUT_ALREADY = "o.opted_out_at IS NOT NULL"
_OPT_OUT_AGAIN = """source = CASE WHEN o.opted_out_at IS NULL THEN excluded.source ELSE o.source END,
        opted_out_at = coalesce(o.opted_out_at, excluded.opted_out_at), opted_in_at = NULL"""
_OPT_IN = "source = excluded.source, opted_out_at = NULL, opted_in_at = excluded.opted_in_at"

# What a refusal says is kept, also of the number, unless they asked the service for messages since.
_RECORD_REFUSAL = f"""
WITH of_number AS (
    INSERT INTO number_opt_outs AS o (twilio_number, phone_number, messaging_service_id, {_SAYS})
    SELECT %(twilio_number)s::text, %(phone_number)s::text, %(messaging_service_id)s::bigint, 'provider', now(), NULL
    WHERE NOT EXISTS (
        SELECT FROM opt_outs s
        WHERE s.messaging_service_id = %(messaging_service_id)s AND s.phone_number = %(phone_number)s
          AND s.opted_in_at >= %(asked_at)s)
    ON CONFLICT (twilio_number, phone_number) DO UPDATE
    SET messaging_service_id = excluded.messaging_service_id, {_OPT_OUT}
    WHERE NOT {_OUT_ALREADY} AND o.opted_in_at < %(asked_at)s
    RETURNING 1
)
INSERT INTO opt_outs AS o (messaging_service_id, phone_number, {_SAYS})
SELECT %(messaging_service_id)s::bigint, %(phone_number)s::text, 'provider', now(), NULL
FROM (SELECT count(*) FROM of_number) number_first
WHERE %(messaging_service_id)s::bigint IS NOT NULL
ON CONFLICT (messaging_service_id, phone_number) DO UPDATE SET {_OPT_OUT}
WHERE NOT {_OUT_ALREADY} AND o.opted_in_at < %(asked_at)s
"""


def record_keyword(source: str, *, contact: str, number: str) -> str:
    """CTEs that opt out the contacts of the rows of the CTE `source`, who asked for it.

    The rows have `messaging_service_id`, null where the number speaks for none, and as the columns `contact` and
    `number` the contact's number and ours. The same goes for `opt_in`.
    """
    return _told(source, contact=contact, number=number, says="now(), NULL", sets=_OPT_OUT_AGAIN)


def opt_in(source: str, *, contact: str, number: str) -> str:
    """CTEs that opt them in again. That is kept also of somebody who had not opted out here: the provider's word that
    they had may be on its way."""
    return _told(source, contact=contact, number=number, says="NULL, now()", sets=_OPT_IN)


def _told(source: str, *, contact: str, number: str, says: str, sets: str) -> str:
    """`of_number`, and after it `of_service`: the count waits for all of it."""
    return f"""of_number AS (
    INSERT INTO number_opt_outs AS o (twilio_number, phone_number, messaging_service_id, {_SAYS})
    SELECT {number}, {contact}, messaging_service_id, 'keyword', {says} FROM {source}
    ON CONFLICT (twilio_number, phone_number) DO UPDATE
    SET messaging_service_id = excluded.messaging_service_id, {sets}
    RETURNING 1
),
of_service AS (
    INSERT INTO opt_outs AS o (messaging_service_id, phone_number, {_SAYS})
    SELECT messaging_service_id, {contact}, 'keyword', {says}
    FROM {source}, (SELECT count(*) FROM of_number) number_first
    WHERE messaging_service_id IS NOT NULL
    ON CONFLICT (messaging_service_id, phone_number) DO UPDATE SET {sets}
)"""


def opted_out_at(
    *, number: str, service: str, contact: str, of_services: str = "opt_outs", of_numbers: str = "number_opt_outs"
) -> str:
    """Since when the contact takes nothing from our number while that speaks for the messaging service; null while it
    does. Three expressions; `service` may be null, and so may the others, of which nothing is known then.

    The tables are those of messages, or others like them. (No EXISTS, nor a join: where many rows are expected either
    may be answered by reading a table whole.)
    """
    return f"""least(
    (SELECT o.opted_out_at FROM {of_services} o
     WHERE o.messaging_service_id = {service} AND o.phone_number = {contact}),
    (SELECT o.opted_out_at FROM {of_numbers} o
     WHERE o.twilio_number = {number} AND o.phone_number = {contact}
       AND (o.messaging_service_id = {service}) IS NOT TRUE))"""


async def record_refusal(
    db: Database, *, messaging_service_id: int | None, twilio_number: str, phone_number: str, asked_at: datetime
) -> None:
    """Record that the provider, asked then at the earliest, sends nothing from our number, of that messaging service or
    none, to this one, unless it asked for messages since; once is as good as often."""
    refusal = {
        "messaging_service_id": messaging_service_id,
        "twilio_number": twilio_number,
        "phone_number": phone_number,
        "asked_at": asked_at,
    }
    await db.execute(_RECORD_REFUSAL, refusal)
