"""When a message that the provider did not take is tried again: pure, with the dice as an argument."""

from datetime import timedelta

from server.background import backoff

# Refused for so long, a message fails: most texts are of no use a day later, and their sender should know.
GIVE_UP_AFTER = timedelta(hours=24)

FIRST_DELAY = timedelta(seconds=1)
LONGEST_DELAY = timedelta(minutes=5)
# A provider's Retry-After beyond this is taken for a mistake.
LONGEST_RETRY_AFTER = timedelta(hours=1)

# An outcome is looked for no sooner than any call that is still under way could end (see LEASE in send.py).
RESOLVE_AFTER = timedelta(seconds=30)


def delay_after(*, attempts: int, retry_after: timedelta | None, roll: float) -> timedelta:
    """How long to wait after so many attempts (1 or more): doubling from 1 s to 5 min, or what the provider asks for.

    `roll`, from 0 to 1, spreads the delay up to 20 % longer, so that messages refused together do not return together.
    """
    asked = min(retry_after, LONGEST_RETRY_AFTER) if retry_after is not None else None
    return backoff(attempts, first=FIRST_DELAY, longest=LONGEST_DELAY, asked=asked, roll=roll)
