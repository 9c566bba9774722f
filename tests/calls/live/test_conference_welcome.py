"""Who hears the welcome message at a sandbox, and hangs up in it, stays, or cannot be reached at all."""

import pytest
from commonservices.v1 import call_pb2, conference_call_pb2

from server.calls.conferences.controls import ControlWorker
from server.calls.conferences.dial import DialWorker
from server.db import Database
from tests.calls.conferences import CONTACTS, MODERATOR, create, events_of, get, participants, row_of
from tests.calls.live.exchange import behave, calls_of, is_inviting, is_over, settled
from tests.clients import Client
from tests.messages.support import until
from tests.providers.servers import Sandbox

# Speaking it takes two seconds here, so that whoever hears it has time to hang up.
LONG = "I " * 500


async def everybody_called(db: Database, call: call_pb2.Call, dialler: DialWorker, controller: ControlWorker) -> bool:
    """Whether nobody is to be called or hung up on any more, which is done here."""
    await dialler.step()
    await controller.step()
    return await settled(db, call)


async def joined(client: Client, call: call_pb2.Call, dialler: DialWorker) -> bool:
    """Whether everybody has."""
    await dialler.step()
    return all(each.internal_status == "joined" for each in await participants(client, call))


async def heard_by(exchange: Sandbox) -> dict[str, list[str]]:
    """What was spoken and dialled at everybody's phone, in order."""
    return {made["to"]: [each["kind"] for each in made["heard"]] for made in await calls_of(exchange)}


async def everybody_hung_up(exchange: Sandbox, dialler: DialWorker, hung_up: set[str]) -> bool:
    """Whether every contact has, who does as soon as they hear the message."""
    await dialler.step()
    for made in await calls_of(exchange):
        if made["to"] in set(CONTACTS) - hung_up and made["heard"]:
            await exchange.control("POST", f"calls/{made['sid']}/hangup", json={})
            hung_up.add(made["to"])
    return hung_up == set(CONTACTS)


async def everybody_dials(exchange: Sandbox) -> bool:
    return all("dial" in heard for heard in (await heard_by(exchange)).values())


@pytest.mark.parametrize("callbacks", ["in-order", "duplicated", "reordered"])
async def test_nobody_joined_who_hung_up_in_the_welcome_message(
    caller: Client, db: Database, exchange: Sandbox, dialler: DialWorker, controller: ControlWorker, callbacks: str
) -> None:
    await exchange.misbehave(callbacks=callbacks)
    call = await create(caller, welcome_message=LONG)
    await dialler.step()
    await until(lambda: is_inviting(caller, call))

    hung_up: set[str] = set()
    await until(lambda: everybody_hung_up(exchange, dialler, hung_up))
    await until(lambda: everybody_called(db, call, dialler, controller))
    await until(lambda: is_over(caller, call))

    told = await get(caller, call)
    assert (told.internal_status, told.provider_status) == ("no_answer", "conference-end")
    assert [(each.internal_status, each.HasField("joined_at")) for each in await participants(caller, call)] == [
        ("left", True),
        ("no_answer", False),
        ("no_answer", False),
    ]
    assert (await row_of(db, call)).recordings_check_at is None
    assert not any(event.call.HasField("error_code") for event in await events_of(db, call))
    assert [heard for number, heard in (await heard_by(exchange)).items() if number in CONTACTS] == [["say"]] * 2
    assert (await exchange.control("GET", "problems"))["problems"] == []


async def test_who_heard_the_message_has_joined_though_nobody_tells_of_it(
    caller: Client, exchange: Sandbox, dialler: DialWorker
) -> None:
    await exchange.misbehave(callbacks="missing")
    await behave(exchange, CONTACTS[1], pickup="machine", callbacks="missing")
    call = await create(caller)
    await dialler.step()
    await until(lambda: is_inviting(caller, call))

    await until(lambda: joined(caller, call, dialler))

    moderator, contact, machine = await participants(caller, call)
    assert moderator.joined_at.ToDatetime() < min(contact.joined_at.ToDatetime(), machine.joined_at.ToDatetime())
    assert machine.machine_detected
    await until(lambda: everybody_dials(exchange))
    heard = await heard_by(exchange)
    assert (heard[MODERATOR][0], heard[CONTACTS[0]][:2]) == ("dial", ["say", "dial"])


@pytest.mark.parametrize("unreachable", [(MODERATOR,), CONTACTS])
async def test_who_cannot_be_reached_has_a_reason(
    caller: Client,
    db: Database,
    exchange: Sandbox,
    dialler: DialWorker,
    controller: ControlWorker,
    unreachable: tuple[str, ...],
) -> None:
    await behave(exchange, *unreachable, pickup="unreachable")
    call = await create(caller)

    await until(lambda: everybody_called(db, call, dialler, controller))

    told = await get(caller, call)
    last = (await events_of(db, call))[-1].call
    failed = [each for each in await participants(caller, call) if each.phone_number in unreachable]
    assert {(each.internal_status, *reason_of(each)) for each in failed} == {("failed", *reason_of(told))}
    assert told.internal_status == last.internal_status == "failed"
    assert reason_of(told) == (last.error_code, last.error_description)
    assert told.error_code == "SIP_404"
    assert "SIP 404 (Not Found)" in told.error_description


def reason_of(
    told: conference_call_pb2.ConferenceCall | conference_call_pb2.ConferenceCallParticipant,
) -> tuple[str, str]:
    return told.error_code, told.error_description
