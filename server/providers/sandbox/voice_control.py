"""What a person or a test tells the sandbox's exchange, and asks of it.

POST   /sandbox/calls                    {"from", "to"}: a phone calls one of the account's numbers
GET    /sandbox/calls?phone=&direction=&status=    every call, oldest first; `phone` is either side
GET    /sandbox/calls/{sid}              one call, and what those on the phone have heard so far
POST   /sandbox/calls/{sid}/digits       {"digits"}: whoever is on the phone presses keys
POST   /sandbox/calls/{sid}/speech       {"text"}: … or says something
POST   /sandbox/calls/{sid}/hangup       {}: … or hangs up; declines while it rings
GET    /sandbox/phones                   phones that are special, and browsers that are registered, by `client:IDENTITY`
PUT    /sandbox/phones/{number}          how a phone behaves when it is called, each optional:
                                          "pickup"             human, machine, no-answer, busy, unreachable
                                          "answers_after_ms"   after the first ring, of simulated time
                                          "hangs_up_after_ms"  after the answer; null stays until the call ends
                                          "presses"            keys for each menu, in order; "" lets one pass
                                          "says"               what is said to each recording, in order
                                          "greeting"           what a machine says
                                          "callbacks"          in-order, duplicated, reordered, missing
                                          "scenario"           none, mocked
DELETE /sandbox/phones/{number}          an ordinary phone again
POST   /sandbox/clients                  {"token", …as of a phone}: a browser registers with an access token, to be
                                          called; again is another behaviour
DELETE /sandbox/clients/{identity}       it is closed
POST   /sandbox/clients/{identity}/calls {"token", "params"}: a browser calls out. The token's own parameters count
                                          where both name one
GET    /sandbox/conferences              every conference, oldest first, and who is or was in it
GET    /sandbox/problems                 what was wrong with the account's answers, with Twilio's codes, oldest first

A call is {"sid", "parent_call_sid", "direction", "from", "to", "status", "answered_by", "created", "started", "ended",
"duration", "heard"}: times are Unix seconds, a duration is simulated seconds, and `heard` is what was said and played
to whoever is on the phone: [{"at", "kind", "text"}], where `kind` is say, play, gather, record or dial. Callbacks of a
call misbehave as everybody's do, or else as is said of the phone.

What an access token must be is in `voice_tokens.py`.
"""

import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from server.providers.sandbox.carrier import Carrier, phone_number_sid
from server.providers.sandbox.fields import ControlRefusal, Fields, fields_of, number_of, one_of, whole
from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.settings import VoiceApp
from server.providers.sandbox.validity import is_phone_number
from server.providers.sandbox.voice_exchange import Exchange
from server.providers.sandbox.voice_phones import Phone, Pickup, Scenario
from server.providers.sandbox.voice_records import (
    Call,
    Conference,
    NotFound,
    NotInProgress,
    StatusCallback,
    Webhook,
)
from server.providers.sandbox.voice_tokens import AccessTokenRefused, Browser, browser_of

Json = dict[str, Any]
Fits = Callable[[Any], bool]

_LONGEST_MS = 86_400_000
_LONGEST_TEXT = 5_000
_KEYS = re.compile(r"[0-9*#]{1,100}")
_PRESSES = re.compile(r"[0-9*#]{0,100}")
_PHONE_NUMBER = "a phone number such as +14155550123"


