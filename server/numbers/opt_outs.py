"""Who takes no messages of a messaging service. SQL to be part of what learns of it: all or nothing with the rest."""

from server.db import Database

# Conflicts change nothing: the first source and time stay.
_RECORD = "INSERT INTO opt_outs (messaging_service_id, phone_number, source)"

_RECORD_REFUSAL = f"""
{_RECORD} VALUES (%(messaging_service_id)s, %(phone_number)s, 'provider') ON CONFLICT DO NOTHING
"""


def record_keyword(source: str, *, contact: str) -> str:
    """The body of a CTE that opts out the contacts of the rows of the CTE `source`, which asked for it.

    The rows have `messaging_service_id`, null where the number is in none, and the contact's number as the column
    `contact`. The same goes for `forget`.
    """
    return f"""{_RECORD}
    SELECT messaging_service_id, {contact}, 'keyword' FROM {source} WHERE messaging_service_id IS NOT NULL
    ON CONFLICT DO NOTHING"""


def forget(source: str, *, contact: str) -> str:
    """The body of a CTE that opts them in again; of somebody who has not opted out it changes nothing."""
    return f"""DELETE FROM opt_outs o USING {source} s
    WHERE o.messaging_service_id = s.messaging_service_id AND o.phone_number = s.{contact}"""


def exists(row: str, *, contact: str) -> str:
    """Whether the contact of a row has opted out of its messaging service."""
    return f"""EXISTS (
    SELECT FROM opt_outs o
    WHERE o.messaging_service_id = {row}.messaging_service_id AND o.phone_number = {row}.{contact})"""


async def record_refusal(db: Database, *, messaging_service_id: int, phone_number: str) -> None:
    """Record that the provider sends nothing to this number; once is as good as often."""
    await db.execute(_RECORD_REFUSAL, {"messaging_service_id": messaging_service_id, "phone_number": phone_number})
