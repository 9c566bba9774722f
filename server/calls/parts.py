"""What everything about calls is made of."""

from dataclasses import dataclass
from datetime import timedelta

from server.db import Database
from server.notifications import Notifications
from server.providers.voice_ports import CallScripts
from server.storage import Storage


@dataclass(frozen=True)
class CallParts:
    """What callbacks about calls are answered with."""

    db: Database
    notifications: Notifications
    storage: Storage
    scripts: CallScripts
    # What a caller hears whom nobody of ours is paired with.
    unknown_caller_answer: str
    # The longest that a call may last.
    time_limit: timedelta
