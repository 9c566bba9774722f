"""Deliveries through the API: list, get, retry, recover."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc.aio
import pytest
from commonservices.v1 import webhook_delivery_pb2, webhook_delivery_service_pb2_grpc
from commonservices.v1 import webhook_delivery_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from server.accounts import bearers
from server.caller import BearerType, Caller
from server.events import relay
from server.rpc.auth import Gate
from server.rpc.edge import Edge
from server.webhooks import deliveries, endpoints
from server.webhooks.deliver import Deliverer
from server.webhooks.service import WebhookDeliveryService
from tests.clients import Refusal, credentials, refusal
from tests.webhooks.receiver import Receiver, status
from tests.webhooks.support import TYPE, Bearer, Webhooks


class Api:
    """The service on a socket; a token is a bearer's id."""

    def __init__(self, stub: "webhook_delivery_service_pb2_grpc.WebhookDeliveryServiceAsyncStub") -> None:
        self._stub = stub

    async def list(self, caller: str, **filters: object) -> pb.ListWebhookDeliveriesResponse:
        request = pb.ListWebhookDeliveriesRequest(**filters)  # type: ignore[arg-type]  # a test's own words
        return await self._stub.ListWebhookDeliveries(request, metadata=credentials(caller))

    async def get(self, caller: str, delivery_id: str) -> webhook_delivery_pb2.WebhookDelivery:
        request = pb.GetWebhookDeliveryRequest(id=delivery_id)
        return await self._stub.GetWebhookDelivery(request, metadata=credentials(caller))

    async def retry(self, caller: str, delivery_id: str) -> webhook_delivery_pb2.WebhookDelivery:
        request = pb.RetryWebhookDeliveryRequest(id=delivery_id)
        return await self._stub.RetryWebhookDelivery(request, metadata=credentials(caller))

    async def recover(self, caller: str, *, since: datetime | None, until: datetime | None = None) -> int:
        request = pb.RecoverWebhookDeliveriesRequest(since=_proto(since), until=_proto(until))
        response = await self._stub.RecoverWebhookDeliveries(request, metadata=credentials(caller))
        return response.recovered_count


