"""gRPC handlers of conversations."""

from typing import Any

import grpc.aio
from commonservices.v1 import conversation_pb2, conversation_service_pb2, conversation_service_pb2_grpc
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations import conversations, convert
from server.conversations.drafts import read_draft
from server.conversations.keys import ConversationKey
from server.db import Database
from server.encryption import Cipher
from server.paging import Page
from server.rpc import answers, auth
from server.rpc.creates import Creates
from server.validation import check

Context = grpc.aio.ServicerContext[Any, Any]


class ConversationService(conversation_service_pb2_grpc.ConversationServiceServicer):
    """Conversations of the caller's bearer."""

    def __init__(self, db: Database, cipher: Cipher) -> None:
        self._db = db
        self._creates = Creates(db, cipher)

    async def CreateConversation(
        self, request: conversation_service_pb2.CreateConversationRequest, context: Context
    ) -> conversation_pb2.Conversation:
        caller = auth.caller()
        draft = read_draft(request)

        async def create(tx: AsyncSession) -> conversation_pb2.Conversation:
            return convert.conversation_to_proto(
                await conversations.create_conversation(tx, caller=caller, draft=draft)
            )

        return await self._creates.run(request, context, conversation_pb2.Conversation, create)

    async def GetConversation(
        self, request: conversation_service_pb2.GetConversationRequest, context: Context
    ) -> conversation_pb2.Conversation:
        check(request)
        async with self._db.begin() as tx:
            return convert.conversation_to_proto(
                await conversations.get_conversation(tx, caller=auth.caller(), key=_key(request))
            )

    async def ListConversations(
        self, request: conversation_service_pb2.ListConversationsRequest, context: Context
    ) -> conversation_service_pb2.ListConversationsResponse:
        check(request)
        async with self._db.begin() as tx:
            found, next_page_token = await conversations.list_conversations(
                tx, caller=auth.caller(), page=Page(request)
            )
        await answers.paged(context, request, next_page_token)
        return conversation_service_pb2.ListConversationsResponse(
            conversations=[convert.conversation_to_proto(conversation) for conversation in found],
            next_page_token=next_page_token,
        )

    async def UpdateConversation(
        self, request: conversation_service_pb2.UpdateConversationRequest, context: Context
    ) -> conversation_pb2.Conversation:
        draft = read_draft(request)
        async with self._db.begin() as tx:
            return convert.conversation_to_proto(
                await conversations.update_conversation(tx, caller=auth.caller(), key=_key(request), draft=draft)
            )


def _key(
    request: conversation_service_pb2.GetConversationRequest | conversation_service_pb2.UpdateConversationRequest,
) -> ConversationKey:
    """The id that the request gives; that there is one was checked."""
    name = request.WhichOneof("key")
    assert name is not None, "the schema requires it"
    return ConversationKey(name, str(getattr(request, name)))
