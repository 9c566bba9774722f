"""The part of the sandbox that plays VoiceBase, below `/v3/`: recordings become transcripts, and callbacks tell of it.

POST   /v3/media               multipart: `media`, a WAV file, and `configuration` and `metadata`, JSON, both optional
GET    /v3/media               every recording
GET    /v3/media/{id}          one, with its transcript when it is finished; also …/progress, …/transcript
DELETE /v3/media/{id}          forget one

A bearer token is asked for. Callbacks of the configuration's `publish` are posted once a recording is finished, only
those of type `analytics`, and without a signature. An answer of 200 to 299 takes one; else VoiceBase tries three times
at once, and does so again 15 and 30 minutes, 1, 2, 4 and 8 hours later, of simulated time. The words are those that the
sandbox knows were spoken in recordings of its own, and of others always the same.

What is told of it, and how it misbehaves beside what everybody's requests do:

GET    /sandbox/voicebase      {"media": […], "manner": …as below…}
PUT    /sandbox/voicebase      for recordings uploaded from now on, each optional, in place of what was set before:
                               {"failure"     recordings fail, with these words
                                "delay_ms"    of simulated time, before one is finished
                                "callbacks"   in-order, duplicated, missing}
DELETE /sandbox/voicebase      behave again
"""

import json
from dataclasses import asdict, dataclass
from hmac import compare_digest
from typing import Any
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.fields import ControlRefusal, fields_of, one_of, whole
from server.providers.sandbox.gate import bad_gateway, treat
from server.providers.sandbox.journal import Journal
from server.providers.sandbox.misbehaviour import Answer, Callbacks, TriggerUnknown
from server.providers.sandbox.settings import SandboxSettings
from server.providers.sandbox.validity import is_http_url
from server.providers.sandbox.voicebase_callbacks import Teller
from server.providers.sandbox.voicebase_media import Callback, Json, Media, Undecodable, words_in

VOICEBASE_PREFIX = "/v3/"

_CONTROL = "/sandbox/voicebase"
_CALLBACKS = (Callbacks.IN_ORDER, Callbacks.DUPLICATED, Callbacks.MISSING)
_LONGEST_MS = 86_400_000
_LONGEST_FAILURE = 1000


class VoiceBaseRefusal(Exception):
    """A request that VoiceBase would not carry out."""

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self._status = status
        self._message = message
        self._headers = {} if retry_after is None else {"Retry-After": str(retry_after)}

    def answer(self) -> web.Response:
        """The error JSON."""
        body = {"status": self._status, "errors": [{"error": self._message}]}
        return web.json_response(body, status=self._status, headers=self._headers)


@dataclass(frozen=True)
class Manner:
    """How recordings are treated that are uploaded from now on."""

    failure: str | None = None
    delay_ms: int = 0
    callbacks: str = Callbacks.IN_ORDER


