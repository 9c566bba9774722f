"""gRPC handlers of conference calls."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import grpc.aio
from commonservices.v1 import call_pb2, conference_call_pb2, conference_call_service_pb2_grpc
from commonservices.v1 import conference_call_service_pb2 as pb
from sqlalchemy.ext.asyncio import AsyncSession

from server.calls import convert
from server.calls.conferences import conferences
from server.calls.conferences.drafts import read_conference_call
from server.calls.events import Change, change_call
from server.calls.queries import Call
from server.calls.tables import CallLegRow
from server.db import Database
from server.encryption import Cipher
from server.file_urls import file_urls
from server.notifications import Channel, Notifications
from server.paging import Page
from server.rpc import answers, auth
from server.rpc.creates import Creates
from server.storage import Storage
from server.validation import check

Context = grpc.aio.ServicerContext[Any, Any]


class ConferenceCallService(conference_call_service_pb2_grpc.ConferenceCallServiceServicer):
    """Conference calls of the caller's bearer; `welcome_message` is what participants hear where none is given,
    `time_limit` the longest that a call may last."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        cipher: Cipher,
        storage: Storage,
        *,
        welcome_message: str,
        time_limit: timedelta,
    ) -> None:
        self._db = db
        self._notifications = notifications
        self._creates = Creates(db, cipher)
        self._storage = storage
        self._welcome_message = welcome_message
        self._time_limit = time_limit

    async def CreateConferenceCall(self, request: pb.CreateConferenceCallRequest, context: Context) -> call_pb2.Call:
        caller = auth.caller()
        draft = read_conference_call(request)

        async def create(tx: AsyncSession) -> call_pb2.Call:
            return await conferences.create_conference_call(
                tx,
                caller=caller,
                draft=draft,
                default_welcome_message=self._welcome_message,
                time_limit=self._time_limit,
                now=datetime.now(UTC),
            )

        answer = await self._creates.run(request, context, call_pb2.Call, create)
        self._notifications.notify(Channel.CALL_LEGS, Channel.OUTBOX)
        return answer

    async def GetConferenceCall(
        self, request: pb.GetConferenceCallRequest, context: Context
    ) -> conference_call_pb2.ConferenceCall:
        call = await self._get(request.uuid)
        urls = await self._urls(call)
        return await convert.shown(call, partial(convert.conference_call_to_proto, call, urls=urls, nested=False))

    async def CancelConferenceCall(self, request: pb.CancelConferenceCallRequest, context: Context) -> call_pb2.Call:
        call_id = (await self._get(request.uuid)).row.id
        await self._change(call_id, conferences.cancel(request.uuid, now=datetime.now(UTC)))
        call = await self._get(request.uuid)
        urls = await self._urls(call)
        return await convert.shown(call, partial(convert.call_to_proto, call, urls=urls))

    async def ListConferenceCallParticipants(
        self, request: pb.ListConferenceCallParticipantsRequest, context: Context
    ) -> pb.ListConferenceCallParticipantsResponse:
        check(request)
        async with self._db.begin() as tx:
            found, next_page_token = await conferences.list_participants(
                tx, caller=auth.caller(), uuid=request.uuid, page=Page(request)
            )
        await answers.paged(context, request, next_page_token)
        return pb.ListConferenceCallParticipantsResponse(
            participants=[convert.participant_to_proto(leg) for leg in found], next_page_token=next_page_token
        )

    async def UpdateConferenceCallParticipant(
        self, request: pb.UpdateConferenceCallParticipantRequest, context: Context
    ) -> conference_call_pb2.ConferenceCallParticipant:
        call_id = await self._call_id_of(request)
        change = conferences.change_participant(
            request.call_sid,
            muted=request.muted if request.HasField("muted") else None,
            hold=request.hold if request.HasField("hold") else None,
            now=datetime.now(UTC),
        )
        await self._change(call_id, change)
        return convert.participant_to_proto(await self._participant(call_id, request.call_sid))

    async def DeleteConferenceCallParticipant(
        self, request: pb.DeleteConferenceCallParticipantRequest, context: Context
    ) -> pb.DeleteConferenceCallParticipantResponse:
        call_id = await self._call_id_of(request)
        await self._change(call_id, conferences.remove_participant(request.call_sid, now=datetime.now(UTC)))
        return pb.DeleteConferenceCallParticipantResponse()

    async def _get(self, uuid: str) -> Call:
        async with self._db.begin() as tx:
            return await conferences.get_conference_call(tx, caller=auth.caller(), uuid=uuid)

    async def _call_id_of(
        self, request: pb.UpdateConferenceCallParticipantRequest | pb.DeleteConferenceCallParticipantRequest
    ) -> int:
        check(request)
        async with self._db.begin() as tx:
            call = await conferences.find_conference_call(tx, caller=auth.caller(), uuid=request.uuid)
        return call.id

    async def _participant(self, call_id: int, call_sid: str) -> CallLegRow:
        async with self._db.begin() as tx:
            return await conferences.find_participant(tx, call_id=call_id, call_sid=call_sid)

    async def _change(self, call_id: int, change: Change) -> None:
        await change_call(self._db, self._notifications, self._storage, call_id=call_id, change=change)

    async def _urls(self, call: Call) -> dict[str, str]:
        return await file_urls(self._storage, [recording.row.storage_key for recording in call.recordings])
