"""A server that has files, or where they are said to be, over real sockets."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from tests.providers.servers import listening

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A server that answers every request as it is told, and keeps what came."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.base_url = ""
        self.came: list[tuple[str, str | None]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.came.append((request.path, request.headers.get("Authorization")))
        return await self.answer(request)


@asynccontextmanager
async def running(answer: Answer) -> AsyncIterator[Server]:
    """A server on a port of its own."""
    server = Server(answer)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with listening(app) as base_url:
        server.base_url = base_url
        yield server


def file(data: bytes, content_type: str = "image/png") -> Answer:
    """The file itself."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, headers={"Content-Type": content_type})

    return answer


def status(code: int, **headers: str) -> Answer:
    """No file."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return answer


async def breaking_off(request: web.Request) -> web.StreamResponse:
    """Half of a file, then nothing any more."""
    response = web.StreamResponse(headers={"Content-Type": "audio/x-wav", "Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"half")
    assert request.transport is not None
    request.transport.abort()
    return response
