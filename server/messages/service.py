"""gRPC handlers of messages."""

from datetime import UTC, datetime
from typing import Any

import grpc.aio
from commonservices.v1 import (
    message_pb2,
    message_service_pb2,
    message_service_pb2_grpc,
)
from google.protobuf import empty_pb2

from server.db import Database
from server.encryption import Cipher
from server.messages import messages
from server.messages.create import create_message
from server.messages.drafts import read_draft
from server.messages.media.urls import message_with_media
from server.messages.messages import MessageNotFound
from server.notifications import Notifications
from server.paging import Page
from server.rpc import answers, auth
from server.rpc.creates import request_key
from server.storage import Storage
from server.validation import check, checking, parse_uuid

Context = grpc.aio.ServicerContext[Any, Any]


class MessageService(message_service_pb2_grpc.MessageServiceServicer):
    """Messages of the caller's bearer."""

    def __init__(self, db: Database, notifications: Notifications, cipher: Cipher, storage: Storage) -> None:
        self._db = db
        self._notifications = notifications
        self._cipher = cipher
        self._storage = storage

    async def CreateMessage(
        self, request: message_service_pb2.CreateMessageRequest, context: Context
    ) -> message_pb2.Message:
        caller = auth.caller()
        draft = read_draft(request, now=datetime.now(UTC))
        message, replayed = await create_message(
            self._db,
            self._notifications,
            self._cipher,
            caller=caller,
            draft=draft,
            request_key=request_key(request, context, caller),
        )
        if replayed:
            await answers.replayed(context)
        return message

    async def GetMessage(self, request: message_service_pb2.GetMessageRequest, context: Context) -> message_pb2.Message:
        message_uuid = parse_uuid(request.uuid)
        if message_uuid is None:
            raise MessageNotFound(request.uuid)
        message = await messages.get_message(self._db, caller=auth.caller(), message_uuid=message_uuid)
        return await message_with_media(self._storage, message)

    async def ListMessages(
        self, request: message_service_pb2.ListMessagesRequest, context: Context
    ) -> message_service_pb2.ListMessagesResponse:
        with checking(request) as bad:
            sender_number = bad.sender("from", getattr(request, "from"))
            receiver_number = bad.phone_number("to", request.to)
        found, next_page_token = await messages.list_messages(
            self._db,
            caller=auth.caller(),
            sender_number=sender_number,
            receiver_number=receiver_number,
            page=Page(request),
        )
        await answers.paged(context, request, next_page_token)
        return message_service_pb2.ListMessagesResponse(
            messages=[await message_with_media(self._storage, message) for message in found],
            next_page_token=next_page_token,
        )

    async def ListConversationMessages(
        self, request: message_service_pb2.ListConversationMessagesRequest, context: Context
    ) -> message_service_pb2.ListMessagesResponse:
        check(request)
        found, next_page_token = await messages.list_conversation_messages(
            self._db, caller=auth.caller(), conversation_id=request.id, page=Page(request)
        )
        await answers.paged(context, request, next_page_token)
        return message_service_pb2.ListMessagesResponse(
            messages=[await message_with_media(self._storage, message) for message in found],
            next_page_token=next_page_token,
        )

    async def CancelMessage(
        self, request: message_service_pb2.CancelMessageRequest, context: Context
    ) -> empty_pb2.Empty:
        message_uuid = parse_uuid(request.uuid)
        if message_uuid is None:
            raise MessageNotFound(request.uuid)
        await messages.cancel_message(
            self._db,
            self._notifications,
            caller=auth.caller(),
            message_uuid=message_uuid,
            now=datetime.now(UTC),
        )
        return empty_pb2.Empty()
