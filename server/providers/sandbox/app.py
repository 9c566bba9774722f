"""The sandbox put together: four vendors' REST and the control API on one port, and what stands before Twilio's."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from server.providers.sandbox import control
from server.providers.sandbox.answers import Refusal, not_found
from server.providers.sandbox.bandwidth_answers import PREFIX as BANDWIDTH_PREFIX
from server.providers.sandbox.bandwidth_app import make_bandwidth_app
from server.providers.sandbox.bandwidth_callbacks import BandwidthCallbacks
from server.providers.sandbox.bandwidth_inbound import BandwidthInbound
from server.providers.sandbox.bandwidth_tokens import BandwidthTokens
from server.providers.sandbox.callbacks import CallbackSender
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.delivery import Delivery
from server.providers.sandbox.fields import ControlRefusal, error_answer
from server.providers.sandbox.gate import bad_gateway, credentials_of, treat
from server.providers.sandbox.inbound import Inbound
from server.providers.sandbox.journal import Journal
from server.providers.sandbox.lookups import Lookups
from server.providers.sandbox.media import CDN_PREFIX, Media
from server.providers.sandbox.messages import Messages
from server.providers.sandbox.messaging_services import MessagingServices
from server.providers.sandbox.misbehaviour import Answer, TriggerUnknown
from server.providers.sandbox.phone_numbers import PhoneNumbers
from server.providers.sandbox.records import AskedFor
from server.providers.sandbox.settings import BANDWIDTH_TOKEN_PATH, SandboxSettings
from server.providers.sandbox.texts import MAX_REQUEST_BYTES, Texts
from server.providers.sandbox.voice_app import Voice
from server.providers.sandbox.voice_speech import speak
from server.providers.sandbox.voice_tapes import Speak
from server.providers.sandbox.voicebase import VOICEBASE_PREFIX, NoVoiceBase, VoiceBase
from server.providers.sandbox.zoom_answers import DOWNLOAD_PREFIX, ZOOM_PREFIX
from server.providers.sandbox.zoom_app import Zoom
from server.providers.sandbox.zoom_control import NoZoom, ZoomControl

log = structlog.get_logger(__name__)

# Not one of Twilio's: a text asks the sandbox for something it cannot do.
TRIGGER_UNKNOWN = 90001


def _now() -> datetime:
    return datetime.now(UTC)


def make_app(settings: SandboxSettings, *, now: Callable[[], datetime] = _now, speak: Speak = speak) -> web.Application:
    """The sandbox as an aiohttp application, its journal replayed; made inside a running event loop.

    `speak` is how words sound in recordings.
    """
    carrier = Carrier(settings, Journal(None if settings.data_dir is None else settings.data_dir / "journal"), now=now)
    callbacks = CallbackSender(auth_token=settings.auth_token)
    account = settings.bandwidth
    bandwidth_callbacks = None if account is None else BandwidthCallbacks(account)
    delivery = Delivery(carrier, callbacks, step_delay=settings.step_delay, bandwidth=bandwidth_callbacks)
    zoom = None if settings.zoom is None else Zoom(carrier, settings, settings.zoom)
    voice = Voice(carrier, callbacks, settings, now=now, speak=speak)
    voicebase = None if settings.voicebase_token is None else VoiceBase(carrier, settings, settings.voicebase_token)

    async def run_delivery(_: web.Application) -> AsyncIterator[None]:
        delivery.resume()
        if zoom is not None:
            zoom.resume()
        if voicebase is not None:
            voicebase.resume()
        yield
        if voicebase is not None:
            await voicebase.aclose()
        if zoom is not None:
            await zoom.aclose()
        await voice.exchange.aclose()
        await delivery.aclose()
        await callbacks.aclose()
        if bandwidth_callbacks is not None:
            await bandwidth_callbacks.aclose()
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
        control.Control(carrier, delivery, voice.exchange, bandwidth=account, zoom=zoom, voicebase=voicebase),
        NoZoom() if zoom is None else ZoomControl(zoom, base_url=settings.base_url),
        Texts(
            carrier,
            Inbound(carrier, delivery),
            bandwidth=None if account is None else BandwidthInbound(carrier, delivery, account),
            base_url=settings.base_url,
        ),
    )
    for resource in (*resources, *voice.resources()):
        app.add_routes(resource.routes())
    if account is not None:
        tokens = BandwidthTokens(carrier, account)
        app.add_routes(tokens.routes())
        app.add_subapp(BANDWIDTH_PREFIX, make_bandwidth_app(carrier, delivery, account, tokens))
    if zoom is not None:
        zoom.mount(app)
    if voicebase is None:
        app.add_routes(NoVoiceBase().routes())
    else:
        voicebase.mount(app)
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


def _is_twilios(request: web.Request) -> bool:
    """Bandwidth's are answered below its own gate, and tokens without one; Zoom's and VoiceBase's below theirs."""
    others = (BANDWIDTH_PREFIX, BANDWIDTH_TOKEN_PATH, ZOOM_PREFIX, DOWNLOAD_PREFIX, VOICEBASE_PREFIX)
    return not _is_control(request) and not request.path.startswith(others)


