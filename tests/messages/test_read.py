"""Reading messages through the front door: who sees which, in which order, page by page."""

from typing import Any
from uuid import uuid4

import grpc
import pytest
from commonservices.v1 import message_pb2
from commonservices.v1 import message_service_pb2 as pb
from psycopg.rows import scalar_row

from server.api import Api
from server.db import Database
from server.messages import queries
from tests.clients import Client, refused
from tests.conftest import MakeClient
from tests.factories import RECEIVER, SENDER, create_message, make_messaging_service
from tests.messages.support import listing

UNKNOWN = "00000000-0000-0000-0000-000000000000"

# What a claim asks of the sender and the receiver, large.
_MANY_CONTACTS = (
    """INSERT INTO pairings (twilio_number, phone_number, participant_id, conversation_id)
    SELECT twilio_number, '+1206' || 5000000 + n, participant_id, conversation_id
    FROM pairings, generate_series(1, 50000) n""",
    """INSERT INTO opt_outs (messaging_service_id, phone_number, source)
    SELECT id, '+1206' || 5000000 + n, 'keyword' FROM messaging_services, generate_series(1, 50000) n""",
    """INSERT INTO number_opt_outs (twilio_number, phone_number, source, opted_out_at)
    SELECT phone_number, '+1206' || 5000000 + n, 'keyword', now() FROM twilio_numbers, generate_series(1, 50000) n""",
)


@pytest.fixture(autouse=True)
async def _service(api: Api, db: Database) -> None:
    await make_messaging_service(db)


async def listed(client: Client, *numbers: str, **page: Any) -> list[message_pb2.Message]:
    return list((await client.messages.ListMessages(listing(*numbers, **page), metadata=client.metadata)).messages)


async def test_message_is_its_bearers_own_and_every_admins(
    client: Client, client_of: MakeClient, admin: Client
) -> None:
    other = await client_of()
    message = await create_message(client)
    request = pb.GetMessageRequest(uuid=message.message_uuid)

    answer = await refused(other.messages.GetMessage(request, metadata=other.metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "MESSAGE_NOT_FOUND")
    assert answer.metadata == {"message_uuid": message.message_uuid}
    assert await admin.messages.GetMessage(request, metadata=admin.metadata) == message


@pytest.mark.parametrize("uuid", ["", "nonsense", UNKNOWN, "é", "1"])
async def test_unknown_message_is_not_found(client: Client, admin: Client, uuid: str) -> None:
    for caller in (client, admin):
        answers = [
            await refused(caller.messages.GetMessage(pb.GetMessageRequest(uuid=uuid), metadata=caller.metadata)),
            await refused(caller.messages.CancelMessage(pb.CancelMessageRequest(uuid=uuid), metadata=caller.metadata)),
        ]

        assert {(a.code, a.reason) for a in answers} == {(grpc.StatusCode.NOT_FOUND, "MESSAGE_NOT_FOUND")}


async def test_list_holds_own_messages_between_the_two_numbers_newest_first(
    client: Client, client_of: MakeClient, admin: Client, db: Database
) -> None:
    other = await client_of()
    mine = [await create_message(client) for _ in range(3)]
    # The contact is the other bearer's from here on.
    await db.execute("DELETE FROM pairings")
    theirs = await create_message(other)
    await create_message(client, sender_number="+12065550101")
    await create_message(client, receiver_number="+12065550191")

    assert await listed(client, SENDER, RECEIVER) == mine[::-1]
    assert await listed(other, SENDER, RECEIVER) == [theirs]
    assert await listed(admin, SENDER, RECEIVER) == [theirs, *mine[::-1]]
    assert await listed(client, RECEIVER, SENDER) == []


async def test_list_takes_other_spellings(client: Client) -> None:
    message = await create_message(client)

    assert await listed(client, "(206) 555-0100", "206.555.0190") == [message]


async def test_list_names_every_bad_field_at_once(client: Client) -> None:
    answer = await refused(client.messages.ListMessages(listing("", "911", page_size=1001), metadata=client.metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(answer.fields) == {"from", "to", "page_size"}


@pytest.mark.parametrize("as_admin", [False, True])
async def test_pages_hold_every_message_once_also_while_more_come(
    client: Client, admin: Client, as_admin: bool
) -> None:
    made = [(await create_message(client)).id for _ in range(7)]
    caller = admin if as_admin else client

    seen: list[int] = []
    token = ""
    while True:
        request = listing(SENDER, RECEIVER, page_size=3, page_token=token)
        page = await caller.messages.ListMessages(request, metadata=caller.metadata)
        seen += [message.id for message in page.messages]
        token = page.next_page_token
        if not token:
            break
        await create_message(client)

    assert seen == made[::-1]


async def test_page_token_belongs_to_its_filter(client: Client) -> None:
    for _ in range(2):
        await create_message(client)
    page = await client.messages.ListMessages(listing(SENDER, RECEIVER, page_size=1), metadata=client.metadata)

    elsewhere = listing(SENDER, "+12065550191", page_size=1, page_token=page.next_page_token)
    answer = await refused(client.messages.ListMessages(elsewhere, metadata=client.metadata))
    other_size = await listed(client, SENDER, RECEIVER, page_size=5, page_token=page.next_page_token)

    assert answer.fields == ("page_token",)
    assert len(other_size) == 1


@pytest.mark.parametrize("token", ["x", "AAAAAAAAAAAAAAAAAAAAAA", "é", "=" * 22])
async def test_made_up_page_token_is_refused(client: Client, token: str) -> None:
    answer = await refused(
        client.messages.ListMessages(listing(SENDER, RECEIVER, page_token=token), metadata=client.metadata)
    )

    assert answer.fields == ("page_token",)


async def test_claim_and_list_stay_on_their_indexes_when_the_table_is_large(client: Client, db: Database) -> None:
    one = await create_message(client)
    copied = "bearer_id, provider, sender_number, message_body, media_urls, message_type, priority, sequence"
    parameters = {
        "sender_number": SENDER,
        "receiver_number": RECEIVER,
        "bearer_id": client.bearer_id,
        "after_id": None,
        "limit": 50,
        "priority": "default",
        "lease": "60 s",
        "message_uuid": uuid4(),
        "provider": "twilio",
        "message_sid": "SM",
    }
    async with db.connection() as connection, connection.transaction(force_rollback=True):
        await connection.execute(
            f"""INSERT INTO messages ({copied}, receiver_number, message_uuid, internal_status, message_sid)
            SELECT {copied}, '+1206' || 5000000 + n, gen_random_uuid(), 'delivered', 'SM' || n
            FROM messages, generate_series(1, 100000) n WHERE message_uuid = %s""",
            [one.message_uuid],
        )
        for fill in _MANY_CONTACTS:
            await connection.execute(fill)
        await connection.execute("ANALYZE messages, pairings, opt_outs, number_opt_outs")
        plans = {}
        for name in ("CLAIM", "LIST", "LIST_OWN", "GET", "GET_OWN", "GET_BY_SID"):
            statement = f"EXPLAIN {getattr(queries, name)}".encode()
            cursor = connection.cursor(row_factory=scalar_row)
            plans[name] = "\n".join(await (await cursor.execute(statement, parameters)).fetchall())

    for table in ("messages", "pairings", "opt_outs", "number_opt_outs"):
        assert not [name for name, plan in plans.items() if f"Seq Scan on {table} " in plan]
    assert "ix_messages_due" in plans["CLAIM"]
    assert "ix_messages_numbers" in plans["LIST"]
    assert "Sort" not in plans["LIST"]
