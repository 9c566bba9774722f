"""Appending to the event log, inside the transaction or the statement that makes the change."""

from datetime import UTC
from uuid import UUID, uuid4

from commonservices.v1 import event_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Parameters, driver_connection

_COLUMNS = "event_id, bearer_id, type, resource_uuid, sequence, callback_url, occurred_at, payload"
_VALUES = (
    "%(event_id)s, %(event_bearer_id)s, %(event_type)s, %(event_resource_uuid)s, %(event_sequence)s, "
    "%(event_callback_url)s, %(event_occurred_at)s, %(event_payload)s"
)

_APPEND = f"INSERT INTO events ({_COLUMNS}) VALUES ({_VALUES})"


async def append(tx: AsyncSession, event: pb.Event, *, callback_url: str | None) -> None:
    """Append an event of a change that the transaction has made and flushed. Whoever ends it wakes Channel.OUTBOX."""
    connection = await driver_connection(tx)
    await connection.execute(_APPEND.encode(), parameters(event, callback_url=callback_url))


def append_from(source: str) -> str:
    """The body of a CTE that appends the event of `parameters` if the CTE `source`, which makes the change, made it."""
    return f"INSERT INTO events ({_COLUMNS}) SELECT {_VALUES} FROM {source}"


def new_event(
    *, event_type: str, bearer_id: int, resource_uuid: UUID, sequence: int, occurred_at: Timestamp
) -> pb.Event:
    """An event to append; the caller sets its data. It has no cursor before the relay has seen it committed."""
    return pb.Event(
        event_id=str(uuid4()),
        type=event_type,
        bearer_id=bearer_id,
        occurred_at=occurred_at,
        sequence=sequence,
        resource_uuid=str(resource_uuid),
    )


def parameters(event: pb.Event, *, callback_url: str | None) -> Parameters:
    """The parameters of `append_from`."""
    return {
        "event_id": event.event_id,
        "event_bearer_id": event.bearer_id,
        "event_type": event.type,
        "event_resource_uuid": event.resource_uuid,
        "event_sequence": event.sequence,
        "event_callback_url": callback_url,
        "event_occurred_at": event.occurred_at.ToDatetime(tzinfo=UTC),
        "event_payload": event.SerializeToString(),
    }
