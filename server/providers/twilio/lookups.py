"""Asks Twilio's Lookups v2 what kind of line a number is."""

from datetime import timedelta
from urllib.parse import quote

from server.providers.http import NoAnswer, NotReached
from server.providers.ports import ProviderUnavailable
from server.providers.twilio.account import TwilioAccount
from server.providers.twilio.client import Refusal, TwilioClient
from server.providers.twilio.failures import unavailable

_FIELDS = "line_type_intelligence"

# Said of a number that cannot be looked up; everything else that is refused may be answered later.
_OF_THE_NUMBER = frozenset({400, 404})


class TwilioLineTypeLookup:
    """ports.LineTypeLookup; made inside a running event loop."""

    def __init__(
        self,
        account: TwilioAccount,
        *,
        connections: int = 5,
        timeout: timedelta = timedelta(seconds=15),
    ) -> None:
        self._client = TwilioClient(account, connections=connections, timeout=timeout)

    async def line_type(self, phone_number: str) -> str | None:
        """Twilio's word for the line; None of a number that is not valid, or out of Twilio's coverage."""
        # The SDK puts it into the path as it is.
        asked = self._client.lookups.v2.phone_numbers(quote(phone_number, safe="+"))
        try:
            found = await asked.fetch_async(fields=_FIELDS)
        except Refusal as refusal:
            if refusal.status in _OF_THE_NUMBER and refusal.code is not None:
                return None
            raise unavailable(refusal) from refusal
        except (NotReached, NoAnswer) as error:
            raise ProviderUnavailable(str(error)) from error
        if found.valid is None:
            raise ProviderUnavailable("the answer tells of no number")
        said = found.line_type_intelligence
        return None if said is None else said["type"]

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._client.aclose()
