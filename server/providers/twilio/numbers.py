"""Lists the numbers of one Twilio account and the messaging services they are in."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from twilio.base.exceptions import TwilioException

from server.providers.http import NoAnswer, NotReached
from server.providers.ports import ProviderNumber, ProviderUnavailable
from server.providers.twilio.account import TwilioAccount
from server.providers.twilio.client import Refusal, TwilioClient
from server.providers.twilio.failures import says_there_is_none, unavailable

# The most that Twilio gives at once.
_PAGE_SIZE = 1000


class TwilioNumberDirectory:
    """ports.NumberDirectory over IncomingPhoneNumbers and the Messaging Services' PhoneNumbers; made inside a running
    event loop. It asks one question at a time: an account's other calls share its limit of concurrency."""

    def __init__(
        self,
        account: TwilioAccount,
        *,
        page_size: int = _PAGE_SIZE,
        timeout: timedelta = timedelta(seconds=30),
    ) -> None:
        self._client = TwilioClient(account, connections=1, timeout=timeout)
        self._page_size = page_size

    async def list_numbers(self, messaging_service_sids: Sequence[str]) -> list[ProviderNumber]:
        """Every number of the account once, also one that only a service's list names."""
        numbers: dict[str, ProviderNumber] = {}
        try:
            async for number in self._listed(self._client.incoming_phone_numbers, None):
                numbers[number.phone_number] = number
            for service_sid in messaging_service_sids:
                async for number in self._of_service(service_sid):
                    numbers[number.phone_number] = number
        except Refusal as refusal:
            raise unavailable(refusal) from refusal
        except (NotReached, NoAnswer, TwilioException) as error:
            raise ProviderUnavailable(str(error)) from error
        return list(numbers.values())

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._client.aclose()

    async def _of_service(self, service_sid: str) -> AsyncIterator[ProviderNumber]:
        # The SDK puts the sid, which an Admin has written, into the path as it is.
        service = self._client.messaging.v1.services(quote(service_sid, safe=""))
        try:
            async for number in self._listed(service.phone_numbers, service_sid):
                yield number
        except Refusal as refusal:
            if not says_there_is_none(refusal):
                raise

    async def _listed(self, resource: Any, service_sid: str | None) -> AsyncIterator[ProviderNumber]:
        async for number in await resource.stream_async(page_size=self._page_size):
            if not number.sid or not number.phone_number:
                raise NoAnswer("the list names no number")
            yield ProviderNumber(number.sid, number.phone_number, service_sid)
