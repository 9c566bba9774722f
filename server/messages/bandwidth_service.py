"""The gRPC handler of Bandwidth's callbacks about messages and of messages to our numbers."""

from datetime import UTC, datetime
from typing import Any

import grpc.aio
from commonservices.v1 import bandwidth_request_service_pb2_grpc
from google.api import httpbody_pb2

from server.db import Database
from server.errors import FieldViolation, InvalidArgument
from server.messages import callbacks, inbound
from server.notifications import Notifications
from server.providers.ports import MessageCallback, MessageEventsReader
from server.rpc.callbacks import CallbackSignatureInvalid, read_callback, signed_request

Context = grpc.aio.ServicerContext[Any, Any]

_PATH = "/webhooks/bandwidth/messages_updates"
_PROVIDER = "bandwidth"


class BandwidthRequestService(bandwidth_request_service_pb2_grpc.BandwidthRequestServiceServicer):
    """What Bandwidth posts; `reader` is None where Bandwidth is not configured."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        reader: MessageEventsReader | None,
        *,
        public_base_url: str,
        unknown_sender_answer: str,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._reader = reader
        self._public_base_url = public_base_url
        self._unknown_sender_answer = unknown_sender_answer

    async def ReceiveBandwidthEvents(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        """Answers only when every event is kept: without a 2xx Bandwidth posts them all again. One that cannot be
        read is named after the others are kept."""
        if self._reader is None:
            raise CallbackSignatureInvalid("no Bandwidth account is configured, so nothing can be from it")
        signed = signed_request(request, context, public_base_url=self._public_base_url, path=_PATH)
        read = read_callback(self._reader.read, signed)
        for event in read.events:
            if isinstance(event, MessageCallback):
                await callbacks.apply_callback(
                    self._db,
                    self._notifications,
                    provider=_PROVIDER,
                    callback=event,
                    now=datetime.now(UTC),
                )
            else:
                await inbound.receive_message(
                    self._db,
                    self._notifications,
                    provider=_PROVIDER,
                    message=event,
                    unknown_sender_answer=self._unknown_sender_answer,
                    now=datetime.now(UTC),
                )
        if read.faults:
            raise InvalidArgument([FieldViolation("body", fault) for fault in read.faults])
        return httpbody_pb2.HttpBody(content_type="application/json", data=b"{}")
