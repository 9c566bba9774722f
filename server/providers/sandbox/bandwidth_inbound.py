"""Texts from phones to the Bandwidth account's numbers."""

import asyncio
import mimetypes
import secrets

from server.providers.sandbox.bandwidth import message_id
from server.providers.sandbox.bandwidth_answers import PREFIX
from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.delivery import Delivery, Told
from server.providers.sandbox.inbound import Text
from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.records import Direction, Medium, Message, Vendor
from server.providers.sandbox.settings import BANDWIDTH_APPLICATION_ID, BandwidthAccount


class BandwidthInbound:
    """Takes texts from phones. Keywords are for the account to understand: Bandwidth heeds none for local numbers."""

    def __init__(self, carrier: Carrier, delivery: Delivery, account: BandwidthAccount) -> None:
        self._carrier = carrier
        self._delivery = delivery
        self._account = account

    def receive(
        self, text: Text, *, base_url: str, times: int, callbacks: Callbacks
    ) -> tuple[Message, asyncio.Task[list[Told]]]:
        """Take a text and post it to the account so many times; media URLs begin with `base_url`."""
        now = self._carrier.now()
        sid = message_id(now)
        media = [self._carrier.add_medium(sid, upload.content_type, upload.data) for upload in text.media]
        message = Message(
            sid=sid,
            to=text.to.number,
            from_=text.from_,
            body=text.body,
            media_urls=[self._url(base_url, sid, index, medium) for index, medium in enumerate(media)],
            messaging_service_sid=BANDWIDTH_APPLICATION_ID,
            status_callback=None,
            status="received",
            created=now,
            updated=now,
            send_at=None,
            callbacks=callbacks,
            final_status="received",
            final_error=None,
            sent=now,
            direction=Direction.INBOUND,
            inbound_url=self._account.callback_url,
            media_sids=[medium.sid for medium in media],
            vendor=Vendor.BANDWIDTH,
        )
        if callbacks != Callbacks.MISSING:
            message.callbacks_due = [["received", secrets.token_hex(16)]] * times
        self._carrier.add(message)
        return message, self._delivery.start(message)

    def _url(self, base_url: str, message_sid: str, index: int, medium: Medium) -> str:
        content_type = medium.content_type.partition(";")[0]
        name = f"file{mimetypes.guess_extension(content_type) or ''}"
        return f"{base_url}{PREFIX}users/{self._account.account_id}/media/{message_sid}/{index}/{name}"
