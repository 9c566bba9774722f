"""A TCP proxy in front of the carrier that holds requests, or their answers, until the test lets them go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Gate:
    """Lets bytes of every request pass, but for those with a method it holds."""

    holds: set[bytes] = field(default_factory=set)
    held: int = 0
    _opened: asyncio.Event = field(default_factory=asyncio.Event)

    def hold(self, method: bytes) -> None:
        """Hold from now on."""
        self.holds.add(method)

    def open(self) -> None:
        """Let go what is held, and hold nothing more."""
        self.holds.clear()
        self._opened.set()
        self._opened = asyncio.Event()

    async def passed(self, method: bytes) -> None:
        """Wait while requests of this method are held."""
        while method in self.holds:
            self.held += 1
            try:
                await self._opened.wait()
            finally:
                self.held -= 1


class Wire:
    """The connections between workers and the carrier."""

    def __init__(self, carrier_url: str) -> None:
        target = urlsplit(carrier_url)
        self._target = (target.hostname, target.port)
        self._connections: set[asyncio.Task[None]] = set()
        self.base_url = ""
        self.requests = Gate()
        self.answers = Gate()
        # Requests that the carrier has and has not answered.
        self.unanswered = 0

    def cut(self) -> None:
        """Break every connection: what is held never arrives. New ones are held by nothing."""
        for connection in self._connections:
            connection.cancel()
        self.requests.open()
        self.answers.open()

    async def closed(self) -> None:
        """Wait until every connection has ended."""
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side closes it."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await self._carry(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrier_reader, carrier_writer = await asyncio.open_connection(*self._target)
        method = b""
        waits = False

        async def there() -> None:
            nonlocal method, waits
            while data := await reader.read(1 << 16):
                if not waits:
                    method = data.partition(b" ")[0]
                await self.requests.passed(method)
                self.unanswered += not waits
                waits = True
                carrier_writer.write(data)

        async def back() -> None:
            nonlocal waits
            while data := await carrier_reader.read(1 << 16):
                self.unanswered -= waits
                waits = False
                await self.answers.passed(method)
                writer.write(data)

        sides = [asyncio.create_task(there()), asyncio.create_task(back())]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            if waits:
                # A killed worker does not take back what it has asked for.
                await sides[1]
        finally:
            self.unanswered -= waits
            carrier_writer.transport.abort()
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)


@asynccontextmanager
async def running_wire(carrier_url: str) -> AsyncIterator[Wire]:
    """A wire to the carrier."""
    wire = Wire(carrier_url)
    server = await asyncio.start_server(wire.connect, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    wire.base_url = f"http://{host}:{port}"
    try:
        yield wire
    finally:
        server.close()
        wire.cut()
        await wire.closed()
