"""What a person or a test tells the sandbox and asks of it, beside Twilio's protocol. It asks for no credentials.

GET    /sandbox/health                 {"status": "ready"}
GET    /sandbox/messages?to=&from=&status=    every message taken, oldest first
GET    /sandbox/requests?method=&path=        every request made, oldest first (the last 10,000)
GET    /sandbox/misbehaviour           how everybody is treated, and for how many more requests
PUT    /sandbox/misbehaviour           {"answer", "retry_after_ms", "delay_ms", "callbacks", "delivery_failure",
                                        "next_requests"}, each optional; in place of what was set before
DELETE /sandbox/misbehaviour           behave again
GET    /sandbox/handsets               phones that are special
PUT    /sandbox/handsets/{number}      {"opted_out", "delivery_error", "line_type"}, each optional
DELETE /sandbox/handsets/{number}      an ordinary phone again
POST   /sandbox/reset                  forget everything
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from aiohttp import web

from server.providers.sandbox.carrier import Carrier, Handset, Message
from server.providers.sandbox.delivery import Delivery
from server.providers.sandbox.lookups import LINE_TYPES
from server.providers.sandbox.misbehaviour import MAX_DELAY, Answer, Callbacks, Misbehaviour
from server.providers.sandbox.validity import is_phone_number

PREFIX = "/sandbox/"

_MAX_DELAY_MS = int(MAX_DELAY.total_seconds() * 1000)


class Control:
    """The control API of one carrier."""

    def __init__(self, carrier: Carrier, delivery: Delivery) -> None:
        self._carrier = carrier
        self._delivery = delivery

    def routes(self) -> list[web.RouteDef]:
        """Where it lives."""
        return [
            web.get("/sandbox/health", self.health),
            web.get("/sandbox/messages", self.messages),
            web.get("/sandbox/requests", self.requests),
            web.get("/sandbox/misbehaviour", self.misbehaviour),
            web.put("/sandbox/misbehaviour", self.misbehave),
            web.delete("/sandbox/misbehaviour", self.behave),
            web.get("/sandbox/handsets", self.handsets),
            web.put("/sandbox/handsets/{number}", self.set_handset),
            web.delete("/sandbox/handsets/{number}", self.forget_handset),
            web.post("/sandbox/reset", self.reset),
        ]

    async def health(self, _: web.Request) -> web.Response:
        """Answers once the journal is replayed and requests are served."""
        return web.json_response({"status": "ready"})

    async def messages(self, request: web.Request) -> web.Response:
        """Every message taken, whatever became of it."""
        to, from_, status = (request.query.get(name) for name in ("to", "from", "status"))
        found = [
            _message(message)
            for message in self._carrier.newest_first(to=None if to is None else _number(to))
            if (from_ is None or message.from_ == _number(from_)) and status in (None, message.status)
        ]
        found.reverse()
        return web.json_response({"messages": found})

    async def requests(self, request: web.Request) -> web.Response:
        """Every request made with Twilio's protocol; a status of null is one that was left without an answer."""
        method, path = request.query.get("method"), request.query.get("path", "")
        found = [
            asdict(asked) for asked in self._carrier.requests() if method in (None, asked.method) and path in asked.path
        ]
        return web.json_response({"requests": found})

    async def misbehaviour(self, _: web.Request) -> web.Response:
        """How everybody is treated."""
        present, requests = self._carrier.misbehaviour()
        return web.json_response(
            {
                "answer": present.answer,
                "retry_after_ms": None if present.retry_after is None else _ms(present.retry_after),
                "delay_ms": _ms(present.delay),
                "callbacks": present.callbacks,
                "delivery_failure": None
                if present.delivery_failure is None
                else {"status": present.delivery_failure[0], "error_code": present.delivery_failure[1]},
                "next_requests": requests,
            }
        )

    async def misbehave(self, request: web.Request) -> web.Response:
        """Misbehave from the next request on."""
        fields = await _fields(request)
        answer = fields.take("answer", _one_of([*Answer]), f"one of {', '.join(Answer)}")
        retry_after = fields.take("retry_after_ms", _whole(0, _MAX_DELAY_MS), f"0 to {_MAX_DELAY_MS}")
        delay = fields.take("delay_ms", _whole(0, _MAX_DELAY_MS), f"0 to {_MAX_DELAY_MS}")
        callbacks = fields.take("callbacks", _one_of([*Callbacks]), f"one of {', '.join(Callbacks)}")
        failure = fields.take(
            "delivery_failure", _is_delivery_failure, '{"status": "undelivered"|"failed", "error_code"}'
        )
        requests = fields.take("next_requests", _whole(1, 1_000_000), "1 to 1000000")
        fields.finish()
        self._carrier.misbehave(
            Misbehaviour(
                answer=None if answer is None else Answer(answer),
                retry_after=None if retry_after is None else timedelta(milliseconds=retry_after),
                delay=timedelta(milliseconds=delay or 0),
                callbacks=Callbacks(callbacks or Callbacks.IN_ORDER),
                delivery_failure=None if failure is None else (failure["status"], failure["error_code"]),
            ),
            requests=requests,
        )
        return await self.misbehaviour(request)

    async def behave(self, _: web.Request) -> web.Response:
        """Behave again; triggers in texts still count."""
        self._carrier.misbehave(Misbehaviour(), requests=None)
        return web.json_response({})

    async def handsets(self, _: web.Request) -> web.Response:
        """The phones that are special."""
        return web.json_response({number: asdict(handset) for number, handset in self._carrier.handsets.items()})

    async def set_handset(self, request: web.Request) -> web.Response:
        """Make a phone special."""
        number = _number(request.match_info["number"])
        fields = await _fields(request)
        if not is_phone_number(number):
            fields.refuse("number", "a phone number such as +12065550123")
        opted_out = fields.take("opted_out", lambda value: isinstance(value, bool), "true or false")
        delivery_error = fields.take(
            "delivery_error", _whole(30001, 39999), "an error code of delivery, 30001 to 39999"
        )
        line_type = fields.take("line_type", _one_of(LINE_TYPES), f"one of {', '.join(LINE_TYPES)}")
        fields.finish()
        handset = Handset(opted_out=bool(opted_out), delivery_error=delivery_error, line_type=line_type)
        self._carrier.set_handset(number, handset)
        return web.json_response(asdict(handset))

    async def forget_handset(self, request: web.Request) -> web.Response:
        """Make a phone ordinary again."""
        self._carrier.set_handset(_number(request.match_info["number"]), Handset())
        return web.json_response({})

    async def reset(self, _: web.Request) -> web.Response:
        """Forget messages, requests, handsets, the services' numbers and misbehaviour."""
        await self._delivery.aclose()
        self._carrier.reset()
        return web.json_response({})


