"""Finishes what VoiceBase was given, and tells of it; a restart takes each recording up where it was."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import aiohttp
import structlog

from server.providers.sandbox.journal import Journal
from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.voicebase_media import Media

log = structlog.get_logger(__name__)

_TIMEOUT = aiohttp.ClientTimeout(total=30)

# How many times at once, and after how many simulated seconds again.
_TRIES = 3
_ROUNDS = (0, 900, 1800, 3600, 7200, 14_400, 28_800)

# How long a recording is worked on, in simulated seconds.
_PROCESSING = 1.0


class Teller:
    """All recordings, by id; made inside a running event loop. `second` is how long a simulated one really takes."""

    def __init__(self, journal: Journal, *, second: timedelta, now: Callable[[], float]) -> None:
        self._journal = journal
        self._second = second.total_seconds()
        self._now = now
        self.media: dict[str, Media] = {key: Media(**value) for key, value in journal.open().get("media", {}).items()}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=_TIMEOUT)

    def resume(self) -> None:
        """Take up what the journal shows unfinished or untold."""
        for media in self.media.values():
            if media.status == "accepted" or media.told < len(media.callbacks):
                self._start(media)

    def take(self, media: Media) -> None:
        """Keep a new recording and begin with it."""
        self.media[media.id] = media
        self._save(media)
        self._start(media)

    def drop(self, media: Media) -> None:
        """Forget one."""
        if (task := self._tasks.pop(media.id, None)) is not None:
            task.cancel()
        del self.media[media.id]
        self._journal.drop("media", media.id)

    async def reset(self) -> None:
        """Forget all."""
        await self._stop()
        self.media.clear()
        self._journal.clear()

    async def aclose(self) -> None:
        """Let go of all; the journal knows where they are."""
        await self._stop()
        await self._session.close()
        self._journal.close()

    async def _stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, media: Media) -> None:
        work: Coroutine[Any, Any, None] = self._process(media)
        task = asyncio.create_task(work, name=f"voicebase {media.id}")
        self._tasks[media.id] = task
        task.add_done_callback(lambda done: self._ended(media.id, done))

    def _ended(self, media_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(media_id) is task:
            del self._tasks[media_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sandbox.voicebase.broken", media_id=media_id, exc_info=error)

    async def _process(self, media: Media) -> None:
        if media.status == "accepted":
            await self._sleep(_PROCESSING + media.delay)
            media.status = "finished" if media.will_fail is None else "failed"
            media.failure = media.will_fail
            media.finished = self._now()
            self._save(media)
        if media.manner == Callbacks.MISSING:
            return
        for callback in media.callbacks[media.told :]:
            for _ in range(2 if media.manner == Callbacks.DUPLICATED else 1):
                await self._tell(media, callback)
            media.told += 1
            self._save(media)

    async def _tell(self, media: Media, callback: dict[str, Any]) -> None:
        body = json.dumps(media.shown(*callback["include"]), ensure_ascii=False).encode()
        for wait in _ROUNDS:
            await self._sleep(wait)
            for _ in range(_TRIES):
                if await self._post(callback, body):
                    return
        log.info("sandbox.voicebase.callback_lost", media_id=media.id)

    async def _post(self, callback: dict[str, Any], body: bytes) -> bool:
        """Whether it was taken."""
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.request(
                callback["method"], callback["url"], data=body, headers=headers, allow_redirects=False
            ) as response:
                return 200 <= response.status < 300
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self._second)

    def _save(self, media: Media) -> None:
        self._journal.put("media", media.id, asdict(media))
