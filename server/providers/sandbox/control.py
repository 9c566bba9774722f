"""What a person or a test tells the sandbox and asks of it, beside Twilio's protocol. It asks for no credentials.

GET    /sandbox/health                 {"status": "ready"}
POST   /sandbox/texts                  a phone sends a text to a number: {"from", "to", "body", "media", "times"};
                                        see `texts.py`
GET    /sandbox/messages?to=&from=&phone=&status=&direction=&updated_since=    every message, oldest first; `phone` is
                                        either side, `direction` one of inbound, outbound-api, outbound-reply
GET    /sandbox/requests?method=&path=        every request made, oldest first (the last 10,000)
GET    /sandbox/misbehaviour           how everybody is treated, and for how many more requests
PUT    /sandbox/misbehaviour           {"answer", "retry_after_ms", "delay_ms", "callbacks", "delivery_failure",
                                        "next_requests"}, each optional; in place of what was set before
DELETE /sandbox/misbehaviour           behave again
GET    /sandbox/handsets               phones that are special
PUT    /sandbox/handsets/{number}      {"opted_out", "delivery_error", "line_type"}, each optional
DELETE /sandbox/handsets/{number}      an ordinary phone again
GET    /sandbox/numbers                the account's numbers, their messaging services, inbound and voice URLs
PUT    /sandbox/numbers/{number}       the account buys a number, which is in no service yet
DELETE /sandbox/numbers/{number}       the account releases a number, which leaves its service too
PUT    /sandbox/services/{sid}         {"advanced_opt_out"}: whether keywords are told to the account as OptOutType
POST   /sandbox/reset                  forget everything
       /sandbox/video/…                 people in sessions of Zoom's Video SDK; see `zoom_control.py`
       /sandbox/calls, phones, clients, conferences, problems    calls and who is on them; see `voice_control.py`
       /sandbox/voicebase               how recordings become transcripts; see `voicebase.py`
"""

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from aiohttp import web

from server.providers.sandbox.carrier import Carrier, phone_number_sid
from server.providers.sandbox.delivery import Delivery
from server.providers.sandbox.fields import ControlRefusal, fields_of, number_of, one_of, spellings_of, whole
from server.providers.sandbox.lookups import LINE_TYPES
from server.providers.sandbox.misbehaviour import MAX_DELAY, Answer, Callbacks, Misbehaviour
from server.providers.sandbox.records import Handset, Message, PhoneNumber
from server.providers.sandbox.settings import BANDWIDTH_APPLICATION_ID, BANDWIDTH_NUMBERS, BandwidthAccount
from server.providers.sandbox.validity import is_phone_number
from server.providers.sandbox.voice_exchange import Exchange
from server.providers.sandbox.voicebase import VoiceBase
from server.providers.sandbox.zoom_app import Zoom

PREFIX = "/sandbox/"

_MAX_DELAY_MS = int(MAX_DELAY.total_seconds() * 1000)


