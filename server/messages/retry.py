"""When a message, or a file of one, that a provider did not take or give is tried again."""

from datetime import timedelta

from server.background import Backoff

# Refused for so long, a message fails: most texts are of no use a day later, and their sender should know.
GIVE_UP_AFTER = timedelta(hours=24)

BACKOFF = Backoff(timedelta(seconds=1), timedelta(minutes=5), longest_asked=timedelta(hours=1))

# An outcome is looked for no sooner than any call that is still under way could end (see LEASE in send.py).
RESOLVE_AFTER = timedelta(seconds=30)
