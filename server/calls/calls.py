"""Reading calls and voicemails: the caller's own, and any for an Admin."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.caller import Caller
from server.calls import queries
from server.calls.queries import Call
from server.calls.tables import CallRow, VoicemailRow
from server.errors import NotFound
from server.validation import parse_uuid


class CallNotFound(NotFound):
    """No such call, or another bearer's."""

    reason = "CALL_NOT_FOUND"

    def __init__(self, call_uuid: str) -> None:
        super().__init__(f"no call {call_uuid}", call_uuid=call_uuid)


class VoicemailNotFound(NotFound):
    """No such voicemail, or another bearer's."""

    reason = "VOICEMAIL_NOT_FOUND"

    def __init__(self, voicemail_id: int) -> None:
        super().__init__(f"no voicemail {voicemail_id}", voicemail_id=str(voicemail_id))


async def get_call(tx: AsyncSession, *, caller: Caller, uuid: str) -> Call:
    """A call of the caller's with all that is known of it. Raises CallNotFound."""
    parsed = parse_uuid(uuid)
    row = await queries.find_call(tx, parsed, owner_id=caller.owner_id) if parsed is not None else None
    if row is None:
        raise CallNotFound(uuid)
    call = await queries.call_of(tx, row)
    await queries.load_words(tx, call.recording)
    return call


async def get_call_of_voicemail(tx: AsyncSession, *, caller: Caller, voicemail_id: int) -> Call:
    """The call of a voicemail of the caller's. Raises VoicemailNotFound."""
    query = (
        select(CallRow).join(VoicemailRow, VoicemailRow.call_id == CallRow.id).where(VoicemailRow.id == voicemail_id)
    )
    if caller.owner_id is not None:
        query = query.where(CallRow.bearer_id == caller.owner_id)
    row = (await tx.scalars(query)).one_or_none()
    if row is None:
        raise VoicemailNotFound(voicemail_id)
    call = await queries.call_of(tx, row)
    await queries.load_words(tx, call.voicemail_recording)
    return call
