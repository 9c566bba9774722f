"""What the tests at the sandbox have it do, and look at."""

from typing import Any

from commonservices.v1 import call_pb2

from server.db import Database
from tests.calls.conferences import get, legs_of
from tests.clients import Client
from tests.providers.servers import Sandbox


async def calls_of(exchange: Sandbox) -> list[dict[str, Any]]:
    """Every call that the sandbox was asked for."""
    made: list[dict[str, Any]] = (await exchange.control("GET", "calls"))["calls"]
    return made


async def behave(exchange: Sandbox, *numbers: str, **behaviour: Any) -> None:
    """How phones behave from now on."""
    for number in numbers:
        await exchange.control("PUT", f"phones/{number}", json=behaviour)


async def is_over(client: Client, call: call_pb2.Call) -> bool:
    return (await get(client, call)).internal_status not in ("pending", "inviting")


async def settled(db: Database, call: call_pb2.Call) -> bool:
    return all(leg.ended_at is not None for leg in await legs_of(db, call))


async def is_inviting(client: Client, call: call_pb2.Call) -> bool:
    return (await get(client, call)).internal_status == "inviting"
