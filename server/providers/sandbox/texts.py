"""POST /sandbox/texts: a phone sends a text to one of the account's numbers.

{"from": "+14155550123",            a number, a short code or a name
 "to": "+12065550100",              one of the account's numbers
 "body": "We will be late.",        at most 1600 characters, optional
 "media": [{"content_type": "image/png", "data": BASE64}, …],    at most ten, 32 MiB together, optional
 "times": 1}                        how often the account is told of it, 1 to 10: every time with the same MessageSid

The account is told as often again where callbacks are duplicated, and never where they are missing: for everybody, or
by a trigger in this body. The answer comes when that is done:

{"message": …as in GET /sandbox/messages…,
 "webhook": {"url": null where the number has none,
             "answers": [{"status": 204,        null where nobody answered
                          "failure": null,      4xx, 5xx, ct, rt or tt, after the retries of the URL's fragment
                          "problem": null}]}}   Twilio's code and words where the answer is no TwiML it could follow
"""

import asyncio
import re
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import asdict
from typing import Any

from aiohttp import web

from server.providers.sandbox.bandwidth_inbound import BandwidthInbound
from server.providers.sandbox.carrier import Carrier, phone_number_sid
from server.providers.sandbox.control import message_json
from server.providers.sandbox.fields import ControlRefusal, Fields, fields_of, whole
from server.providers.sandbox.inbound import Inbound, Text, Upload
from server.providers.sandbox.misbehaviour import Callbacks, TriggerUnknown, asked_in
from server.providers.sandbox.records import PhoneNumber
from server.providers.sandbox.settings import BANDWIDTH_NUMBERS
from server.providers.sandbox.validity import MAX_BODY, MAX_MEDIA, is_phone_number

MAX_REQUEST_BYTES = 48 * 2**20
_MAX_MEDIA_BYTES = 32 * 2**20
_MAX_TIMES = 10

_SHORT_CODE_OR_NAME = re.compile(r"\d{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{1,11}")
_CONTENT_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:;[\x20-\x7e]*)?", re.ASCII)


class Texts:
    """Takes texts that the control API is told of."""

    def __init__(
        self, carrier: Carrier, inbound: Inbound, *, bandwidth: BandwidthInbound | None, base_url: str | None
    ) -> None:
        self._carrier = carrier
        self._inbound = inbound
        self._bandwidth = bandwidth
        self._base_url = base_url

    def routes(self) -> list[web.RouteDef]:
        """Where it is told."""
        return [web.post("/sandbox/texts", self.create)]

    async def create(self, request: web.Request) -> web.Response:
        """Take a text, and answer when the account was told of it."""
        fields = await fields_of(request)
        times = fields.take("times", whole(1, _MAX_TIMES), f"1 to {_MAX_TIMES}") or 1
        text = self._text(fields)
        message, telling = self._network_of(text.to).receive(
            text,
            base_url=self._base_url or str(request.url.origin()),
            times=times,
            callbacks=self._callbacks(text.body),
        )
        await asyncio.wait([telling])
        # Cancelled by a reset in between.
        answers = [] if telling.cancelled() else telling.result()
        webhook = {"url": message.inbound_url, "answers": [asdict(answer) for answer in answers]}
        return web.json_response({"message": message_json(message), "webhook": webhook})

    def _text(self, fields: Fields) -> Text:
        from_ = fields.need("from", _is_sender, "a phone number such as +14155550123, a short code or a name")
        number = fields.need("to", self._owns, "one of the account's numbers, which GET /sandbox/numbers lists")
        body = fields.take("body", _is_body, f"a text of at most {MAX_BODY} characters")
        media = fields.take("media", _is_list, f"a list of at most {MAX_MEDIA} objects with content_type and data")
        uploads = [_upload(fields, f"media[{index}]", each) for index, each in enumerate(media or [])]
        if sum(len(upload.data) for upload in uploads) > _MAX_MEDIA_BYTES:
            fields.refuse("media", f"at most {_MAX_MEDIA_BYTES} bytes together")
        fields.finish()
        return Text(from_, self._number(number), body or "", tuple(uploads))

    def _number(self, number: str) -> PhoneNumber:
        sid = phone_number_sid(number)
        return self._carrier.phone_numbers.get(sid) or PhoneNumber(sid, number, self._carrier.now())

    def _network_of(self, number: PhoneNumber) -> Inbound | BandwidthInbound:
        if self._bandwidth is not None and number.number in BANDWIDTH_NUMBERS:
            return self._bandwidth
        return self._inbound

    def _callbacks(self, body: str) -> Callbacks:
        try:
            asked = asked_in(body, attempt=1)
        except TriggerUnknown as unknown:
            raise ControlRefusal.of("body", f"must not have {unknown}, which the sandbox does not know") from unknown
        everybody, _ = self._carrier.misbehaviour()
        return asked.over(everybody).callbacks

    def _owns(self, value: Any) -> bool:
        is_bandwidths = self._bandwidth is not None and value in BANDWIDTH_NUMBERS
        return isinstance(value, str) and (self._carrier.owns(value) or is_bandwidths)


def _is_sender(value: Any) -> bool:
    return isinstance(value, str) and (is_phone_number(value) or _SHORT_CODE_OR_NAME.fullmatch(value) is not None)


def _is_body(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_BODY


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_MEDIA


def _upload(fields: Fields, name: str, value: Any) -> Upload:
    """What is wrong with it is noted, then it is never looked at."""
    given = value if isinstance(value, dict) else {}
    content_type, encoded = given.get("content_type"), given.get("data")
    if not isinstance(content_type, str) or _CONTENT_TYPE.fullmatch(content_type) is None:
        fields.refuse(f"{name}.content_type", "a content type such as image/png")
    try:
        data = b64decode(encoded, validate=True) if isinstance(encoded, str) else b""
    except Base64Error:
        data = b""
    if not data:
        fields.refuse(f"{name}.data", "bytes in base64")
    return Upload(str(content_type), data)
