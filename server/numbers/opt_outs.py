"""Who takes no messages of a messaging service. SQL to be part of what learns of it: all or nothing with the rest."""

from datetime import datetime

from server.db import Database

_INTO = "INSERT INTO opt_outs (messaging_service_id, phone_number, source, opted_out_at, opted_in_at)"

# Of somebody who has opted out already nothing changes: the first source and time stay.
_OPT_OUT = """
ON CONFLICT (messaging_service_id, phone_number) DO UPDATE
SET source = excluded.source, opted_out_at = excluded.opted_out_at, opted_in_at = NULL
WHERE opt_outs.opted_out_at IS NULL
"""

_RECORD_REFUSAL = f"""
{_INTO} VALUES (%(messaging_service_id)s, %(phone_number)s, 'provider', now(), NULL)
{_OPT_OUT} AND opt_outs.opted_in_at < %(asked_at)s
"""


def record_keyword(source: str, *, contact: str) -> str:
    """The body of a CTE that opts out the contacts of the rows of the CTE `source`, which asked for it.

    The rows have `messaging_service_id`, null where the number is in none, and the contact's number as the column
    `contact`. The same goes for `opt_in`.
    """
    return f"""{_INTO}
    SELECT messaging_service_id, {contact}, 'keyword', now(), NULL FROM {source} WHERE messaging_service_id IS NOT NULL
    {_OPT_OUT}"""


def opt_in(source: str, *, contact: str) -> str:
    """The body of a CTE that opts them in again. That is kept also of somebody who had not opted out here: the
    provider's word that they had may be on its way."""
    return f"""{_INTO}
    SELECT messaging_service_id, {contact}, 'keyword', NULL, now() FROM {source} WHERE messaging_service_id IS NOT NULL
    ON CONFLICT (messaging_service_id, phone_number) DO UPDATE
    SET source = excluded.source, opted_out_at = NULL, opted_in_at = excluded.opted_in_at"""


def exists(row: str, *, contact: str) -> str:
    """Whether the contact of a row has opted out of its messaging service."""
    return f"""EXISTS (
    SELECT FROM opt_outs o
    WHERE o.messaging_service_id = {row}.messaging_service_id AND o.phone_number = {row}.{contact}
      AND o.opted_out_at IS NOT NULL)"""


async def record_refusal(db: Database, *, messaging_service_id: int, phone_number: str, asked_at: datetime) -> None:
    """Record that the provider, asked then at the earliest, sends nothing to this number, unless it asked for messages
    since; once is as good as often."""
    refusal = {"messaging_service_id": messaging_service_id, "phone_number": phone_number, "asked_at": asked_at}
    await db.execute(_RECORD_REFUSAL, refusal)
