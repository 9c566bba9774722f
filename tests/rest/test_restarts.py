"""Api processes come and go behind Envoy while calls are made."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from server.config import Settings
from server.stack.ports import free_port
from tests.clients import Client
from tests.rest.front import Front, running_envoy, until_healthy

ROOT = Path(__file__).parent.parent.parent
CALLERS = 4


@asynccontextmanager
async def api_process(settings: Settings, target: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m server api`, as servers of their own run it."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "PUBLIC_BASE_URL": settings.public_base_url,
        "ENCRYPTION_KEYS": ",".join(key.get_secret_value() for key in settings.encryption_keys),
        "TWILIO_ACCOUNT_SID": settings.twilio_account_sid,
        "TWILIO_AUTH_TOKEN": settings.twilio_auth_token.get_secret_value(),
        "STORAGE_URL": settings.storage_url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", "api", "--listen", target),
        env=environment,
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Load:
    """Calls one after the other by a few callers; the answers' statuses are counted."""

    def __init__(self, calls: Sequence[tuple[str, str]]) -> None:
        self.statuses: Counter[int] = Counter()
        self._calls = calls
        self._answered = asyncio.Condition()

    async def more(self, count: int) -> None:
        """Wait for that many more answers."""
        goal = self.statuses.total() + count
        async with asyncio.timeout(30), self._answered:
            await self._answered.wait_for(lambda: self.statuses.total() >= goal)

    async def call(self, session: aiohttp.ClientSession) -> None:
        """Call until cancelled."""
        while True:
            for method, path in self._calls:
                async with session.request(method, path) as answer:
                    await answer.read()
                self.statuses[answer.status] += 1
                async with self._answered:
                    self._answered.notify_all()


@asynccontextmanager
async def running_load(front: Front, client: Client, calls: Sequence[tuple[str, str]]) -> AsyncIterator[Load]:
    """Load until the block ends."""
    load = Load(calls)
    headers = {"authorization": f"Bearer {client.token}"}
    async with aiohttp.ClientSession(front.url, headers=headers) as session, asyncio.TaskGroup() as tasks:
        callers = [tasks.create_task(load.call(session)) for _ in range(CALLERS)]
        yield load
        for caller in callers:
            caller.cancel()


async def test_no_call_fails_while_every_api_process_restarts(settings: Settings, client: Client) -> None:
    targets = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(api_process(settings, target)) for target in targets]
        front = await stack.enter_async_context(running_envoy(targets))
        await until_healthy(front, 2)

        async with running_load(front, client, [("GET", "/api/v1/bearer"), ("POST", "/api/v1/api_keys")]) as load:
            for process, target in zip(processes, targets, strict=True):
                await load.more(50)
                process.send_signal(signal.SIGTERM)
                await process.wait()
                await load.more(50)
                await stack.enter_async_context(api_process(settings, target))
                await until_healthy(front, 2)
            await load.more(50)

    assert set(load.statuses) == {200, 201}


async def test_no_read_fails_when_an_api_process_is_killed(settings: Settings, client: Client) -> None:
    targets = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(api_process(settings, target)) for target in targets]
        front = await stack.enter_async_context(running_envoy(targets))
        await until_healthy(front, 2)

        async with running_load(front, client, [("GET", "/api/v1/bearer"), ("GET", "/api/v1/api_keys")]) as load:
            await load.more(100)
            processes[0].kill()
            await load.more(500)

    assert set(load.statuses) == {200}
