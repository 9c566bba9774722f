"""What makes two requests the same, and how long that is remembered."""

from commonservices.v1 import message_service_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import scalar_row

from server import idempotency
from server.db import Database
from tests.clients import Client
from tests.factories import create_message, make_messaging_service

texts = st.text(max_size=20)
messages = st.builds(
    pb.NewMessage,
    receiver_number=texts,
    message_body=texts,
    media_urls=st.lists(texts, max_size=3),
    client_conversation_id=texts,
    priority=st.sampled_from(["", "default", "high"]),
)


@given(messages, texts, texts)
def test_request_id_is_no_part_of_what_is_asked(message: pb.NewMessage, one: str, other: str) -> None:
    requests = [pb.CreateMessageRequest(message=message, request_id=request_id) for request_id in (one, other)]

    assert len({idempotency.fingerprint_of(request) for request in requests}) == 1


@given(messages, messages)
def test_fingerprints_are_equal_exactly_for_equal_requests(one: pb.NewMessage, other: pb.NewMessage) -> None:
    fingerprints = {idempotency.fingerprint_of(pb.CreateMessageRequest(message=message)) for message in (one, other)}

    assert (len(fingerprints) == 1) == (one == other)


async def test_forgetting_takes_only_what_is_older_than_a_day(client: Client, db: Database) -> None:
    await make_messaging_service(db)
    for request_id in ("old", "young"):
        await create_message(client, request_id=request_id)
    moved = "UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second' WHERE request_id = 'old'"
    await db.execute(moved)

    may_be_more = await idempotency.forget_old(db)

    left = await db.fetch_all("SELECT request_id FROM idempotency_keys", {}, scalar_row)
    assert (may_be_more, left) == (False, ["young"])


async def test_forgetting_goes_on_until_less_than_a_batch_is_left(client: Client, db: Database) -> None:
    old = """
        INSERT INTO idempotency_keys (bearer_id, request_id, fingerprint, response_encrypted, created_at)
        SELECT %s, n::text, sha256(''), '', now() - interval '24 hours 1 second' FROM generate_series(1, 1001) AS n
    """
    await db.execute(old, [client.bearer_id])

    assert [await idempotency.forget_old(db) for _ in range(2)] == [True, False]
    assert await db.fetch_all("SELECT request_id FROM idempotency_keys", {}, scalar_row) == []
