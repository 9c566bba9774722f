"""Cancelling, and its exclusion with claiming."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from commonservices.v1 import message_pb2
from commonservices.v1 import message_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from server.api import Api
from server.db import Database
from server.messages.send import SendWorker
from server.notifications import Notifications
from server.providers.ports import MessageReport, MessageStatus, OutboundMessage
from tests.clients import Client, refusal, refused
from tests.conftest import MakeClient
from tests.factories import create_message, make_messaging_service
from tests.messages.support import events_of, make_due, row_of, rows


@pytest.fixture(autouse=True)
async def _service(api: Api, db: Database) -> None:
    await make_messaging_service(db)


class Carrier:
    """A carrier in memory that takes everything, in a while."""

    def __init__(self) -> None:
        self.taken: list[OutboundMessage] = []

    async def send(self, message: OutboundMessage) -> MessageReport:
        await asyncio.sleep(0)
        self.taken.append(message)
        return MessageReport(
            message_sid=f"SM{message.message_uuid.hex}",
            provider_status="queued",
            internal_status=MessageStatus.PROCESSING,
            rank=2,
        )

    async def find_copies(self, message: OutboundMessage, *, since: datetime) -> list[MessageReport]:
        return []

    async def fetch(self, message_sid: str) -> MessageReport | None:
        raise AssertionError("a send worker does not ask")

    async def aclose(self) -> None: ...


@pytest.fixture
def carrier() -> Carrier:
    return Carrier()


async def scheduled(client: Client) -> message_pb2.Message:
    when = Timestamp()
    when.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    return await create_message(client, scheduled_at=when)


async def cancel(client: Client, message: message_pb2.Message) -> None:
    await client.messages.CancelMessage(pb.CancelMessageRequest(uuid=message.message_uuid), metadata=client.metadata)


async def test_cancelled_message_is_never_due_again(client: Client, db: Database) -> None:
    message = await scheduled(client)

    await cancel(client, message)

    row = await row_of(db, message)
    got = await client.messages.GetMessage(pb.GetMessageRequest(uuid=message.message_uuid), metadata=client.metadata)
    created, cancelled = await events_of(db, message)
    assert (row.internal_status, row.due_at, row.attempts) == ("cancelled", None, 0)
    assert cancelled.message == got
    assert (cancelled.sequence, got.internal_status) == (2, "cancelled")
    assert got.updated_at.ToDatetime() > created.message.updated_at.ToDatetime()
    assert got.scheduled_at == message.scheduled_at


async def test_cancelling_again_succeeds_and_tells_nothing(client: Client, db: Database) -> None:
    message = await scheduled(client)

    await asyncio.gather(*(cancel(client, message) for _ in range(10)))
    await cancel(client, message)

    assert len(await events_of(db, message)) == 2


async def test_message_that_is_not_scheduled_is_not_cancellable(client: Client) -> None:
    message = await create_message(client)

    answer = await refused(cancel(client, message))

    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MESSAGE_NOT_CANCELLABLE")
    assert answer.metadata == {"message_uuid": message.message_uuid, "internal_status": "pending"}


async def test_claimed_message_is_not_cancellable(
    client: Client, db: Database, notifications: Notifications, carrier: Carrier
) -> None:
    message = await scheduled(client)
    await make_due(db)
    await SendWorker(db, notifications, {"twilio": carrier}, priority="default").run_once()

    answer = await refused(cancel(client, message))

    assert answer.reason == "MESSAGE_NOT_CANCELLABLE"
    assert answer.metadata["internal_status"] == "processing"


async def test_scheduled_message_that_is_due_but_unclaimed_is_cancellable(
    client: Client, db: Database, notifications: Notifications, carrier: Carrier
) -> None:
    message = await scheduled(client)
    await make_due(db)

    await cancel(client, message)

    assert await SendWorker(db, notifications, {"twilio": carrier}, priority="default").run_once() == 0


async def test_message_of_another_bearer_is_not_found_and_stays(
    client: Client, client_of: MakeClient, admin: Client, db: Database
) -> None:
    other = await client_of()
    message = await scheduled(client)

    answer = await refused(cancel(other, message))

    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "MESSAGE_NOT_FOUND")
    assert (await row_of(db, message)).internal_status == "pending"
    await cancel(admin, message)
    assert (await row_of(db, message)).internal_status == "cancelled"


async def test_cancel_and_claim_exclude_each_other(
    client: Client, db: Database, notifications: Notifications, carrier: Carrier
) -> None:
    messages = await asyncio.gather(*(scheduled(client) for _ in range(120)))
    await make_due(db)
    reasons: set[str] = set()

    async def try_cancel(message: message_pb2.Message) -> str | None:
        try:
            await cancel(client, message)
        except grpc.aio.AioRpcError as error:
            reasons.add(refusal(error).reason)
            return None
        return message.message_uuid

    async def work() -> None:
        worker = SendWorker(db, notifications, {"twilio": carrier}, priority="default", concurrency=5)
        while await worker.run_once():
            pass

    cancelled, _ = await asyncio.gather(
        asyncio.gather(*(try_cancel(message) for message in reversed(messages))),
        asyncio.gather(*(work() for _ in range(4))),
    )

    cancelled_uuids = {uuid for uuid in cancelled if uuid is not None}
    taken = [str(message.message_uuid) for message in carrier.taken]
    assert cancelled_uuids
    assert taken
    assert reasons == {"MESSAGE_NOT_CANCELLABLE"}
    assert sorted(taken) == sorted({m.message_uuid for m in messages} - cancelled_uuids)
    assert {str(row.message_uuid) for row in await rows(db) if row.internal_status == "cancelled"} == cancelled_uuids
