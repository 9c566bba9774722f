"""Executes TwiML: asks the account for a document, does what its verbs say one after the other, and goes on with what
the answers to their actions say.

What Twilio calls an application error (no answer, an answer that is no TwiML, a URL that is none) ends the call, and is
kept among the problems.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final
from urllib.parse import urljoin

from server.providers.sandbox.twiml import TwimlInvalid
from server.providers.sandbox.validity import is_http_url
from server.providers.sandbox.voice_dial import Dialler, Ended
from server.providers.sandbox.voice_lines import Interrupted, Line
from server.providers.sandbox.voice_progress import Teller
from server.providers.sandbox.voice_records import CallStatus, Document, StatusCallback, Webhook
from server.providers.sandbox.voice_tapes import Tapes
from server.providers.sandbox.voice_time import Clock, speech_seconds
from server.providers.sandbox.voice_twiml import verbs_in, verbs_of
from server.providers.sandbox.voice_verbs import (
    Client,
    Conference,
    Dial,
    Gather,
    Hangup,
    Noun,
    Number,
    Pause,
    Play,
    Prompt,
    Record,
    Redirect,
    Reject,
    Say,
    Verb,
)

# How long a file is played, and how long a tone: nobody listens to them here.
_PLAYED = 2.0
_TONE = 0.25

_NO_URL = 11100
_SCHEMA = 12200

# Attributes that would change what happens, and do not here; so that nobody builds on them they are refused.
_NOT_DONE: Final[dict[type, frozenset[str]]] = {
    Gather: frozenset({"input", "partial_result_callback"}),
    Dial: frozenset({"hangup_on_star", "sequential", "refer_url"}),
    Number: frozenset({"url", "send_digits", "byoc"}),
    Client: frozenset({"url"}),
    Conference: frozenset({"coach"}),
    Record: frozenset({"transcribe", "transcribe_callback"}),
}


@dataclass(frozen=True)
class _Next:
    """The document to go on with, and what is said when it is asked for beside the fields of the call."""

    document: Document
    fields: dict[str, str] = field(default_factory=dict)


class Interpreter:
    """Has calls do what documents say."""

    def __init__(self, dialler: Dialler, tapes: Tapes, *, teller: Teller, clock: Clock) -> None:
        self._dialler = dialler
        self._tapes = tapes
        self._teller = teller
        self._clock = clock

    async def run(self, line: Line, document: Document, *, parameters: Mapping[str, str] | None = None) -> None:
        """Follow a document, those after it, and those that the call is redirected to, until the call is over.

        What a browser says with its call goes along with the first request; it cannot say what Twilio itself says.
        """
        line.has_document = True
        own = line.fields()
        more = {name: value for name, value in (parameters or {}).items() if name not in own}
        following: _Next | None = _Next(document, more)
        while following is not None:
            document = following.document
            try:
                following = await self._follow(line, following)
            except Interrupted:
                redirect = line.take_redirect()
                following = None if redirect is None else _Next(redirect)
            except TwimlInvalid as error:
                url = document.url if isinstance(document, Webhook) else None
                self._teller.complain(error.code, str(error), url=url, call_sid=line.call.sid)
                line.pick_up()
                following = None
        line.finish(CallStatus.COMPLETED)

    async def take_over(self, line: Line) -> None:
        """Go on with a call that had no document, where it was redirected to."""
        document = line.take_redirect()
        if document is not None:
            await self.run(line, document)

    async def announce(self, line: Line, announcement: Webhook) -> str | None:
        """Have a call hear what a URL's TwiML says; answers why not, where it could not."""
        outcome = await self._teller.post(announcement, line.fields())
        if outcome.failure is not None:
            return f"HTTP retrieval failure: {outcome.status or outcome.failure}"
        try:
            prompts = _prompts(verbs_of(outcome.content_type, outcome.body))
        except TwimlInvalid as error:
            self._teller.complain(error.code, str(error), url=announcement.url, call_sid=line.call.sid)
            return str(error)
        for prompt in prompts:
            _hear(line, prompt)
        await self._clock.sleep(sum(_seconds(prompt) or 0 for prompt in prompts))
        return None

    async def fetch(self, line: Line, document: Document, more: dict[str, str]) -> list[Verb]:
        """The verbs that the account answers with; empty where it is a failure, which is a problem already.

        Raises TwimlInvalid, and Interrupted where the call is over before the answer is there.
        """
        if isinstance(document, str):
            return _doable(verbs_in(document))
        answer = self._teller.ask(document, line.fields() | more)
        await line.wait(answer)
        outcome = answer.result()
        return _doable(verbs_of(outcome.content_type, outcome.body)) if outcome.failure is None else []

    async def _follow(self, line: Line, following: _Next) -> _Next | None:
        document = following.document
        base = document.url if isinstance(document, Webhook) else ""

        def resolve(url: str) -> str:
            absolute = urljoin(base, url)
            if not is_http_url(absolute):
                raise TwimlInvalid(_NO_URL, f"{url!r} is no URL")
            return absolute

        for verb in await self.fetch(line, document, following.fields):
            if not _leaves_it_ringing(verb):
                line.pick_up()
            after = await self._do(line, verb, resolve)
            if after is not None:
                return after
        line.pick_up()
        return None

    async def _do(self, line: Line, verb: Verb, resolve: Callable[[str], str]) -> _Next | None:
        match verb:
            case Say() | Play() | Pause():
                _hear(line, verb)
                await line.wait(seconds=_seconds(verb))
            case Gather():
                return await self._gather(line, verb, resolve)
            case Record():
                return self._act(line, await self._record(line, verb, resolve), verb.action or "", verb.method, resolve)
            case Dial():
                line.hear("dial", ", ".join(_name(noun) for noun in verb.nouns))
                ended = await self._dialler.dial(line, verb, resolve)
                return self._act(line, ended, verb.action, verb.method, resolve)
            case Redirect():
                return _Next(Webhook(resolve(verb.url), verb.method))
            case Hangup():
                line.finish(CallStatus.COMPLETED)
                raise Interrupted
            case Reject():
                line.finish(CallStatus.BUSY if verb.reason == "busy" else CallStatus.NO_ANSWER)
                raise Interrupted
        return None

    def _act(
        self, line: Line, ended: Ended, action: str | None, method: str, resolve: Callable[[str], str]
    ) -> _Next | None:
        """Ask the action of a verb that has ended. Of a call that is over the answer means nothing any more."""
        following = None
        if ended.fields is not None and action is not None:
            following = _Next(Webhook(resolve(action), method), ended.fields)
        if not ended.is_interrupted:
            return following
        if line.call.is_over and following is not None and isinstance(following.document, Webhook):
            self._teller.start(self._teller.post(following.document, line.fields() | following.fields))
        raise Interrupted

    async def _gather(self, line: Line, gather: Gather, resolve: Callable[[str], str]) -> _Next | None:
        line.press_next()
        for prompt in gather.prompts:
            _hear(line, prompt)
            if await line.wait(line.key_pressed, seconds=_seconds(prompt)):
                break
        line.hear("gather")
        digits, finished_on = "", ""
        while gather.num_digits is None or len(digits) < gather.num_digits:
            if not await line.wait(line.key_pressed, seconds=gather.timeout):
                break
            key = line.take_key()
            if key in gather.finish_on_key:
                finished_on = key
                break
            digits += key
        if not digits and not gather.action_on_empty_result:
            return None
        return _Next(
            Webhook(resolve(gather.action or ""), gather.method), {"Digits": digits, "FinishedOnKey": finished_on}
        )

    async def _record(self, line: Line, record: Record, resolve: Callable[[str], str]) -> Ended:
        """Until a key, silence or the longest time; where nothing was said there is no action, as at Twilio."""
        callback = None
        if record.recording_status_callback is not None:
            callback = StatusCallback(
                resolve(record.recording_status_callback),
                record.recording_status_callback_method,
                frozenset(record.recording_status_callback_event),
            )
        tape = self._tapes.start(
            "RecordVerb",
            base_url=line.call.base_url,
            channels=1,
            callback=callback,
            stream=line.stream,
            call_sid=line.call.sid,
            is_trimmed=record.trim == "trim-silence",
        )
        line.hear("record")
        digits, is_interrupted = "", False
        speech = _Speech(self._clock)
        try:
            with line.heard_by(lambda text: speech.lasts(tape.hear(text, channel=0))):
                digits = await self._until_silence(line, record, speech)
        except Interrupted:
            digits, is_interrupted = "hangup", True
        finally:
            self._tapes.stop(tape, callback=callback, stream=line.stream, is_absent=not tape.spoken)
        if not tape.spoken:
            return Ended(None, is_interrupted)
        told = {
            "Digits": digits,
            "RecordingDuration": str(tape.recording.duration),
            "RecordingSid": tape.recording.sid,
            "RecordingUrl": self._tapes.url(tape.recording),
        }
        return Ended(told, is_interrupted)

    async def _until_silence(self, line: Line, record: Record, speech: "_Speech") -> str:
        """The key that ended it, if one did. Raises Interrupted."""
        longest = self._clock.reading() + record.max_length
        while True:
            quiet = speech.ends + record.timeout if record.timeout else longest
            seconds = min(quiet, longest) - self._clock.reading()
            if seconds <= 0:
                return ""
            await line.wait(line.key_pressed, speech.goes_on(), seconds=seconds)
            if line.key_pressed.done() and (key := line.take_key()) in record.finish_on_key:
                return key


