"""Conversations and participants as the API shows them."""

from commonservices.v1 import conversation_pb2, participant_pb2

from server.clock import timestamp
from server.conversations.conversations import Conversation
from server.conversations.participants import Participant


def conversation_to_proto(conversation: Conversation) -> conversation_pb2.Conversation:
    """A conversation with everybody in it."""
    row = conversation.row
    service_uuid = conversation.messaging_service_uuid
    return conversation_pb2.Conversation(
        id=row.id,
        client_conversation_id=row.client_conversation_id,
        internal_conversation_id=str(row.internal_conversation_id),
        global_id=str(row.global_id),
        callback_url=row.callback_url,
        global_customer_id=conversation.global_customer_id,
        messaging_service_uuid=str(service_uuid) if service_uuid else None,
        participants=[participant_to_proto(participant) for participant in conversation.participants],
        bearer_id=row.bearer_id,
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
    )


def participant_to_proto(participant: Participant) -> participant_pb2.Participant:
    """A participant with its conversation's ids."""
    row, conversation = participant.row, participant.conversation
    return participant_pb2.Participant(
        id=row.id,
        role=row.role,
        phone_number=row.phone_number,
        client_participant_id=row.client_participant_id,
        twilio_number=row.twilio_number,
        pairing_deactivated_at=timestamp(row.pairing_deactivated_at),
        opted_out_at=timestamp(participant.opted_out_at),
        client_conversation_id=conversation.client_conversation_id,
        internal_conversation_id=str(conversation.internal_conversation_id),
        global_id=str(conversation.global_id),
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
    )
