"""Twilio's Media resource, and the place it leads to, which knows only secret addresses and asks for no credentials."""

from hmac import compare_digest

from aiohttp import web

from server.providers.sandbox.answers import (
    API_VERSION,
    Json,
    Refusal,
    absolute_url,
    list_2010,
    not_found,
    page_of,
    rfc2822,
)
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.records import Medium, Message

CDN_PREFIX = "/cdn/"


class Media:
    """List, fetch and delete the files of one message; those of messages to phones are not fetched, so there are none.

    Twilio redirects whoever asks for the file itself to an address elsewhere.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def routes(self) -> list[web.RouteDef]:
        """Where the resource lives."""
        media = f"/{API_VERSION}/Accounts/{{account_sid}}/Messages/{{message_sid}}/Media"
        return [
            web.get(f"{media}.json", self.list),
            web.get(f"{media}/{{sid}}.json", self.fetch),
            web.delete(f"{media}/{{sid}}.json", self.delete),
            web.get(f"{media}/{{sid}}", self.redirect),
            web.delete(f"{media}/{{sid}}", self.delete),
            web.get(f"{CDN_PREFIX}{{sid}}/{{key}}", self.file),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """The files of a message."""
        message = self._message(request)
        found = [self._carrier.media[sid] for sid in message.media_sids if sid in self._carrier.media]
        page = page_of(request, found, sid=lambda medium: medium.sid)
        return list_2010(request, page, key="media_list", records=[self._resource(medium) for medium in page.records])

    async def fetch(self, request: web.Request) -> web.Response:
        """What is known of a file."""
        return web.json_response(self._resource(self._medium(request)))

    async def redirect(self, request: web.Request) -> web.Response:
        """Where the file is."""
        medium = self._medium(request)
        url = absolute_url(request, f"{CDN_PREFIX}{medium.sid}/{medium.key}")
        return web.Response(status=307, headers={"Location": url})

    async def delete(self, request: web.Request) -> web.Response:
        """Forget a file."""
        self._carrier.delete_medium(self._medium(request))
        return web.Response(status=204)

    async def file(self, request: web.Request) -> web.Response:
        """The file itself."""
        medium = self._carrier.media.get(request.match_info["sid"])
        if medium is None or not compare_digest(medium.key.encode(), request.match_info["key"].encode()):
            raise not_found(request.path)
        if "Authorization" in request.headers:
            # As the store behind Twilio: whoever takes the account's credentials along when redirected is not served.
            raise Refusal(400, 20001, "Only one auth mechanism allowed")
        # Not an argument: aiohttp refuses parameters there, which a phone may send.
        headers = {"Content-Type": medium.content_type}
        return web.Response(body=self._carrier.file_of(medium), headers=headers)

    def _message(self, request: web.Request) -> Message:
        message = self._carrier.messages.get(request.match_info["message_sid"])
        if message is None or not message.is_twilios:
            raise not_found(request.path)
        return message

    def _medium(self, request: web.Request) -> Medium:
        medium = self._carrier.media.get(request.match_info["sid"])
        if medium is None or medium.message_sid != request.match_info["message_sid"]:
            raise not_found(request.path)
        return medium

    def _resource(self, medium: Medium) -> Json:
        account = self._carrier.account_sid
        return {
            "account_sid": account,
            "content_type": medium.content_type,
            "date_created": rfc2822(medium.created),
            "date_updated": rfc2822(medium.created),
            "parent_sid": medium.message_sid,
            "sid": medium.sid,
            "uri": f"/{API_VERSION}/Accounts/{account}/Messages/{medium.message_sid}/Media/{medium.sid}.json",
        }
