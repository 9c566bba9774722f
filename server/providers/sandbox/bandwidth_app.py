"""The part of the sandbox that plays Bandwidth: an application of its own below `/api/v2/`."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from server.providers.sandbox.bandwidth import BandwidthMessages
from server.providers.sandbox.bandwidth_answers import BandwidthRefusal, NotFound, not_found
from server.providers.sandbox.bandwidth_tokens import BandwidthTokens
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.delivery import Delivery
from server.providers.sandbox.gate import bad_gateway, treat
from server.providers.sandbox.misbehaviour import Answer, TriggerUnknown
from server.providers.sandbox.settings import BandwidthAccount


def make_bandwidth_app(
    carrier: Carrier, delivery: Delivery, account: BandwidthAccount, tokens: BandwidthTokens
) -> web.Application:
    """What is mounted on the sandbox's application."""
    app = web.Application(middlewares=[_answer_failures, _authenticate(account, tokens), _misbehave(carrier)])
    app.add_routes(BandwidthMessages(carrier, delivery, account).routes())
    return app


class _Manners:
    """gate.Manners of Bandwidth."""

    async def identity(self, request: web.Request) -> tuple[str, ...]:
        if request.method != "POST" or request.content_type != "application/json":
            return ()
        try:
            fields = await request.json()
        except ValueError:
            return ()
        names = ("text", "to", "from", "tag")
        return tuple(str(fields.get(name) or "") for name in names) if isinstance(fields, dict) else ()

    def not_known(self, unknown: TriggerUnknown) -> Exception:
        said = {"text": f"the sandbox does not know {unknown}"}
        return BandwidthRefusal(400, "request-validation", "Your request could not be accepted", fields=said)

    def untrue(self, answer: Answer, *, retry_after: int | None) -> web.Response:
        if answer.status == 429:
            description = "The SMS queue for your account is full and cannot accept more messages right now."
            return BandwidthRefusal(
                429,
                "max-message-queue-size-exceeded",
                description,
                retry_after=1 if retry_after is None else retry_after,
            ).answer()
        if answer.status in (500, 503):
            kind = "internal-server-error" if answer.status == 500 else "service-unavailable"
            return BandwidthRefusal(answer.status, kind, "Something went wrong", retry_after=retry_after).answer()
        return bad_gateway(answer, success=202)


@web.middleware
async def _answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BandwidthRefusal as refusal:
        return refusal.answer()
    except web.HTTPMethodNotAllowed:
        return NotFound(405, "Method Not Allowed", request.path).answer()
    except web.HTTPNotFound:
        return not_found(request.path).answer()


def _authenticate(account: BandwidthAccount, tokens: BandwidthTokens) -> Middleware:
    """An access token, not the credentials themselves; another account's path is forbidden."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not tokens.is_good(request):
            raise BandwidthRefusal(401, "unauthorized", "Authentication Failed")
        if request.match_info.get("account_id", account.account_id) != account.account_id:
            raise BandwidthRefusal(403, "forbidden", "Access Denied")
        return await handler(request)

    return authenticate


def _misbehave(carrier: Carrier) -> Middleware:
    manners = _Manners()

    @web.middleware
    async def misbehave(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await treat(carrier, manners, request, handler)

    return misbehave
