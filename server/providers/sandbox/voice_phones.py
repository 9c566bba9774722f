"""How phones and browsers behave when they are called: who picks up, when, what they press and say."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from server.providers.sandbox.misbehaviour import Callbacks


class Pickup(StrEnum):
    """What comes of ringing."""

    HUMAN = "human"
    MACHINE = "machine"
    NO_ANSWER = "no-answer"
    BUSY = "busy"
    UNREACHABLE = "unreachable"


class Scenario(StrEnum):
    """What becomes of a call to this phone as a whole, instead of what follows from its TwiML.

    MOCKED is the order in which a mock of the conference was seen to post, which no real call has; see
    `voice_scenario.py`.
    """

    NONE = "none"
    MOCKED = "mocked"


@dataclass(frozen=True)
class Phone:
    """A phone, or a browser's client. Times are simulated milliseconds: after the first ring, and after the answer.

    The default is a person who answers and stays until the call ends.
    """

    pickup: Pickup = Pickup.HUMAN
    answers_after_ms: int = 0
    hangs_up_after_ms: int | None = None
    # One for each Gather, in order; further ones get nothing. "" lets one pass in silence.
    presses: tuple[str, ...] = ()
    # What is said to each recording, in order, of this call or of what it is connected to.
    says: tuple[str, ...] = ()
    # What a machine says before it listens.
    greeting: str = "Please leave a message after the tone."
    callbacks: Callbacks = Callbacks.IN_ORDER
    scenario: Scenario = Scenario.NONE


class Phones:
    """What is known of phones, by number, and of browsers, by `client:` and their identity."""

    def __init__(self) -> None:
        self._phones: dict[str, Phone] = {}

    def of(self, address: str) -> Phone | None:
        """How a phone behaves; None of a browser that is not registered."""
        known = self._phones.get(address)
        return Phone() if known is None and not is_client(address) else known

    def put(self, address: str, phone: Phone) -> None:
        """Make a phone special, or register a browser."""
        self._phones[address] = phone

    def forget(self, address: str) -> None:
        """An ordinary phone again; a browser is registered no more."""
        self._phones.pop(address, None)

    def all(self) -> Mapping[str, Phone]:
        """The special ones."""
        return dict(self._phones)

    def clear(self) -> None:
        """Forget all."""
        self._phones.clear()


def is_client(address: str) -> bool:
    """Whether it is a browser's (`client:` and an identity) and not a phone's."""
    return address.startswith("client:")
