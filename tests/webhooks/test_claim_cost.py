"""A claim looks at endpoints, not at what waits behind them."""

import random
from datetime import timedelta
from typing import Any

from psycopg.rows import scalar_row

from server.webhooks import queries
from tests.webhooks.support import Bearer, Webhooks

_FILL = """
WITH endpoint AS (
    INSERT INTO webhook_endpoints (bearer_id, url, failing_since)
    VALUES (%(bearer_id)s, %(url)s, CASE WHEN %(is_failing)s THEN now() END) RETURNING id
), event AS (
    INSERT INTO events (event_id, bearer_id, type, resource_uuid, sequence, payload)
    SELECT gen_random_uuid(), %(bearer_id)s, 't', gen_random_uuid(), 1, %(payload)s
    FROM generate_series(1, %(count)s::bigint) RETURNING id, resource_uuid
)
INSERT INTO webhook_deliveries (endpoint_id, event_id, bearer_id, event_type, resource_uuid, due_at)
SELECT endpoint.id, event.id, %(bearer_id)s, 't', resource_uuid, now() FROM event, endpoint
"""


async def _fill(
    webhooks: Webhooks, bearer: Bearer, url: str, *, count: int, is_failing: bool = True, payload: bytes = b""
) -> None:
    parameters = {"bearer_id": bearer.id, "url": url, "count": count, "is_failing": is_failing, "payload": payload}
    await webhooks.db.execute(_FILL, parameters)


async def _pages_looked_at(webhooks: Webhooks) -> int:
    """By the part of the claim that finds what is due."""
    parameters = {
        "after": 0,
        "busy": "{}",
        "slots": 8,
        "limit": 512,
        "busy_bytes": "{}",
        "endpoint_bytes": 1 << 20,
        "bytes": 1 << 23,
        "lease": timedelta(seconds=60),
    }
    async with webhooks.db.connection() as connection, connection.transaction(force_rollback=True):
        cursor = connection.cursor(row_factory=scalar_row)
        await cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {queries.CLAIM}".encode(), parameters)
        explained: list[dict[str, Any]] | None = await cursor.fetchone()
    assert explained is not None, "EXPLAIN answers"
    (due,) = [plan for plan in explained[0]["Plan"]["Plans"] if plan.get("Subplan Name") == "CTE due"]
    return int(due["Shared Hit Blocks"]) + int(due["Shared Read Blocks"])


async def test_claim_costs_the_same_whatever_waits_behind_a_dead_endpoint(webhooks: Webhooks, bearer: Bearer) -> None:
    for n in range(20):
        await _fill(webhooks, bearer, f"http://{n}.example/", count=2)
    without = await _pages_looked_at(webhooks)

    await _fill(webhooks, bearer, "http://dead.example/", count=20_000)
    before_statistics = await _pages_looked_at(webhooks)
    await webhooks.db.execute("ANALYZE webhook_deliveries, webhook_endpoints, events")

    # One endpoint more, and an index with one level more.
    assert before_statistics < 2 * without + 20
    assert await _pages_looked_at(webhooks) < 2 * without + 20


async def test_claim_reads_no_payload_to_know_its_size(webhooks: Webhooks, bearer: Bearer) -> None:
    incompressible = random.Random(1).randbytes(500_000)  # noqa: S311 not a secret
    await _fill(webhooks, bearer, "http://small.example/", count=8, is_failing=False)
    small = await _pages_looked_at(webhooks)

    await webhooks.db.execute("UPDATE events SET payload = %s", [incompressible])

    assert await _pages_looked_at(webhooks) < 2 * small
