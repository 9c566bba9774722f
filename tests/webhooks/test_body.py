"""The body of a webhook."""

import json
from pathlib import Path
from uuid import UUID

import pytest
from commonservices.v1 import event_pb2, message_pb2, video_call_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, timestamp_pb2

from server.webhooks import convert

GOLDEN = Path(__file__).parent.parent / "golden" / "webhooks"


Resource = message_pb2.Message | video_call_pb2.VideoCall


def _event(resource: Resource) -> event_pb2.Event:
    event = event_pb2.Event(
        event_id="0e0e7b0a-3f6b-4a3f-9d53-1d1b7d2f3a10",
        bearer_id=7,
        occurred_at=timestamp_pb2.Timestamp(seconds=1795435200, nanos=123456000),
        sequence=2,
        resource_uuid=str(UUID(int=1)),
    )
    if isinstance(resource, message_pb2.Message):
        event.type = "messages.message.status_update"
        event.message.CopyFrom(resource)
    else:
        event.type = "video_calls.video_call.status_update"
        event.video_call.CopyFrom(resource)
    return event


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


_CALL_PENDING = video_call_pb2.VideoCall(
    id=1,
    shunkan_ido_session_key=str(UUID(int=1)),
    session_name="Elternsprechtag – Klasse 4b",
    internal_status="pending",
    bearer_id=7,
    maximum_call_length=0,
    created_at=_at(1795435200),
    updated_at=_at(1795435200),
    host_username="Ms. Rivera",
)
_CALL_RECORDED = video_call_pb2.VideoCall()
_CALL_RECORDED.CopyFrom(_CALL_PENDING)
_CALL_RECORDED.MergeFrom(
    video_call_pb2.VideoCall(
        internal_status="finished",
        provider_status="session.ended",
        client_conversation_id="family-42",
        internal_conversation_id=str(UUID(int=2)),
        global_id=str(UUID(int=3)),
        provider_id="aB+/c==",
        maximum_call_length=60,
        start_time=_at(1795435260),
        end_time=_at(1795438800),
        end_at=_at(1795438860),
        recording_status="completed",
        callback_url="https://receiver.example/hook",
        video_call_recordings=[
            video_call_pb2.VideoCallRecording(
                id=1,
                recording_url="https://files.example/recordings/1.mp4?signature=x",
                file_type="MP4",
                recording_type="shared_screen_with_speaker_view",
                file_size=5368709120,
                recording_start=_at(1795435270),
                recording_end=_at(1795438800),
                internal_status="stored",
                provider_status="completed",
                provider_id="0E5B4A36",
            ),
            video_call_pb2.VideoCallRecording(
                id=2, file_type="CHAT", internal_status="pending", provider_id="0E5B4A37"
            ),
        ],
    )
)


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("message_pending", _PENDING),
        ("message_sent", _SENT),
        ("video_call_pending", _CALL_PENDING),
        ("video_call_recorded", _CALL_RECORDED),
    ],
)
def test_body_is_as_reviewed(name: str, resource: Resource) -> None:
    body = convert.webhook_body(_event(resource).SerializeToString())

    assert json.loads(body) == json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.mark.parametrize("resource_type", [message_pb2.Message, video_call_pb2.VideoCall])
def test_every_documented_key_is_there_and_what_is_unset_is_null(resource_type: type[Resource]) -> None:
    body = json.loads(convert.webhook_body(_event(resource_type()).SerializeToString()))

    fields = resource_type.DESCRIPTOR.fields
    assert body.keys() == {"metadata", *(field.name for field in fields)}
    for field in fields:
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
