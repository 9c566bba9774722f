"""Twilio's Recordings resource: of the account, of a call, of a conference; and their files, which are WAV alone.

Twilio also makes an MP3 of each; here that is not found.
"""

from aiohttp import web

from server.providers.sandbox.answers import API_VERSION, Json, absolute_url, list_2010, not_found, page_of, rfc2822
from server.providers.sandbox.voice_exchange import Exchange
from server.providers.sandbox.voice_forms import fits, time_filter
from server.providers.sandbox.voice_records import NotFound, NotInProgress, Recording

# As Twilio names it.
WAV = "audio/x-wav"


class Recordings:
    """List, fetch, hear and delete."""

    def __init__(self, exchange: Exchange, *, account_sid: str) -> None:
        self._exchange = exchange
        self._account_sid = account_sid

    def routes(self) -> list[web.RouteDef]:
        """Where the resource lives. The address of a file has an ending or none."""
        base = f"/{API_VERSION}/Accounts/{{account_sid}}"
        folders = (base, f"{base}/Calls/{{call_sid}}", f"{base}/Conferences/{{conference_sid}}")
        return [
            route
            for recordings in (f"{folder}/Recordings" for folder in folders)
            for route in (
                web.get(f"{recordings}.json", self.list),
                web.get(f"{recordings}/{{sid}}.json", self.fetch),
                web.delete(f"{recordings}/{{sid}}.json", self.delete),
                web.get(f"{recordings}/{{sid:RE\\w+}}.wav", self.file),
                web.get(f"{recordings}/{{sid:RE\\w+}}", self.file),
            )
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Newest first, by CallSid, ConferenceSid and DateCreated; of a call or a conference those of it."""
        created = time_filter(request, "DateCreated")
        found = [
            recording
            for recording in self._exchange.recordings()
            if fits(request, CallSid=recording.call_sid, ConferenceSid=recording.conference_sid)
            and _is_below(recording, request)
            and created(recording.start_time)
        ]
        page = page_of(request, found, sid=lambda recording: recording.sid)
        records = [self._resource(each, request) for each in page.records]
        return list_2010(request, page, key="recordings", records=records)

    async def fetch(self, request: web.Request) -> web.Response:
        """One recording as it is now."""
        return web.json_response(self._resource(self._asked_for(request), request))

    async def file(self, request: web.Request) -> web.Response:
        """The file, once it is there."""
        recording = self._asked_for(request)
        try:
            wav = self._exchange.recording_file(recording.sid)
        except NotInProgress as error:
            raise not_found(request.path) from error
        return web.Response(body=wav, content_type=WAV)

    async def delete(self, request: web.Request) -> web.Response:
        """Forget a recording and its file."""
        self._exchange.delete_recording(self._asked_for(request).sid)
        return web.Response(status=204)

    def _asked_for(self, request: web.Request) -> Recording:
        try:
            recording = self._exchange.recording(request.match_info["sid"])
        except NotFound as error:
            raise not_found(request.path) from error
        if not _is_below(recording, request):
            raise not_found(request.path)
        return recording

    def _resource(self, recording: Recording, request: web.Request) -> Json:
        path = f"/{API_VERSION}/Accounts/{self._account_sid}/Recordings/{recording.sid}"
        return {
            "account_sid": self._account_sid,
            "api_version": API_VERSION,
            "call_sid": recording.call_sid,
            "channels": recording.channels,
            "conference_sid": recording.conference_sid,
            "date_created": rfc2822(recording.start_time),
            "date_updated": rfc2822(recording.ended or recording.start_time),
            # Of one that is not over Twilio says so.
            "duration": "-1" if recording.duration is None else str(recording.duration),
            "encryption_details": None,
            "error_code": recording.error_code,
            "media_url": absolute_url(request, path),
            "price": None,
            "price_unit": "USD",
            "sid": recording.sid,
            "source": recording.source,
            "start_time": rfc2822(recording.start_time),
            "status": recording.status,
            "subresource_uris": {},
            "uri": f"{path}.json",
        }


def _is_below(recording: Recording, request: web.Request) -> bool:
    """Whether it is of the call or the conference in the path, if there is one."""
    call, conference = request.match_info.get("call_sid"), request.match_info.get("conference_sid")
    return call in (None, recording.call_sid) and conference in (None, recording.conference_sid)
