"""Delivery -> proto, and the body of a webhook: the one place."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
from commonservices.v1 import event_pb2
from commonservices.v1 import webhook_delivery_pb2 as pb
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from server.clock import timestamp
from server.webhooks.delivery import Attempt, Delivery


def delivery_to_proto(delivery: Delivery, attempts: Sequence[Attempt] = ()) -> pb.WebhookDelivery:
    """The one resource of every answer."""
    return pb.WebhookDelivery(
        id=str(delivery.uuid),
        event_id=str(delivery.event_id),
        event_type=delivery.event_type,
        resource_uuid=str(delivery.resource_uuid),
        bearer_id=delivery.bearer_id,
        callback_url=delivery.url,
        status=delivery.status,
        attempt_count=delivery.attempts,
        next_attempt_at=timestamp(delivery.due_at),
        last_response_status=delivery.last_response_status,
        last_error=delivery.last_error,
        created_at=timestamp(delivery.created_at),
        delivered_at=timestamp(delivery.delivered_at),
        attempts=[
            pb.WebhookDeliveryAttempt(
                number=attempt.number,
                attempted_at=timestamp(attempt.attempted_at),
                duration_ms=attempt.duration_ms,
                response_status=attempt.response_status,
                response_body=attempt.response_body,
                error=attempt.error,
            )
            for attempt in attempts
        ],
    )


def webhook_body(payload: bytes) -> bytes:
    """The body of a stored event: the resource's documented keys at the root, what is unset as null, and `metadata`."""
    event = event_pb2.Event.FromString(payload)
    kind = event.WhichOneof("data")
    assert kind is not None, "an event tells of a resource"
    resource = getattr(event, kind)
    keys: dict[str, Any] = json_format.MessageToDict(
        resource, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    if kind == "call" and "conference_call" in keys and "recording_duration" in keys:
        # The one key that is documented as a number of calls, and as a string of conferences.
        keys["recording_duration"] = str(keys["recording_duration"])
    metadata = {
        "event": event.type,
        "event_id": event.event_id,
        "bearer_id": event.bearer_id,
        "occurred_at": event.occurred_at.ToJsonString(),
        "sequence": event.sequence,
    }
    return orjson.dumps({"metadata": metadata, **with_nulls(keys, resource.DESCRIPTOR)})


@cache
def _fields(descriptor: Descriptor) -> tuple[tuple[str, Descriptor | None, bool], ...]:
    """A type's fields in the order of its schema: name, type of our messages it holds, whether it is always there."""
    return tuple((field.name, _nested(field), _is_always_there(field)) for field in descriptor.fields)


def _nested(field: FieldDescriptor) -> Descriptor | None:
    message = field.message_type
    if message is None or message.full_name.startswith("google.protobuf.") or message.GetOptions().map_entry:
        return None
    return message


def _is_always_there(field: FieldDescriptor) -> bool:
    """Of several that exclude each other only the one that is set; an `optional` field stands in a oneof `_name`."""
    return field.containing_oneof is None or field.containing_oneof.name == f"_{field.name}"


def with_nulls(keys: dict[str, Any], descriptor: Descriptor) -> dict[str, Any]:
    """What json_format made of a message of this type, in the order of the schema, with what it left out as null."""
    return {
        name: _value(keys.get(name), nested)
        for name, nested, is_always_there in _fields(descriptor)
        if is_always_there or name in keys
    }


def _value(value: Any, nested: Descriptor | None) -> Any:
    if nested is None or value is None:
        return value
    return [with_nulls(item, nested) for item in value] if isinstance(value, list) else with_nulls(value, nested)
