"""The gRPC handler of Zoom's webhooks."""

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any

import grpc.aio
from commonservices.v1 import zoom_request_service_pb2_grpc
from google.api import httpbody_pb2

from server.db import Database
from server.encryption import Cipher
from server.notifications import Notifications
from server.providers.video_ports import UrlValidation, VideoEventReader
from server.rpc.callbacks import CallbackSignatureInvalid, read_callback, signed_request
from server.storage import Storage
from server.video.apply import apply_event

Context = grpc.aio.ServicerContext[Any, Any]

_PATH = "/api/v1/zoom_requests/webhook"


class ZoomRequestService(zoom_request_service_pb2_grpc.ZoomRequestServiceServicer):
    """What Zoom posts; `reader` is None where Zoom is not configured."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        storage: Storage,
        cipher: Cipher,
        reader: VideoEventReader | None,
        *,
        public_base_url: str,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._storage = storage
        self._cipher = cipher
        self._reader = reader
        self._public_base_url = public_base_url

    async def ReceiveZoomEvent(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        if self._reader is None:
            raise CallbackSignatureInvalid("no Zoom account is configured, so nothing can be from it")
        now = datetime.now(UTC)
        signed = signed_request(request, context, public_base_url=self._public_base_url, path=_PATH)
        said = read_callback(partial(self._reader.read, now=now), signed)
        if isinstance(said, UrlValidation):
            return _json({"plainToken": said.plain_token, "encryptedToken": said.encrypted_token})
        await apply_event(
            self._db, self._notifications, self._storage, self._cipher, event=said, body=request.data, now=now
        )
        return _json({})


def _json(body: dict[str, str]) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps(body).encode())
