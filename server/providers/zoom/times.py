"""The two forms of a time at Zoom."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# As seconds some three thousand years ahead, as milliseconds in 1973: no time of Zoom's is on the wrong side.
_LEAST_MILLISECONDS = 10**11


def iso_time(said: object) -> datetime | None:
    """A time as ISO 8601 spells it, of UTC where it names no zone; None of anything else."""
    if not isinstance(said, str):
        return None
    try:
        at = datetime.fromisoformat(said)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def epoch_time(said: object) -> datetime | None:
    """A time as milliseconds or seconds since 1970, which Zoom's own examples both have; None of anything else."""
    if not isinstance(said, int | float) or isinstance(said, bool) or not said > 0:
        return None
    try:
        since = timedelta(milliseconds=said) if said >= _LEAST_MILLISECONDS else timedelta(seconds=said)
        return _EPOCH + since
    except (ValueError, OverflowError):
        return None
