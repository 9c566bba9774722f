"""Who takes no calls from a messaging service's numbers. They say so in a call, and take it back in another."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from server.errors import FailedPrecondition

# The messaging service that a number speaks to a contact for, as of messages: its own, else that of the conversation
# that the two are paired in.
_SERVICES = """
    SELECT r.phone_number, coalesce(n.messaging_service_id, c.messaging_service_id) AS messaging_service_id
    FROM unnest(CAST(:phone_numbers AS text[])) AS r (phone_number)
    LEFT JOIN twilio_numbers n ON n.phone_number = :provider_number
    LEFT JOIN pairings p ON p.twilio_number = :provider_number AND p.phone_number = r.phone_number
    LEFT JOIN conversations c ON c.id = p.conversation_id
"""

_OPTED_OUT = text(f"""
SELECT o.phone_number FROM ({_SERVICES}) s JOIN call_opt_outs o USING (messaging_service_id, phone_number)
WHERE o.opted_out_at IS NOT NULL
ORDER BY array_position(CAST(:phone_numbers AS text[]), o.phone_number)
""")

# Of somebody who has said something since then already nothing changes. `opted_in_at` of somebody who has not opted out
# before is none.
_TOGGLE = text(f"""
INSERT INTO call_opt_outs AS o (messaging_service_id, phone_number, opted_out_at)
SELECT messaging_service_id, phone_number, CAST(:now AS timestamptz) FROM ({_SERVICES}) s
WHERE messaging_service_id IS NOT NULL
ON CONFLICT (messaging_service_id, phone_number) DO UPDATE
SET opted_out_at = CASE WHEN o.opted_out_at >= :since OR o.opted_in_at >= :since THEN o.opted_out_at
                        WHEN o.opted_out_at IS NULL THEN excluded.opted_out_at END,
    opted_in_at = CASE WHEN o.opted_out_at >= :since OR o.opted_in_at >= :since THEN o.opted_in_at
                       WHEN o.opted_out_at IS NOT NULL THEN excluded.opted_out_at END
RETURNING o.opted_out_at IS NOT NULL
""")


class RecipientOptedOutOfCalls(FailedPrecondition):
    """They have asked not to be called from the messaging service's numbers."""

    reason = "RECIPIENT_OPTED_OUT_OF_CALLS"

    def __init__(self, phone_number: str) -> None:
        super().__init__(
            f"{phone_number} has asked not to be called from this messaging service's numbers",
            phone_number=phone_number,
        )


async def refuse_opted_out(tx: AsyncSession, *, provider_number: str, phone_numbers: Sequence[str]) -> None:
    """Raise RecipientOptedOutOfCalls for the first of them who takes no calls from our number's messaging service."""
    phone_number = await tx.scalar(
        _OPTED_OUT, {"provider_number": provider_number, "phone_numbers": list(phone_numbers)}
    )
    if phone_number is not None:
        raise RecipientOptedOutOfCalls(phone_number)


async def is_opted_out(tx: AsyncSession, *, provider_number: str, phone_number: str) -> bool:
    """Whether they take no calls from our number's messaging service."""
    found = await tx.scalar(_OPTED_OUT, {"provider_number": provider_number, "phone_numbers": [phone_number]})
    return found is not None


async def toggle(
    tx: AsyncSession, *, provider_number: str, phone_number: str, since: datetime, now: datetime
) -> bool | None:
    """Opt them out of calls, or in again where they had opted out, once since that time; whether they are out of them
    now. None where our number is no messaging service's: there is nothing to opt out of."""
    parameters = {
        "provider_number": provider_number,
        "phone_numbers": [phone_number],
        "since": since,
        "now": now,
    }
    is_out: bool | None = await tx.scalar(_TOGGLE, parameters)
    return is_out
