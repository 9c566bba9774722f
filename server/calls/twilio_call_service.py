"""gRPC handlers of what Twilio posts about calls."""

from collections.abc import Callable
from typing import Any, TypeVar

import grpc.aio
from commonservices.v1 import twilio_call_service_pb2, twilio_call_service_pb2_grpc
from google.api import httpbody_pb2

from server.calls import return_calls
from server.calls.conferences import callbacks as conference_callbacks
from server.calls.parts import CallParts
from server.calls.recordings import reports as recording_reports
from server.providers.ports import SignedRequest
from server.providers.voice_ports import VoiceCallbackReader
from server.rpc.callbacks import read_callback, signed_request

Context = grpc.aio.ServicerContext[Any, Any]
Read = TypeVar("Read")

_PREFIX = "/api/v1/twilio_calls"


class TwilioCallService(twilio_call_service_pb2_grpc.TwilioCallServiceServicer):
    """Calls to our numbers, legs of ours, conferences and recordings."""

    def __init__(self, parts: CallParts, reader: VoiceCallbackReader, *, public_base_url: str) -> None:
        self._parts = parts
        self._reader = reader
        self._public_base_url = public_base_url

    async def ReceiveCall(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        call = self._read(self._reader.read_incoming_call, request, context, "incoming")
        return _twiml(await return_calls.receive_call(self._parts, call))

    async def AnswerConferenceLeg(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        answer = self._read(self._reader.read_leg_answer, request, context, "voice_responses")
        return _twiml(await conference_callbacks.answer_leg(self._parts, answer))

    async def UpdateParticipantStatus(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        progress = self._read(self._reader.read_leg_progress, request, context, "participant_status_changes")
        await conference_callbacks.update_leg(self._parts, progress)
        return _twiml(b"<Response/>")

    async def UpdateConferenceStatus(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        event = self._read(self._reader.read_conference_event, request, context, "conference_status_changes")
        await conference_callbacks.update_conference(self._parts, event)
        return _twiml(b"<Response/>")

    async def ReceiveVoicemail(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        report = self._read(self._reader.read_recording, request, context, "create_voicemail")
        return _twiml(await recording_reports.receive_voicemail(self._parts, report))

    async def GetWelcomeMessage(
        self, request: twilio_call_service_pb2.GetWelcomeMessageRequest, context: Context
    ) -> httpbody_pb2.HttpBody:
        path = f"{request.id}/call_welcome_message"
        self._read(self._reader.verify, httpbody_pb2.HttpBody(), context, path)
        return _twiml(await conference_callbacks.welcome_message(self._parts, request.id))

    async def ChooseFromReturnCallMenu(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        choice = self._read(self._reader.read_menu_choice, request, context, "return_call_menu")
        return _twiml(await return_calls.choose(self._parts, choice))

    async def UpdateRecordingStatus(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        report = self._read(self._reader.read_recording, request, context, "recording_status_changes")
        await recording_reports.update_recording(self._parts, report)
        return _twiml(b"<Response/>")

    async def ReceiveDialResult(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        result = self._read(self._reader.read_dial_result, request, context, "dial_results")
        return _twiml(await return_calls.after_dial(self._parts, result))

    def _read(
        self, read: Callable[[SignedRequest], Read], request: httpbody_pb2.HttpBody, context: Context, path: str
    ) -> Read:
        signed = signed_request(request, context, public_base_url=self._public_base_url, path=f"{_PREFIX}/{path}")
        return read_callback(read, signed)


def _twiml(document: bytes) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type="text/xml", data=document)
