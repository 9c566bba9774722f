"""gRPC handler of what the transcription service posts."""

from typing import Any

import grpc.aio
from commonservices.v1 import transcription_request_service_pb2_grpc
from google.api import httpbody_pb2

from server.calls.recordings.transcripts import CALLBACK_PATH, receive_transcript
from server.db import Database
from server.notifications import Notifications
from server.providers.transcription_ports import TranscriptReportReader
from server.rpc.callbacks import CallbackSignatureInvalid, read_callback, signed_request
from server.storage import Storage

Context = grpc.aio.ServicerContext[Any, Any]


class TranscriptionRequestService(transcription_request_service_pb2_grpc.TranscriptionRequestServiceServicer):
    """Transcripts that come later; `reader` is None where the transcriber in use posts nothing."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        storage: Storage,
        reader: TranscriptReportReader | None,
        *,
        public_base_url: str,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._storage = storage
        self._reader = reader
        self._public_base_url = public_base_url

    async def ReceiveTranscript(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        if self._reader is None:
            raise CallbackSignatureInvalid("no transcription service is configured, so nothing can be from it")
        signed = signed_request(request, context, public_base_url=self._public_base_url, path=CALLBACK_PATH)
        report = read_callback(self._reader.read, signed)
        await receive_transcript(self._db, self._notifications, self._storage, report=report)
        return httpbody_pb2.HttpBody()
