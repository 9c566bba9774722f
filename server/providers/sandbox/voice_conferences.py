"""Twilio's Conferences resource."""

from aiohttp import web

from server.providers.sandbox.answers import API_VERSION, Json, Refusal, list_2010, not_found, page_of, rfc2822
from server.providers.sandbox.voice_exchange import Exchange
from server.providers.sandbox.voice_forms import fits, form_of, time_filter
from server.providers.sandbox.voice_records import Conference, NotFound, NotInProgress

_INVALID_URL = 21205


class Conferences:
    """Fetch, list, end, and announce to everybody in one."""

    def __init__(self, exchange: Exchange, *, account_sid: str) -> None:
        self._exchange = exchange
        self._account_sid = account_sid

    def routes(self) -> list[web.RouteDef]:
        """Where the resource lives."""
        base = f"/{API_VERSION}/Accounts/{{account_sid}}/Conferences"
        one = f"{base}/{{sid}}.json"
        return [web.get(f"{base}.json", self.list), web.get(one, self.fetch), web.post(one, self.update)]

    async def list(self, request: web.Request) -> web.Response:
        """Newest first, by FriendlyName, Status, DateCreated and DateUpdated."""
        created, updated = time_filter(request, "DateCreated"), time_filter(request, "DateUpdated")
        found = [
            conference
            for conference in self._exchange.conferences()
            if fits(request, FriendlyName=conference.friendly_name, Status=conference.status)
            and created(conference.created)
            and updated(conference.updated)
        ]
        page = page_of(request, found, sid=lambda conference: conference.sid)
        return list_2010(request, page, key="conferences", records=[self._resource(each) for each in page.records])

    async def fetch(self, request: web.Request) -> web.Response:
        """One conference as it is now."""
        return web.json_response(self._resource(self._asked_for(request)))

    async def update(self, request: web.Request) -> web.Response:
        """The Status `completed` ends it; an AnnounceUrl is heard by everybody in it."""
        conference = self._asked_for(request)
        form = await form_of(request)
        status = form.word("Status", "completed")
        announcement = form.webhook("AnnounceUrl", "AnnounceMethod", code=_INVALID_URL)
        form.finish()
        if announcement is not None:
            try:
                conference = self._exchange.announce(conference.sid, announcement)
            except NotInProgress as error:
                raise not_found(request.path) from error
        if status is not None:
            conference = self._exchange.end_conference(conference.sid)
        if announcement is None and status is None:
            raise Refusal(400, 20001, "Status or AnnounceUrl is required")
        return web.json_response(self._resource(conference))

    def _asked_for(self, request: web.Request) -> Conference:
        try:
            return self._exchange.conference(request.match_info["sid"])
        except NotFound as error:
            raise not_found(request.path) from error

    def _resource(self, conference: Conference) -> Json:
        path = f"/{API_VERSION}/Accounts/{self._account_sid}/Conferences/{conference.sid}"
        return {
            "account_sid": self._account_sid,
            "api_version": API_VERSION,
            "call_sid_ending_conference": conference.call_sid_ending,
            "date_created": rfc2822(conference.created),
            "date_updated": rfc2822(conference.updated),
            "friendly_name": conference.friendly_name,
            "reason_conference_ended": conference.reason_ended,
            "region": "us1",
            "sid": conference.sid,
            "status": conference.status,
            "subresource_uris": {
                "participants": f"{path}/Participants.json",
                "recordings": f"{path}/Recordings.json",
            },
            "uri": f"{path}.json",
        }
