"""Zoom's memory of sessions, and of webhooks that are still to be posted."""

import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from server.providers.sandbox.journal import Journal
from server.providers.sandbox.zoom_records import File, Session, Take, User, Webhook

# What Zoom's begin with, and what lies between them.
_FIRST_USER_ID, _USER_ID_STEP = 16_778_240, 1024


class ZoomState:
    """All state of one Zoom account; every change goes to the journal before anybody is told of it."""

    def __init__(self, journal: Journal, *, now: Callable[[], float]) -> None:
        self.now = now
        self._journal = journal
        tables = journal.open()
        self.sessions = {key: _session(value) for key, value in tables.get("sessions", {}).items()}
        self.webhooks = {key: Webhook(**value) for key, value in tables.get("webhooks", {}).items()}

    def save(self, session: Session) -> None:
        """Write a session's present state down."""
        self.sessions[session.id] = session
        self._journal.put("sessions", session.id, asdict(session))

    def save_webhook(self, webhook: Webhook) -> None:
        """Write down where a webhook is."""
        self.webhooks[webhook.id] = webhook
        self._journal.put("webhooks", webhook.id, asdict(webhook))

    def drop_webhook(self, webhook: Webhook) -> None:
        """Forget a webhook that was taken, or that nobody takes."""
        if self.webhooks.pop(webhook.id, None) is not None:
            self._journal.drop("webhooks", webhook.id)

    def live(self) -> list[Session]:
        """The sessions that somebody is in, oldest first."""
        return [session for session in self.sessions.values() if session.is_live]

    def named(self, name: str) -> list[Session]:
        """The sessions of a name, oldest first, of which one at most is live: Zoom reads names in lower case."""
        return [session for session in self.sessions.values() if session.name.lower() == name.lower()]

    def file(self, file_id: str) -> tuple[Session, File] | None:
        """A file of any session's recordings."""
        found = ((session, file) for session in self.sessions.values() for file in session.files)
        return next((each for each in found if each[1].id == file_id), None)

    def new_user_id(self) -> str:
        """Zoom's tell people of one session apart; these do for all who ever were in one."""
        taken = {user.id for session in self.sessions.values() for user in session.users}
        while (found := str(_FIRST_USER_ID + _USER_ID_STEP * secrets.randbelow(100_000))) in taken:
            pass
        return found

    def reset(self) -> None:
        """Forget everything."""
        self._journal.clear()
        self.sessions.clear()
        self.webhooks.clear()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


def _session(value: dict[str, Any]) -> Session:
    return Session(
        **{
            **value,
            "users": [User(**user) for user in value["users"]],
            "takes": [Take(**take) for take in value["takes"]],
            "files": [File(**file) for file in value["files"]],
        }
    )
