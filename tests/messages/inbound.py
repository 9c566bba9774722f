"""Texts of contacts to our numbers, posted as Twilio posts them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from commonservices.v1 import twilio_request_service_pb2_grpc
from google.api import httpbody_pb2
from psycopg.rows import tuple_row

from server.db import Database
from server.messages.message import Message
from server.providers.sandbox.callbacks import signature
from tests.conftest import PUBLIC_BASE_URL, TWILIO_AUTH_TOKEN
from tests.factories import RECEIVER, SENDER
from tests.messages.support import rows

PATH = "/api/v1/twilio_requests/inbound"
FORM = "application/x-www-form-urlencoded"

# Nobody has ever written to this one.
STRANGER = "+13035550111"

_SIDS = itertools.count(1)


def inbound_form(
    body: str = "Is the bus late?",
    *,
    sender: str = RECEIVER,
    to: str = SENDER,
    sid: str | None = None,
    media: Sequence[tuple[str, str]] = (),
    opt_out_type: str | None = None,
) -> dict[str, str]:
    """The fields of a text, its media given as URLs and types; each has a sid of its own unless it is given one."""
    sid = sid or f"SM{next(_SIDS):032}"
    fields = {
        "MessageSid": sid,
        "SmsSid": sid,
        "SmsMessageSid": sid,
        "AccountSid": "AC" + "0" * 32,
        "From": sender,
        "To": to,
        "Body": body,
        "NumMedia": str(len(media)),
        "NumSegments": "1",
        "SmsStatus": "received",
        "ApiVersion": "2010-04-01",
    }
    for number, (url, content_type) in enumerate(media):
        fields |= {f"MediaUrl{number}": url, f"MediaContentType{number}": content_type}
    if opt_out_type is not None:
        fields["OptOutType"] = opt_out_type
    return fields


@dataclass
class Texts:
    """Posts texts to an API, signed by the account of the settings under test."""

    stub: "twilio_request_service_pb2_grpc.TwilioRequestServiceAsyncStub"

    async def post(self, form: dict[str, str]) -> httpbody_pb2.HttpBody:
        """Post a form and answer what Twilio is answered."""
        signed = signature(TWILIO_AUTH_TOKEN, PUBLIC_BASE_URL + PATH, form)
        body = httpbody_pb2.HttpBody(content_type=FORM, data=urlencode(form).encode())
        return await self.stub.ReceiveMessage(body, metadata=(("x-twilio-signature", signed),))

    async def send(
        self,
        body: str = "Is the bus late?",
        *,
        sender: str = RECEIVER,
        to: str = SENDER,
        sid: str | None = None,
        media: Sequence[tuple[str, str]] = (),
        opt_out_type: str | None = None,
    ) -> str:
        """Send a text and answer its sid."""
        form = inbound_form(body, sender=sender, to=to, sid=sid, media=media, opt_out_type=opt_out_type)
        await self.post(form)
        return form["MessageSid"]


async def received(db: Database, sid: str) -> Message:
    """The message that a text became."""
    [message] = [message for message in await rows(db) if message.message_sid == sid]
    return message


async def outbound(db: Database, receiver: str = STRANGER) -> list[Message]:
    """The messages to a number."""
    return [m for m in await rows(db) if m.direction == "outbound" and m.receiver_number == receiver]


async def opted_out(db: Database) -> set[tuple[int, str, str]]:
    """Who takes no messages of which messaging service, and how we know."""
    query = "SELECT messaging_service_id, phone_number, source FROM opt_outs WHERE opted_out_at IS NOT NULL"
    return set(await db.fetch_all(query, {}, tuple_row))
