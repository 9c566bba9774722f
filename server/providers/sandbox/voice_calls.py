"""Twilio's Calls resource. What a create may ask for and the sandbox cannot do (recording by REST, SIP) is refused.

Twilio would answer 201 for an unknown StatusCallbackEvent, and then never call back; here that is refused too.
"""

from aiohttp import web

from server.providers.sandbox.answers import (
    API_VERSION,
    Json,
    Refusal,
    list_2010,
    not_found,
    page_of,
    rfc2822,
)
from server.providers.sandbox.carrier import Carrier, phone_number_sid
from server.providers.sandbox.messages import MISBEHAVIOUR
from server.providers.sandbox.settings import VoiceApp
from server.providers.sandbox.twiml import TwimlInvalid
from server.providers.sandbox.voice_exchange import Exchange
from server.providers.sandbox.voice_forms import PROGRESS, Form, fits, form_of, time_filter
from server.providers.sandbox.voice_records import (
    Call,
    Direction,
    Document,
    NotFound,
    NotInProgress,
    Webhook,
)
from server.providers.sandbox.voice_twiml import verbs_in
from server.providers.sandbox.voice_validity import check_people, formatted, machine_detection_of

MAX_TWIML = 4000

_INVALID_URL = 21205
INVALID_TIMEOUT = 21208
_CALLS_RESOURCE = 21200


class Calls:
    """Create, fetch, list, redirect and end."""

    def __init__(
        self, carrier: Carrier, exchange: Exchange, *, voice_app: VoiceApp | None, base_url: str | None
    ) -> None:
        self._carrier = carrier
        self._exchange = exchange
        self._voice_app = voice_app
        self._base_url = base_url

    def routes(self) -> list[web.RouteDef]:
        """Where the resource lives."""
        base = f"/{API_VERSION}/Accounts/{{account_sid}}/Calls"
        one = f"{base}/{{sid}}.json"
        return [
            web.post(f"{base}.json", self.create),
            web.get(f"{base}.json", self.list),
            web.get(one, self.fetch),
            web.post(one, self.update),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Call somebody, or refuse it with Twilio's code."""
        form = await form_of(request)
        to, from_ = check_people(self._carrier, form)
        document = self._document(form)
        if document is None:
            raise Refusal(400, _INVALID_URL, "Url parameter is required.")
        status_callback = form.callback("StatusCallback", events=PROGRESS, default=("completed",))
        timeout = form.whole("Timeout", 1, 600, code=INVALID_TIMEOUT)
        time_limit = form.whole("TimeLimit", 1, 86_400)
        machine_detection = machine_detection_of(form)
        # Nobody here can hear them.
        form.ignore("SendDigits", "CallReason")
        form.finish()
        call = self._exchange.create_call(
            to=to,
            from_=from_,
            document=document,
            base_url=self._base_url or str(request.url.origin()),
            status_callback=status_callback,
            timeout=timeout or 60,
            time_limit=time_limit or 14_400,
            machine_detection=machine_detection,
            callbacks=request[MISBEHAVIOUR].callbacks,
        )
        return web.json_response(self._resource(call), status=201)

    async def list(self, request: web.Request) -> web.Response:
        """Newest first, by To, From, ParentCallSid, Status, StartTime and EndTime.

        A call counts as started when it was created, as here it is dialled at once.
        """
        started, ended = time_filter(request, "StartTime"), time_filter(request, "EndTime")
        found = [
            call
            for call in self._exchange.calls()
            if fits(request, To=call.to, From=call.from_, ParentCallSid=call.parent_call_sid, Status=call.rest_status)
            and started(call.created)
            and ended(call.ended)
        ]
        page = page_of(request, found, sid=lambda call: call.sid)
        return list_2010(request, page, key="calls", records=[self._resource(call) for call in page.records])

    async def fetch(self, request: web.Request) -> web.Response:
        """One call as it is now."""
        return web.json_response(self._resource(self._asked_for(request)))

    async def update(self, request: web.Request) -> web.Response:
        """Url or Twiml redirect a call, the Status `completed` ends it, `canceled` one that was not answered."""
        call = self._asked_for(request)
        form = await form_of(request)
        document = self._document(form)
        status = form.word("Status", "completed", "canceled")
        form.finish()
        if document is None and status is None:
            raise Refusal(400, _INVALID_URL, "Url, Twiml or Status is required.")
        try:
            updated = self._exchange.update_call(call.sid, status=status, document=None if status else document)
        except NotInProgress as error:
            done = "cancel" if status else "redirect"
            raise Refusal(400, 21220, f"Call is not in-progress. Cannot {done}.") from error
        return web.json_response(self._resource(updated))

    def _asked_for(self, request: web.Request) -> Call:
        try:
            return self._exchange.call(request.match_info["sid"])
        except NotFound as error:
            raise not_found(request.path) from error

    def _document(self, form: Form) -> Document | None:
        """What is asked or done when the call is answered; where both are given Twiml is not looked at."""
        url = form.webhook("Url", "Method", code=_INVALID_URL)
        application, twiml = form.text("ApplicationSid"), form.text("Twiml")
        if application is not None:
            if self._voice_app is None or application != self._voice_app.twiml_app_sid:
                raise Refusal(400, 21218, f"Invalid ApplicationSid: {application}")
            return Webhook(self._voice_app.voice_url)
        if url is not None or twiml is None:
            return url
        if len(twiml) > MAX_TWIML:
            raise Refusal(400, _CALLS_RESOURCE, f"Twiml must be at most {MAX_TWIML} characters")
        try:
            verbs_in(twiml)
        except TwimlInvalid as invalid:
            raise Refusal(400, invalid.code, f"Twiml cannot be carried out: {invalid}") from invalid
        return twiml

    def _resource(self, call: Call) -> Json:
        account = self._carrier.account_sid
        path = f"/{API_VERSION}/Accounts/{account}/Calls/{call.sid}"
        ours = call.to if call.direction is Direction.INBOUND else call.from_
        return {
            "account_sid": account,
            "answered_by": call.answered_by,
            "api_version": API_VERSION,
            "caller_name": None,
            "date_created": rfc2822(call.created),
            "date_updated": rfc2822(call.ended or call.started or call.created),
            "direction": call.direction,
            "duration": None if call.duration is None else str(call.duration),
            "end_time": rfc2822(call.ended),
            "forwarded_from": None,
            "from": call.from_,
            "from_formatted": formatted(call.from_),
            "group_sid": None,
            "parent_call_sid": call.parent_call_sid,
            "phone_number_sid": phone_number_sid(ours) if self._carrier.owns(ours) else None,
            "price": None,
            "price_unit": "USD",
            "queue_time": "0",
            "sid": call.sid,
            "start_time": None if call.rest_status == "queued" else rfc2822(call.started or call.created),
            "status": call.rest_status,
            "subresource_uris": {"recordings": f"{path}/Recordings.json"},
            "to": call.to,
            "to_formatted": formatted(call.to),
            "trunk_sid": None,
            "uri": f"{path}.json",
        }
