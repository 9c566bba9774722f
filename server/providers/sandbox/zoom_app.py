"""The part of the sandbox that plays Zoom: its REST API below `/v2/videosdk/`, its downloads below `/rec/`.

Misbehaviour counts for both. A trigger is looked for in the name of the session that a PUT is about, such as the one
that ends it, and its attempts are counted.
"""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.gate import bad_gateway, treat
from server.providers.sandbox.journal import Journal
from server.providers.sandbox.misbehaviour import Answer, TriggerUnknown
from server.providers.sandbox.settings import SandboxSettings, ZoomAccount
from server.providers.sandbox.zoom_answers import DOWNLOAD_PREFIX, ZOOM_PREFIX, ZoomRefusal
from server.providers.sandbox.zoom_people import People
from server.providers.sandbox.zoom_recordings import Downloads, Recordings
from server.providers.sandbox.zoom_sessions import Sessions, session_at
from server.providers.sandbox.zoom_state import ZoomState
from server.providers.sandbox.zoom_tokens import api_refusal
from server.providers.sandbox.zoom_webhooks import Webhooks


class Zoom:
    """One account's Zoom, its journal replayed; made inside a running event loop."""

    def __init__(self, carrier: Carrier, settings: SandboxSettings, account: ZoomAccount) -> None:
        journal = Journal(None if settings.data_dir is None else settings.data_dir / "zoom_journal")
        self.account = account
        self.state = ZoomState(journal, now=carrier.now)
        for session in self.state.sessions.values():
            # It may be elsewhere than before.
            session.base_url = settings.base_url or session.base_url
        self.webhooks = Webhooks(self.state, account)
        self.people = People(carrier, self.state, self.webhooks, account, step_delay=settings.step_delay)
        self._carrier = carrier

    def mount(self, app: web.Application) -> None:
        """Add what is below the two prefixes."""
        before = [_answer_failures, _authenticate(self), _misbehave(self._carrier, self.state)]
        api = web.Application(middlewares=before)
        api.add_routes(Sessions(self.state, self.people).routes())
        api.add_routes(Recordings(self.state, self.people, self.account).routes())
        downloads = web.Application(middlewares=[_answer_failures, _misbehave(self._carrier, self.state)])
        downloads.add_routes(Downloads(self.state, self.account).routes())
        app.add_subapp(ZOOM_PREFIX, api)
        app.add_subapp(DOWNLOAD_PREFIX, downloads)

    def resume(self) -> None:
        """Take up what the journal shows unfinished."""
        self.webhooks.resume()
        self.people.resume()

    async def reset(self) -> None:
        """Be as on the first day."""
        await self.people.stop()
        await self.webhooks.stop()
        self.state.reset()

    async def aclose(self) -> None:
        """Let go; the journal knows where everything is."""
        await self.people.stop()
        await self.webhooks.aclose()
        self.state.close()


class _Manners:
    """gate.Manners of Zoom."""

    def __init__(self, state: ZoomState) -> None:
        self._state = state

    async def identity(self, request: web.Request) -> tuple[str, ...]:
        if request.method != "PUT" or "session_id" not in request.match_info:
            return ()
        try:
            session = session_at(request, self._state)
        except ZoomRefusal:
            return ()
        return session.name, session.id, request.path

    def not_known(self, unknown: TriggerUnknown) -> Exception:
        raise AssertionError("nobody joins a session of such a name") from unknown

    def untrue(self, answer: Answer, *, retry_after: int | None) -> web.Response:
        if answer.status == 429:
            message = "You have reached the maximum per-second rate limit for this API. Try again later."
            wait = 1 if retry_after is None else retry_after
            return ZoomRefusal(429, 429, message, retry_after=wait).answer()
        if answer.status in (500, 503):
            return ZoomRefusal(answer.status, answer.status, "Internal Error.", retry_after=retry_after).answer()
        return bad_gateway(answer, success=200)


@web.middleware
async def _answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ZoomRefusal as refusal:
        return refusal.answer()
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        return ZoomRefusal(error.status, 2300, "This API endpoint is not recognized.").answer()


def _authenticate(zoom: Zoom) -> Middleware:
    """A token of the account's API key."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        refusal = api_refusal(authorization, zoom.account, now=zoom.state.now())
        if refusal is not None:
            raise ZoomRefusal(401, 124, refusal)
        return await handler(request)

    return authenticate


def _misbehave(carrier: Carrier, state: ZoomState) -> Middleware:
    manners = _Manners(state)

    @web.middleware
    async def misbehave(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await treat(carrier, manners, request, handler)

    return misbehave
