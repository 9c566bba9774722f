"""Providers' reports of messages, in any order and any number: each is kept raw and applied once, by rank."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import structlog
from psycopg.rows import class_row, dict_row

from server.db import Database, Parameters
from server.messages import queries
from server.messages.message import Message, reported
from server.messages.messages import TRIES, TooManyChanges, save
from server.notifications import Notifications
from server.numbers import opt_outs
from server.providers.ports import MessageCallback, MessageReport, MessageStatus, ProviderError

log = structlog.get_logger()

# As they came; their news is in the message. A message's sid is known, or the message given up, long before.
KEPT_FOR = timedelta(days=7)
_FORGOTTEN_AT_ONCE = 500


async def apply_callback(
    db: Database,
    notifications: Notifications,
    *,
    provider: str,
    callback: MessageCallback,
    now: datetime,
) -> None:
    """Apply a verified callback to its message and keep it.

    One without a message is kept for the message that will record its sid: it may come before the create's answer.
    """
    report = callback.report
    raw = _callback_parameters(provider, report, callback.body)
    for _ in range(TRIES):
        message = await _find(db, provider=provider, callback=callback)
        if message is None:
            await db.execute(queries.KEEP_CALLBACK, {**raw, "message_id": None})
            # The sid may have been recorded between the look and the keeping.
            if (owner := await find_by_sid(db, provider=provider, message_sid=report.message_sid)) is not None:
                await apply_kept_callbacks(db, notifications, message=owner, now=now)
            return
        changed = reported(message, report, now=now)
        if changed is None:
            _note_conflict(message, report)
            await db.execute(queries.KEEP_CALLBACK, {**raw, "message_id": message.id})
            return
        await note_opt_out(db, message=message, error=report.error)
        try:
            if await save(db, notifications, changed, seen=message, statement=queries.SAVE_WITH_CALLBACK, more=raw):
                return
        except psycopg.errors.UniqueViolation:
            # Another message took this copy between the look and the saving: the next look finds that one.
            continue
    raise TooManyChanges("the message kept changing; try again")


async def apply_report(
    db: Database, notifications: Notifications, *, message: Message, report: MessageReport, now: datetime
) -> bool:
    """Record what the provider answered about a message; False where it says nothing new.

    Raises psycopg.errors.UniqueViolation if the report's copy belongs to another message.
    """
    seen: Message | None = message
    for _ in range(TRIES):
        assert seen is not None, "messages are never deleted"
        if seen.message_sid not in (None, report.message_sid):
            log.error(
                "message.second_copy",
                message_uuid=str(seen.message_uuid),
                message_sid=seen.message_sid,
                second_message_sid=report.message_sid,
            )
            return False
        changed = reported(seen, report, now=now)
        if changed is None:
            return False
        await note_opt_out(db, message=seen, error=report.error)
        if await save(db, notifications, changed, seen=seen):
            await apply_kept_callbacks(db, notifications, message=changed, now=now)
            return True
        seen = await db.fetch_one(queries.GET, {"message_uuid": message.message_uuid}, class_row(Message))
    raise TooManyChanges("the message kept changing")


async def apply_kept_callbacks(db: Database, notifications: Notifications, *, message: Message, now: datetime) -> None:
    """Apply the callbacks that came before the message's sid was known."""
    parameters = {"message_id": message.id, "provider": message.provider, "message_sid": message.message_sid}
    kept = await db.fetch_all(queries.TAKE_UNMATCHED_CALLBACKS, parameters, dict_row)
    for row in sorted(kept, key=lambda row: row["provider_rank"]):
        assert message.message_sid is not None
        report = MessageReport(
            message_sid=message.message_sid,
            provider_status=row["provider_status"],
            internal_status=MessageStatus(row["internal_status"]),
            rank=row["provider_rank"],
            error=_kept_error(row),
        )
        await apply_report(db, notifications, message=message, report=report, now=now)
        message = replace(message, provider_rank=max(message.provider_rank, report.rank))


async def forget_old(db: Database) -> bool:
    """Delete a batch of the callbacks that are old enough; whether there may be more."""
    batch = {"keep": KEPT_FOR, "limit": _FORGOTTEN_AT_ONCE}
    return await db.execute(queries.FORGET_CALLBACKS, batch) == _FORGOTTEN_AT_ONCE


async def note_opt_out(db: Database, *, message: Message, error: ProviderError | None) -> None:
    """Record the opt-out that a provider's error tells of.

    To be called before the error is recorded, so that no crash between the two loses it; and only where the error is
    news, so that a repeated report does not undo a START that came since. One of a message that was handed over before
    the START is out of date, however late it comes.
    """
    if error is None or not error.recipient_opted_out:
        return
    await opt_outs.record_refusal(
        db,
        messaging_service_id=message.messaging_service_id,
        twilio_number=message.sender_number,
        phone_number=message.receiver_number,
        asked_at=message.first_claimed_at or message.created_at,
    )


async def find_by_sid(db: Database, *, provider: str, message_sid: str) -> Message | None:
    """The message that a provider's copy belongs to."""
    parameters = {"provider": provider, "message_sid": message_sid}
    return await db.fetch_one(queries.GET_BY_SID, parameters, class_row(Message))


async def _find(db: Database, *, provider: str, callback: MessageCallback) -> Message | None:
    """The message whose sid it is, else the one the URL names, unless that one has a copy already."""
    message_sid = callback.report.message_sid
    owner = await find_by_sid(db, provider=provider, message_sid=message_sid)
    if owner is not None or callback.message_uuid is None:
        return owner
    named = await _find_by_uuid(db, callback.message_uuid)
    if named is None or named.provider != provider:
        return None
    if named.message_sid is not None and named.message_sid != message_sid:
        log.warning("message.callback_of_other_copy", message_uuid=str(named.message_uuid), message_sid=message_sid)
        return None
    return named


async def _find_by_uuid(db: Database, message_uuid: UUID) -> Message | None:
    return await db.fetch_one(queries.GET, {"message_uuid": message_uuid}, class_row(Message))


def _note_conflict(message: Message, report: MessageReport) -> None:
    """Two different final words of a provider are worth a look."""
    contradicts = report.rank >= message.provider_rank and report.internal_status != message.internal_status
    if contradicts:
        log.warning(
            "message.conflicting_report",
            message_uuid=str(message.message_uuid),
            internal_status=message.internal_status,
            reported_status=report.provider_status,
        )


def _kept_error(row: dict[str, Any]) -> ProviderError | None:
    if row["error_code"] is None:
        return None
    return ProviderError(row["error_code"], row["error_url"], recipient_opted_out=row["recipient_opted_out"])


def _callback_parameters(provider: str, report: MessageReport, body: str) -> Parameters:
    return {
        "provider": provider,
        "callback_message_sid": report.message_sid,
        "callback_provider_status": report.provider_status,
        "callback_provider_rank": report.rank,
        "callback_internal_status": report.internal_status,
        "callback_error_code": report.error.code if report.error else None,
        "callback_error_url": report.error.url if report.error else None,
        "callback_recipient_opted_out": report.error is not None and report.error.recipient_opted_out,
        "callback_body": body,
    }
