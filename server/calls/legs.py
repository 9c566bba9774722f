"""Legs: which one is meant, and what is known of it. Facts alone are written here; what follows from them is
`status.py`'s."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from server.calls.reasons import goes_before, reason_of
from server.calls.state import LEG_STATUSES, better_answered_by, later
from server.calls.tables import CallLegRow
from server.providers.ports import ProviderError
from server.providers.voice_ports import FINAL_STATUSES, LegReport

log = structlog.get_logger()

# The provider is asked about a leg that it told nothing new of for so long.
CHECK_AFTER = timedelta(minutes=2)

# The error_code of a leg that nothing was ever heard of.
NOT_COMPLETED = "CALL_NOT_COMPLETED"

_SID_IS_UNIQUE = "uq_call_legs_call_sid"


def find_leg(legs: Sequence[CallLegRow], *, leg_uuid: UUID | None, call_sid: str) -> CallLegRow | None:
    """The leg that a callback is about: the one it names, else the one that has this call at the provider.

    None too where the leg that is named has another call: this one is a copy that nobody should have made.
    """
    if leg_uuid is None:
        return next((leg for leg in legs if leg.call_sid == call_sid), None)
    leg = next((leg for leg in legs if leg.uuid == leg_uuid), None)
    if leg is not None and leg.call_sid not in (None, call_sid):
        log.error("leg.second_call", leg_uuid=str(leg_uuid), call_sid=leg.call_sid, second_call_sid=call_sid)
        return None
    return leg


def record_sid(leg: CallLegRow, call_sid: str, *, now: datetime) -> None:
    """The leg is this call at the provider: it is dialled, asked about, and hung up on where that is wanted already."""
    if leg.call_sid is not None:
        assert leg.call_sid == call_sid, "a leg has one call"
        return
    leg.call_sid = call_sid
    leg.dial_at = None
    leg.in_doubt = False
    leg.check_at = now + CHECK_AFTER
    if leg.hangup_at is not None:
        leg.control_at = now
    if leg.error_code is None:
        # It may have been taken for withdrawn, and is there.
        leg.ended_at = None


def apply_progress(
    leg: CallLegRow,
    *,
    provider_status: str | None,
    answered_by: str | None,
    error: ProviderError | None,
    occurred_at: datetime | None,
    now: datetime,
    sip_response_code: int | None = None,
) -> None:
    """Take the facts of a callback, or of what the provider answered: the same in whatever order they come."""
    was_given_up = is_given_up(leg)
    leg.provider_status = later(LEG_STATUSES, leg.provider_status, provider_status)
    leg.answered_by = better_answered_by(leg.answered_by, answered_by)
    is_final = leg.provider_status in FINAL_STATUSES
    if was_given_up and is_final:
        # The provider knew of it after all.
        leg.error_code = leg.error_description = leg.ended_at = None
    reason = reason_of(provider_status, error=error, sip_response_code=sip_response_code)
    if reason is not None and (leg.error_code is None or goes_before(reason.code, leg.error_code)):
        leg.error_code = reason.code
        leg.error_description = reason.description
    if provider_status in FINAL_STATUSES:
        at = occurred_at or now
        leg.ended_at = min(leg.ended_at, at) if leg.ended_at is not None else at
    if is_final:
        leg.control_at = None
        leg.check_at = None
        leg.check_attempts = 0
    elif leg.check_attempts:
        leg.check_at = now + CHECK_AFTER
        leg.check_attempts = 0


def apply_report(leg: CallLegRow, report: LegReport, *, now: datetime) -> None:
    """The same of what the provider answered when it was asked."""
    apply_progress(
        leg,
        provider_status=report.provider_status,
        answered_by=report.answered_by,
        error=None,
        occurred_at=report.ended_at,
        now=now,
    )


def is_given_up(leg: CallLegRow) -> bool:
    """Whether it was refused or never heard of. It stays so though a sign of it may come yet: but for how it ended."""
    return leg.error_code is not None and leg.ended_at is not None and leg.provider_status not in FINAL_STATUSES


def give_up(leg: CallLegRow, *, error_code: str, error_description: str, now: datetime) -> None:
    """Nothing more is expected of the leg; should it be a call all the same, that is hung up on."""
    leg.error_code = error_code
    leg.error_description = error_description
    leg.ended_at = leg.ended_at or now
    leg.hangup_at = leg.hangup_at or now
    leg.dial_at = None
    leg.in_doubt = False
    leg.control_at = None
    leg.check_at = None


def withdraw(leg: CallLegRow, *, now: datetime) -> None:
    """The leg is no call at the provider, and nobody wants it to be one."""
    leg.ended_at = leg.ended_at or now
    leg.dial_at = None
    leg.in_doubt = False
    leg.check_at = None


def is_taken_sid(constraint: str | None) -> bool:
    """Whether it is this constraint that says that a call is another leg's."""
    return constraint == _SID_IS_UNIQUE
