"""Twilio's IncomingPhoneNumbers resource: the numbers the account owns."""

import re

from aiohttp import web

from server.providers.sandbox.answers import API_VERSION, Json, Refusal, list_2010, not_found, page_of, rfc2822
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.lookups import national_format
from server.providers.sandbox.records import PhoneNumber
from server.providers.sandbox.validity import is_http_url


class PhoneNumbers:
    """List, fetch, and update where texts are posted and what calls ask and tell."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def routes(self) -> list[web.RouteDef]:
        """Where the resource lives."""
        base = f"/{API_VERSION}/Accounts/{{account_sid}}/IncomingPhoneNumbers"
        one = f"{base}/{{sid}}.json"
        return [web.get(f"{base}.json", self.list), web.get(one, self.fetch), web.post(one, self.update)]

    async def list(self, request: web.Request) -> web.Response:
        """All, or those with PhoneNumber in them (`*` stands for any digit) or of one FriendlyName."""
        wanted = re.escape(request.query.get("PhoneNumber", "")).replace(r"\*", r"\d")
        name = request.query.get("FriendlyName")
        found = [
            number
            for number in self._carrier.phone_numbers.values()
            if re.search(wanted, number.number) and name in (None, national_format(number.number))
        ]
        page = page_of(request, found, sid=lambda number: number.sid)
        records = [self._resource(number) for number in page.records]
        return list_2010(request, page, key="incoming_phone_numbers", records=records)

    async def fetch(self, request: web.Request) -> web.Response:
        """One number."""
        return web.json_response(self._resource(self._asked_for(request)))

    async def update(self, request: web.Request) -> web.Response:
        """SmsUrl, VoiceUrl and StatusCallback, where an empty one is none; other fields are not kept."""
        number = self._asked_for(request)
        form = await request.post()
        urls = {name: str(form[name]) for name in ("SmsUrl", "VoiceUrl", "StatusCallback") if name in form}
        for name, url in urls.items():
            if url and not is_http_url(url):
                raise Refusal(400, 21402, f"{name} is not a valid URL")
        if "SmsUrl" in urls:
            number = self._carrier.set_sms_url(number, urls["SmsUrl"])
        if "VoiceUrl" in urls:
            number = self._carrier.set_voice_url(number, urls["VoiceUrl"])
        if "StatusCallback" in urls:
            number = self._carrier.set_status_callback(number, urls["StatusCallback"])
        return web.json_response(self._resource(number))

    def _asked_for(self, request: web.Request) -> PhoneNumber:
        number = self._carrier.phone_numbers.get(request.match_info["sid"])
        if number is None:
            raise not_found(request.path)
        return number

    def _resource(self, number: PhoneNumber) -> Json:
        account = self._carrier.account_sid
        return {
            "account_sid": account,
            "address_requirements": "none",
            "address_sid": None,
            "api_version": API_VERSION,
            "beta": False,
            "bundle_sid": None,
            "capabilities": {"fax": False, "mms": True, "sms": True, "voice": True},
            "date_created": rfc2822(number.created),
            "date_updated": rfc2822(number.created),
            "emergency_address_sid": None,
            "emergency_status": "Inactive",
            "friendly_name": national_format(number.number),
            "identity_sid": None,
            "origin": "twilio",
            "phone_number": number.number,
            "sid": number.sid,
            "sms_application_sid": "",
            "sms_fallback_method": "POST",
            "sms_fallback_url": "",
            "sms_method": "POST",
            "sms_url": self._carrier.sms_url(number),
            "status": "in-use",
            "status_callback": self._carrier.status_callback(number),
            "status_callback_method": "POST",
            "trunk_sid": None,
            "uri": f"/{API_VERSION}/Accounts/{account}/IncomingPhoneNumbers/{number.sid}.json",
            "voice_application_sid": None,
            "voice_caller_id_lookup": False,
            "voice_fallback_method": "POST",
            "voice_fallback_url": None,
            "voice_method": "POST",
            "voice_url": self._carrier.voice_url(number) or None,
        }
