"""The time that recordings take to become files: a step before each of the events that tell of them."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog

from server.providers.sandbox.zoom_records import Session

log = structlog.get_logger(__name__)


class Processing:
    """One task per session that has files to come. `publish` makes what is due, and takes it from what is."""

    def __init__(self, publish: Callable[[Session, str], object], *, step_delay: timedelta) -> None:
        self._publish = publish
        self._step_delay = step_delay.total_seconds()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, session: Session) -> None:
        """Take up a session that has ended."""
        task = asyncio.create_task(self._process(session))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Let go of all; the journal knows what is due."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _process(self, session: Session) -> None:
        while session.due:
            await asyncio.sleep(self._step_delay)
            self._publish(session, session.due[0])

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sandbox.recordings.broken", exc_info=error)
