"""An order of events that no real call has, but that a mock of conferences was seen to post; whoever listens must bear
it. Each waits for the answer to the one before:

    the call's URL, while it rings (AnsweredBy unknown)
    conference-end, where the TwiML that answers has its <Conference> told
    ringing, then completed, where the call's progress is told
    the call's URL again, of the call that is over (AnsweredBy human)
    a voicemail, at `create_voicemail` beside the call's URL
"""

import secrets
from urllib.parse import urljoin

from server.providers.sandbox.answers import rfc2822
from server.providers.sandbox.twiml import TwimlInvalid
from server.providers.sandbox.voice_lines import Line
from server.providers.sandbox.voice_progress import Teller, event_of, progress_fields
from server.providers.sandbox.voice_records import CallStatus, StatusCallback, Webhook
from server.providers.sandbox.voice_tapes import Tapes
from server.providers.sandbox.voice_twiml import verbs_of
from server.providers.sandbox.voice_verbs import Conference, Dial

_VOICEMAIL_PATH = "create_voicemail"
_VOICEMAIL = "Hello, please call me back."


class MockedOrder:
    """Plays it with a call."""

    def __init__(self, tapes: Tapes, *, teller: Teller) -> None:
        self._tapes = tapes
        self._teller = teller

    async def play(self, line: Line) -> None:
        """All of it; only the file of the voicemail takes longer."""
        call = line.call
        assert isinstance(call.document, Webhook), "a mocked call has a URL"
        # What changes tells nothing by itself here: each post has its place.
        told, call.status_callback = call.status_callback, None
        line.advance(CallStatus.RINGING)
        call.answered_by = "unknown"
        await self._end_conference(line, call.document)
        await self._tell(line, told, sequence_number=0)
        line.answer()
        line.finish(CallStatus.COMPLETED)
        call.answered_by = "human"
        await self._tell(line, told, sequence_number=1)
        await self._teller.post(call.document, line.fields())
        self._leave_a_voicemail(line, call.document)
        call.status_callback = told

    async def _end_conference(self, line: Line, document: Webhook) -> None:
        outcome = await self._teller.post(document, line.fields())
        try:
            verbs = verbs_of(outcome.content_type, outcome.body) if outcome.failure is None else []
        except TwimlInvalid as error:
            self._teller.complain(error.code, str(error), url=document.url, call_sid=line.call.sid)
            return
        nouns = [noun for verb in verbs if isinstance(verb, Dial) for noun in verb.nouns]
        for noun in nouns:
            if isinstance(noun, Conference) and noun.status_callback is not None:
                told = Webhook(urljoin(document.url, noun.status_callback), noun.status_callback_method)
                fields = {
                    "AccountSid": self._teller.account_sid,
                    "ConferenceSid": f"CF{secrets.token_hex(16)}",
                    "FriendlyName": noun.name,
                    "Reason": "Last participant left conference",
                    "SequenceNumber": "1",
                    "StatusCallbackEvent": "conference-end",
                    "Timestamp": rfc2822(line.clock.now()) or "",
                }
                await self._teller.post(told, fields)

    async def _tell(self, line: Line, told: StatusCallback | None, *, sequence_number: int) -> None:
        if told is None or event_of(line.call.status) not in told.events:
            return
        fields = progress_fields(
            line.call,
            account_sid=self._teller.account_sid,
            sequence_number=sequence_number,
            at=line.clock.now(),
        )
        await self._teller.post(told.webhook, fields)

    def _leave_a_voicemail(self, line: Line, document: Webhook) -> None:
        told = StatusCallback(urljoin(document.url, _VOICEMAIL_PATH))
        tape = self._tapes.start(
            "RecordVerb",
            base_url=line.call.base_url,
            channels=1,
            callback=told,
            stream=line.stream,
            call_sid=line.call.sid,
            is_trimmed=True,
        )
        tape.hear(_VOICEMAIL, channel=0)
        self._tapes.stop(tape, callback=told, stream=line.stream)