class Control:
    """The control API of one carrier."""

    def __init__(
        self,
        carrier: Carrier,
        delivery: Delivery,
        exchange: Exchange,
        *,
        bandwidth: BandwidthAccount | None,
        zoom: Zoom | None,
        voicebase: VoiceBase | None,
    ) -> None:
        self._carrier = carrier
        self._delivery = delivery
        self._exchange = exchange
        self._bandwidth = bandwidth
        self._zoom = zoom
        self._voicebase = voicebase

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
            web.get("/sandbox/numbers", self.numbers),
            web.put("/sandbox/numbers/{number}", self.buy_number),
            web.delete("/sandbox/numbers/{number}", self.release_number),
            web.put("/sandbox/services/{sid}", self.set_service),
            web.post("/sandbox/reset", self.reset),
        ]

    async def health(self, _: web.Request) -> web.Response:
        """Answers once the journal is replayed and requests are served."""
        return web.json_response({"status": "ready"})

    async def messages(self, request: web.Request) -> web.Response:
        """Every message, whatever became of it, the carrier's own answers among them."""
        to, from_, phone = (request.query.get(name) for name in ("to", "from", "phone"))
        status, direction = request.query.get("status"), request.query.get("direction")
        since = _time(request.query.get("updated_since", "0"))
        found = [
            message_json(message)
            for message in self._carrier.newest_first(to=None if to is None else number_of(to))
            if (from_ is None or message.from_ in spellings_of(from_))
            and (phone is None or {message.from_, message.to} & spellings_of(phone))
            and status in (None, message.status)
            and direction in (None, message.direction)
            and message.updated >= since
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
        fields = await fields_of(request)
        answer = fields.take("answer", one_of([*Answer]), f"one of {', '.join(Answer)}")
        retry_after = fields.take("retry_after_ms", whole(0, _MAX_DELAY_MS), f"0 to {_MAX_DELAY_MS}")
        delay = fields.take("delay_ms", whole(0, _MAX_DELAY_MS), f"0 to {_MAX_DELAY_MS}")
        callbacks = fields.take("callbacks", one_of([*Callbacks]), f"one of {', '.join(Callbacks)}")
        failure = fields.take(
            "delivery_failure", _is_delivery_failure, '{"status": "undelivered"|"failed", "error_code"}'
        )
        requests = fields.take("next_requests", whole(1, 1_000_000), "1 to 1000000")
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
        number = number_of(request.match_info["number"])
        fields = await fields_of(request)
        if not is_phone_number(number):
            fields.refuse("number", "a phone number such as +12065550123")
        opted_out = fields.take("opted_out", lambda value: isinstance(value, bool), "true or false")
        delivery_error = fields.take("delivery_error", whole(30001, 39999), "an error code of delivery, 30001 to 39999")
        line_type = fields.take("line_type", one_of(LINE_TYPES), f"one of {', '.join(LINE_TYPES)}")
        fields.finish()
        handset = Handset(opted_out=bool(opted_out), delivery_error=delivery_error, line_type=line_type)
        self._carrier.set_handset(number, handset)
        return web.json_response(asdict(handset))

    async def forget_handset(self, request: web.Request) -> web.Response:
        """Make a phone ordinary again."""
        self._carrier.set_handset(number_of(request.match_info["number"]), Handset())
        return web.json_response({})

    async def numbers(self, _: web.Request) -> web.Response:
        """The numbers of the account, then those of the account at Bandwidth."""
        numbers = [self._number(each) for each in self._carrier.phone_numbers.values()]
        return web.json_response({"numbers": numbers + _bandwidth_numbers(self._bandwidth)})

    async def buy_number(self, request: web.Request) -> web.Response:
        """Give the account a number."""
        number = number_of(request.match_info["number"])
        if not is_phone_number(number):
            raise ControlRefusal.of("number", "must be a phone number such as +12065550123")
        return web.json_response(self._number(self._carrier.buy(number)))

    async def release_number(self, request: web.Request) -> web.Response:
        """Take a number from the account."""
        number = self._carrier.phone_numbers.get(phone_number_sid(number_of(request.match_info["number"])))
        if number is None:
            raise ControlRefusal.of("number", "must be one of the account's numbers")
        self._carrier.release(number)
        return web.json_response({})

    async def set_service(self, request: web.Request) -> web.Response:
        """What Twilio's console sets and its API does not."""
        service = self._carrier.services.get(request.match_info["sid"])
        fields = await fields_of(request)
        if service is None:
            raise ControlRefusal.of("sid", "must be the sid of a messaging service")
        advanced = fields.take("advanced_opt_out", lambda value: isinstance(value, bool), "true or false")
        fields.finish()
        service.advanced_opt_out = bool(advanced)
        self._carrier.save_service(service)
        return web.json_response({"sid": service.sid, "advanced_opt_out": service.advanced_opt_out})

    async def reset(self, _: web.Request) -> web.Response:
        """Forget messages, calls, requests, handsets, opt-outs, misbehaviour, sessions, and what was done to numbers
        and services."""
        if self._zoom is not None:
            await self._zoom.reset()
        if self._voicebase is not None:
            await self._voicebase.reset()
        await self._exchange.reset()
        await self._delivery.aclose()
        self._carrier.reset()
        return web.json_response({})

    def _number(self, number: PhoneNumber) -> dict[str, Any]:
        service = self._carrier.service_of(number.sid)
        return {
            "number": number.number,
            "sid": number.sid,
            "messaging_service_sid": None if service is None else service.sid,
            "inbound_url": self._carrier.inbound_url(number),
            "voice_url": self._carrier.voice_url(number) or None,
        }


def _bandwidth_numbers(account: BandwidthAccount | None) -> list[dict[str, Any]]:
    """Bandwidth's numbers in the same form; they have no sids, and the messaging application is their service."""
    if account is None:
        return []
    service = {"sid": None, "messaging_service_sid": BANDWIDTH_APPLICATION_ID, "inbound_url": account.callback_url}
    return [{"number": number, **service, "voice_url": None} for number in BANDWIDTH_NUMBERS]


def message_json(message: Message) -> dict[str, Any]:
    """A message as the control API shows it."""
    shown = vars(message)
    due = [status for status, _ in message.callbacks_due]
    return {name: shown[name] for name in _SHOWN} | {"from": message.from_, "callbacks_due": due}


def _time(written: str) -> float:
    try:
        return float(written)
    except ValueError as error:
        raise ControlRefusal.of("updated_since", "must be a time in Unix seconds") from error


def _is_delivery_failure(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"status", "error_code"}
        and value["status"] in ("undelivered", "failed")
        and isinstance(value["error_code"], int)
    )


def _ms(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


_SHOWN = (
    "sid",
    "vendor",
    "direction",
    "by_carrier",
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