class VoiceControl:
    """The control API of one account's exchange."""

    def __init__(
        self, carrier: Carrier, exchange: Exchange, *, voice_app: VoiceApp | None, base_url: str | None
    ) -> None:
        self._carrier = carrier
        self._exchange = exchange
        self._voice_app = voice_app
        self._base_url = base_url

    def routes(self) -> list[web.RouteDef]:
        """Where it lives."""
        return [
            web.post("/sandbox/calls", self.call_in),
            web.get("/sandbox/calls", self.calls),
            web.get("/sandbox/calls/{sid}", self.call),
            web.post("/sandbox/calls/{sid}/digits", self.press),
            web.post("/sandbox/calls/{sid}/speech", self.say),
            web.post("/sandbox/calls/{sid}/hangup", self.hang_up),
            web.get("/sandbox/phones", self.phones),
            web.put("/sandbox/phones/{number}", self.set_phone),
            web.delete("/sandbox/phones/{number}", self.forget_phone),
            web.post("/sandbox/clients", self.register),
            web.delete("/sandbox/clients/{identity}", self.close),
            web.post("/sandbox/clients/{identity}/calls", self.connect),
            web.get("/sandbox/conferences", self.conferences),
            web.get("/sandbox/problems", self.problems),
        ]

    async def call_in(self, request: web.Request) -> web.Response:
        """A phone calls."""
        fields = await fields_of(request)
        from_ = fields.need("from", _is_phone_number, _PHONE_NUMBER)
        owns = "one of the account's numbers, which GET /sandbox/numbers lists"
        to = fields.need("to", lambda value: isinstance(value, str) and self._carrier.owns(value), owns)
        fields.finish()
        number = self._carrier.phone_numbers[phone_number_sid(to)]
        url = self._carrier.voice_url(number)
        if not url:
            raise ControlRefusal.of("to", "must be a number with a voice URL; this one rings nowhere")
        call = self._exchange.phone_calls(
            from_=from_,
            to=to,
            document=Webhook(url),
            base_url=self._base_url or str(request.url.origin()),
            status_callback=_told_of_the_end(self._carrier.status_callback(number)),
            callbacks=self._everybodys_callbacks(),
        )
        return web.json_response(_call(call))

    async def calls(self, request: web.Request) -> web.Response:
        """Every call."""
        phone, direction, status = (request.query.get(name) for name in ("phone", "direction", "status"))
        found = [
            _call(call)
            for call in reversed(self._exchange.calls())
            if (phone is None or {call.from_, call.to} & {phone, number_of(phone)})
            and direction in (None, call.direction)
            and status in (None, call.status)
        ]
        return web.json_response({"calls": found})

    async def call(self, request: web.Request) -> web.Response:
        """One call."""
        return web.json_response(_call(self._asked_for(request)))

    async def press(self, request: web.Request) -> web.Response:
        """Press keys."""
        call = self._asked_for(request)
        fields = await fields_of(request)
        digits = fields.need("digits", _matches(_KEYS), "1 to 100 of 0123456789*#")
        fields.finish()
        return self._act(call, lambda: self._exchange.press(call.sid, digits))

    async def say(self, request: web.Request) -> web.Response:
        """Say something."""
        call = self._asked_for(request)
        fields = await fields_of(request)
        text = fields.need("text", _is_said, f"a text of 1 to {_LONGEST_TEXT} characters")
        fields.finish()
        return self._act(call, lambda: self._exchange.say(call.sid, text))

    async def hang_up(self, request: web.Request) -> web.Response:
        """Hang up."""
        call = self._asked_for(request)
        (await fields_of(request)).finish()
        return self._act(call, lambda: self._exchange.hang_up(call.sid))

    async def phones(self, _: web.Request) -> web.Response:
        """Those that are special."""
        return web.json_response({address: asdict(phone) for address, phone in self._exchange.phones.all().items()})

    async def set_phone(self, request: web.Request) -> web.Response:
        """Make a phone special."""
        number = number_of(request.match_info["number"])
        fields = await fields_of(request)
        if not is_phone_number(number):
            fields.refuse("number", _PHONE_NUMBER)
        phone = _phone(fields)
        fields.finish()
        self._exchange.phones.put(number, phone)
        return web.json_response(asdict(phone))

    async def forget_phone(self, request: web.Request) -> web.Response:
        """Make a phone ordinary again."""
        self._exchange.phones.forget(number_of(request.match_info["number"]))
        return web.json_response({})

    async def register(self, request: web.Request) -> web.Response:
        """A browser registers."""
        fields = await fields_of(request)
        browser = self._browser(fields)
        phone = _phone(fields)
        fields.finish()
        if not browser.may_be_called:
            raise ControlRefusal.of("token", "must grant incoming calls")
        self._exchange.phones.put(f"client:{browser.identity}", phone)
        return web.json_response({"identity": browser.identity, **asdict(phone)})

    async def close(self, request: web.Request) -> web.Response:
        """A browser is closed."""
        self._exchange.phones.forget(f"client:{request.match_info['identity']}")
        return web.json_response({})

    async def connect(self, request: web.Request) -> web.Response:
        """A browser calls out."""
        fields = await fields_of(request)
        browser = self._browser(fields)
        params = fields.take("params", _are_params, "an object of texts") or {}
        fields.finish()
        app = self._voice_app
        assert app is not None, "without an app no token is read"
        if browser.identity != request.match_info["identity"]:
            raise ControlRefusal.of("token", f"must be of {request.match_info['identity']}, not {browser.identity}")
        if browser.application_sid != app.twiml_app_sid:
            raise ControlRefusal.of("token", "must grant outgoing calls with the account's TwiML App (21218)")
        call = self._exchange.client_connects(
            identity=browser.identity,
            application_sid=app.twiml_app_sid,
            document=Webhook(app.voice_url),
            parameters={**params, **browser.parameters},
            base_url=self._base_url or str(request.url.origin()),
            status_callback=_told_of_the_end(app.status_callback),
            callbacks=self._everybodys_callbacks(),
        )
        return web.json_response(_call(call))

    async def conferences(self, _: web.Request) -> web.Response:
        """Every conference."""
        found = [_conference(conference) for conference in reversed(self._exchange.conferences())]
        return web.json_response({"conferences": found})

    async def problems(self, _: web.Request) -> web.Response:
        """What was wrong."""
        return web.json_response({"problems": [asdict(problem) for problem in self._exchange.problems()]})

    def _everybodys_callbacks(self) -> Callbacks:
        everybody, _ = self._carrier.misbehaviour()
        return everybody.callbacks

    def _asked_for(self, request: web.Request) -> Call:
        try:
            return self._exchange.call(request.match_info["sid"])
        except NotFound as error:
            raise ControlRefusal.of("sid", "must be the sid of a call, which GET /sandbox/calls lists") from error

    def _act(self, call: Call, act: Callable[[], object]) -> web.Response:
        try:
            act()
        except NotInProgress as error:
            raise ControlRefusal.of("sid", f"must be of a call that lasts: {error}") from error
        return web.json_response(_call(call))

    def _browser(self, fields: Fields) -> Browser:
        token = fields.need("token", lambda value: isinstance(value, str), "an access token")
        if self._voice_app is None:
            raise ControlRefusal(
                "this sandbox lets no browser call: it was started without a TwiML App and its API key"
            )
        if token is None:
            fields.finish()
        try:
            return browser_of(token, self._voice_app, account_sid=self._carrier.account_sid, now=self._carrier.now())
        except AccessTokenRefused as refused:
            raise ControlRefusal.of("token", str(refused)) from refused