class VoiceBase:
    """One account's VoiceBase; made inside a running event loop."""

    def __init__(self, carrier: Carrier, settings: SandboxSettings, token: str) -> None:
        journal = Journal(None if settings.data_dir is None else settings.data_dir / "voicebase_journal")
        self._carrier = carrier
        self._teller = Teller(journal, second=settings.second, now=carrier.now)
        self._token = token
        self._manner = Manner()

    def resume(self) -> None:
        """Take up what the journal shows unfinished."""
        self._teller.resume()

    async def aclose(self) -> None:
        """Let go; the journal knows where everything is."""
        await self._teller.aclose()

    def mount(self, app: web.Application) -> None:
        """Add what is below the prefix, and what it is told."""
        api = web.Application(middlewares=[_answer_failures, self._authenticate(), self._misbehave()])
        api.add_routes(
            [
                web.post("/media", self.upload),
                web.get("/media", self.list),
                web.get("/media/{id}", self.fetch),
                web.delete("/media/{id}", self.delete),
                web.get("/media/{id}/progress", self.progress),
                web.get("/media/{id}/transcript", self.transcript),
            ]
        )
        app.add_subapp(VOICEBASE_PREFIX, api)
        app.add_routes(
            [web.get(_CONTROL, self.shown), web.put(_CONTROL, self.misbehave), web.delete(_CONTROL, self.behave)]
        )

    async def reset(self) -> None:
        """Be as on the first day."""
        self._manner = Manner()
        await self._teller.reset()

    async def upload(self, request: web.Request) -> web.Response:
        """Take a recording; it is accepted before it is looked at."""
        form = await request.post()
        media = form.get("media")
        if not isinstance(media, web.FileField):
            raise VoiceBaseRefusal(400, "A media attachment is required.")
        configuration, metadata = (_object(form, name) for name in ("configuration", "metadata"))
        callbacks = _callbacks(configuration)
        failure = self._manner.failure
        length, words = 0, list[Json]()
        try:
            length, words = words_in(media.file.read(), speakers=_speakers(configuration))
        except Undecodable as error:
            failure = failure or str(error)
        taken = Media(
            id=str(uuid4()),
            created=self._carrier.now(),
            content_type=media.content_type,
            length=length,
            callbacks=[asdict(callback) for callback in callbacks],
            metadata=metadata,
            words=words,
            delay=self._manner.delay_ms / 1000,
            manner=self._manner.callbacks,
            will_fail=failure,
        )
        self._teller.take(taken)
        return web.json_response({"_links": taken.links(), **taken.shown("metadata")})

    async def list(self, _: web.Request) -> web.Response:
        """Every recording, newest first."""
        found = [media.shown("metadata") for media in reversed(self._teller.media.values())]
        return web.json_response({"_links": {"self": {"href": "/v3/media"}}, "media": found})

    async def fetch(self, request: web.Request) -> web.Response:
        """One recording as it is now."""
        media = self._asked_for(request)
        return web.json_response({"_links": media.links(), **media.shown()})

    async def progress(self, request: web.Request) -> web.Response:
        """Whether it is finished."""
        media = self._asked_for(request)
        progress = {"mediaId": media.id, "status": media.status}
        return web.json_response({"_links": media.links(), "progress": progress})

    async def transcript(self, request: web.Request) -> web.Response:
        """What was said, once that is known."""
        media = self._asked_for(request)
        if media.status != "finished":
            raise VoiceBaseRefusal(404, f"The media is {media.status}.")
        return web.json_response({"_links": media.links(), **media.shown()["transcript"]})

    async def delete(self, request: web.Request) -> web.Response:
        """Forget one; nothing more is told of it."""
        self._teller.drop(self._asked_for(request))
        return web.Response(status=204)

    async def shown(self, _: web.Request) -> web.Response:
        """What was uploaded, and how it is treated."""
        media = [{**each.shown(), "callbacks": each.callbacks} for each in self._teller.media.values()]
        return web.json_response({"media": media, "manner": asdict(self._manner)})

    async def misbehave(self, request: web.Request) -> web.Response:
        """Treat recordings so from now on."""
        fields = await fields_of(request)
        failure = fields.take("failure", _is_failure, f"a text of 1 to {_LONGEST_FAILURE} characters")
        delay = fields.take("delay_ms", whole(0, _LONGEST_MS), f"0 to {_LONGEST_MS}")
        callbacks = fields.take("callbacks", one_of(_CALLBACKS), f"one of {', '.join(_CALLBACKS)}")
        fields.finish()
        self._manner = Manner(failure, delay or 0, callbacks or Callbacks.IN_ORDER)
        return web.json_response(asdict(self._manner))

    async def behave(self, _: web.Request) -> web.Response:
        """Behave again."""
        self._manner = Manner()
        return web.json_response({})

    def _asked_for(self, request: web.Request) -> Media:
        media = self._teller.media.get(request.match_info["id"])
        if media is None:
            raise VoiceBaseRefusal(404, "The media was not found.")
        return media

    def _authenticate(self) -> Middleware:
        expected = f"Bearer {self._token}".encode()

        @web.middleware
        async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not compare_digest(request.headers.get("Authorization", "").encode(), expected):
                raise VoiceBaseRefusal(401, "The bearer token is not valid.")
            return await handler(request)

        return authenticate

    def _misbehave(self) -> Middleware:
        manners = _Manners()

        @web.middleware
        async def misbehave(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await treat(self._carrier, manners, request, handler)

        return misbehave


class NoVoiceBase:
    """What stands in place of a VoiceBase that is not played."""

    def routes(self) -> list[web.RouteDef]:
        """Where it would be told something."""
        return [web.route("*", _CONTROL, self.refuse)]

    async def refuse(self, _: web.Request) -> web.Response:
        """Says why."""
        raise ControlRefusal("this sandbox plays no VoiceBase: it was started without a token of an account there")


class _Manners:
    """gate.Manners of VoiceBase: nothing that is uploaded asks for misbehaviour."""

    async def identity(self, _: web.Request) -> tuple[str, ...]:
        return ()

    def not_known(self, unknown: TriggerUnknown) -> Exception:
        raise AssertionError("no text is looked at") from unknown

    def untrue(self, answer: Answer, *, retry_after: int | None) -> web.Response:
        if answer.status == 429:
            wait = 1 if retry_after is None else retry_after
            return VoiceBaseRefusal(429, "Too many requests.", retry_after=wait).answer()
        if answer.status in (500, 503):
            return VoiceBaseRefusal(answer.status, "Something went wrong.", retry_after=retry_after).answer()
        return bad_gateway(answer, success=200)


@web.middleware
async def _answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except VoiceBaseRefusal as refusal:
        return refusal.answer()
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        return VoiceBaseRefusal(error.status, error.reason).answer()


def _object(form: Any, name: str) -> Json:
    """A JSON object of a form, a field or a file; empty where it is not given."""
    value = form.get(name)
    if isinstance(value, web.FileField):
        value = value.file.read()
    try:
        found = json.loads(value or "{}")
    except ValueError as error:
        raise VoiceBaseRefusal(400, f"The {name} is not JSON.") from error
    if not isinstance(found, dict):
        raise VoiceBaseRefusal(400, f"The {name} is not a JSON object.")
    return found


def _callbacks(configuration: Json) -> list[Callback]:
    """Those asked for. Raises VoiceBaseRefusal of one that could not be made, or that the sandbox does not make."""
    publish = configuration.get("publish")
    asked = publish.get("callbacks") if isinstance(publish, dict) else None
    return [_callback(each) for each in (asked if isinstance(asked, list) else [])]


def _callback(asked: Any) -> Callback:
    fields = asked if isinstance(asked, dict) else {}
    url, method, include = fields.get("url"), fields.get("method", "POST"), fields.get("include", [])
    if not isinstance(url, str) or not is_http_url(url):
        raise VoiceBaseRefusal(400, "The url of a callback is not valid.")
    if method not in ("POST", "PUT"):
        raise VoiceBaseRefusal(400, "The method of a callback must be POST or PUT.")
    if fields.get("type", "analytics") != "analytics":
        raise VoiceBaseRefusal(400, "The sandbox makes callbacks of the type analytics only.")
    if not isinstance(include, list):
        raise VoiceBaseRefusal(400, "The include of a callback must be a list.")
    return Callback(url, method, tuple(str(section) for section in include))


def _speakers(configuration: Json) -> tuple[str, ...]:
    """The names that `ingest.stereo` or `ingest.channels` give to who is left and right."""
    ingest = configuration.get("ingest")
    found = ingest if isinstance(ingest, dict) else {}
    channels = found.get("channels")
    if isinstance(channels, list):
        return tuple(str(each.get("speaker")) for each in channels[:2] if isinstance(each, dict) and "speaker" in each)
    stereo = found.get("stereo")
    sides = [stereo.get(side) for side in ("left", "right")] if isinstance(stereo, dict) else []
    return tuple(str(side["speaker"]) for side in sides if isinstance(side, dict) and "speaker" in side)


def _is_failure(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_FAILURE
