"""gRPC handlers of video calls."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc.aio
from commonservices.v1 import video_call_pb2, video_call_service_pb2, video_call_service_pb2_grpc
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database
from server.encryption import Cipher
from server.file_urls import file_urls
from server.notifications import Channel, Notifications
from server.providers.video_ports import VideoTokens
from server.rpc import auth
from server.rpc.creates import Creates
from server.storage import Storage
from server.video import convert, participants, video_calls
from server.video.drafts import read_participant, read_video_call
from server.video.tokens import token_for
from server.video.video_calls import VideoNotConfigured

Context = grpc.aio.ServicerContext[Any, Any]


class VideoCallService(video_call_service_pb2_grpc.VideoCallServiceServicer):
    """Video calls of the caller's bearer.

    What a create makes is kept for its request id without a token, which every answer has made for it.
    """

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        cipher: Cipher,
        storage: Storage,
        tokens: VideoTokens | None,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._creates = Creates(db, cipher)
        self._storage = storage
        self._tokens = tokens

    async def CreateVideoCall(
        self, request: video_call_service_pb2.CreateVideoCallRequest, context: Context
    ) -> video_call_pb2.VideoCall:
        caller = auth.caller()
        draft = read_video_call(request)
        self._require_tokens()

        async def create(tx: AsyncSession) -> video_call_pb2.VideoCall:
            call = await video_calls.create_video_call(tx, caller=caller, draft=draft, now=datetime.now(UTC))
            return convert.video_call_to_proto(call.row, call.conversation, participants=call.participants)

        answer = await self._creates.run(request, context, video_call_pb2.VideoCall, create)
        self._notifications.notify(Channel.OUTBOX)
        token = await self._token_of(answer.video_call_participants[0])
        if token is not None:
            answer.host_token = token
        return answer

    async def CreateVideoCallParticipant(
        self, request: video_call_service_pb2.CreateVideoCallParticipantRequest, context: Context
    ) -> video_call_pb2.VideoCallParticipant:
        caller = auth.caller()
        draft = read_participant(request)
        self._require_tokens()

        async def create(tx: AsyncSession) -> video_call_pb2.VideoCallParticipant:
            call = await video_calls.hold_video_call(tx, caller=caller, session_key=draft.session_key)
            participant = await participants.let_in(
                tx, call=call, username=draft.username, is_host=draft.is_host, now=datetime.now(UTC)
            )
            return convert.participant_to_proto(participant, call)

        answer = await self._creates.run(request, context, video_call_pb2.VideoCallParticipant, create)
        token = await self._token_of(answer)
        if token is not None:
            answer.token_signature = token
        return answer

    async def GetVideoCall(
        self, request: video_call_service_pb2.GetVideoCallRequest, context: Context
    ) -> video_call_pb2.VideoCall:
        async with self._db.begin() as tx:
            call = await video_calls.get_video_call(tx, caller=auth.caller(), session_key=request.session_key)
        return convert.video_call_to_proto(
            call.row,
            call.conversation,
            recordings=call.recordings,
            urls=await file_urls(self._storage, [recording.storage_key for recording in call.recordings]),
            participants=call.participants,
            host_token=token_for(call.participants[0], call.row, tokens=self._tokens, now=datetime.now(UTC)),
        )

    def _require_tokens(self) -> None:
        if self._tokens is None:
            raise VideoNotConfigured

    async def _token_of(self, created: video_call_pb2.VideoCallParticipant) -> str | None:
        """A token for somebody who was let in just now, or at an earlier request with the same request id."""
        async with self._db.begin() as tx:
            participant, call = await participants.find_participant(tx, user_key=UUID(created.shunkan_ido_user_key))
        return token_for(participant, call, tokens=self._tokens, now=datetime.now(UTC))