def _proto(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


ADMIN = "0"


async def _authenticate(token: str) -> Caller:
    kind = BearerType.ADMIN if token == ADMIN else BearerType.APPLICATION
    return Caller(bearer_id=int(token), bearer_type=kind, api_key_id=1)


@pytest.fixture
async def api(webhooks: Webhooks) -> AsyncIterator[Api]:
    server = grpc.aio.server(interceptors=[Edge(Gate(_authenticate))])
    webhook_delivery_service_pb2_grpc.add_WebhookDeliveryServiceServicer_to_server(
        WebhookDeliveryService(webhooks.db, webhooks.notifications), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Api(webhook_delivery_service_pb2_grpc.WebhookDeliveryServiceStub(channel))
    await server.stop(0)


async def _dead_letter_all(webhooks: Webhooks, receiver: Receiver, deliverer: Deliverer) -> None:
    """Every delivery's last attempt fails."""
    receiver.always(status(500))
    while "pending" in await webhooks.statuses():
        await webhooks.set_attempts_in_run(7)
        await webhooks.wait_until_due()
        await deliverer.run_once()
    receiver.always(status(200))


async def _refused(call: object) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call  # type: ignore[misc]  # any of the calls above
    return refusal(raised.value)


async def test_delivery_shows_its_attempts(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer, api: Api
) -> None:
    receiver.then(status(500, body=b"no"))
    resource = await webhooks.send(bearer, receiver.url())
    await deliverer.run_once()
    await webhooks.wait_until_due()
    await deliverer.run_once()
    (listed,) = (await api.list(str(bearer.id))).webhook_deliveries

    found = await api.get(str(bearer.id), listed.id)

    assert [(a.number, a.response_status, a.response_body, a.error) for a in found.attempts] == [
        (1, 500, "no", "HTTP 500"),
        (2, 200, "", ""),
    ]
    assert not found.attempts[1].HasField("error")
    assert (found.status, found.attempt_count, found.event_type) == ("delivered", 2, TYPE)
    assert (found.resource_uuid, found.callback_url, found.bearer_id) == (str(resource), receiver.url(), bearer.id)
    assert found.HasField("delivered_at")
    assert not found.HasField("next_attempt_at")
    assert not listed.attempts
    del found.attempts[:]
    assert found == listed


async def test_list_is_newest_first_filtered_and_paged(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer, api: Api
) -> None:
    resources = [await webhooks.send(bearer, receiver.url()) for _ in range(5)]
    await deliverer.run_once()
    waiting = await webhooks.send(bearer, receiver.url())
    me = str(bearer.id)
    third = (await webhooks.all())[2]

    async def resources_of(**filters: object) -> list[str]:
        return [d.resource_uuid for d in (await api.list(me, **filters)).webhook_deliveries]

    first = await api.list(me, page_size=4)
    second = await api.list(me, page_size=4, page_token=first.next_page_token)
    listed = [d.resource_uuid for page in (first, second) for d in page.webhook_deliveries]
    assert listed == [str(r) for r in reversed([*resources, waiting])]
    assert second.next_page_token == ""
    assert await resources_of(status="pending") == [str(waiting)]
    assert await resources_of(status="dead_lettered") == []
    assert await resources_of(resource_uuid=str(resources[1])) == [str(resources[1])]
    assert await resources_of(event_type="other") == []
    assert len(await resources_of(event_type=TYPE)) == 6
    assert await resources_of(until=_proto(third.created_at)) == [str(r) for r in resources[1::-1]]
    assert (await resources_of(since=_proto(third.created_at)))[-1] == str(resources[2])
    assert await resources_of(since=_proto(datetime.now(UTC) + timedelta(days=1))) == []


async def test_others_deliveries_are_not_there(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer, api: Api
) -> None:
    other = await webhooks.make_bearer()
    await webhooks.send(bearer, receiver.url())
    await _dead_letter_all(webhooks, receiver, deliverer)
    delivery_id = str((await webhooks.only()).uuid)

    for call in (api.get(str(other.id), delivery_id), api.retry(str(other.id), delivery_id)):
        refused = await _refused(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "WEBHOOK_DELIVERY_NOT_FOUND")
    assert (await api.list(str(other.id))).webhook_deliveries == []
    assert await api.recover(str(other.id), since=datetime.fromtimestamp(0, UTC)) == 0
    assert (await api.get(ADMIN, delivery_id)).id == delivery_id
    assert len((await api.list(ADMIN)).webhook_deliveries) == 1


@pytest.mark.parametrize("delivery_id", ["", "1", "x" * 36, "0e0e7b0a-3f6b-4a3f-9d53-1d1b7d2f3a10"])
async def test_unknown_delivery_is_not_found(api: Api, delivery_id: str) -> None:
    refused = await _refused(api.get(ADMIN, delivery_id))

    assert refused.reason == "WEBHOOK_DELIVERY_NOT_FOUND"
    assert refused.metadata == {"webhook_delivery_id": delivery_id}


async def test_every_bad_field_is_named(api: Api) -> None:
    refused = await _refused(
        api.list(
            ADMIN, status="lost", resource_uuid="x", page_size=1001, since=Timestamp(seconds=2**60), event_type="\0"
        )
    )

    assert set(refused.fields) == {"status", "resource_uuid", "page_size", "since", "event_type"}
    assert (await _refused(api.recover(ADMIN, since=None))).fields == ("since",)


async def test_retried_delivery_gets_a_whole_run_and_its_endpoint_back(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer, api: Api
) -> None:
    receiver.then(status(410), status(500))
    await webhooks.send(bearer, receiver.url())
    await deliverer.run_once()
    delivery_id = str((await webhooks.only()).uuid)

    retried = await api.retry(str(bearer.id), delivery_id)
    await deliverer.run_once()

    assert retried.status == "pending"
    assert retried.HasField("next_attempt_at")
    least, most = await webhooks.delay(await webhooks.only())
    assert least < timedelta(seconds=6)
    assert most > timedelta(seconds=4)
    await webhooks.wait_until_due()
    await deliverer.run_once()
    assert (await api.get(str(bearer.id), delivery_id)).attempt_count == 3
    assert await webhooks.statuses() == ["delivered"]


async def test_only_what_is_dead_lettered_can_be_retried(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer, api: Api
) -> None:
    await webhooks.send(bearer, receiver.url())
    delivery_id = str((await webhooks.only()).uuid)

    while_pending = await _refused(api.retry(str(bearer.id), delivery_id))
    await deliverer.run_once()
    when_delivered = await _refused(api.retry(str(bearer.id), delivery_id))

    assert while_pending.code is grpc.StatusCode.FAILED_PRECONDITION
    assert while_pending.reason == "WEBHOOK_DELIVERY_NOT_RETRIABLE"
    assert while_pending.metadata == {"webhook_delivery_id": delivery_id, "status": "pending"}
    assert when_delivered.metadata["status"] == "delivered"


async def test_retry_waits_for_an_earlier_one_of_the_resource(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer, api: Api
) -> None:
    await webhooks.send(bearer, receiver.url(), count=3)
    await _dead_letter_all(webhooks, receiver, deliverer)
    first, second, third = [str(d.uuid) for d in await webhooks.all()]
    receiver.received.clear()

    await api.retry(str(bearer.id), second)
    assert not (await api.retry(str(bearer.id), third)).HasField("next_attempt_at")
    await api.retry(str(bearer.id), first)
    for _ in range(3):
        await deliverer.run_once()

    assert await webhooks.statuses() == ["delivered"] * 3
    assert [r.json["metadata"]["sequence"] for r in receiver.received][-1] == 3


async def test_recover_retries_a_period_in_order_per_resource(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer, api: Api
) -> None:
    other = await webhooks.make_bearer()
    await webhooks.send(other, receiver.url())
    await webhooks.send(bearer, receiver.url(), count=2)
    one, two = await webhooks.append(bearer, receiver.url(), count=3), await webhooks.append(bearer, receiver.url())
    await webhooks.relay_all()
    await _dead_letter_all(webhooks, receiver, deliverer)
    since = next(d for d in await webhooks.all() if d.resource_uuid == one).created_at
    receiver.received.clear()

    assert await api.recover(str(bearer.id), since=since, until=since) == 0
    assert await api.recover(str(bearer.id), since=since) == 4
    while await deliverer.run_once():
        pass

    assert await webhooks.statuses() == ["dead_lettered"] * 3 + ["delivered"] * 4
    assert [r.json["metadata"]["sequence"] for r in receiver.received if r.json["message_uuid"] == str(one)] == [
        1,
        2,
        3,
    ]
    assert str(two) in [r.json["message_uuid"] for r in receiver.received]


async def test_recover_goes_on_until_all_are_recovered(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, api: Api
) -> None:
    for _ in range(3):
        await webhooks.append(bearer, receiver.url(), count=400)
    await webhooks.relay_all()
    await webhooks.db.execute("UPDATE webhook_deliveries SET status = 'dead_lettered', due_at = NULL")

    assert await api.recover(str(bearer.id), since=datetime.fromtimestamp(0, UTC)) == 1200

    due = await webhooks.db.execute("SELECT FROM webhook_deliveries WHERE status = 'pending' AND due_at IS NOT NULL")
    assert (await webhooks.statuses() == ["pending"] * 1200, due) == (True, 3)


@pytest.mark.parametrize("action", ["retry", "recover"])
async def test_turn_is_not_given_back_while_the_relay_adds_to_the_lane(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, api: Api, action: str
) -> None:
    await webhooks.send(bearer, receiver.url())
    await webhooks.db.execute("UPDATE webhook_deliveries SET status = 'dead_lettered', due_at = NULL")
    [delivery] = await webhooks.all()

    async with webhooks.db.connection() as relaying, relaying.transaction():
        await relaying.execute(f"SELECT pg_advisory_xact_lock({relay.LOCK})".encode())
        given_back: asyncio.Future[object] = asyncio.ensure_future(
            api.retry(str(bearer.id), str(delivery.uuid))
            if action == "retry"
            else api.recover(str(bearer.id), since=datetime.fromtimestamp(0, UTC))
        )
        waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        async with asyncio.timeout(30):
            while True:
                if await webhooks.db.execute(waiting):
                    break
                await asyncio.sleep(0.01)
        assert await webhooks.statuses() == ["dead_lettered"]

    await given_back
    assert await webhooks.statuses() == ["pending"]


async def test_naming_a_url_again_enables_it(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    receiver.then(status(410))
    await webhooks.send(bearer, receiver.url())
    await deliverer.run_once()

    async with webhooks.db.begin() as tx:
        await bearers.update_bearer(
            tx,
            cipher=webhooks.cipher,
            bearer_id=bearer.id,
            changes={"callback_url": receiver.url()},
            enable_endpoint=endpoints.enable,
        )
    await webhooks.send(bearer, receiver.url())
    await deliverer.run_once()

    assert await webhooks.statuses() == ["dead_lettered", "delivered"]


async def test_deliveries_of_a_deleted_bearer_cannot_be_retried(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, api: Api
) -> None:
    await webhooks.send(bearer, receiver.url())
    async with webhooks.db.begin() as tx:
        await bearers.delete_bearer(tx, bearer_id=bearer.id, end_of_bearer=endpoints.disable_all)

    refused = await _refused(api.retry(ADMIN, str((await webhooks.only()).uuid)))

    assert refused.reason == "WEBHOOK_DELIVERY_NOT_RETRIABLE"


async def test_what_is_left_of_a_deleted_bearer_the_worker_ends(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    for _ in range(1100):
        await webhooks.append(bearer, receiver.url())
    await webhooks.relay_all()

    async with webhooks.db.begin() as tx:
        await bearers.delete_bearer(tx, bearer_id=bearer.id, end_of_bearer=endpoints.disable_all)
    left = (await webhooks.statuses()).count("pending")
    await deliverer.run_once()

    assert 0 < left <= 100
    assert set(await webhooks.statuses()) == {"dead_lettered"}
    assert receiver.received == []


async def test_release_takes_what_has_ended_and_names_events_that_wait_for_nothing(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    await webhooks.send(bearer, receiver.url(), count=2)
    await webhooks.send(bearer, None)
    await deliverer.run_once()

    async with webhooks.db.connection() as connection:
        events = await (await connection.execute("SELECT id FROM events ORDER BY id")).fetchall()
        free = await deliveries.release(connection, [event_id for (event_id,) in events])

    assert sorted(free) == [events[0][0], events[2][0]]
    assert await webhooks.statuses() == ["pending"]
