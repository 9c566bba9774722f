"""Texts from phones to the account's numbers: keywords, media, and the form that tells the account."""

import asyncio
import secrets
from dataclasses import dataclass

from server.providers.sandbox.answers import API_VERSION
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.delivery import Delivery, Told
from server.providers.sandbox.keywords import ANSWERS, Keyword, keyword_in
from server.providers.sandbox.misbehaviour import Callbacks, Misbehaviour
from server.providers.sandbox.records import Direction, Medium, Message, MessagingService, PhoneNumber
from server.providers.sandbox.segments import segments

# Add-ons that are not installed have found out nothing.
_ADD_ONS = '{"status":"successful","message":null,"code":null,"results":{}}'


@dataclass(frozen=True)
class Upload:
    """A file as a phone sends it."""

    content_type: str
    data: bytes


@dataclass(frozen=True)
class Text:
    """What a phone sends; `from_` is whatever a network shows as sender."""

    from_: str
    to: PhoneNumber
    body: str
    media: tuple[Upload, ...]


class Inbound:
    """Takes texts from phones."""

    def __init__(self, carrier: Carrier, delivery: Delivery) -> None:
        self._carrier = carrier
        self._delivery = delivery

    def receive(
        self, text: Text, *, base_url: str, times: int, callbacks: Callbacks
    ) -> tuple[Message, asyncio.Task[list[Told]]]:
        """Take a text and post it to the account so many times; media URLs begin with `base_url`."""
        service = self._carrier.service_of(text.to.sid)
        keyword = self._obey(text, service)
        sid = ("MM" if text.media else "SM") + secrets.token_hex(16)
        media = [self._carrier.add_medium(sid, upload.content_type, upload.data) for upload in text.media]
        message = self._message(sid, text, service, media, base_url=base_url)
        message.inbound_form = _form(message, media, account_sid=self._carrier.account_sid)
        if keyword is not None and service is not None and service.advanced_opt_out:
            message.inbound_form["OptOutType"] = keyword
        message.callbacks = callbacks
        if message.inbound_url is not None and callbacks != Callbacks.MISSING:
            message.callbacks_due = [["received", secrets.token_hex(16)]] * times
        self._carrier.add(message)
        if keyword is not None:
            self._answer(keyword, text)
        return message, self._delivery.start(message)

    def _obey(self, text: Text, service: MessagingService | None) -> Keyword | None:
        """Without Advanced Opt-Out a word such as YES means something only to those who have opted out."""
        keyword = keyword_in(text.body)
        advanced = service is not None and service.advanced_opt_out
        service_sid = None if service is None else service.sid
        blocked = self._carrier.has_opted_out(text.from_, from_=text.to.number, service_sid=service_sid)
        if keyword is Keyword.START and not blocked and not advanced:
            return None
        if keyword in (Keyword.STOP, Keyword.START):
            self._carrier.set_opted_out(text.from_, text.to, keyword is Keyword.STOP)
        return keyword

    def _answer(self, keyword: Keyword, text: Text) -> None:
        answer = self._carrier.take(
            to=text.from_,
            from_=text.to.number,
            service_sid=None,
            body=ANSWERS[keyword],
            media_urls=[],
            is_mms=False,
            status_callback=None,
            send_at=None,
            misbehaviour=Misbehaviour(),
            direction=Direction.REPLY,
            by_carrier=True,
        )
        self._delivery.start(answer)

    def _message(
        self, sid: str, text: Text, service: MessagingService | None, media: list[Medium], *, base_url: str
    ) -> Message:
        folder = f"{base_url}/{API_VERSION}/Accounts/{self._carrier.account_sid}/Messages/{sid}/Media"
        now = self._carrier.now()
        return Message(
            sid=sid,
            to=text.to.number,
            from_=text.from_,
            body=text.body,
            media_urls=[f"{folder}/{medium.sid}" for medium in media],
            messaging_service_sid=None if service is None else service.sid,
            status_callback=None,
            status="received",
            created=now,
            updated=now,
            send_at=None,
            callbacks=Callbacks.IN_ORDER,
            final_status="received",
            final_error=None,
            sent=now,
            direction=Direction.INBOUND,
            inbound_url=self._carrier.inbound_url(text.to),
            media_sids=[medium.sid for medium in media],
        )


def _form(message: Message, media: list[Medium], *, account_sid: str) -> dict[str, str]:
    """Every field Twilio sends; it leaves those empty that it knows nothing for."""
    assert message.from_ is not None, "whoever texts has a number"
    form = {
        "AccountSid": account_sid,
        "AddOns": _ADD_ONS,
        "ApiVersion": API_VERSION,
        "Body": message.body,
        "From": message.from_,
        "MessageSid": message.sid,
        "NumMedia": str(len(media)),
        "NumSegments": "1" if media else str(segments(message.body)),
        "SmsMessageSid": message.sid,
        "SmsSid": message.sid,
        "SmsStatus": "received",
        "To": message.to,
    }
    for side, number in (("From", message.from_), ("To", message.to)):
        form |= {f"{side}{part}": "" for part in ("City", "State", "Zip")}
        form[f"{side}Country"] = "US" if number.startswith("+1") else ""
    if message.messaging_service_sid is not None:
        form["MessagingServiceSid"] = message.messaging_service_sid
    for index, (url, medium) in enumerate(zip(message.media_urls, media, strict=True)):
        form |= {f"MediaUrl{index}": url, f"MediaContentType{index}": medium.content_type}
    return form