def _record(carrier: Carrier) -> Middleware:
    """Keeps every request of the vendor's protocol with its answer, also those that were refused."""

    @web.middleware
    async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _is_control(request):
            return await handler(request)
        at = carrier.now()
        form = await _form(request)
        response = await handler(request)
        answered = request.transport is not None and not request.transport.is_closing()
        carrier.record(
            AskedFor(
                at=at,
                method=request.method,
                path=request.path,
                query=[[name, value] for name, value in request.query.items()],
                form=form,
                status=response.status if answered else None,
            )
        )
        return response

    return record


async def _form(request: web.Request) -> list[list[str]]:
    """The fields of a body, a form's or a JSON object's; of a file its name."""
    if request.content_type != "application/json":
        form = await request.post()
        return [[name, _written(value)] for name, value in form.items()]
    try:
        fields = await request.json()
    except ValueError:
        return []
    return [[name, value if isinstance(value, str) else json.dumps(value)] for name, value in _items(fields)]


def _written(value: object) -> str:
    return value.filename if isinstance(value, web.FileField) else str(value)


def _items(fields: Any) -> Iterable[tuple[str, Any]]:
    return fields.items() if isinstance(fields, dict) else ()


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
        if not _is_twilios(request) or request.path.startswith(CDN_PREFIX):
            return await handler(request)
        if not compare_digest(credentials_of(request), expected):
            raise Refusal(401, 20003, "Authenticate")
        if request.match_info.get("account_sid", settings.account_sid) != settings.account_sid:
            raise not_found(request.path)
        return await handler(request)

    return authenticate


class _Manners:
    """gate.Manners of Twilio."""

    async def identity(self, request: web.Request) -> tuple[str, ...]:
        form = await request.post()
        text = str(form.get("Body", form.get("Twiml", "")))
        return text, *(str(form.get(name, "")) for name in ("To", "From", "StatusCallback"))

    def not_known(self, unknown: TriggerUnknown) -> Exception:
        return Refusal(400, TRIGGER_UNKNOWN, f"the sandbox does not know {unknown}")

    def untrue(self, answer: Answer, *, retry_after: int | None) -> web.Response:
        if answer.status == 429:
            wait = 1 if retry_after is None else retry_after
            return Refusal(429, 20429, "Too Many Requests", retry_after=wait).answer()
        if answer.status in (500, 503):
            code = 20500 if answer.status == 500 else 20503
            message = "An internal server error has occurred"
            return Refusal(answer.status, code, message, retry_after=retry_after).answer()
        return bad_gateway(answer, success=201)


def _misbehave(carrier: Carrier) -> Middleware:
    manners = _Manners()

    @web.middleware
    async def misbehave(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _is_twilios(request):
            return await handler(request)
        return await treat(carrier, manners, request, handler)

    return misbehave
