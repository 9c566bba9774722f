"""Twilio's Messages resource."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from aiohttp import web

from server.providers.sandbox.answers import (
    API_VERSION,
    Json,
    Refusal,
    list_2010,
    not_found,
    page_of,
    rfc2822,
)
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.delivery import Delivery
from server.providers.sandbox.misbehaviour import Misbehaviour
from server.providers.sandbox.records import Message
from server.providers.sandbox.segments import segments
from server.providers.sandbox.validity import check_message, check_send_at

# How this one request is to be treated, left here by the middleware that reads triggers.
MISBEHAVIOUR = web.RequestKey("misbehaviour", Misbehaviour)


class Messages:
    """Create, fetch, list, redact or cancel, and delete."""

    def __init__(self, carrier: Carrier, delivery: Delivery) -> None:
        self._carrier = carrier
        self._delivery = delivery

    def routes(self) -> list[web.RouteDef]:
        """Where the resource lives."""
        collection = f"/{API_VERSION}/Accounts/{{account_sid}}/Messages.json"
        one = f"/{API_VERSION}/Accounts/{{account_sid}}/Messages/{{sid}}.json"
        return [
            web.post(collection, self.create),
            web.get(collection, self.list),
            web.get(one, self.fetch),
            web.post(one, self.update),
            web.delete(one, self.delete),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Take a message, or refuse it with Twilio's code."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        media_urls = [str(url) for url in (await request.post()).getall("MediaUrl", [])]
        check_message(self._carrier, form, media_urls=media_urls)
        message = self._carrier.take(
            to=form["To"],
            from_=form.get("From"),
            service_sid=form.get("MessagingServiceSid"),
            body=form.get("Body", ""),
            media_urls=media_urls,
            is_mms=bool(media_urls) or form.get("SendAsMms") == "true",
            status_callback=form.get("StatusCallback"),
            send_at=check_send_at(form, now=self._carrier.now()),
            misbehaviour=request[MISBEHAVIOUR],
        )
        self._delivery.start(message)
        return web.json_response(self._resource(message), status=201)

    async def list(self, request: web.Request) -> web.Response:
        """Newest first, by To, From and DateSent."""
        found = list(self._matching(request))
        page = page_of(request, found, sid=lambda message: message.sid)
        return list_2010(request, page, key="messages", records=[self._resource(m) for m in page.records])

    async def fetch(self, request: web.Request) -> web.Response:
        """One message as it is now."""
        return web.json_response(self._resource(self._asked_for(request)))

    async def update(self, request: web.Request) -> web.Response:
        """An empty Body redacts the text; the Status `canceled` cancels what is still scheduled."""
        message = self._asked_for(request)
        form = await request.post()
        if form.get("Status") == "canceled":
            if message.status != "scheduled":
                raise Refusal(400, 30409, "Message cannot be canceled in its present status")
            self._carrier.advance(message, "canceled")
            self._delivery.start(message)
        elif form.get("Body") == "":
            self._refuse_before_its_end(message)
            message.body = ""
            self._carrier.save(message)
        else:
            raise Refusal(400, 20001, "Body must be empty, or Status canceled")
        return web.json_response(self._resource(message))

    async def delete(self, request: web.Request) -> web.Response:
        """Forget a message that has come to its end."""
        message = self._asked_for(request)
        self._refuse_before_its_end(message)
        self._delivery.stop(message.sid)
        self._carrier.delete(message)
        return web.Response(status=204)

    def _asked_for(self, request: web.Request) -> Message:
        message = self._carrier.messages.get(request.match_info["sid"])
        if message is None or not message.is_twilios:
            raise not_found(request.path)
        return message

    def _refuse_before_its_end(self, message: Message) -> None:
        if message.next_status() is not None:
            raise Refusal(409, 20009, "Cannot delete this resource before it is complete")

    def _matching(self, request: web.Request) -> Iterator[Message]:
        sender = request.query.get("From")
        fits = _date_sent_filter(request)
        for message in self._carrier.newest_first(to=request.query.get("To")):
            if sender in (None, message.from_) and fits(message.sent) and message.is_twilios:
                yield message

    def _resource(self, message: Message) -> Json:
        path = f"/{API_VERSION}/Accounts/{self._carrier.account_sid}/Messages/{message.sid}"
        return {
            "account_sid": self._carrier.account_sid,
            "api_version": API_VERSION,
            "body": message.body,
            "date_created": rfc2822(message.created),
            "date_sent": rfc2822(message.sent),
            "date_updated": rfc2822(message.updated),
            "direction": message.direction,
            "error_code": message.error_code,
            "error_message": None if message.error_code is None else f"Error {message.error_code}",
            "from": message.from_,
            "messaging_service_sid": message.messaging_service_sid,
            "num_media": str(len(message.media_urls)),
            # A service knows how a text is split only once it has chosen a sender.
            "num_segments": "0" if message.from_ is None else str(_segments(message)),
            "price": None,
            "price_unit": "USD",
            "sid": message.sid,
            "status": message.status,
            "subresource_uris": {"media": f"{path}/Media.json"},
            "to": message.to,
            "uri": f"{path}.json",
        }


def _segments(message: Message) -> int:
    return 1 if message.sid.startswith("MM") else segments(message.body)


def _date_sent_filter(request: web.Request) -> Callable[[float | None], bool]:
    """DateSent is one UTC day, `DateSent<` up to, `DateSent>` from a time; what was never sent fits none of them."""
    bounds: list[tuple[float, float]] = []
    for name in ("DateSent", "DateSent<", "DateSent>"):
        if name not in request.query:
            continue
        try:
            at = datetime.fromisoformat(request.query[name])
        except ValueError as error:
            raise Refusal(400, 20001, f"{name} is not an ISO 8601 date or time") from error
        start = at.replace(tzinfo=at.tzinfo or UTC)
        if name == "DateSent":
            bounds.append((start.timestamp(), (start + timedelta(days=1)).timestamp()))
        else:
            bounds.append((0, start.timestamp()) if name == "DateSent<" else (start.timestamp(), float("inf")))
    return lambda sent: not bounds or (sent is not None and all(low <= sent <= high for low, high in bounds))
