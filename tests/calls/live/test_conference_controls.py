"""What is wanted of people in a conference, done at a sandbox by the real adapter."""

from typing import Any

from commonservices.v1 import call_pb2

from server.calls.conferences.controls import ControlWorker
from server.calls.conferences.dial import DialWorker
from server.db import Database
from tests.calls.conferences import cancel, change, create, get, legs_of, participants, remove
from tests.calls.live.exchange import calls_of, is_inviting, settled
from tests.clients import Client
from tests.messages.support import until
from tests.providers.servers import Sandbox


async def begin(client: Client, dialler: DialWorker) -> call_pb2.Call:
    """A conference that everybody is in."""
    call = await create(client)
    await dialler.step()
    await until(lambda: is_inviting(client, call))
    await until(lambda: everybody_in(client, call, dialler))
    return call


async def everybody_in(client: Client, call: call_pb2.Call, dialler: DialWorker) -> bool:
    """Whether everybody is, of whom somebody may be due."""
    await dialler.step()
    return all(each.internal_status == "joined" for each in await participants(client, call))


async def people_of(exchange: Sandbox) -> dict[str, Any]:
    """Who is in the conference at the sandbox, by the sids of their calls."""
    [conference] = (await exchange.control("GET", "conferences"))["conferences"]
    return {each["call_sid"]: each for each in conference["participants"]}


async def test_people_are_muted_held_and_removed(
    caller: Client, db: Database, exchange: Sandbox, dialler: DialWorker, controller: ControlWorker
) -> None:
    call = await begin(caller, dialler)
    _moderator, first, second = [leg.call_sid or "" for leg in await legs_of(db, call)]
    await until(lambda: is_known(db))
    # Who is told to join is in it a moment later.
    await until(lambda: all_there(exchange))

    await change(caller, call, first, muted=True)
    await change(caller, call, second, hold=True)
    await until(lambda: nothing_wanted(db, controller))
    there = await people_of(exchange)
    await remove(caller, call, second)
    await until(lambda: has_left(db, call, second, controller))

    assert (there[first]["muted"], there[first]["hold"]) == (True, False)
    assert (there[second]["muted"], there[second]["hold"]) == (False, True)
    assert (await get(caller, call)).internal_status == "inviting"
    assert [each.internal_status for each in await participants(caller, call)] == ["joined", "joined", "left"]

    await cancel(caller, call)
    await until(lambda: everybody_hung_up_on(db, call, controller))

    assert {made["status"] for made in await calls_of(exchange)} == {"completed"}
    assert (await get(caller, call)).internal_status == "canceled"
    assert (await exchange.control("GET", "problems"))["problems"] == []


async def is_known(db: Database) -> bool:
    """Whether the conference's sid is."""
    return await db.execute("SELECT 1 FROM conference_calls WHERE conference_sid IS NOT NULL") == 1


async def all_there(exchange: Sandbox) -> bool:
    return len(await people_of(exchange)) == 3


async def nothing_wanted(db: Database, controller: ControlWorker) -> bool:
    await controller.step()
    return await db.execute("SELECT 1 FROM call_legs WHERE control_at IS NOT NULL") == 0


async def has_left(db: Database, call: call_pb2.Call, sid: str, controller: ControlWorker) -> bool:
    """Whether they have; a leg that a callback has in hand is not claimed at that moment."""
    await controller.step()
    return any(leg.ended_at is not None for leg in await legs_of(db, call) if leg.call_sid == sid)


async def everybody_hung_up_on(db: Database, call: call_pb2.Call, controller: ControlWorker) -> bool:
    await controller.step()
    return await settled(db, call)


async def test_moderator_who_is_removed_ends_it_for_everybody(
    caller: Client, db: Database, exchange: Sandbox, dialler: DialWorker, controller: ControlWorker
) -> None:
    call = await begin(caller, dialler)

    await remove(caller, call, (await legs_of(db, call))[0].call_sid or "")
    await until(lambda: everybody_hung_up_on(db, call, controller))

    told = await get(caller, call)
    assert told.internal_status == "finished"
    assert {made["status"] for made in await calls_of(exchange)} == {"completed"}
