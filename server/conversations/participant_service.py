"""gRPC handlers of participants."""

from typing import Any

import grpc.aio
from commonservices.v1 import conversation_service_pb2, conversation_service_pb2_grpc, participant_pb2

from server.conversations import conversations, convert, participants
from server.conversations.keys import ConversationKey, KeyName
from server.db import Database
from server.errors import FieldViolation, InvalidArgument
from server.rpc import auth
from server.validation import FieldChecks, checking

Context = grpc.aio.ServicerContext[Any, Any]

_KEYS: tuple[KeyName, ...] = ("client_conversation_id", "global_id", "internal_conversation_id")


class ParticipantService(conversation_service_pb2_grpc.ParticipantServiceServicer):
    """Participants of the caller's conversations."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def DeactivatePairing(
        self, request: conversation_service_pb2.DeactivatePairingRequest, context: Context
    ) -> participant_pb2.Participant:
        if not request.HasField("participant"):
            # Of a participant that is not there, its fields are not bad as well.
            raise InvalidArgument([FieldViolation("participant", "is required")])
        with checking(request) as bad:
            key = _key(request.participant, bad)
            phone_number = bad.phone_number("participant.phone_number", request.participant.phone_number)
        async with self._db.begin() as tx:
            conversation = await conversations.find_conversation(tx, caller=auth.caller(), key=key)
            participant = await participants.deactivate_pairing(
                tx, conversation=conversation, phone_number=phone_number
            )
            return convert.participant_to_proto(participant)


def _key(given: conversation_service_pb2.PairedParticipant, bad: FieldChecks) -> ConversationKey:
    """The one id of the conversation that is given, in the path or in the body."""
    keys = [ConversationKey(name, value) for name in _KEYS if (value := getattr(given, name))]
    if len(keys) != 1:
        for name in [key.name for key in keys] or _KEYS:
            bad.add(f"participant.{name}", f"give exactly one of {', '.join(_KEYS)}")
    return keys[0] if keys else ConversationKey(_KEYS[0], "")
