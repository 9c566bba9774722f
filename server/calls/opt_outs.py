"""Who takes no calls from one of our numbers or its messaging service's. They say so in a call, and take it back in
another; it is kept for both, as of messages (`server.numbers.opt_outs`)."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from server.errors import FailedPrecondition
from server.numbers import opt_outs

# The messaging service that a number speaks to a contact for, as of messages: its own, else that of the conversation
# that the two are paired in.
_SERVICES = """
    SELECT r.phone_number, coalesce(n.messaging_service_id, c.messaging_service_id) AS messaging_service_id
    FROM unnest(CAST(:phone_numbers AS text[])) AS r (phone_number)
    LEFT JOIN twilio_numbers n ON n.phone_number = :provider_number
    LEFT JOIN pairings p ON p.twilio_number = :provider_number AND p.phone_number = r.phone_number
    LEFT JOIN conversations c ON c.id = p.conversation_id
"""

_OPTED_OUT_AT = opt_outs.opted_out_at(
    number=":provider_number",
    service="s.messaging_service_id",
    contact="s.phone_number",
    of_services="call_opt_outs",
    of_numbers="call_number_opt_outs",
)

_OPTED_OUT = text(f"""
SELECT s.phone_number FROM ({_SERVICES}) s WHERE {_OPTED_OUT_AT} IS NOT NULL
ORDER BY array_position(CAST(:phone_numbers AS text[]), s.phone_number)
""")

# What somebody says depends on what they have said: of several of their calls at once each waits for the one before.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('calls ' || :phone_number, 0))")

_SAID = text(f"""
SELECT s.messaging_service_id, {_OPTED_OUT_AT} IS NOT NULL AS is_out,
       EXISTS (SELECT FROM call_opt_outs o
               WHERE o.messaging_service_id = s.messaging_service_id AND o.phone_number = s.phone_number
                 AND greatest(o.opted_out_at, o.opted_in_at) >= :since)
       OR EXISTS (SELECT FROM call_number_opt_outs o
                  WHERE o.twilio_number = :provider_number AND o.phone_number = s.phone_number
                    AND greatest(o.opted_out_at, o.opted_in_at) >= :since) AS has_said
FROM ({_SERVICES}) s
""")

_SETS = "opted_out_at = excluded.opted_out_at, opted_in_at = excluded.opted_in_at"
_SAY = text(f"""
WITH of_number AS (
    INSERT INTO call_number_opt_outs (twilio_number, phone_number, messaging_service_id, opted_out_at, opted_in_at)
    VALUES (:provider_number, :phone_number, CAST(:messaging_service_id AS bigint),
            CAST(:opted_out_at AS timestamptz), CAST(:opted_in_at AS timestamptz))
    ON CONFLICT (twilio_number, phone_number) DO UPDATE
    SET messaging_service_id = excluded.messaging_service_id, {_SETS}
)
INSERT INTO call_opt_outs (messaging_service_id, phone_number, opted_out_at, opted_in_at)
SELECT CAST(:messaging_service_id AS bigint), :phone_number,
       CAST(:opted_out_at AS timestamptz), CAST(:opted_in_at AS timestamptz)
WHERE CAST(:messaging_service_id AS bigint) IS NOT NULL
ON CONFLICT (messaging_service_id, phone_number) DO UPDATE SET {_SETS}
""")


class RecipientOptedOutOfCalls(FailedPrecondition):
    """They have asked not to be called from the number, or from one of its messaging service."""

    reason = "RECIPIENT_OPTED_OUT_OF_CALLS"

    def __init__(self, phone_number: str) -> None:
        super().__init__(
            f"{phone_number} has asked not to be called from this number or its messaging service",
            phone_number=phone_number,
        )


async def refuse_opted_out(tx: AsyncSession, *, provider_number: str, phone_numbers: Sequence[str]) -> None:
    """Raise RecipientOptedOutOfCalls for the first of them who takes no calls from our number."""
    phone_number = await tx.scalar(
        _OPTED_OUT, {"provider_number": provider_number, "phone_numbers": list(phone_numbers)}
    )
    if phone_number is not None:
        raise RecipientOptedOutOfCalls(phone_number)


async def is_opted_out(tx: AsyncSession, *, provider_number: str, phone_number: str) -> bool:
    """Whether they take no calls from our number."""
    found = await tx.scalar(_OPTED_OUT, {"provider_number": provider_number, "phone_numbers": [phone_number]})
    return found is not None


async def toggle(tx: AsyncSession, *, provider_number: str, phone_number: str, since: datetime, now: datetime) -> bool:
    """Opt them out of calls from our number and its messaging service, or in again where they had opted out, once since
    that time; whether they are out of them now."""
    await tx.execute(_LOCK, {"phone_number": phone_number})
    parameters = {"provider_number": provider_number, "phone_numbers": [phone_number], "since": since}
    said = (await tx.execute(_SAID, parameters)).one()
    is_out: bool = said.is_out
    if said.has_said:
        return is_out
    word = {
        "provider_number": provider_number,
        "phone_number": phone_number,
        "messaging_service_id": said.messaging_service_id,
        "opted_out_at": None if is_out else now,
        "opted_in_at": now if is_out else None,
    }
    await tx.execute(_SAY, word)
    return not is_out
