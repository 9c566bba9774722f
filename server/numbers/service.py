"""gRPC handlers of messaging services."""

from typing import Any
from uuid import UUID

import grpc.aio
from commonservices.v1 import messaging_service_pb2, messaging_service_service_pb2, messaging_service_service_pb2_grpc
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database
from server.encryption import Cipher
from server.numbers import convert, messaging_services
from server.numbers.messaging_services import DEFAULT_PROVIDER, SID_FIELDS, LookupField, MessagingServiceNotFound
from server.numbers.twilio_numbers import NumberChange
from server.paging import Page
from server.rpc import answers
from server.rpc.creates import Creates
from server.validation import FieldChecks, check, checking, parse_uuid

Context = grpc.aio.ServicerContext[Any, Any]
Create = (
    messaging_service_service_pb2.AdminCreateMessagingServiceRequest
    | messaging_service_service_pb2.CreateMessagingServiceRequest
)
WithNumbers = (
    messaging_service_service_pb2.AdminCreateMessagingServiceRequest
    | messaging_service_service_pb2.UpdateMessagingServiceRequest
)

_CHANGEABLE = ("name", "bandwidth_messaging_sid", "twilio_messaging_sid", "provider")
_IDENTITIES = ("name", "bandwidth_messaging_sid", "twilio_messaging_sid", "global_customer_id")


class MessagingServiceService(messaging_service_service_pb2_grpc.MessagingServiceServiceServicer):
    """Messaging services, which every key reads. `providers` are those that are configured."""

    def __init__(self, db: Database, cipher: Cipher, *, providers: frozenset[str]) -> None:
        self._db = db
        self._creates = Creates(db, cipher)
        self._providers = providers

    async def AdminCreateMessagingService(
        self, request: messaging_service_service_pb2.AdminCreateMessagingServiceRequest, context: Context
    ) -> messaging_service_pb2.MessagingService:
        with checking(request) as bad:
            self._check_create(request, bad)
            phone_numbers = _new_numbers(request, bad)
        return await self._create(request, context, phone_numbers)

    async def CreateMessagingService(
        self, request: messaging_service_service_pb2.CreateMessagingServiceRequest, context: Context
    ) -> messaging_service_pb2.MessagingService:
        with checking(request) as bad:
            self._check_create(request, bad)
        return await self._create(request, context, [])

    async def UpdateMessagingService(
        self, request: messaging_service_service_pb2.UpdateMessagingServiceRequest, context: Context
    ) -> messaging_service_pb2.MessagingService:
        with checking(request) as bad:
            bad.identities(request, *_IDENTITIES)
            self._check_provider(request.provider, bad)
            number_changes = _number_changes(request, bad)
        changes: dict[str, str | bool] = {name: value for name in _CHANGEABLE if (value := getattr(request, name))}
        if request.HasField("is_k12_pool"):
            changes["is_k12_pool"] = request.is_k12_pool
        uuid = _uuid(request.uuid)
        async with self._db.begin() as tx:
            return convert.messaging_service_to_proto(
                await messaging_services.update_messaging_service(
                    tx,
                    uuid=uuid,
                    changes=changes,
                    bearer_id=request.bearer_id or None,
                    global_customer_id=request.global_customer_id or None,
                    number_changes=number_changes,
                )
            )

    async def GetMessagingService(
        self, request: messaging_service_service_pb2.GetMessagingServiceRequest, context: Context
    ) -> messaging_service_pb2.MessagingService:
        uuid = _uuid(request.uuid)
        async with self._db.begin() as tx:
            return convert.messaging_service_to_proto(await messaging_services.get_messaging_service(tx, uuid=uuid))

    async def FindMessagingServiceByTwilioMessagingSid(
        self, request: messaging_service_service_pb2.FindMessagingServiceByTwilioMessagingSidRequest, context: Context
    ) -> messaging_service_pb2.MessagingService:
        check(request)
        return await self._find("twilio_messaging_sid", request.twilio_messaging_sid)

    async def FindMessagingServiceByBandwidthMessagingSid(
        self,
        request: messaging_service_service_pb2.FindMessagingServiceByBandwidthMessagingSidRequest,
        context: Context,
    ) -> messaging_service_pb2.MessagingService:
        check(request)
        return await self._find("bandwidth_messaging_sid", request.bandwidth_messaging_sid)

    async def FindMessagingServiceByGlobalCustomerId(
        self, request: messaging_service_service_pb2.FindMessagingServiceByGlobalCustomerIdRequest, context: Context
    ) -> messaging_service_pb2.MessagingService:
        check(request)
        return await self._find("global_customer_id", request.global_customer_id)

    async def FindMessagingServiceByName(
        self, request: messaging_service_service_pb2.FindMessagingServiceByNameRequest, context: Context
    ) -> messaging_service_pb2.MessagingService:
        check(request)
        return await self._find("name", request.name)

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

    async def _create(
        self, request: Create, context: Context, phone_numbers: list[str]
    ) -> messaging_service_pb2.MessagingService:
        async def create(tx: AsyncSession) -> messaging_service_pb2.MessagingService:
            return convert.messaging_service_to_proto(
                await messaging_services.create_messaging_service(
                    tx,
                    name=request.name or request.global_customer_id,
                    global_customer_id=request.global_customer_id,
                    twilio_messaging_sid=request.twilio_messaging_sid or None,
                    bandwidth_messaging_sid=request.bandwidth_messaging_sid or None,
                    provider=request.provider or DEFAULT_PROVIDER,
                    is_k12_pool=request.is_k12_pool,
                    bearer_id=request.bearer_id or None,
                    phone_numbers=phone_numbers,
                )
            )

        return await self._creates.run(request, context, messaging_service_pb2.MessagingService, create)

    async def _find(self, field: LookupField, value: str) -> messaging_service_pb2.MessagingService:
        async with self._db.begin() as tx:
            return convert.messaging_service_to_proto(
                await messaging_services.find_messaging_service(tx, field=field, value=value)
            )

    def _check_create(self, request: Create, bad: FieldChecks) -> None:
        bad.identities(request, *_IDENTITIES)
        provider = request.provider or DEFAULT_PROVIDER
        self._check_provider(provider, bad)
        if provider in SID_FIELDS and not getattr(request, SID_FIELDS[provider]):
            missing = messaging_services.sid_missing(provider)
            bad.add(missing.field, missing.description)

    def _check_provider(self, provider: str, bad: FieldChecks) -> None:
        if provider and provider not in self._providers:
            bad.add("provider", f"is not configured here; give one of {', '.join(sorted(self._providers))}")


