"""Video calls, their participants and recordings as the API, the stream and webhooks show them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from commonservices.v1 import video_call_pb2 as pb

from server.clock import timestamp
from server.conversations.tables import ConversationRow
from server.video.tables import VideoCallParticipantRow, VideoCallRecordingRow, VideoCallRow

_NO_URLS: Mapping[str, str] = MappingProxyType({})


def video_call_to_proto(
    call: VideoCallRow,
    conversation: ConversationRow | None,
    *,
    recordings: Sequence[VideoCallRecordingRow] = (),
    urls: Mapping[str, str] = _NO_URLS,
    participants: Sequence[VideoCallParticipantRow] = (),
    host_token: str | None = None,
) -> pb.VideoCall:
    """The one resource of every answer and event; events have neither participants nor a token.

    `urls` are those of the recordings that are stored, signed, by their storage keys.
    """
    return pb.VideoCall(
        id=call.id,
        shunkan_ido_session_key=str(call.session_key),
        session_name=call.session_name,
        internal_status=call.internal_status,
        provider_status=call.provider_status,
        bearer_id=call.bearer_id,
        client_conversation_id=conversation.client_conversation_id if conversation else None,
        internal_conversation_id=str(conversation.internal_conversation_id) if conversation else None,
        global_id=str(conversation.global_id) if conversation else None,
        provider_id=call.provider_id,
        maximum_call_length=call.maximum_call_length,
        start_time=timestamp(call.start_time),
        end_time=timestamp(call.end_time),
        end_at=timestamp(call.end_at),
        created_at=timestamp(call.created_at),
        updated_at=timestamp(call.updated_at),
        host_token=host_token,
        host_username=call.host_username,
        video_call_recordings=[_recording_to_proto(recording, urls) for recording in recordings],
        video_call_participants=[participant_to_proto(participant, call) for participant in participants],
        recording_status=call.recording_status,
        callback_url=call.callback_url,
    )


def participant_to_proto(participant: VideoCallParticipantRow, call: VideoCallRow) -> pb.VideoCallParticipant:
    """A participant of the call, without a token."""
    return pb.VideoCallParticipant(
        shunkan_ido_user_key=str(participant.user_key),
        shunkan_ido_session_key=str(call.session_key),
        is_host=participant.is_host,
        username=participant.username,
        provider_id=participant.provider_id,
        bearer_id=call.bearer_id,
        video_call_id=call.id,
        session_name=call.session_name,
        created_at=timestamp(participant.created_at),
        updated_at=timestamp(participant.updated_at),
        internal_status=participant.internal_status,
        join_time=timestamp(participant.join_time),
        leave_time=timestamp(participant.leave_time),
        leave_reason=participant.leave_reason,
    )


def _recording_to_proto(recording: VideoCallRecordingRow, urls: Mapping[str, str]) -> pb.VideoCallRecording:
    return pb.VideoCallRecording(
        id=recording.id,
        recording_url=urls[recording.storage_key] if recording.storage_key is not None else None,
        file_type=recording.file_type,
        recording_type=recording.recording_type,
        file_size=recording.file_size or 0,
        recording_start=timestamp(recording.recording_start),
        recording_end=timestamp(recording.recording_end),
        internal_status=recording.internal_status,
        provider_status=recording.provider_status,
        error_description=recording.error_description,
        provider_id=recording.provider_id,
    )
