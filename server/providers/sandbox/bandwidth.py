"""Bandwidth's messages and media, under `/api/v2/`, of the same carrier: its numbers reach the same phones.

What a phone is set to (`opted_out`, `delivery_error`) shows in `message-failed`, as Bandwidth takes a message before
anybody knows whether it can be delivered. An opt-out by keyword is not the carrier's here: Bandwidth heeds none for
local numbers.
"""

import base64
import secrets
import string
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from aiohttp import web

from server.providers.sandbox.bandwidth_answers import BandwidthRefusal, not_found
from server.providers.sandbox.bandwidth_callbacks import iso8601, resource_of
from server.providers.sandbox.bandwidth_validity import check_message, fields_of
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.delivery import Delivery
from server.providers.sandbox.messages import MISBEHAVIOUR
from server.providers.sandbox.misbehaviour import Misbehaviour
from server.providers.sandbox.records import Direction, Message, Vendor
from server.providers.sandbox.segments import segments
from server.providers.sandbox.settings import BANDWIDTH_APPLICATION_ID, BANDWIDTH_NUMBERS, BandwidthAccount

# What becomes of messages that are taken and go nowhere, as https://dev.bandwidth.com/docs/messaging/errors lists them.
_FORBIDDEN_SENDER = 4403
_WRONG_APPLICATION = 4452
_SUBSCRIBER_UNAVAILABLE = 4702
_OPTED_OUT = 4775

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 10_000
_ID_CHARACTERS = string.ascii_lowercase + string.digits


def message_id(now: float) -> str:
    """An id of Bandwidth's form: the time in milliseconds and random letters."""
    return f"{int(now * 1000)}{''.join(secrets.choice(_ID_CHARACTERS) for _ in range(15))}"