def _uuid(value: str) -> UUID:
    uuid = parse_uuid(value)
    if uuid is None:
        raise MessagingServiceNotFound(messaging_service_uuid=value)
    return uuid


def _new_numbers(
    request: messaging_service_service_pb2.AdminCreateMessagingServiceRequest, bad: FieldChecks
) -> list[str]:
    """The numbers of a new messaging service, which can only be added."""
    phone_numbers: list[str] = []
    for change in _number_changes(request, bad):
        if change.number_id is not None:
            bad.add(f"{change.field}.id", "is for updates: a new messaging service has no numbers yet")
        elif change.takes_out:
            bad.add(f"{change.field}._destroy", "is for updates: a new messaging service has no numbers yet")
        elif change.phone_number in phone_numbers:
            bad.add(f"{change.field}.phone_number", "is given twice")
        else:
            phone_numbers.append(change.phone_number or "")
    return phone_numbers


def _number_changes(request: WithNumbers, bad: FieldChecks) -> list[NumberChange]:
    """What is said of numbers, under either name."""
    if request.twilio_numbers and request.twilio_numbers_attributes:
        bad.add("twilio_numbers", "is another name of twilio_numbers_attributes; give one of the two")
    field = "twilio_numbers" if request.twilio_numbers else "twilio_numbers_attributes"
    return [
        _number_change(f"{field}[{index}]", number, bad)
        for index, number in enumerate(request.twilio_numbers or request.twilio_numbers_attributes)
    ]


def _number_change(
    field: str, number: messaging_service_service_pb2.TwilioNumberAttributes, bad: FieldChecks
) -> NumberChange:
    phone_number = None
    if number.phone_number:
        phone_number = bad.phone_number(f"{field}.phone_number", number.phone_number)
    elif not number.id:
        bad.add(f"{field}.phone_number", "is required")
    return NumberChange(field, number.id or None, phone_number, takes_out=number.destroy)
