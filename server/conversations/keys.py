"""The ids of a conversation."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from server.errors import NotFound
from server.validation import parse_uuid

KeyName = Literal["id", "client_conversation_id", "global_id", "internal_conversation_id"]


@dataclass(frozen=True)
class ConversationKey:
    """One of a conversation's four ids, as it was given. A client_conversation_id is unique for a bearer only."""

    name: KeyName
    value: str

    def parameter(self) -> UUID | int | str:
        """The value as its column has it. Raises ConversationNotFound where it can be none of that kind."""
        if self.name == "client_conversation_id":
            return self.value
        found = int(self.value) if self.name == "id" else parse_uuid(self.value)
        if found is None:
            raise ConversationNotFound(self)
        return found


class ConversationNotFound(NotFound):
    """No such conversation, or another bearer's."""

    reason = "CONVERSATION_NOT_FOUND"

    def __init__(self, key: ConversationKey) -> None:
        super().__init__(f"no conversation with {key.name} {key.value}", **{key.name: key.value})
