"""Fetches the media of messages to our numbers from Twilio's Media resource."""

from datetime import timedelta

from server.providers.http import NoAnswer, NotReached, exchange, open_session, read_file
from server.providers.ports import Media, ProviderUnavailable
from server.providers.twilio.account import TwilioAccount
from server.providers.twilio.files import TwilioFiles

_GONE = (404, 410)


class TwilioMediaFetcher:
    """ports.MediaFetcher for one account; made inside a running event loop."""

    def __init__(
        self, account: TwilioAccount, *, connections: int = 10, timeout: timedelta = timedelta(seconds=15)
    ) -> None:
        self._files = TwilioFiles(account, open_session(connections=connections, timeout=timeout), gone=_GONE)

    async def fetch(self, url: str, *, max_bytes: int) -> Media:
        """The file; the type that Twilio says it is of may be wrong."""
        try:
            with exchange():
                async with self._files.open(url) as answer:
                    return Media(content_type=answer.content_type, data=await read_file(answer, max_bytes=max_bytes))
        except (NotReached, NoAnswer) as error:
            raise ProviderUnavailable(str(error)) from error

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._files.aclose()
