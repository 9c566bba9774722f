"""Whatever is asked of conversations, in any order or at once: a number and a contact are in one active pairing at
most, everybody active is in the pairing they show, nobody deactivated is in one, and no refusal is without cause."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from commonservices.v1 import conversation_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.caller import BearerType
from server.db import Database
from tests.clients import Client, refusal, refused
from tests.conftest import MakeClient
from tests.conversations.support import broken, create, deactivate, pairings, update
from tests.factories import create_message, make_messaging_service

NUMBERS = 3
CONVERSATIONS = 4

# What a conversation is asked to send from: nothing, its customer's service, or one of the numbers.
senders = st.one_of(st.none(), st.just("service"), st.integers(0, NUMBERS - 1))
conversations = st.integers(0, CONVERSATIONS - 1)
contacts = st.sets(st.integers(0, 2), max_size=2).map(sorted)


@dataclass(frozen=True)
class Put:
    """Create the conversation, or update it where it is there, with these contacts."""

    conversation: int
    contacts: Sequence[int]
    sender: int | str | None


@dataclass(frozen=True)
class Deactivate:
    """Deactivate the contact's pairing in the conversation."""

    conversation: int
    contact: int


puts = st.builds(Put, conversations, contacts, senders)
steps = st.one_of(puts, puts, st.builds(Deactivate, conversations, st.integers(0, 2)))

any_time = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
fresh = itertools.count()


@dataclass
class World:
    """The customer, numbers, contacts and bearers of one example, which no other example has."""

    clients: Sequence[Client]
    customer: str
    ours: Sequence[str]
    theirs: Sequence[str]
    made: dict[int, conversation_pb2.Conversation] = field(default_factory=dict)

    def given(self, sender: int | str | None) -> Mapping[str, Any]:
        """What names the sender."""
        if isinstance(sender, int):
            return {"sender_number": self.ours[sender]}
        return {"global_customer_id": self.customer} if sender else {}

    async def put(self, step: Put) -> conversation_pb2.Conversation:
        """Conversations 0 and 2 are one bearer's, 1 and 3 another's."""
        client = self.clients[step.conversation % 2]
        theirs = [self.theirs[contact] for contact in step.contacts]
        there = self.made.get(step.conversation)
        if there is not None:
            return await update(client, there, *theirs, **self.given(step.sender))
        made = await create(
            client, *theirs, client_conversation_id=f"{self.customer}-{step.conversation}", **self.given(step.sender)
        )
        self.made[step.conversation] = made
        return made

    async def deactivate(self, step: Deactivate) -> None:
        """Refused where the contact is not in the conversation."""
        there = self.made[step.conversation]
        await deactivate(self.clients[step.conversation % 2], there, self.theirs[step.contact])


async def make_world(db: Database, clients: Sequence[Client]) -> World:
    number = next(fresh)
    ours = [f"+1206{number:04}{n:03}" for n in range(NUMBERS)]
    await make_messaging_service(
        db,
        name=f"s{number}",
        global_customer_id=f"c{number}",
        twilio_messaging_sid=f"MG{number}",
        phone_numbers=ours,
    )
    return World(clients, f"c{number}", ours, [f"+1425{number:04}{n:03}" for n in range(3)])


@dataclass
class Seat:
    """A contact in a conversation: the number it shows, and whether its pairing is active."""

    number: str | None = None
    is_deactivated: bool = False


