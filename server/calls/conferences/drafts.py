"""What conference calls are created with, and what is to become of their participants, checked: what is wrong is told
all at once."""

from dataclasses import dataclass

from commonservices.v1 import conference_call_service_pb2 as pb

from server.conversations.keys import ConversationKey
from server.validation import FieldChecks, checking

_MOST_PARTICIPANTS = 20


@dataclass(frozen=True)
class ConferenceDraft:
    """A conference call that may be made, its numbers in E.164. None stands for what was not given."""

    twilio_number: str
    moderator_number: str
    participant_numbers: tuple[str, ...]
    conversation: ConversationKey
    welcome_message: str | None
    callback_url: str | None


def read_conference_call(request: pb.CreateConferenceCallRequest) -> ConferenceDraft:
    """The draft of a request. Raises InvalidArgument naming every bad field."""
    with checking(request) as bad:
        bad.identities(request, "client_conversation_id")
        if not request.client_conversation_id:
            bad.add("client_conversation_id", "is required")
        twilio_number = _number("twilio_number", request.twilio_number, bad)
        moderator_number = _number("moderator_number", request.moderator_number, bad)
        if moderator_number == twilio_number:
            bad.add("moderator_number", "is the twilio_number")
        participant_numbers = _participants(request, bad, twilio_number, moderator_number)
        callback_url = bad.http_url("callback_url", request.callback_url) if request.callback_url else None
    return ConferenceDraft(
        twilio_number=twilio_number,
        moderator_number=moderator_number,
        participant_numbers=participant_numbers,
        conversation=ConversationKey("client_conversation_id", request.client_conversation_id),
        welcome_message=request.welcome_message if request.welcome_message.strip() else None,
        callback_url=callback_url,
    )


def _participants(
    request: pb.CreateConferenceCallRequest, bad: FieldChecks, twilio_number: str, moderator_number: str
) -> tuple[str, ...]:
    """Who is called in, each once, and none of them somebody who is in the call already."""
    if not request.participant_numbers:
        bad.add("participant_numbers", "is required")
    numbers: list[str] = []
    # That there are more is a violation already, and reading numbers takes time.
    for index, value in enumerate(request.participant_numbers[:_MOST_PARTICIPANTS]):
        field = f"participant_numbers[{index}]"
        number = _number(field, value, bad)
        if number == twilio_number:
            bad.add(field, "is the twilio_number")
        elif number == moderator_number:
            bad.add(field, "is the moderator_number")
        elif number in numbers:
            bad.add(field, "is given twice")
        numbers.append(number)
    return tuple(numbers)


def _number(field: str, value: str, bad: FieldChecks) -> str:
    if not value.strip():
        bad.add(field, "is required")
        return value
    return bad.phone_number(field, value)
