"""A real HTTP server that answers what it is told, and keeps what it got."""

import asyncio
import json
import random
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Receiver:
    """Answers 200 until told otherwise; each path has answers of its own, taken one after the other."""

    def __init__(self) -> None:
        self.port = 0
        self.received: list[Received] = []
        # How many requests are being answered now, and were at most, by webhook-id.
        self.open: defaultdict[str, int] = defaultdict(int)
        self.most_open: defaultdict[str, int] = defaultdict(int)
        self._scripts: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self._defaults: dict[str, Answer] = {}
        self._came = asyncio.Condition()

    def url(self, path: str = "/hook", *, host: str = "127.0.0.1") -> str:
        """Where a path is."""
        return f"http://{host}:{self.port}{path}"

    def then(self, *answers: Answer, path: str = "/hook") -> None:
        """Answer the next requests to the path so."""
        self._scripts[path].extend(answers)

    def always(self, answer: Answer, path: str = "/hook") -> None:
        """Answer so where no answer is scripted."""
        self._defaults[path] = answer

    def at(self, path: str) -> list[Received]:
        """What came to a path."""
        return [request for request in self.received if request.path == path]

    async def wait_for(self, count: int, path: str = "/hook") -> list[Received]:
        """Wait until so many requests have come to the path."""
        async with asyncio.timeout(30), self._came:
            await self._came.wait_for(lambda: len(self.at(path)) >= count)
        return self.at(path)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        webhook_id = request.headers["webhook-id"]
        self.open[webhook_id] += 1
        self.most_open[webhook_id] = max(self.most_open[webhook_id], self.open[webhook_id])
        self.received.append(Received(request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        async with self._came:
            self._came.notify_all()
        script = self._scripts[request.path]
        answer = script.popleft() if script else self._defaults.get(request.path, status(200))
        try:
            return await answer(request)
        finally:
            self.open[webhook_id] -= 1


def status(code: int, *, body: bytes = b"", **headers: str) -> Answer:
    """An answer at once; header names are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, body=body, headers=named)

    return answer


def held(until: asyncio.Event, *, code: int = 200) -> Answer:
    """An answer that waits."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        await until.wait()
        return web.Response(status=code)

    return answer


def one_of(dice: random.Random, *codes: int) -> Answer:
    """Another answer each time."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=dice.choice(codes))

    return answer


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine, until the block ends."""
    receiver = Receiver()
    app = web.Application(client_max_size=1 << 20)
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()
