"""The sandbox put together: Twilio's REST and the control API on one port, and what stands before the resources."""

import asyncio
import math
import signal
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from hmac import compare_digest

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from server.providers.sandbox import control
from server.providers.sandbox.answers import Refusal, not_found
from server.providers.sandbox.callbacks import CallbackSender
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.delivery import Delivery
from server.providers.sandbox.fields import ControlRefusal, error_answer
from server.providers.sandbox.inbound import Inbound
from server.providers.sandbox.journal import Journal
from server.providers.sandbox.lookups import Lookups
from server.providers.sandbox.media import CDN_PREFIX, Media
from server.providers.sandbox.messages import MISBEHAVIOUR, Messages
from server.providers.sandbox.messaging_services import MessagingServices
from server.providers.sandbox.misbehaviour import Answer, Misbehaviour, TriggerUnknown, asked_in, has_trigger
from server.providers.sandbox.phone_numbers import PhoneNumbers
from server.providers.sandbox.records import AskedFor
from server.providers.sandbox.settings import SandboxSettings
from server.providers.sandbox.texts import MAX_REQUEST_BYTES, Texts

log = structlog.get_logger(__name__)

# Not one of Twilio's: a text asks the sandbox for something it cannot do.
TRIGGER_UNKNOWN = 90001


def _now() -> datetime:
    return datetime.now(UTC)


def make_app(settings: SandboxSettings, *, now: Callable[[], datetime] = _now) -> web.Application:
    """The sandbox as an aiohttp application, its journal replayed; made inside a running event loop."""
    carrier = Carrier(settings, Journal(None if settings.data_dir is None else settings.data_dir / "journal"), now=now)
    callbacks = CallbackSender(auth_token=settings.auth_token)
    delivery = Delivery(carrier, callbacks, step_delay=settings.step_delay)

    async def run_delivery(_: web.Application) -> AsyncIterator[None]:
        delivery.resume()
        yield
        await delivery.aclose()
        await callbacks.aclose()
        carrier.close()

    app = web.Application(
        middlewares=[_record(carrier), _answer_failures, _authenticate(settings), _misbehave(carrier)],
        client_max_size=MAX_REQUEST_BYTES,
    )
    resources = (
        Messages(carrier, delivery),
        Media(carrier),
        PhoneNumbers(carrier),
        Lookups(carrier),
        MessagingServices(carrier),
        control.Control(carrier, delivery),
        Texts(carrier, Inbound(carrier, delivery), base_url=settings.base_url),
    )
    for resource in resources:
        app.add_routes(resource.routes())
    app.cleanup_ctx.append(run_delivery)
    return app


async def serve(settings: SandboxSettings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the address cannot be listened on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # No access log: its lines would hold phone numbers.
    runner = web.AppRunner(make_app(settings), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        log.info("sandbox.ready", host=host, port=port)
        await stop.wait()
    finally:
        await runner.cleanup()
        log.info("sandbox.stopped")


def run(settings: SandboxSettings, *, host: str, port: int) -> None:
    """`serve` in an event loop of its own."""
    asyncio.run(serve(settings, host=host, port=port))


def _is_control(request: web.Request) -> bool:
    return request.path.startswith(control.PREFIX)


def _record(carrier: Carrier) -> Middleware:
    """Keeps every request of the vendor's protocol with its answer, also those that were refused."""

    @web.middleware
    async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _is_control(request):
            return await handler(request)
        at = carrier.now()
        form = await request.post()
        response = await handler(request)
        answered = request.transport is not None and not request.transport.is_closing()
        carrier.record(
            AskedFor(
                at=at,
                method=request.method,
                path=request.path,
                query=[[name, value] for name, value in request.query.items()],
                form=[[name, str(value)] for name, value in form.items()],
                status=response.status if answered else None,
            )
        )
        return response

    return record


@web.middleware
async def _answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one place where refusals, and paths and methods that do not exist, become answers."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return refusal.answer()
    except ControlRefusal as refusal:
        return error_answer(400, str(refusal), refusal.errors)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        if _is_control(request):
            return error_answer(error.status, f"{request.method} {request.path}: {error.reason}", [])
        if error.status == 405:
            return Refusal(405, 20004, "Method not allowed").answer()
        return not_found(request.path).answer()


def _authenticate(settings: SandboxSettings) -> Middleware:
    """Account SID and auth token as basic auth, as at the vendor; the control API and secret addresses need none."""
    expected = f"{settings.account_sid}:{settings.auth_token}".encode()

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _is_control(request) or request.path.startswith(CDN_PREFIX):
            return await handler(request)
        if not compare_digest(_credentials(request), expected):
            raise Refusal(401, 20003, "Authenticate")
        if request.match_info.get("account_sid", settings.account_sid) != settings.account_sid:
            raise not_found(request.path)
        return await handler(request)

    return authenticate


def _credentials(request: web.Request) -> bytes:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return b64decode(encoded, validate=True)
    except Base64Error:
        return b""


def _misbehave(carrier: Carrier) -> Middleware:
    """Answers as it was told to, by the control API or by the text of the message that is created."""

    @web.middleware
    async def misbehave(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _is_control(request):
            return await handler(request)
        asked = carrier.take_misbehaviour().over(await _triggered(carrier, request))
        await asyncio.sleep(asked.delay.total_seconds())
        if asked.answer is not None and not asked.answer.taken:
            return _untrue_answer(asked, asked.answer)
        request[MISBEHAVIOUR] = asked
        response = await handler(request)
        if asked.answer is None:
            return response
        if asked.answer is Answer.LOST_RESPONSE and request.transport is not None:
            request.transport.close()
        return _untrue_answer(asked, asked.answer)

    return misbehave


async def _triggered(carrier: Carrier, request: web.Request) -> Misbehaviour:
    form = await request.post()
    text = str(form.get("Body", ""))
    if not has_trigger(text):
        return Misbehaviour()
    attempt = carrier.count_attempt(text, *(str(form.get(name, "")) for name in ("To", "From", "StatusCallback")))
    try:
        return asked_in(text, attempt=attempt)
    except TriggerUnknown as unknown:
        raise Refusal(400, TRIGGER_UNKNOWN, f"the sandbox does not know {unknown}") from unknown


def _untrue_answer(asked: Misbehaviour, answer: Answer) -> web.Response:
    retry_after = None if asked.retry_after is None else math.ceil(asked.retry_after.total_seconds())
    if answer.status == 429:
        return Refusal(429, 20429, "Too Many Requests", retry_after=1 if retry_after is None else retry_after).answer()
    if answer.status in (500, 503):
        code = 20500 if answer.status == 500 else 20503
        return Refusal(answer.status, code, "An internal server error has occurred", retry_after=retry_after).answer()
    # What gives up on Twilio's behalf, or garbles it, is a proxy: it answers a page, not JSON.
    page = "<html><body><h1>Bad gateway</h1></body></html>"
    return web.Response(status=answer.status or 201, text=page, content_type="text/html")
