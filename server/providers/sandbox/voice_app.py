"""The voice side of the sandbox's Twilio put together: the exchange, its REST resources, and its control API."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from aiohttp import web

from server.providers.sandbox.callbacks import CallbackSender
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.settings import SandboxSettings
from server.providers.sandbox.voice_calls import Calls
from server.providers.sandbox.voice_conferences import Conferences
from server.providers.sandbox.voice_control import VoiceControl
from server.providers.sandbox.voice_exchange import Exchange
from server.providers.sandbox.voice_participants import Participants
from server.providers.sandbox.voice_recordings import Recordings
from server.providers.sandbox.voice_tapes import Speak


class Resource(Protocol):
    """What has routes."""

    def routes(self) -> list[web.RouteDef]:
        """Where it lives."""
        ...


class Voice:
    """The calls of one account; made inside a running event loop."""

    def __init__(
        self,
        carrier: Carrier,
        callbacks: CallbackSender,
        settings: SandboxSettings,
        *,
        now: Callable[[], datetime],
        speak: Speak,
    ) -> None:
        self.exchange = Exchange(
            account_sid=settings.account_sid,
            callbacks=callbacks,
            second=settings.second,
            now=now,
            data_dir=settings.data_dir,
            speak=speak,
        )
        self._carrier = carrier
        self._settings = settings

    def resources(self) -> list[Resource]:
        """What is Twilio's, and what is told and asked beside it."""
        browsers, base_url = self._settings.voice_app, self._settings.base_url
        return [
            Calls(self._carrier, self.exchange, voice_app=browsers, base_url=base_url),
            Conferences(self.exchange, account_sid=self._settings.account_sid),
            Participants(self._carrier, self.exchange, base_url=base_url),
            Recordings(self.exchange, account_sid=self._settings.account_sid),
            VoiceControl(self._carrier, self.exchange, voice_app=browsers, base_url=base_url),
        ]
