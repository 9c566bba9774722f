"""What stands before every vendor's resources: the credentials, and the misbehaviour that was asked for."""

import asyncio
import math
from base64 import b64decode
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.messages import MISBEHAVIOUR
from server.providers.sandbox.misbehaviour import Answer, Misbehaviour, TriggerUnknown, asked_in, has_trigger


class Manners(Protocol):
    """How one vendor's requests are read, and how it answers those it does not answer truthfully."""

    async def identity(self, request: web.Request) -> tuple[str, ...]:
        """The text of the message that a request creates, then what tells it from others; nothing of other requests."""
        ...

    def not_known(self, unknown: TriggerUnknown) -> Exception:
        """The refusal of a text that asks for what the sandbox cannot do."""
        ...

    def untrue(self, answer: Answer, *, retry_after: int | None) -> web.Response:
        """The answer in place of the true one."""
        ...


def credentials_of(request: web.Request) -> bytes:
    """`name:password` of basic authentication, empty where there is none."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return b64decode(encoded, validate=True)
    except ValueError:
        return b""


async def treat(carrier: Carrier, manners: Manners, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer as was told, by the control API or by the text of the message that is created."""
    asked = carrier.take_misbehaviour().over(await _triggered(carrier, manners, request))
    await asyncio.sleep(asked.delay.total_seconds())
    retry_after = None if asked.retry_after is None else math.ceil(asked.retry_after.total_seconds())
    if asked.answer is not None and not asked.answer.taken:
        return manners.untrue(asked.answer, retry_after=retry_after)
    request[MISBEHAVIOUR] = asked
    response = await handler(request)
    if asked.answer is None:
        return response
    if asked.answer is Answer.LOST_RESPONSE and request.transport is not None:
        request.transport.close()
    return manners.untrue(asked.answer, retry_after=retry_after)


def bad_gateway(answer: Answer, *, success: int) -> web.Response:
    """What gives up on a vendor's behalf, or garbles what it says, is a proxy: it answers a page, not JSON."""
    page = "<html><body><h1>Bad gateway</h1></body></html>"
    return web.Response(status=answer.status or success, text=page, content_type="text/html")


async def _triggered(carrier: Carrier, manners: Manners, request: web.Request) -> Misbehaviour:
    text, *others = await manners.identity(request) or ("",)
    if not has_trigger(text):
        return Misbehaviour()
    attempt = carrier.count_attempt(text, *others)
    try:
        return asked_in(text, attempt=attempt)
    except TriggerUnknown as unknown:
        raise manners.not_known(unknown) from unknown
