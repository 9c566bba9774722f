"""Fetches recordings of calls from Twilio's Recordings resource: where no type is asked for, as WAV files."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from server.providers.http import NoAnswer, NotReached, exchange, open_session, read_stream
from server.providers.ports import MediaRefused, ProviderUnavailable
from server.providers.twilio.account import TwilioAccount
from server.providers.twilio.files import TwilioFiles

# Not 404, which is also said of a recording that Twilio tells of before every part of it knows.
_GONE = (410,)

# What somebody in between says who has no file.
_PAGES = frozenset({"text/html", "text/plain", "text/xml", "application/xml", "application/json"})

_WAV = frozenset({"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"})


class TwilioCallRecordingFetcher:
    """voice_ports.CallRecordingFetcher for one account; made inside a running event loop.

    A recording takes as long as it takes, but no longer than `longest`, and never pauses longer than `patience`.
    """

    def __init__(
        self,
        account: TwilioAccount,
        *,
        connections: int = 10,
        patience: timedelta = timedelta(seconds=30),
        longest: timedelta = timedelta(hours=1),
    ) -> None:
        session = open_session(connections=connections, timeout=patience, longest=longest)
        self._files = TwilioFiles(account, session, gone=_GONE)

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The file, as it arrives. Its size is the caller's to limit: who leaves early leaves the rest unread."""
        async with AsyncExitStack() as opened:
            try:
                with exchange():
                    answer = await opened.enter_async_context(self._files.open(url))
            except (NotReached, NoAnswer) as error:
                raise ProviderUnavailable(str(error)) from error
            if answer.content_type in _PAGES:
                raise ProviderUnavailable(f"{answer.content_type} instead of the file")
            if answer.content_type not in _WAV:
                raise MediaRefused(f"is {answer.content_type}, not a WAV file")
            yield read_stream(answer)

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._files.aclose()
