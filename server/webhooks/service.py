"""gRPC handlers of webhook deliveries."""

from typing import Any

import grpc.aio
from commonservices.v1 import webhook_delivery_pb2, webhook_delivery_service_pb2_grpc
from commonservices.v1 import webhook_delivery_service_pb2 as pb

from server.db import Database
from server.notifications import Notifications
from server.paging import Page
from server.rpc import answers, auth
from server.validation import checking, parse_uuid
from server.webhooks import convert, deliveries
from server.webhooks.deliveries import WebhookDeliveryNotFound

Context = grpc.aio.ServicerContext[Any, Any]


class WebhookDeliveryService(webhook_delivery_service_pb2_grpc.WebhookDeliveryServiceServicer):
    """Deliveries of the caller's bearer."""

    def __init__(self, db: Database, notifications: Notifications) -> None:
        self._db = db
        self._notifications = notifications

    async def ListWebhookDeliveries(
        self, request: pb.ListWebhookDeliveriesRequest, context: Context
    ) -> pb.ListWebhookDeliveriesResponse:
        with checking(request) as bad:
            since = bad.time("since", request.since) if request.HasField("since") else None
            until = bad.time("until", request.until) if request.HasField("until") else None
            resource_uuid = parse_uuid(request.resource_uuid) if request.resource_uuid else None
            if request.resource_uuid and resource_uuid is None:
                bad.add("resource_uuid", "is not a UUID")
        found, next_page_token = await deliveries.list_deliveries(
            self._db,
            caller=auth.caller(),
            status=request.status,
            event_type=request.event_type,
            resource_uuid=resource_uuid,
            since=since,
            until=until,
            page=Page(request),
        )
        await answers.paged(context, request, next_page_token)
        return pb.ListWebhookDeliveriesResponse(
            webhook_deliveries=[convert.delivery_to_proto(delivery) for delivery in found],
            next_page_token=next_page_token,
        )

    async def GetWebhookDelivery(
        self, request: pb.GetWebhookDeliveryRequest, context: Context
    ) -> webhook_delivery_pb2.WebhookDelivery:
        delivery_uuid = parse_uuid(request.id)
        if delivery_uuid is None:
            raise WebhookDeliveryNotFound(request.id)
        delivery, attempts = await deliveries.get_delivery(self._db, caller=auth.caller(), delivery_uuid=delivery_uuid)
        return convert.delivery_to_proto(delivery, attempts)

    async def RetryWebhookDelivery(
        self, request: pb.RetryWebhookDeliveryRequest, context: Context
    ) -> webhook_delivery_pb2.WebhookDelivery:
        delivery_uuid = parse_uuid(request.id)
        if delivery_uuid is None:
            raise WebhookDeliveryNotFound(request.id)
        return convert.delivery_to_proto(
            await deliveries.retry_delivery(
                self._db, self._notifications, caller=auth.caller(), delivery_uuid=delivery_uuid
            )
        )

    async def RecoverWebhookDeliveries(
        self, request: pb.RecoverWebhookDeliveriesRequest, context: Context
    ) -> pb.RecoverWebhookDeliveriesResponse:
        with checking(request) as bad:
            since = bad.time("since", request.since)
            until = bad.time("until", request.until) if request.HasField("until") else None
        assert since is not None, "a time out of range has raised"
        recovered_count = await deliveries.recover_deliveries(
            self._db, self._notifications, caller=auth.caller(), since=since, until=until
        )
        return pb.RecoverWebhookDeliveriesResponse(recovered_count=recovered_count)
