"""The body of a webhook."""

import json
from pathlib import Path
from uuid import UUID

import pytest
from commonservices.v1 import event_pb2, message_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, timestamp_pb2

from server.webhooks import convert

GOLDEN = Path(__file__).parent.parent / "golden" / "webhooks"


def _event(resource: message_pb2.Message) -> event_pb2.Event:
    return event_pb2.Event(
        event_id="0e0e7b0a-3f6b-4a3f-9d53-1d1b7d2f3a10",
        type="messages.message.status_update",
        bearer_id=7,
        occurred_at=timestamp_pb2.Timestamp(seconds=1795435200, nanos=123456000),
        sequence=2,
        resource_uuid=str(UUID(int=1)),
        message=resource,
    )


def _at(seconds: int) -> timestamp_pb2.Timestamp:
    return timestamp_pb2.Timestamp(seconds=seconds)


_PENDING = message_pb2.Message(
    id=4294967295,
    receiver_number="+12065550190",
    message_body="Snö “quoted” \\ é",
    message_type="sms",
    message_uuid=str(UUID(int=1)),
    priority="default",
    internal_status="pending",
    direction="outbound",
    created_at=_at(1795435200),
    updated_at=_at(1795435200),
)
_SENT = message_pb2.Message(
    sender_number="+12065550100",
    provider="twilio",
    provider_status="sent",
    media_urls=["https://media.example/1.png"],
    message_sid="SM1",
    client_conversation_id="",
    sent_at=_at(1795435201),
    callback_url="https://receiver.example/hook",
    encoding="UCS-2",
    segment_count=1,
)
_SENT.MergeFrom(_PENDING)


@pytest.mark.parametrize(("name", "resource"), [("message_pending", _PENDING), ("message_sent", _SENT)])
def test_body_is_as_reviewed(name: str, resource: message_pb2.Message) -> None:
    body = convert.webhook_body(_event(resource).SerializeToString())

    assert json.loads(body) == json.loads((GOLDEN / f"{name}.json").read_text())


def test_every_documented_key_is_there_and_what_is_unset_is_null() -> None:
    body = json.loads(convert.webhook_body(_event(message_pb2.Message()).SerializeToString()))

    assert body.keys() == {"metadata", *(field.name for field in message_pb2.Message.DESCRIPTOR.fields)}
    for field in message_pb2.Message.DESCRIPTOR.fields:
        assert (body[field.name] is None) == field.has_presence, field.name


def test_nulls_reach_into_lists_and_choices_stay_out() -> None:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_TREE)
    tree = message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Tree"))
    value = tree(child={"number": 1}, children=[{}, {"name": "n", "left": "l"}])

    keys = json_format.MessageToDict(value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    whole = convert.with_nulls(keys, pool.FindMessageTypeByName("test.Tree"))

    leaf: dict[str, object] = {"name": None, "child": None, "children": [], "number": 0}
    assert whole == {
        **leaf,
        "child": {**leaf, "number": 1},
        "children": [leaf, {**leaf, "name": "n", "left": "l"}],
    }


_FIELD = descriptor_pb2.FieldDescriptorProto
_TREE = descriptor_pb2.FileDescriptorProto(
    name="test/tree.proto",
    package="test",
    syntax="proto3",
    message_type=[
        descriptor_pb2.DescriptorProto(
            name="Tree",
            field=[
                _FIELD(
                    name="name",
                    number=1,
                    type=_FIELD.TYPE_STRING,
                    label=_FIELD.LABEL_OPTIONAL,
                    proto3_optional=True,
                    oneof_index=1,
                ),
                _FIELD(
                    name="child",
                    number=2,
                    type=_FIELD.TYPE_MESSAGE,
                    label=_FIELD.LABEL_OPTIONAL,
                    type_name=".test.Tree",
                ),
                _FIELD(
                    name="children",
                    number=3,
                    type=_FIELD.TYPE_MESSAGE,
                    label=_FIELD.LABEL_REPEATED,
                    type_name=".test.Tree",
                ),
                _FIELD(name="number", number=4, type=_FIELD.TYPE_UINT32, label=_FIELD.LABEL_OPTIONAL),
                _FIELD(name="left", number=5, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL, oneof_index=0),
                _FIELD(name="right", number=6, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL, oneof_index=0),
            ],
            oneof_decl=[
                descriptor_pb2.OneofDescriptorProto(name="side"),
                descriptor_pb2.OneofDescriptorProto(name="_name"),
            ],
        )
    ],
)