class _Speech:
    """Until when somebody speaks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._goes_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ends = clock.reading()

    def lasts(self, seconds: float) -> None:
        """Somebody says something that takes so long, after what is being said."""
        self.ends = max(self.ends, self._clock.reading()) + seconds
        if not self._goes_on.done():
            self._goes_on.set_result(None)

    def goes_on(self) -> asyncio.Future[None]:
        """Done when more is said."""
        if self._goes_on.done():
            self._goes_on = asyncio.get_running_loop().create_future()
        return self._goes_on


def _hear(line: Line, prompt: Prompt) -> None:
    """Keep what is heard; of a pause there is nothing."""
    if isinstance(prompt, Say):
        line.hear("say", prompt.text)
    elif isinstance(prompt, Play):
        line.hear("play", prompt.url or prompt.digits or "")


def _name(noun: Noun) -> str:
    """Who is dialled."""
    match noun:
        case Number():
            return noun.phone_number
        case Client():
            return f"client:{noun.identity}"
        case Conference():
            return f"conference {noun.name}"


def _leaves_it_ringing(verb: Verb) -> bool:
    """Whether a verb does not answer a call that comes in; with `answerOnBridge` whoever is dialled does."""
    if isinstance(verb, Dial):
        return verb.answer_on_bridge and not isinstance(verb.nouns[0], Conference)
    return isinstance(verb, Pause | Reject)


def _seconds(prompt: Prompt) -> float | None:
    """How long a prompt takes; None is until the call ends."""
    if isinstance(prompt, Pause):
        return prompt.length
    if prompt.loop == 0:
        return None
    if isinstance(prompt, Say):
        return speech_seconds(prompt.text) * prompt.loop
    return _PLAYED * prompt.loop if prompt.digits is None else _TONE * len(prompt.digits)


def _prompts(verbs: list[Verb]) -> list[Prompt]:
    """The verbs of an announcement. Raises TwimlInvalid."""
    for verb in verbs:
        if not isinstance(verb, Prompt):
            raise TwimlInvalid(_SCHEMA, f"an announcement cannot have <{type(verb).__name__}>")
    return [verb for verb in verbs if isinstance(verb, Prompt)]


def _doable(verbs: list[Verb]) -> list[Verb]:
    """The verbs, all of which the sandbox can do as they are. Raises TwimlInvalid, before any is begun."""
    for each in _with_nouns(verbs):
        not_done = _NOT_DONE.get(type(each), frozenset())
        for attribute in fields(each):
            if attribute.name in not_done and getattr(each, attribute.name) != attribute.default:
                raise TwimlInvalid(_SCHEMA, f"the sandbox cannot do {attribute.name} of <{type(each).__name__}>")
    return verbs


def _with_nouns(verbs: Iterable[Verb]) -> Iterable[Any]:
    for verb in verbs:
        yield verb
        if isinstance(verb, Dial):
            yield from verb.nouns
