"""Twilio's Messaging Services and the numbers in them."""

from aiohttp import web

from server.providers.sandbox.answers import (
    Json,
    Refusal,
    absolute_url,
    iso8601,
    list_with_meta,
    not_found,
    page_of,
)
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.records import MessagingService
from server.providers.sandbox.validity import is_http_url

_BOOLEANS = {"true": True, "false": False}


class MessagingServices:
    """List, fetch, and update where texts are posted; list, fetch, add and remove the numbers of one."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def routes(self) -> list[web.RouteDef]:
        """Where the resources live."""
        numbers = "/v1/Services/{service_sid}/PhoneNumbers"
        return [
            web.get("/v1/Services", self.list),
            web.get("/v1/Services/{service_sid}", self.fetch),
            web.post("/v1/Services/{service_sid}", self.update),
            web.get(numbers, self.list_numbers),
            web.post(numbers, self.add_number),
            web.get(f"{numbers}/{{sid}}", self.fetch_number),
            web.delete(f"{numbers}/{{sid}}", self.remove_number),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """All services."""
        page = page_of(request, list(self._carrier.services.values()), sid=lambda service: service.sid)
        records = [self._service_resource(request, service) for service in page.records]
        return list_with_meta(request, page, key="services", records=records)

    async def fetch(self, request: web.Request) -> web.Response:
        """One service."""
        return web.json_response(self._service_resource(request, self._service(request)))

    async def update(self, request: web.Request) -> web.Response:
        """InboundRequestUrl, where an empty one is none, and UseInboundWebhookOnNumber; other fields are not kept."""
        service, form = self._service(request), await request.post()
        url = form.get("InboundRequestUrl")
        on_number = str(form.get("UseInboundWebhookOnNumber", service.use_inbound_webhook_on_number)).lower()
        if url and not is_http_url(str(url)):
            raise Refusal(400, 20001, "InboundRequestUrl is not a valid URL")
        if on_number not in _BOOLEANS:
            raise Refusal(400, 20001, "UseInboundWebhookOnNumber must be true or false")
        service.use_inbound_webhook_on_number = _BOOLEANS[on_number]
        if url is not None:
            service.inbound_request_url = str(url)
        self._carrier.save_service(service)
        return web.json_response(self._service_resource(request, service))

    async def list_numbers(self, request: web.Request) -> web.Response:
        """The numbers of a service."""
        service = self._service(request)
        page = page_of(request, service.number_sids, sid=str)
        records = [self._number_resource(request, service, sid) for sid in page.records]
        return list_with_meta(request, page, key="phone_numbers", records=records)

    async def add_number(self, request: web.Request) -> web.Response:
        """Put one of the account's numbers into the service; a number is in one service at most."""
        service = self._service(request)
        sid = str((await request.post()).get("PhoneNumberSid", ""))
        if sid not in self._carrier.phone_numbers:
            raise Refusal(404, 20404, "The requested PhoneNumberSid was not found")
        if sid in service.number_sids:
            raise Refusal(409, 21710, "Phone Number or Short Code is already in the Messaging Service.")
        if self._carrier.service_of(sid) is not None:
            raise Refusal(409, 21712, "Phone Number is associated with another Messaging Service")
        service.number_sids.append(sid)
        self._carrier.save_service(service)
        return web.json_response(self._number_resource(request, service, sid), status=201)

    async def fetch_number(self, request: web.Request) -> web.Response:
        """One number of a service."""
        service = self._service(request)
        return web.json_response(self._number_resource(request, service, _sid_in(request, service)))

    async def remove_number(self, request: web.Request) -> web.Response:
        """Take a number out of the service; the account keeps it."""
        service = self._service(request)
        service.number_sids.remove(_sid_in(request, service))
        self._carrier.save_service(service)
        return web.Response(status=204)

    def _service(self, request: web.Request) -> MessagingService:
        service = self._carrier.services.get(request.match_info["service_sid"])
        if service is None:
            raise not_found(request.path)
        return service

    def _service_resource(self, request: web.Request, service: MessagingService) -> Json:
        url = absolute_url(request, f"/v1/Services/{service.sid}")
        return {
            "account_sid": self._carrier.account_sid,
            "area_code_geomatch": True,
            "date_created": iso8601(service.created),
            "date_updated": iso8601(service.created),
            "fallback_method": "POST",
            "fallback_to_long_code": True,
            "fallback_url": None,
            "friendly_name": service.friendly_name,
            "inbound_method": "POST",
            "inbound_request_url": self._carrier.inbound_request_url(service) or None,
            "links": {"phone_numbers": f"{url}/PhoneNumbers"},
            "mms_converter": True,
            "scan_message_content": "inherit",
            "sid": service.sid,
            "smart_encoding": False,
            "status_callback": None,
            "sticky_sender": True,
            "synchronous_validation": False,
            "url": url,
            "us_app_to_person_registered": False,
            "use_inbound_webhook_on_number": service.use_inbound_webhook_on_number,
            "usecase": "undeclared",
            "validity_period": 36000,
        }

    def _number_resource(self, request: web.Request, service: MessagingService, sid: str) -> Json:
        return {
            "account_sid": self._carrier.account_sid,
            "capabilities": ["MMS", "SMS", "Voice"],
            "country_code": "US",
            "date_created": iso8601(service.created),
            "date_updated": iso8601(service.created),
            "phone_number": self._carrier.phone_numbers[sid].number,
            "service_sid": service.sid,
            "sid": sid,
            "url": absolute_url(request, f"/v1/Services/{service.sid}/PhoneNumbers/{sid}"),
        }


def _sid_in(request: web.Request, service: MessagingService) -> str:
    sid = request.match_info["sid"]
    if sid not in service.number_sids:
        raise not_found(request.path)
    return sid
