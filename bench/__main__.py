"""`make bench`: how fast the whole local stack is, load generator included.

Bounded in count; figures are of one run.
"""

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import click
import grpc.aio
from commonservices.v1 import event_service_pb2, event_service_pb2_grpc

from server.stack.ports import free_port

CREATES = 6_000
CONNECTIONS = 32
LATENCIES = 100

READY_SECONDS = 60.0
DRAINED_SECONDS = 120.0


@asynccontextmanager
async def stack(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """A local stack of its own; answers its host and port, and the admin token."""
    port = free_port()
    data = folder / "data"
    environment = {**os.environ, "COMMON_SERVICES_PORT": str(port), "COMMON_SERVICES_DATA_DIR": str(data)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server", "run", env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not (await process.stdout.readline()).startswith(b"ready "):
                if process.returncode is not None:
                    raise click.ClickException("the stack did not start")
        yield f"127.0.0.1:{port}", await asyncio.to_thread((data / "admin_token").read_text)
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()


async def create(session: aiohttp.ClientSession, base: str, number: int) -> str:
    """Send one text through REST and answer its uuid."""
    message = {
        "sender_number": "+12065550100",
        "receiver_number": f"+1425555{number % 10_000:04}",
        "message_body": f"bench {number}",
        "client_conversation_id": f"bench-{number % 1_000}",
    }
    async with session.post(f"{base}/api/v1/messages", json={"message": message}) as answer:
        if answer.status != 201:
            raise click.ClickException(await answer.text())
        uuid: str = (await answer.json())["message_uuid"]
        return uuid


async def creates_per_second(session: aiohttp.ClientSession, base: str) -> float:
    """POST /messages from several connections at once."""
    numbers = iter(range(CREATES))

    async def connection() -> None:
        for number in numbers:
            await create(session, base, number)

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return CREATES / (time.perf_counter() - began)


async def seconds_to_deliver_all(events: "event_service_pb2_grpc.EventServiceAsyncStub", token: str) -> float:
    """From now until the stream has told of every message that it was delivered."""
    began = time.perf_counter()
    delivered: set[str] = set()
    async with asyncio.timeout(DRAINED_SECONDS):
        request = event_service_pb2.StreamEventsRequest(from_start=True)
        async for response in events.StreamEvents(request, metadata=(("authorization", f"Bearer {token}"),)):
            delivered.update(e.resource_uuid for e in response.events if e.message.internal_status == "delivered")
            if len(delivered) == CREATES:
                break
    return time.perf_counter() - began


async def milliseconds_to_stream(
    session: aiohttp.ClientSession, base: str, events: "event_service_pb2_grpc.EventServiceAsyncStub", token: str
) -> list[float]:
    """From the start of a create's request to its first event on the stream, one message at a time."""
    took: list[float] = []
    call = events.StreamEvents(
        event_service_pb2.StreamEventsRequest(), metadata=(("authorization", f"Bearer {token}"),)
    )
    created: asyncio.Queue[str] = asyncio.Queue()

    async def listen() -> None:
        async for response in call:
            for event in response.events:
                if event.sequence == 1:
                    created.put_nowait(event.resource_uuid)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.5)
    for number in range(LATENCIES):
        began = time.perf_counter()
        uuid = asyncio.create_task(create(session, base, number))
        assert await created.get() == await uuid
        took.append((time.perf_counter() - began) * 1000)
    listening.cancel()
    return took


async def run() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        async with stack(Path(folder)) as (target, token):
            base = f"http://{target}"
            headers = {"Authorization": f"Bearer {token}"}
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                grpc.aio.insecure_channel(target) as channel,
            ):
                events = event_service_pb2_grpc.EventServiceStub(channel)
                click.echo(f"REST creates, {CONNECTIONS} connections: {await creates_per_second(session, base):.0f}/s")
                seconds = await seconds_to_deliver_all(events, token)
                click.echo(f"all {CREATES} delivered and told on the stream after another {seconds:.1f} s")
                took = await milliseconds_to_stream(session, base, events, token)
                click.echo(
                    f"create to event on the stream: median {statistics.median(took):.1f} ms, "
                    f"95th percentile {statistics.quantiles(took, n=20)[-1]:.1f} ms"
                )


if __name__ == "__main__":
    asyncio.run(run())
