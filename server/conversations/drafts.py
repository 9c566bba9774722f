"""What a conversation is created with or changed to, checked and normalised: what is wrong is told all at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from commonservices.v1 import conversation_service_pb2 as pb

from server.validation import FieldChecks, checking

MODERATOR = "moderator"
CONTACT = "contact"

MOST_PARTICIPANTS = 250

_IDENTITIES = ("client_conversation_id", "messaging_service_sid", "global_customer_id")


@dataclass(frozen=True)
class ParticipantDraft:
    """Somebody to be in a conversation; a contact has a phone_number. `field` is where the request names them."""

    field: str
    role: str
    phone_number: str | None
    client_participant_id: str | None


@dataclass(frozen=True)
class ConversationDraft:
    """A conversation, or what is to change of one. None stands for what was not given."""

    client_conversation_id: str | None
    callback_url: str | None
    messaging_service_sid: str | None
    global_customer_id: str | None
    sender_number: str | None
    participants: Sequence[ParticipantDraft]

    @property
    def named_service(self) -> Mapping[str, str]:
        """The messaging service, as it is named; empty where it is not."""
        given = {"messaging_service_sid": self.messaging_service_sid, "global_customer_id": self.global_customer_id}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def contact_numbers(self) -> list[str]:
        """The numbers of its contacts, in an order that is the same for all who lock them."""
        return sorted(p.phone_number for p in self.participants if p.role == CONTACT and p.phone_number is not None)


def read_draft(request: pb.CreateConversationRequest | pb.UpdateConversationRequest) -> ConversationDraft:
    """The draft of a request. Raises InvalidArgument naming every bad field."""
    given = request.conversation
    with checking(request) as bad:
        bad.identities(given, *_IDENTITIES, within="conversation")
        sender_number = None
        if given.sender_number:
            sender_number = bad.phone_number("conversation.sender_number", given.sender_number)
        callback_url = bad.http_url("conversation.callback_url", given.callback_url) if given.callback_url else None
        # That there are more is a violation already, and reading numbers takes time.
        participants = [
            _read_participant(f"conversation.participants[{index}]", participant, bad)
            for index, participant in enumerate(given.participants[:MOST_PARTICIPANTS])
        ]
        _refuse_repeated(participants, bad)
        for participant in participants:
            if participant.role == CONTACT and sender_number is not None and participant.phone_number == sender_number:
                bad.add(f"{participant.field}.phone_number", "is the sender_number")
    return ConversationDraft(
        client_conversation_id=given.client_conversation_id or None,
        callback_url=callback_url,
        messaging_service_sid=given.messaging_service_sid or None,
        global_customer_id=given.global_customer_id or None,
        sender_number=sender_number,
        participants=participants,
    )


def _read_participant(field: str, given: pb.NewParticipant, bad: FieldChecks) -> ParticipantDraft:
    role = given.role or CONTACT
    bad.identities(given, "client_participant_id", within=field)
    phone_number = None
    if given.phone_number:
        phone_number = bad.phone_number(f"{field}.phone_number", given.phone_number)
    elif role == CONTACT:
        bad.add(f"{field}.phone_number", "is required for a contact")
    elif not given.client_participant_id:
        bad.add(f"{field}.phone_number", "is required for a moderator without a client_participant_id")
    return ParticipantDraft(field, role, phone_number, given.client_participant_id or None)


def _refuse_repeated(participants: Sequence[ParticipantDraft], bad: FieldChecks) -> None:
    """Say of everybody who is given a second time, by number or id, that they are."""
    seen = set()
    for participant in participants:
        for name, value in (
            ("phone_number", participant.phone_number),
            ("client_participant_id", participant.client_participant_id),
        ):
            known_by = (participant.role, name, value)
            if value is not None and known_by in seen:
                bad.add(f"{participant.field}.{name}", "is given twice")
            seen.add(known_by)
