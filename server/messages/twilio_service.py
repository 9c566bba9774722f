"""gRPC handlers of what Twilio posts about messages."""

from datetime import UTC, datetime
from typing import Any

import grpc.aio
from commonservices.v1 import twilio_request_service_pb2_grpc
from google.api import httpbody_pb2

from server.db import Database
from server.messages import callbacks, inbound
from server.notifications import Notifications
from server.providers.ports import InboundMessageReader, MessageCallbackReader
from server.rpc.callbacks import read_callback, signed_request

Context = grpc.aio.ServicerContext[Any, Any]

_STATUS_PATH = "/api/v1/twilio_requests/webhook_message_updates"
_INBOUND_PATH = "/api/v1/twilio_requests/inbound"

# TwiML that asks for nothing.
_NOTHING = b"<Response/>"


class TwilioRequestService(twilio_request_service_pb2_grpc.TwilioRequestServiceServicer):
    """Statuses of our messages, and messages to our numbers."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        status_reader: MessageCallbackReader,
        inbound_reader: InboundMessageReader,
        *,
        public_base_url: str,
        unknown_sender_answer: str,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._status_reader = status_reader
        self._inbound_reader = inbound_reader
        self._public_base_url = public_base_url
        self._unknown_sender_answer = unknown_sender_answer

    async def UpdateMessageStatus(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        signed = signed_request(request, context, public_base_url=self._public_base_url, path=_STATUS_PATH)
        callback = read_callback(self._status_reader.read, signed)
        await callbacks.apply_callback(
            self._db,
            self._notifications,
            provider="twilio",
            callback=callback,
            now=datetime.now(UTC),
        )
        return httpbody_pb2.HttpBody(content_type="text/xml", data=_NOTHING)

    async def ReceiveMessage(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        signed = signed_request(request, context, public_base_url=self._public_base_url, path=_INBOUND_PATH)
        message = read_callback(self._inbound_reader.read, signed)
        await inbound.receive_message(
            self._db,
            self._notifications,
            provider="twilio",
            message=message,
            unknown_sender_answer=self._unknown_sender_answer,
            now=datetime.now(UTC),
        )
        return httpbody_pb2.HttpBody(content_type="text/xml", data=_NOTHING)
