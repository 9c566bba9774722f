"""A bearer that is deleted takes its pairings with it, whatever comes at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from commonservices.v1 import bearer_service_pb2
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts import bearers
from server.accounts.tables import BearerRow
from server.conversations import participants
from server.db import Database
from tests.clients import Client
from tests.conversations.support import OTHER_CONTACT, broken, create, deactivate, get, numbers, pairings, update
from tests.conversations.test_concurrency import until_waiting
from tests.factories import RECEIVER, SENDER, create_message


async def end(tx: AsyncSession, client: Client) -> None:
    """Delete the client's bearer."""
    await bearers.delete_bearer(tx, bearer_id=client.bearer_id, end_of_bearer=participants.end_pairings_of_bearer)


@asynccontextmanager
async def ending(db: Database, client: Client) -> AsyncIterator[None]:
    """Until the block ends, the client's bearer is about to be deleted."""
    async with db.begin() as tx:
        await end(tx, client)
        yield


async def test_end_of_a_bearer_ends_its_pairings_and_nobody_elses(admin: Client, client: Client, db: Database) -> None:
    ended = await create(client, RECEIVER, OTHER_CONTACT, sender_number=SENDER)
    kept = await create(admin, RECEIVER, global_customer_id="customer")

    request = bearer_service_pb2.DeleteBearerRequest(id=client.bearer_id)
    await admin.bearers.DeleteBearer(request, metadata=admin.metadata)

    assert await pairings(db) == {(numbers(kept)[0], RECEIVER, kept.id)}
    assert all(p.HasField("pairing_deactivated_at") for p in (await get(admin, ended)).participants)
    assert await broken(db) == []


async def test_message_that_waits_for_the_end_of_its_bearer_pairs_nobody(
    admin: Client, client: Client, db: Database
) -> None:
    async with ending(db, client):
        creating = asyncio.create_task(create_message(client))
        await until_waiting(db, creating)

    assert (await creating).sender_number == SENDER
    assert await pairings(db) == set()


async def test_conversation_that_waits_for_the_end_of_its_bearer_pairs_nobody(
    admin: Client, client: Client, db: Database
) -> None:
    async with ending(db, client):
        creating = asyncio.create_task(create(client, RECEIVER, sender_number=SENDER))
        await until_waiting(db, creating)

    assert numbers(await creating) == [""]
    assert await pairings(db) == set()


async def test_update_that_waits_for_the_end_of_its_bearer_pairs_nobody(
    admin: Client, client: Client, db: Database
) -> None:
    made = await create(client, RECEIVER, sender_number=SENDER)
    async with ending(db, client):
        updating = asyncio.create_task(update(client, made, RECEIVER, sender_number=SENDER))
        await until_waiting(db, updating)

    [participant] = (await updating).participants
    assert participant.HasField("pairing_deactivated_at")
    assert await pairings(db) == set()


async def test_admin_pairs_nobody_in_a_conversation_whose_bearer_is_deleted(
    admin: Client, client: Client, db: Database
) -> None:
    made = await create(client, RECEIVER, sender_number=SENDER)
    async with ending(db, client):
        pass

    updated = await update(admin, made, RECEIVER, OTHER_CONTACT, sender_number=SENDER)

    assert numbers(updated) == [SENDER, ""]
    assert await pairings(db) == set()


async def test_message_and_the_end_of_its_bearer_do_not_wait_for_each_other(
    admin: Client, client: Client, db: Database
) -> None:
    made = await create(client, RECEIVER, sender_number=SENDER, client_conversation_id="conversation-1")
    await create(client, OTHER_CONTACT, sender_number=SENDER)
    await deactivate(client, made, RECEIVER)
    async with db.begin() as tx:
        await tx.execute(select(BearerRow.id).where(BearerRow.id == client.bearer_id).with_for_update())
        creating = asyncio.create_task(create_message(client))
        await until_waiting(db, creating)
        await end(tx, client)

    assert (await creating).client_conversation_id == "conversation-1"
    assert await pairings(db) == set()
    assert await broken(db) == []


async def test_deactivation_and_the_end_of_a_bearer_do_not_wait_for_each_other(
    admin: Client, client: Client, db: Database
) -> None:
    made = await create(client, RECEIVER, sender_number=SENDER)
    async with db.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM participants FOR NO KEY UPDATE")
        request = bearer_service_pb2.DeleteBearerRequest(id=client.bearer_id)
        deleting = asyncio.ensure_future(admin.bearers.DeleteBearer(request, metadata=admin.metadata))
        await until_waiting(db, deleting)
        # As a deactivation does it, last.
        await connection.execute("DELETE FROM pairings")
        await connection.execute("UPDATE participants SET pairing_deactivated_at = now()")

    await deleting
    assert (await get(admin, made)).participants[0].HasField("pairing_deactivated_at")
