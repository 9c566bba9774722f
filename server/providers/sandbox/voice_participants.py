"""Twilio's Participants resource. Music, beeps and regions are taken, though nobody hears them.

A conference that is over has no participants any more, as at Twilio: they are not found.
"""

from aiohttp import web

from server.providers.sandbox.answers import API_VERSION, Json, Refusal, list_2010, not_found, page_of, rfc2822
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.messages import MISBEHAVIOUR
from server.providers.sandbox.voice_calls import INVALID_TIMEOUT
from server.providers.sandbox.voice_exchange import Exchange
from server.providers.sandbox.voice_forms import (
    CONFERENCE_EVENTS,
    PROGRESS,
    RECORDING_EVENTS,
    Form,
    fits,
    form_of,
)
from server.providers.sandbox.voice_records import (
    Conference,
    ConferenceStatus,
    Entry,
    NotFound,
    NotInProgress,
    Participant,
)
from server.providers.sandbox.voice_validity import check_people

_INVALID_URL = 21205

# What is heard, and from where.
_NOT_HEARD = (
    "Beep",
    "EarlyMedia",
    "WaitUrl",
    "WaitMethod",
    "Region",
    "JitterBufferSize",
    "ConferenceTrim",
    "CallReason",
)


class Participants:
    """Call somebody into a conference; list, fetch, mute, hold, announce to, and remove who is in one.

    A participant is named by the sid of its call or by its label.
    """

    def __init__(self, carrier: Carrier, exchange: Exchange, *, base_url: str | None) -> None:
        self._carrier = carrier
        self._exchange = exchange
        self._base_url = base_url

    def routes(self) -> list[web.RouteDef]:
        """Where the resource lives."""
        base = f"/{API_VERSION}/Accounts/{{account_sid}}/Conferences/{{conference}}/Participants"
        one = f"{base}/{{participant}}.json"
        return [
            web.post(f"{base}.json", self.create),
            web.get(f"{base}.json", self.list),
            web.get(one, self.fetch),
            web.post(one, self.update),
            web.delete(one, self.delete),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Call somebody into a conference, named by its sid or its friendly name; a new name is a new one."""
        form = await form_of(request)
        to, from_ = check_people(self._carrier, form)
        entry = _entry(form)
        status_callback = form.callback("StatusCallback", events=PROGRESS, default=("completed",))
        timeout = form.whole("Timeout", 5, 600, code=INVALID_TIMEOUT)
        time_limit = form.whole("TimeLimit", 1, 86_400)
        form.ignore(*_NOT_HEARD)
        form.finish()
        try:
            participant = self._exchange.add_participant(
                request.match_info["conference"],
                to=to,
                from_=from_,
                base_url=self._base_url or str(request.url.origin()),
                entry=entry,
                status_callback=status_callback,
                timeout=timeout or 60,
                time_limit=time_limit or 14_400,
                callbacks=request[MISBEHAVIOUR].callbacks,
            )
        except (NotFound, NotInProgress) as error:
            raise not_found(request.path) from error
        return web.json_response(self._resource(participant), status=201)

    async def list(self, request: web.Request) -> web.Response:
        """Who is in the conference, in the order they came, by Muted and Hold."""
        conference = self._conference(request)
        found = [
            each
            for each in conference.present
            if fits(request, Muted=_flag(each.muted), Hold=_flag(each.hold), Coaching=_flag(False))
        ]
        page = page_of(request, found, sid=lambda participant: participant.call_sid)
        return list_2010(request, page, key="participants", records=[self._resource(each) for each in page.records])

    async def fetch(self, request: web.Request) -> web.Response:
        """One of them."""
        return web.json_response(self._resource(self._asked_for(request)))

    async def update(self, request: web.Request) -> web.Response:
        """Muted, Hold, EndConferenceOnExit, and an AnnounceUrl that this one alone hears."""
        participant = self._asked_for(request)
        form = await form_of(request)
        muted, hold, ends = (form.flag(name) for name in ("Muted", "Hold", "EndConferenceOnExit"))
        announcement = form.webhook("AnnounceUrl", "AnnounceMethod", code=_INVALID_URL)
        form.webhook("HoldUrl", "HoldMethod", code=_INVALID_URL)
        form.ignore("WaitUrl", "WaitMethod", "BeepOnExit")
        form.finish()
        try:
            updated = self._exchange.update_participant(
                participant.conference_sid,
                participant.call_sid,
                muted=muted,
                hold=hold,
                end_conference_on_exit=ends,
                announce=announcement,
            )
        except NotFound as error:
            raise not_found(request.path) from error
        return web.json_response(self._resource(updated))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove somebody from the conference."""
        participant = self._asked_for(request)
        try:
            self._exchange.remove_participant(participant.conference_sid, participant.call_sid)
        except NotFound as error:
            raise not_found(request.path) from error
        return web.Response(status=204)

    def _conference(self, request: web.Request) -> Conference:
        try:
            conference = self._exchange.conference(request.match_info["conference"])
        except NotFound as error:
            raise not_found(request.path) from error
        if conference.status is ConferenceStatus.COMPLETED:
            raise not_found(request.path)
        return conference

    def _asked_for(self, request: web.Request) -> Participant:
        try:
            return self._exchange.participant(self._conference(request).sid, request.match_info["participant"])
        except NotFound as error:
            raise not_found(request.path) from error

    def _resource(self, participant: Participant) -> Json:
        account = self._carrier.account_sid
        folder = f"/{API_VERSION}/Accounts/{account}/Conferences/{participant.conference_sid}/Participants"
        return {
            "account_sid": account,
            "call_sid": participant.call_sid,
            "call_sid_to_coach": None,
            "coaching": False,
            "conference_sid": participant.conference_sid,
            "date_created": rfc2822(participant.created),
            "date_updated": rfc2822(participant.updated),
            "end_conference_on_exit": participant.end_conference_on_exit,
            "hold": participant.hold,
            "label": participant.label,
            "muted": participant.muted,
            "queue_time": "0",
            "start_conference_on_enter": participant.start_conference_on_enter,
            "status": participant.status,
            "uri": f"{folder}/{participant.call_sid}.json",
        }


def _entry(form: Form) -> Entry:
    """How somebody enters the conference; what is told of the conference itself counts from the first alone."""
    record = form.word("ConferenceRecord", "true", "false", "record-from-start", "do-not-record")
    starts, ends = form.flag("StartConferenceOnEnter"), form.flag("EndConferenceOnExit")
    if form.flag("Coaching"):
        raise Refusal(400, 20001, "the sandbox knows no coaching")
    return Entry(
        label=form.text("Label"),
        muted=bool(form.flag("Muted")),
        start_conference_on_enter=starts is not False,
        end_conference_on_exit=bool(ends),
        status_callback=form.callback("ConferenceStatusCallback", events=CONFERENCE_EVENTS, default=("start", "end")),
        record=record in ("true", "record-from-start"),
        recording_status_callback=form.callback(
            "ConferenceRecordingStatusCallback", events=RECORDING_EVENTS, default=("completed",)
        ),
    )


def _flag(value: bool) -> str:
    return str(value).lower()
