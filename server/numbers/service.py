"""gRPC handlers of messaging services."""

from typing import Any

import grpc.aio
from commonservices.v1 import messaging_service_pb2, messaging_service_service_pb2, messaging_service_service_pb2_grpc
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database
from server.encryption import Cipher
from server.numbers import convert, messaging_services
from server.numbers.messaging_services import MessagingServiceNotFound
from server.paging import Page
from server.rpc import answers
from server.rpc.creates import Creates
from server.validation import check, checking, parse_uuid

Context = grpc.aio.ServicerContext[Any, Any]


class MessagingServiceService(messaging_service_service_pb2_grpc.MessagingServiceServiceServicer):
    """Messaging services, which every key reads."""

    def __init__(self, db: Database, cipher: Cipher) -> None:
        self._db = db
        self._creates = Creates(db, cipher)

    async def AdminCreateMessagingService(
        self, request: messaging_service_service_pb2.AdminCreateMessagingServiceRequest, context: Context
    ) -> messaging_service_pb2.MessagingService:
        field = "twilio_numbers" if request.twilio_numbers else "twilio_numbers_attributes"
        with checking(request) as bad:
            if request.twilio_numbers and request.twilio_numbers_attributes:
                bad.add("twilio_numbers", "is another name of twilio_numbers_attributes; give one of the two")
            phone_numbers: list[str] = []
            for index, number in enumerate(getattr(request, field)):
                path = f"{field}[{index}].phone_number"
                phone_number = bad.phone_number(path, number.phone_number)
                if phone_number in phone_numbers:
                    bad.add(path, "is given twice")
                phone_numbers.append(phone_number)

        async def create(tx: AsyncSession) -> messaging_service_pb2.MessagingService:
            return convert.messaging_service_to_proto(
                await messaging_services.create_messaging_service(
                    tx,
                    name=request.name or request.global_customer_id,
                    global_customer_id=request.global_customer_id,
                    twilio_messaging_sid=request.twilio_messaging_sid,
                    bandwidth_messaging_sid=request.bandwidth_messaging_sid or None,
                    phone_numbers=phone_numbers,
                )
            )

        return await self._creates.run(request, context, messaging_service_pb2.MessagingService, create)

    async def GetMessagingService(
        self, request: messaging_service_service_pb2.GetMessagingServiceRequest, context: Context
    ) -> messaging_service_pb2.MessagingService:
        uuid = parse_uuid(request.uuid)
        if uuid is None:
            raise MessagingServiceNotFound(request.uuid)
        async with self._db.begin() as tx:
            return convert.messaging_service_to_proto(await messaging_services.get_messaging_service(tx, uuid=uuid))

    async def ListMessagingServices(
        self, request: messaging_service_service_pb2.ListMessagingServicesRequest, context: Context
    ) -> messaging_service_service_pb2.ListMessagingServicesResponse:
        check(request)
        async with self._db.begin() as tx:
            found, next_page_token = await messaging_services.list_messaging_services(tx, page=Page(request))
        await answers.paged(context, request, next_page_token)
        return messaging_service_service_pb2.ListMessagingServicesResponse(
            messaging_services=[convert.messaging_service_to_proto(service) for service in found],
            next_page_token=next_page_token,
        )