class BandwidthMessages:
    """Create and list messages, and download media."""

    def __init__(self, carrier: Carrier, delivery: Delivery, account: BandwidthAccount) -> None:
        self._carrier = carrier
        self._delivery = delivery
        self._account = account

    def routes(self) -> list[web.RouteDef]:
        """Where the resources live, below the prefix."""
        return [
            web.post("/users/{account_id}/messages", self.create),
            web.get("/users/{account_id}/messages", self.list),
            web.get("/users/{account_id}/media/{message_id}/{index}/{name}", self.download),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Take a message, or refuse what is not one."""
        fields = await fields_of(request)
        check_message(fields)
        message = self._message(fields, request[MISBEHAVIOUR])
        self._carrier.add(message)
        self._delivery.start(message)
        return web.json_response({**resource_of(message), "priority": fields.get("priority", "default")}, status=202)

    async def list(self, request: web.Request) -> web.Response:
        """What is known of messages, newest first, which is not their texts."""
        if not request.query:
            raise BandwidthRefusal(400, "request-validation", "At least one query parameter is required")
        found = list(self._matching(request))
        limit = _limit(request)
        last_seen = _token(request)
        start = next((i + 1 for i, message in enumerate(found) if message.sid == last_seen), 0)
        shown = found[start : start + limit]
        page_info = {}
        if start + limit < len(found):
            token = base64.urlsafe_b64encode(shown[-1].sid.encode()).decode()
            url = request.url.update_query(pageToken=token)
            page_info = {"nextPage": str(url), "nextPageToken": token}
        items = [self._item(message) for message in shown]
        return web.json_response({"totalCount": len(found), "pageInfo": page_info, "messages": items})

    async def download(self, request: web.Request) -> web.Response:
        """A file of a message to one of the numbers, of which Bandwidth names no type."""
        message = self._carrier.messages.get(request.match_info["message_id"])
        index = request.match_info["index"]
        is_there = message is not None and index.isdecimal() and int(index) < len(message.media_sids)
        medium = self._carrier.media.get(message.media_sids[int(index)]) if message is not None and is_there else None
        if medium is None:
            raise not_found(request.path)
        return web.Response(body=self._carrier.file_of(medium), content_type="application/octet-stream")

    def _message(self, fields: dict[str, Any], misbehaviour: Misbehaviour) -> Message:
        now = self._carrier.now()
        sender, receiver = fields["from"], _receiver(fields)
        final_status, final_error = self._fate(sender, receiver, fields["applicationId"], misbehaviour)
        return Message(
            sid=message_id(now),
            to=receiver,
            from_=sender,
            body=fields.get("text") or "",
            media_urls=list(fields.get("media") or []),
            messaging_service_sid=fields["applicationId"],
            status_callback=self._account.callback_url,
            status="queued",
            created=now,
            updated=now,
            send_at=None,
            callbacks=misbehaviour.callbacks,
            final_status=final_status,
            final_error=final_error,
            vendor=Vendor.BANDWIDTH,
            tag=fields.get("tag") or "",
        )

    def _fate(
        self, sender: str, receiver: str, application_id: str, misbehaviour: Misbehaviour
    ) -> tuple[str, int | None]:
        """How delivery ends: the final status and its error code."""
        handset = self._carrier.handset(receiver)
        if application_id != BANDWIDTH_APPLICATION_ID:
            return "failed", _WRONG_APPLICATION
        if sender not in BANDWIDTH_NUMBERS:
            return "failed", _FORBIDDEN_SENDER
        if misbehaviour.delivery_failure is not None:
            return misbehaviour.delivery_failure
        if handset.opted_out:
            return "undelivered", _OPTED_OUT
        if handset.delivery_error is not None:
            return "undelivered", _SUBSCRIBER_UNAVAILABLE
        return "delivered", None

    def _matching(self, request: web.Request) -> Iterator[Message]:
        query = request.query
        earliest, latest = _time(request, "fromDateTime", 0), _time(request, "toDateTime", float("inf"))
        senders, receivers = (
            query[name].split(",") if name in query else None for name in ("sourceTn", "destinationTn")
        )
        for message in self._carrier.newest_first(to=receivers[0] if receivers and len(receivers) == 1 else None):
            if (
                message.vendor == Vendor.BANDWIDTH
                and earliest <= message.created <= latest
                and (senders is None or message.from_ in senders)
                and (receivers is None or message.to in receivers)
                and self._is_as_asked(message, query)
            ):
                yield message

    def _is_as_asked(self, message: Message, query: Mapping[str, str]) -> bool:
        item = self._item(message)
        return all(query.get(name) in (None, str(item[name])) for name in _EXACT)

    def _item(self, message: Message) -> dict[str, Any]:
        return {
            "messageId": message.sid,
            "accountId": self._account.account_id,
            "sourceTn": message.from_,
            "destinationTn": message.to,
            "messageStatus": message.status.upper(),
            "messageDirection": "INBOUND" if message.direction == Direction.INBOUND else "OUTBOUND",
            "messageType": "mms" if message.media_urls else "sms",
            "segmentCount": 1 if message.media_urls else segments(message.body),
            "errorCode": message.error_code or 0,
            "receiveTime": iso8601(message.created),
            "carrierName": "other",
            "messageSize": len(message.body.encode()),
            "messageLength": len(message.body),
            "attachmentCount": len(message.media_urls),
            "recipientCount": 1,
            "campaignClass": None,
        }


_EXACT = ("messageId", "messageStatus", "messageDirection", "messageType", "carrierName", "errorCode")


def _receiver(fields: dict[str, Any]) -> str:
    """On a create it is a text or an array."""
    to = fields["to"]
    receiver = to if isinstance(to, str) else to[0]
    assert isinstance(receiver, str), "checked"
    return receiver


def _limit(request: web.Request) -> int:
    written = request.query.get("limit", str(_DEFAULT_LIMIT))
    if not written.isdecimal() or not 1 <= int(written) <= _MAX_LIMIT:
        raise BandwidthRefusal(400, "request-validation", f"limit must be between 1 and {_MAX_LIMIT}")
    return int(written)


def _token(request: web.Request) -> str | None:
    written = request.query.get("pageToken")
    try:
        return None if written is None else base64.urlsafe_b64decode(written).decode()
    except ValueError as error:
        raise BandwidthRefusal(400, "request-validation", "pageToken is not one of ours") from error


def _time(request: web.Request, name: str, default: float) -> float:
    if name not in request.query:
        return default
    try:
        return datetime.fromisoformat(request.query[name]).timestamp()
    except ValueError as error:
        raise BandwidthRefusal(400, "request-validation", f"{name} must be an ISO 8601 time") from error
