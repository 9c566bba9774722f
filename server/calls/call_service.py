"""gRPC handlers of calls of every kind, and of voicemails: what is known of them, with fresh URLs."""

from datetime import timedelta
from functools import partial
from typing import Any

import grpc.aio
from commonservices.v1 import call_pb2, call_service_pb2, call_service_pb2_grpc, voicemail_pb2

from server.calls import convert
from server.calls.calls import get_call, get_call_of_voicemail
from server.calls.queries import Call
from server.db import Database
from server.file_urls import file_urls
from server.rpc import auth
from server.storage import Storage

Context = grpc.aio.ServicerContext[Any, Any]

# How long a URL is good for that is asked for by itself.
_GOOD_FOR = timedelta(hours=12)


class CallService(call_service_pb2_grpc.CallServiceServicer):
    """Calls of the caller's bearer."""

    def __init__(self, db: Database, storage: Storage) -> None:
        self._db = db
        self._storage = storage

    async def GetCall(self, request: call_service_pb2.GetCallRequest, context: Context) -> call_pb2.Call:
        async with self._db.begin() as tx:
            call = await get_call(tx, caller=auth.caller(), uuid=request.uuid)
        urls = await _urls(self._storage, call)
        return await convert.shown(call, partial(convert.call_to_proto, call, urls=urls))

    async def GetRecordingUrl(
        self, request: call_service_pb2.GetRecordingUrlRequest, context: Context
    ) -> call_service_pb2.GetRecordingUrlResponse:
        async with self._db.begin() as tx:
            call = await get_call(tx, caller=auth.caller(), uuid=request.uuid)
        key = call.recording.row.storage_key if call.recording is not None else None
        urls = await file_urls(self._storage, [key], good_for=_GOOD_FOR)
        return call_service_pb2.GetRecordingUrlResponse(recording_url=urls[key] if key is not None else "")


class VoicemailService(call_service_pb2_grpc.VoicemailServiceServicer):
    """Voicemails of the caller's bearer."""

    def __init__(self, db: Database, storage: Storage) -> None:
        self._db = db
        self._storage = storage

    async def GetVoicemail(
        self, request: call_service_pb2.GetVoicemailRequest, context: Context
    ) -> voicemail_pb2.Voicemail:
        async with self._db.begin() as tx:
            call = await get_call_of_voicemail(tx, caller=auth.caller(), voicemail_id=request.id)
        assert call.voicemail is not None, "it was found by it"
        urls = await _urls(self._storage, call)
        show = partial(convert.voicemail_to_proto, call, call.voicemail, urls=urls, nested=False)
        return await convert.shown(call, show)


async def _urls(storage: Storage, call: Call) -> dict[str, str]:
    return await file_urls(storage, [recording.row.storage_key for recording in call.recordings])
