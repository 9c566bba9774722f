"""What the tests of conversations ask for and look at: the calls, the pairings, and what holds of them at any time."""

from collections.abc import Sequence
from typing import Any

from commonservices.v1 import conversation_pb2, participant_pb2
from commonservices.v1 import conversation_service_pb2 as pb
from psycopg.rows import scalar_row, tuple_row

from server.db import Database
from tests.clients import Client

SECOND = "+12065550101"
OTHER_CONTACT = "+12065550191"
MODERATOR = "+12065550180"

# Whose pairing is not its participant's; who is active without a pairing of its number; who is deactivated with one.
_BROKEN = """
SELECT x.participant_id FROM pairings x LEFT JOIN participants p ON p.id = x.participant_id
 AND p.conversation_id = x.conversation_id AND p.phone_number = x.phone_number AND p.role = 'contact'
WHERE p.id IS NULL
UNION ALL
SELECT p.id FROM participants p
WHERE p.twilio_number IS NOT NULL AND p.pairing_deactivated_at IS NULL AND NOT EXISTS (
    SELECT FROM pairings x WHERE x.participant_id = p.id AND x.twilio_number = p.twilio_number)
UNION ALL
SELECT p.id FROM participants p JOIN pairings x ON x.participant_id = p.id WHERE p.pairing_deactivated_at IS NOT NULL
"""


def contact(phone_number: str, client_participant_id: str = "") -> pb.NewParticipant:
    """Somebody to write to."""
    return pb.NewParticipant(phone_number=phone_number, client_participant_id=client_participant_id)


def moderator(client_participant_id: str = "", phone_number: str = "") -> pb.NewParticipant:
    """Somebody of the school."""
    return pb.NewParticipant(role="moderator", phone_number=phone_number, client_participant_id=client_participant_id)


async def create(client: Client, *contacts: str, request_id: str = "", **given: Any) -> conversation_pb2.Conversation:
    """A conversation with these contacts, made through the API."""
    participants = given.pop("participants", [contact(number) for number in contacts])
    request = pb.CreateConversationRequest(
        conversation=pb.NewConversation(participants=participants, **given), request_id=request_id
    )
    return await client.conversations.CreateConversation(request, metadata=client.metadata)


async def update(
    client: Client, conversation: conversation_pb2.Conversation, *contacts: str, **given: Any
) -> conversation_pb2.Conversation:
    """The conversation as the API changed it; these contacts are given."""
    participants = given.pop("participants", [contact(number) for number in contacts])
    request = pb.UpdateConversationRequest(
        id=conversation.id, conversation=pb.NewConversation(participants=participants, **given)
    )
    return await client.conversations.UpdateConversation(request, metadata=client.metadata)


async def get(client: Client, conversation: conversation_pb2.Conversation) -> conversation_pb2.Conversation:
    """The conversation as the API tells it now."""
    request = pb.GetConversationRequest(id=conversation.id)
    return await client.conversations.GetConversation(request, metadata=client.metadata)


async def deactivate(
    client: Client, conversation: conversation_pb2.Conversation, phone_number: str
) -> participant_pb2.Participant:
    """The contact after its pairing was deactivated through the API."""
    given = pb.PairedParticipant(phone_number=phone_number, global_id=conversation.global_id)
    request = pb.DeactivatePairingRequest(participant=given)
    return await client.participants.DeactivatePairing(request, metadata=client.metadata)


def numbers(conversation: conversation_pb2.Conversation) -> list[str]:
    """The numbers of ours that talk to its participants, in the order of joining; "" of those without one."""
    return [participant.twilio_number for participant in conversation.participants]


async def pairings(db: Database) -> set[tuple[str, str, int]]:
    """The active pairings: our number, the contact's, the conversation's id."""
    query = "SELECT twilio_number, phone_number, conversation_id FROM pairings"
    return set(await db.fetch_all(query, {}, tuple_row))


async def broken(db: Database) -> Sequence[int]:
    """The participants whose pairings are not what they say themselves."""
    return await db.fetch_all(_BROKEN, {}, scalar_row)


async def count(db: Database, table: str) -> int:
    """How many rows a table has."""
    found = await db.fetch_one(f"SELECT count(*) FROM {table}", {}, scalar_row)
    assert isinstance(found, int)
    return found
