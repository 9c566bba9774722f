"""What video calls and participants are created with, checked: what is wrong is told all at once."""

import unicodedata
from dataclasses import dataclass

from commonservices.v1 import video_call_service_pb2 as pb

from server.conversations.keys import ConversationKey, read_conversation_key
from server.errors import FieldViolation, InvalidArgument
from server.validation import FieldChecks, checking

_DEFAULT_CALL_LENGTH = 60


@dataclass(frozen=True)
class VideoCallDraft:
    """A video call that may be made; its length is in minutes. None stands for what was not given."""

    session_name: str
    host_username: str
    maximum_call_length: int
    # The conversation it names; one by its id in the caller's system may have to be made.
    conversation: ConversationKey | None
    callback_url: str | None


@dataclass(frozen=True)
class ParticipantDraft:
    """Somebody who may be let into a video call, whose key is as it was given."""

    session_key: str
    username: str
    is_host: bool


def read_video_call(request: pb.CreateVideoCallRequest) -> VideoCallDraft:
    """The draft of a request. Raises InvalidArgument naming every bad field."""
    if not request.HasField("video_call"):
        # Of a video call that is not there, its fields are not bad as well.
        raise InvalidArgument([FieldViolation("video_call", "is required")])
    given = request.video_call
    with checking(request) as bad:
        _check_name("video_call.session_name", given.session_name, bad)
        _check_name("video_call.host_username", given.host_username, bad)
        conversation = read_conversation_key(given, bad, within="video_call")
        callback_url = bad.http_url("video_call.callback_url", given.callback_url) if given.callback_url else None
    is_length_given = given.HasField("maximum_call_length")
    return VideoCallDraft(
        session_name=given.session_name,
        host_username=given.host_username,
        maximum_call_length=given.maximum_call_length if is_length_given else _DEFAULT_CALL_LENGTH,
        conversation=conversation,
        callback_url=callback_url,
    )


def read_participant(request: pb.CreateVideoCallParticipantRequest) -> ParticipantDraft:
    """The draft of a request. Raises InvalidArgument naming every bad field."""
    if not request.HasField("participant"):
        raise InvalidArgument([FieldViolation("participant", "is required")])
    given = request.participant
    with checking(request) as bad:
        _check_name("participant.username", given.username, bad)
        if not given.shunkan_ido_session_key and not given.session_key:
            bad.add("participant.shunkan_ido_session_key", "is required")
        if given.shunkan_ido_session_key and given.session_key:
            bad.add("participant.session_key", "give it or shunkan_ido_session_key, not both")
    return ParticipantDraft(
        session_key=given.shunkan_ido_session_key or given.session_key,
        username=given.username,
        is_host=given.is_host,
    )


def _check_name(field: str, value: str, bad: FieldChecks) -> None:
    """A name is kept as it is given, so it must be one that can be shown and typed."""
    if not value.strip():
        bad.add(field, "is required")
    elif any(unicodedata.category(character) == "Cc" for character in value):
        bad.add(field, "must not contain control characters")
