"""Twilio's Lookups v2 PhoneNumbers resource."""

from aiohttp import web

from server.providers.sandbox.answers import absolute_url
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.validity import is_phone_number

# Twilio's words for a line's type, all that Lookups v2 documents.
LINE_TYPES = (
    "landline",
    "mobile",
    "fixedVoip",
    "nonFixedVoip",
    "personal",
    "tollFree",
    "premium",
    "sharedCost",
    "uan",
    "voicemail",
    "pager",
    "unknown",
)


class Lookups:
    """Fetch, with line_type_intelligence where that is among the fields asked for."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def routes(self) -> list[web.RouteDef]:
        """Where the resource lives."""
        return [web.get("/v2/PhoneNumbers/{number}", self.fetch)]

    async def fetch(self, request: web.Request) -> web.Response:
        """What is known of a number; one that cannot be is no error, it is `valid: false`."""
        number = request.match_info["number"]
        valid = is_phone_number(number)
        american = valid and number.startswith("+1")
        asked = request.query.get("Fields", "").split(",")
        return web.json_response(
            {
                "calling_country_code": "1" if american else None,
                "country_code": "US" if american else None,
                "phone_number": number,
                "national_format": national_format(number) if american else None,
                "valid": valid,
                "validation_errors": None if valid else ["INVALID_LENGTH"],
                "caller_name": None,
                "sim_swap": None,
                "call_forwarding": None,
                "line_status": None,
                "line_type_intelligence": self._line_type(number) if valid and _LINE_TYPE in asked else None,
                "identity_match": None,
                "reassigned_number": None,
                "sms_pumping_risk": None,
                "phone_number_quality_score": None,
                "pre_fill": None,
                "url": absolute_url(request, f"/v2/PhoneNumbers/{number}"),
            }
        )

    def _line_type(self, number: str) -> dict[str, str | None]:
        ordinary = "nonFixedVoip" if self._carrier.owns(number) else "mobile"
        return {
            "type": self._carrier.handset(number).line_type or ordinary,
            "carrier_name": "Sandbox",
            "mobile_country_code": "310",
            "mobile_network_code": "000",
            "error_code": None,
        }


_LINE_TYPE = "line_type_intelligence"


def national_format(number: str) -> str:
    """(206) 555-0100 for +12065550100."""
    return f"({number[2:5]}) {number[5:8]}-{number[8:]}"