class ControlRefusal(Exception):
    """A control request that cannot be carried out, with one entry per bad field."""

    def __init__(self, message: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []


class _Fields:
    """The fields of a JSON body: what is wrong with them is collected, so that one answer names it all."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self._errors: list[dict[str, str]] = []

    def take(self, name: str, fits: Callable[[Any], bool], wanted: str) -> Any:
        """The value, None when it is absent or null."""
        value = self._values.pop(name, None)
        if value is not None and not fits(value):
            self.refuse(name, wanted)
            return None
        return value

    def refuse(self, name: str, wanted: str) -> None:
        """Note that a field is not as wanted."""
        self._errors.append({"field": name, "description": f"must be {wanted}"})

    def finish(self) -> None:
        """Raises 400 with everything that is wrong, unknown fields among it."""
        self._errors.extend({"field": name, "description": "is not known here"} for name in self._values)
        if self._errors:
            raise ControlRefusal("; ".join(f"{e['field']} {e['description']}" for e in self._errors), self._errors)


def error_answer(status: int, message: str, errors: list[dict[str, str]]) -> web.Response:
    """The control API's error JSON."""
    return web.json_response({"message": message, "errors": errors}, status=status)


async def _fields(request: web.Request) -> _Fields:
    try:
        body = await request.json()
    except ValueError as error:
        raise ControlRefusal("the body is not JSON") from error
    if not isinstance(body, dict):
        raise ControlRefusal("the body must be a JSON object")
    return _Fields(body)


def _one_of(words: list[Any] | tuple[str, ...]) -> Callable[[Any], bool]:
    return lambda value: value in words


def _whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_delivery_failure(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"status", "error_code"}
        and value["status"] in ("undelivered", "failed")
        and isinstance(value["error_code"], int)
    )


def _number(written: str) -> str:
    """A plus sign that nobody encoded arrives as a space."""
    return "+" + written.strip().removeprefix("+")


def _ms(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


def _message(message: Message) -> dict[str, Any]:
    shown = vars(message)
    due = [status for status, _ in message.callbacks_due]
    return {name: shown[name] for name in _SHOWN} | {"from": message.from_, "callbacks_due": due}


_SHOWN = (
    "sid",
    "to",
    "body",
    "media_urls",
    "messaging_service_sid",
    "status_callback",
    "status",
    "error_code",
    "created",
    "sent",
    "updated",
)
