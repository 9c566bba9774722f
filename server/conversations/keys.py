"""The ids of a conversation."""

from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from server.errors import NotFound
from server.validation import FieldChecks, parse_uuid

KeyName = Literal["id", "client_conversation_id", "global_id", "internal_conversation_id"]

# Those that a new resource may name its conversation with.
NAMING_KEYS: tuple[KeyName, ...] = ("client_conversation_id", "internal_conversation_id", "global_id")


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


class NamesConversation(Protocol):
    """What is asked for and belongs to a conversation; the empty string stands for what is not given."""

    client_conversation_id: str
    internal_conversation_id: str
    global_id: str


def read_conversation_key(given: NamesConversation, bad: FieldChecks, *, within: str = "") -> ConversationKey | None:
    """The id that it names its conversation with, if it does; more than one are bad fields of the message `within`."""
    keys = [ConversationKey(name, value) for name in NAMING_KEYS if (value := getattr(given, name))]
    for key in keys[1:]:
        bad.add(f"{within}.{key.name}" if within else key.name, f"give it or {keys[0].name}, not both")
    return keys[0] if keys else None


class ConversationNotFound(NotFound):
    """No such conversation, or another bearer's."""

    reason = "CONVERSATION_NOT_FOUND"

    def __init__(self, key: ConversationKey) -> None:
        super().__init__(f"no conversation with {key.name} {key.value}", **{key.name: key.value})
