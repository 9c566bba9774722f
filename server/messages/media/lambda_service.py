"""gRPC handler of an image processor's requests."""

from datetime import UTC, datetime
from typing import Any

import grpc.aio
from commonservices.v1 import lambda_request_service_pb2, lambda_request_service_pb2_grpc, message_pb2

from server.db import Database
from server.messages import convert
from server.messages.media.images import store_images
from server.messages.messages import MessageNotFound
from server.notifications import Notifications
from server.rpc import auth
from server.validation import checking, parse_uuid

Context = grpc.aio.ServicerContext[Any, Any]


class LambdaRequestService(lambda_request_service_pb2_grpc.LambdaRequestServiceServicer):
    """Media that are stored by somebody else."""

    def __init__(self, db: Database, notifications: Notifications) -> None:
        self._db = db
        self._notifications = notifications

    async def StoreImages(
        self, request: lambda_request_service_pb2.StoreImagesRequest, context: Context
    ) -> message_pb2.Message:
        given = request.message
        with checking(request) as bad:
            for place, url in enumerate(given.media_file_urls):
                bad.http_url(f"message.media_file_urls[{place}]", url)
        message_uuid = parse_uuid(given.message_uuid)
        if message_uuid is None:
            raise MessageNotFound(given.message_uuid)
        message = await store_images(
            self._db,
            self._notifications,
            caller=auth.caller(),
            message_uuid=message_uuid,
            media_file_urls=given.media_file_urls,
            now=datetime.now(UTC),
        )
        return convert.message_to_proto(message, message.stored_media)
