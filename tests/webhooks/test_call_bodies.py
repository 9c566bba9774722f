"""Webhook bodies of calls: the documented keys, with what is documented of one kind of call only."""

import json
from pathlib import Path
from uuid import UUID

import pytest
from commonservices.v1 import call_pb2, conference_call_pb2, event_pb2, transcription_pb2, voicemail_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from server.webhooks import convert

GOLDEN = Path(__file__).parent.parent / "golden" / "webhooks"

_TRANSCRIPTION = transcription_pb2.Transcription(
    srt="1\n00:00:00,000 --> 00:00:01,200\nPlease call me back.\n",
    dfxp="<tt/>",
    text="Please call me back.",
    webvtt="WEBVTT\n\n00:00.000 --> 00:01.200\nPlease call me back.\n",
    formattedText="[00:00] Please call me back.",
)

_DIRECT = call_pb2.Call(
    id=1,
    uuid=str(UUID(int=1)),
    kind="direct",
    internal_status="pending",
    created_at=Timestamp(seconds=1795435200),
    updated_at=Timestamp(seconds=1795435200),
    provider_number="+12065550100",
    participant_number="+12065550999",
    bearer_id=7,
)

_VOICEMAIL = call_pb2.Call()
_VOICEMAIL.CopyFrom(_DIRECT)
_VOICEMAIL.MergeFrom(
    call_pb2.Call(
        kind="return",
        client_conversation_id="family-42",
        internal_conversation_id=str(UUID(int=2)),
        global_id=str(UUID(int=3)),
        internal_status="transcripted",
        provider_status="completed",
        call_sid="CA" + "0" * 32,
        recording_duration=9,
        recording_url="https://files.example/recordings/1.wav?signature=x",
        transcription=_TRANSCRIPTION,
        machine_detected=False,
        callback_url="https://receiver.example/hook",
        voicemail=voicemail_pb2.Voicemail(
            id=4,
            created_at=Timestamp(seconds=1795435210),
            updated_at=Timestamp(seconds=1795435240),
            internal_status="transcripted",
            provider_status="completed",
            participant_number="+12065550999",
            caller_id="+12065550999",
            provider_number="+12065550100",
            recording_url="https://files.example/recordings/1.wav?signature=x",
            recording_duration=9,
            call_uuid=str(UUID(int=1)),
            bearer_id=7,
        ),
    )
)

_CONFERENCE = call_pb2.Call(
    id=2,
    uuid=str(UUID(int=5)),
    kind="conference",
    client_conversation_id="family-42",
    internal_status="finished",
    provider_status="conference-end",
    created_at=Timestamp(seconds=1795435200),
    updated_at=Timestamp(seconds=1795435300),
    call_sid="CA" + "1" * 32,
    provider_number="+12065550100",
    participant_number="+12065550777",
    recording_duration=61,
    recording_url="https://files.example/recordings/2.wav?signature=x",
    transcription=_TRANSCRIPTION,
    bearer_id=7,
    conference_call=conference_call_pb2.ConferenceCall(
        id=3,
        uuid=str(UUID(int=6)),
        client_conversation_id="family-42",
        friendly_name=str(UUID(int=6)),
        twilio_number="+12065550100",
        moderator_number="+12065550777",
        participant_numbers=["+12065550999"],
        welcome_message="Please hold for your school.",
        recording_duration="61",
        recording_url="https://files.example/recordings/2.wav?signature=x",
        created_at=Timestamp(seconds=1795435200),
        updated_at=Timestamp(seconds=1795435300),
        call_uuid=str(UUID(int=5)),
        internal_status="finished",
        provider_status="conference-end",
    ),
)


def _body(call: call_pb2.Call, event_type: str) -> dict[str, object]:
    event = event_pb2.Event(
        event_id=str(UUID(int=9)),
        type=event_type,
        bearer_id=7,
        occurred_at=call.updated_at,
        sequence=3,
        resource_uuid=call.uuid,
        call=call,
    )
    body: dict[str, object] = json.loads(convert.webhook_body(event.SerializeToString()))
    return body


@pytest.mark.parametrize(
    ("name", "call", "event_type"),
    [
        ("call_pending", _DIRECT, "direct_calls.call.status_update"),
        ("call_voicemail", _VOICEMAIL, "direct_calls.call.status_update"),
        ("conference_call_finished", _CONFERENCE, "conference_calls.conference_call.status_update"),
    ],
)
def test_body_is_as_reviewed(name: str, call: call_pb2.Call, event_type: str) -> None:
    assert _body(call, event_type) == json.loads((GOLDEN / f"{name}.json").read_text())


def test_a_recordings_length_is_a_string_of_a_conference_and_a_number_of_any_other_call() -> None:
    assert _body(_CONFERENCE, "conference_calls.conference_call.status_update")["recording_duration"] == "61"
    assert _body(_VOICEMAIL, "direct_calls.call.status_update")["recording_duration"] == 9