@dataclass
class Model:
    """What must be so after every step."""

    world: World
    seats: dict[tuple[int, int], Seat] = field(default_factory=dict)
    # (our number, contact) -> conversation.
    paired: dict[tuple[str, int], int] = field(default_factory=dict)
    sends: set[int] = field(default_factory=set)

    def wants(self, step: Put, contact: int) -> list[str]:
        """The numbers that the contact may be paired with; empty where it is to be left alone."""
        seat = self.seats.get((step.conversation, contact), Seat())
        if isinstance(step.sender, int):
            return [self.world.ours[step.sender]]
        if seat.number is not None and not seat.is_deactivated:
            return []
        if step.sender is not None or step.conversation in self.sends:
            return list(self.world.ours)
        return [seat.number] if seat.number is not None else []

    def refuses(self, step: Put) -> set[str]:
        """Why the step must be refused; any of several reasons may be told."""
        reason = "PHONE_NUMBER_PAIRED" if isinstance(step.sender, int) else "NUMBER_POOL_EXHAUSTED"
        return {
            reason
            for contact in step.contacts
            if (wanted := self.wants(step, contact))
            and all(self.paired.get((n, contact), step.conversation) != step.conversation for n in wanted)
        }

    def apply(self, step: Put, answer: conversation_pb2.Conversation) -> None:
        """Take over what the answer says, after a look whether it may say so."""
        shown = {p.phone_number: p for p in answer.participants}
        for contact in step.contacts:
            wanted = self.wants(step, contact)
            seat = self.seats.setdefault((step.conversation, contact), Seat())
            participant = shown[self.world.theirs[contact]]
            if wanted:
                assert participant.twilio_number in wanted
                if seat.number in wanted and self.paired.get((seat.number, contact)) in (None, step.conversation):
                    assert participant.twilio_number == seat.number
                assert self.paired.setdefault((participant.twilio_number, contact), step.conversation) == (
                    step.conversation
                )
                seat.number, seat.is_deactivated = participant.twilio_number, False
            assert participant.HasField("pairing_deactivated_at") == seat.is_deactivated
            assert (participant.twilio_number or None) == seat.number
        if step.sender is not None:
            self.sends.add(step.conversation)

    def deactivated(self, step: Deactivate) -> None:
        """Nothing of the contact's in the conversation is paired."""
        self.seats[step.conversation, step.contact].is_deactivated = True
        self.paired = {
            (number, contact): conversation
            for (number, contact), conversation in self.paired.items()
            if (conversation, contact) != (step.conversation, step.contact)
        }

    def pairings(self) -> set[tuple[str, str, int]]:
        """As they are to be stored."""
        return {
            (number, self.world.theirs[contact], self.world.made[conversation].id)
            for (number, contact), conversation in self.paired.items()
        }


async def pairings_of(db: Database, world: World) -> set[tuple[str, str, int]]:
    return {pairing for pairing in await pairings(db) if pairing[0] in world.ours}


@any_time
@given(st.lists(steps, min_size=1, max_size=14))
async def test_any_sequence_leaves_the_pairings_it_should(
    client: Client, client_of: MakeClient, db: Database, sequence: list[Put | Deactivate]
) -> None:
    world = await make_world(db, [client, await client_of(BearerType.USER)])
    model = Model(world)
    for step in sequence:
        if isinstance(step, Deactivate):
            if (step.conversation, step.contact) in model.seats:
                await world.deactivate(step)
                model.deactivated(step)
        elif expected := model.refuses(step):
            assert (await refused(world.put(step))).reason in expected
        else:
            model.apply(step, await world.put(step))

        assert await pairings_of(db, world) == model.pairings()
        assert await broken(db) == []


@any_time
@given(st.lists(st.lists(steps, min_size=2, max_size=8), min_size=1, max_size=4))
async def test_anything_at_once_breaks_no_pairing_and_is_no_fault(
    client: Client, client_of: MakeClient, db: Database, rounds: list[list[Put | Deactivate]]
) -> None:
    world = await make_world(db, [client, await client_of(BearerType.USER)])

    async def run(step: Put | Deactivate) -> str:
        try:
            if isinstance(step, Put):
                await world.put(step)
            elif step.conversation in world.made:
                await world.deactivate(step)
                # And a message that brings the contact back.
                await create_message(
                    world.clients[step.conversation % 2],
                    sender_number="",
                    global_customer_id=world.customer,
                    receiver_number=world.theirs[step.contact],
                    client_conversation_id=f"{world.customer}-{step.conversation}",
                )
        except grpc.aio.AioRpcError as error:
            return refusal(error).reason
        return "OK"

    for step in rounds:
        outcomes = await asyncio.gather(*(run(one) for one in step))

        assert set(outcomes) <= {
            "OK",
            "NUMBER_POOL_EXHAUSTED",
            "PHONE_NUMBER_PAIRED",
            "PARTICIPANT_NOT_FOUND",
            "CONVERSATION_EXISTS",
        }
        assert await broken(db) == []
