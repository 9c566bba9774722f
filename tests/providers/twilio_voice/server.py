"""Our side of calls without its rules: real scripts for whoever asks, every callback proved and read and kept."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

from aiohttp import web

from server.providers.ports import SignedRequest
from server.providers.twilio.twiml import TwilioCallScripts
from server.providers.twilio.voice_callbacks import TwilioVoiceCallbackReader
from server.providers.voice_ports import (
    ConferenceEvent,
    DialResult,
    IncomingCall,
    LegAnswer,
    LegProgress,
    MenuChoice,
    RecordingReport,
)
from tests.providers.servers import AUTH_TOKEN, listening

TIME_LIMIT = timedelta(minutes=10)

# Speech is made while others' tests run.
PATIENCE = 30

Told = IncomingCall | LegAnswer | LegProgress | ConferenceEvent | RecordingReport | MenuChoice | DialResult
T = TypeVar("T", bound=Told)

NOTHING = b""


@dataclass
class Server:
    """What `answers` gives for what is asked is the TwiML; without it a leg of a conference joins it as a contact."""

    reader: TwilioVoiceCallbackReader = field(default_factory=lambda: TwilioVoiceCallbackReader(auth_token=AUTH_TOKEN))
    base_url: str = ""
    call_uuid: UUID = field(default_factory=uuid4)
    conference_uuid: UUID = field(default_factory=uuid4)
    moderator_leg: UUID = field(default_factory=uuid4)
    answers: dict[type[Told], Callable[[Any], bytes]] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def scripts(self) -> TwilioCallScripts:
        """Real ones."""
        return TwilioCallScripts(public_base_url=self.base_url)

    def of(self, kind: type[T]) -> list[T]:
        """What was told of a kind so far."""
        return [told for told in self.told if isinstance(told, kind)]

    async def until(self, kind: type[T], fits: Callable[[T], bool] = lambda _: True) -> T:
        """The first that fits, waited for."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not (found := [told for told in self.of(kind) if fits(told)]):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise AssertionError(f"was told {self.told}") from error
        return found[0]

    async def until_status(self, leg_uuid: UUID, status: str) -> LegProgress:
        """That a leg has come to a status."""
        return await self.until(LegProgress, lambda told: (told.leg_uuid, told.provider_status) == (leg_uuid, status))

    def join(self, answer: LegAnswer) -> bytes:
        """The script of a leg of a conference, by who it is."""
        leg_uuid = answer.progress.leg_uuid
        assert leg_uuid is not None, "our URLs name it"
        is_moderator = leg_uuid == self.moderator_leg
        if not is_moderator and not answer.is_welcomed:
            return self.scripts.welcome(
                conference_uuid=answer.conference_uuid,
                leg_uuid=leg_uuid,
                welcome_message="This is a call from your school.",
            )
        return self.scripts.join_conference(
            call_uuid=self.call_uuid,
            conference_uuid=answer.conference_uuid,
            is_moderator=is_moderator,
            time_limit=TIME_LIMIT,
        )

    async def handle(self, request: web.Request) -> web.Response:
        """Read a request as our server would, keep what it told, and answer it."""
        signed = SignedRequest(
            url=self.base_url + request.raw_path, body=await request.read(), headers=dict(request.headers)
        )
        told: Told = _READ[request.path](self.reader, signed)
        self.told.append(told)
        self._changed.set()
        return web.Response(body=self._answer(told), content_type="text/xml")

    def _answer(self, told: Told) -> bytes:
        if type(told) in self.answers:
            return self.answers[type(told)](told)
        return self.join(told) if isinstance(told, LegAnswer) else NOTHING


_CALLS = "/api/v1/twilio_calls"
_READ: dict[str, Callable[[TwilioVoiceCallbackReader, SignedRequest], Told]] = {
    f"{_CALLS}/incoming": TwilioVoiceCallbackReader.read_incoming_call,
    "/api/v1/sdk_calls/response": TwilioVoiceCallbackReader.read_incoming_call,
    f"{_CALLS}/voice_responses": TwilioVoiceCallbackReader.read_leg_answer,
    f"{_CALLS}/participant_status_changes": TwilioVoiceCallbackReader.read_leg_progress,
    f"{_CALLS}/conference_status_changes": TwilioVoiceCallbackReader.read_conference_event,
    f"{_CALLS}/recording_status_changes": TwilioVoiceCallbackReader.read_recording,
    f"{_CALLS}/create_voicemail": TwilioVoiceCallbackReader.read_recording,
    f"{_CALLS}/return_call_menu": TwilioVoiceCallbackReader.read_menu_choice,
    f"{_CALLS}/dial_results": TwilioVoiceCallbackReader.read_dial_result,
}


@asynccontextmanager
async def running_server() -> AsyncIterator[Server]:
    """One on a port of its own."""
    server = Server()
    app = web.Application()
    app.router.add_post("/{path:.*}", server.handle)
    async with listening(app) as server.base_url:
        yield server