def _told_of_the_end(url: str | None) -> StatusCallback | None:
    """The status callback of a number or an App, which names no events: Twilio posts the end of a call there."""
    return StatusCallback(url) if url else None


def _phone(fields: Fields) -> Phone:
    """How it behaves; what is wrong with the fields is noted."""
    usual = Phone()
    pickup = fields.take("pickup", one_of([*Pickup]), f"one of {', '.join(Pickup)}")
    answers = fields.take("answers_after_ms", whole(0, _LONGEST_MS), f"0 to {_LONGEST_MS}")
    hangs_up = fields.take("hangs_up_after_ms", whole(0, _LONGEST_MS), f"0 to {_LONGEST_MS}, or null")
    presses = fields.take("presses", _all(_matches(_PRESSES)), "a list of keys, each at most 100 of 0123456789*#")
    says = fields.take("says", _all(_is_text), f"a list of texts, each at most {_LONGEST_TEXT} characters")
    greeting = fields.take("greeting", _is_text, f"a text of at most {_LONGEST_TEXT} characters")
    callbacks = fields.take("callbacks", one_of([*Callbacks]), f"one of {', '.join(Callbacks)}")
    scenario = fields.take("scenario", one_of([*Scenario]), f"one of {', '.join(Scenario)}")
    return Phone(
        pickup=Pickup(pickup or usual.pickup),
        answers_after_ms=answers or 0,
        hangs_up_after_ms=hangs_up,
        presses=tuple(presses or ()),
        says=tuple(says or ()),
        greeting=usual.greeting if greeting is None else greeting,
        callbacks=Callbacks(callbacks or usual.callbacks),
        scenario=Scenario(scenario or usual.scenario),
    )


def _call(call: Call) -> Json:
    return {
        "sid": call.sid,
        "parent_call_sid": call.parent_call_sid,
        "direction": call.direction,
        "from": call.from_,
        "to": call.to,
        "status": call.status,
        "answered_by": call.answered_by,
        "created": call.created,
        "started": call.started,
        "ended": call.ended,
        "duration": call.duration,
        "heard": [asdict(heard) for heard in call.heard],
    }


def _conference(conference: Conference) -> Json:
    shown = asdict(conference)
    del shown["base_url"]
    return shown | {"participants": [asdict(each) for each in conference.participants.values()]}


def _is_phone_number(value: Any) -> bool:
    return isinstance(value, str) and is_phone_number(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_said(value: Any) -> bool:
    return _is_text(value) and bool(value.strip())


def _are_params(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def _matches(pattern: re.Pattern[str]) -> Fits:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _all(fits: Fits) -> Fits:
    return lambda value: isinstance(value, list) and all(fits(each) for each in value)
