"""One delivery through a real worker to a real receiver."""

import asyncio
import base64
import hashlib
import hmac
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import aiohttp
import pytest
from aiohttp import web

from server.accounts import bearers
from server.webhooks import endpoints
from server.webhooks.deliver import Deliverer
from tests.webhooks.receiver import Received, Receiver, held, status
from tests.webhooks.support import PASSWORD, USERNAME, Bearer, Webhooks


def _is_signed(request: Received, secret: str) -> bool:
    """As a receiver verifies it, by the specification."""
    key = base64.b64decode(secret.split("_", 1)[1])
    content = b".".join(
        (request.headers["webhook-id"].encode(), request.headers["webhook-timestamp"].encode(), request.body)
    )
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in request.headers["webhook-signature"].split(" ")


async def test_event_arrives_signed_and_authenticated(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    resource = await webhooks.send(bearer, receiver.url())

    assert await deliverer.run_once() == 1

    (request,) = receiver.received
    delivery = await webhooks.only()
    user = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    assert request.headers["authorization"] == f"Basic {user}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == str(delivery.event_id)
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 10
    assert _is_signed(request, bearer.signing_secret)
    assert request.json["message_uuid"] == str(resource)
    assert request.json["metadata"]["event_id"] == str(delivery.event_id)
    assert delivery.status == "delivered"
    assert delivery.last_response_status == 200
    assert delivery.due_at is None


async def test_after_rotation_both_secrets_sign(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    async with webhooks.db.begin() as tx:
        new, _ = await bearers.rotate_signing_secret(
            tx, cipher=webhooks.cipher, bearer_id=bearer.id, now=datetime.now(UTC)
        )
    await webhooks.send(bearer, receiver.url())

    await deliverer.run_once()

    assert _is_signed(receiver.received[0], new)
    assert _is_signed(receiver.received[0], bearer.signing_secret)


async def test_failed_attempt_is_kept_and_repeated_with_the_same_id_and_body(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    receiver.then(status(500, body=b"\0oh no"), status(204))
    await webhooks.send(bearer, receiver.url())

    await deliverer.run_once()
    least, most = await webhooks.delay(await webhooks.only())
    assert await deliverer.run_once() == 0
    await webhooks.wait_until_due()
    await deliverer.run_once()

    first, second = receiver.received
    assert least < timedelta(seconds=6)
    assert most > timedelta(seconds=4)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    failed, succeeded = await webhooks.attempts(await webhooks.only())
    assert (failed.number, failed.response_status, failed.response_body, failed.error) == (1, 500, "oh no", "HTTP 500")
    assert (succeeded.number, succeeded.response_status, succeeded.error) == (2, 204, None)
    assert await webhooks.statuses() == ["delivered"]


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_redirect_is_a_failure_and_not_followed(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer, code: int
) -> None:
    receiver.then(status(code, location=receiver.url("/elsewhere")))
    await webhooks.send(bearer, receiver.url())

    await deliverer.run_once()

    delivery = await webhooks.only()
    assert (delivery.status, delivery.last_response_status) == ("pending", code)
    assert receiver.at("/elsewhere") == []


async def test_retry_after_is_honoured(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    receiver.then(status(429, retry_after="120"))
    await webhooks.send(bearer, receiver.url())

    await deliverer.run_once()

    least, most = await webhooks.delay(await webhooks.only())
    assert least < timedelta(seconds=120) < most


async def test_gone_disables_the_endpoint_and_dead_letters_what_waits(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    receiver.then(status(HTTPStatus.GONE))
    receiver.always(status(HTTPStatus.GONE), path="/other")
    resource = await webhooks.send(bearer, receiver.url(), count=3)
    await webhooks.send(bearer, receiver.url("/working"))

    await deliverer.run_once()
    await webhooks.send(bearer, receiver.url(), resource=resource)
    await webhooks.send(bearer, receiver.url())

    assert await deliverer.run_once() == 0
    deliveries = await webhooks.all()
    gone = [d for d in deliveries if d.url.endswith("/hook")]
    assert [d.status for d in gone] == ["dead_lettered"] * 5
    assert gone[0].last_error == "HTTP 410"
    assert all("disabled" in (d.last_error or "") for d in gone[1:])
    assert [d.status for d in deliveries if d.url.endswith("/working")] == ["delivered"]
    assert len(receiver.at("/hook")) == 1


async def test_long_backlog_of_a_disabled_endpoint_delays_nobody(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    await webhooks.send(bearer, receiver.url("/gone"), count=2)
    await webhooks.db.execute("UPDATE webhook_endpoints SET disabled_at = now()")
    await webhooks.send(bearer, receiver.url("/working"))

    async with webhooks.db.connection() as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM webhook_deliveries WHERE due_at IS NULL FOR KEY SHARE")
        stepping = asyncio.create_task(deliverer.run_once())
        await asyncio.wait_for(receiver.wait_for(1, "/working"), 30)

    await stepping
    assert await webhooks.statuses() == ["dead_lettered", "dead_lettered", "delivered"]


async def test_last_failure_dead_letters_and_gives_the_turn_to_the_next(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    receiver.then(status(500))
    await webhooks.send(bearer, receiver.url(), count=2)
    await webhooks.set_attempts_in_run(7)

    await deliverer.run_once()
    assert await webhooks.statuses() == ["dead_lettered", "pending"]
    await deliverer.run_once()

    assert await webhooks.statuses() == ["dead_lettered", "delivered"]


async def test_events_of_one_resource_wait_for_the_one_before(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    receiver.then(status(500), status(503))
    await webhooks.send(bearer, receiver.url(), count=3)

    for _ in range(5):
        await deliverer.run_once()
        await webhooks.wait_until_due()

    assert [request.json["metadata"]["sequence"] for request in receiver.received] == [1, 1, 1, 2, 3]


async def test_failing_resource_does_not_hold_up_another_at_the_same_endpoint(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    receiver.then(status(500))
    await webhooks.send(bearer, receiver.url(), count=2)
    await deliverer.run_once()
    await webhooks.send(bearer, receiver.url(), count=2)

    await deliverer.run_once()
    await deliverer.run_once()

    assert await webhooks.statuses() == ["pending", "pending", "delivered", "delivered"]


async def test_long_answer_is_kept_to_2_kib_and_not_downloaded(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    written = 0
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(status=400)
        await response.prepare(request)
        try:
            while written < 64 << 20:
                await response.write(b"x" * 65536)
                written += 65536
        except (ConnectionError, aiohttp.ClientConnectionError):
            pass
        finally:
            ended.set()
        return response

    receiver.then(endless)
    await webhooks.send(bearer, receiver.url())

    await deliverer.run_once()
    await asyncio.wait_for(ended.wait(), 30)

    (attempt,) = await webhooks.attempts(await webhooks.only())
    assert attempt.response_body == "x" * 2048
    assert written < 16 << 20


async def test_answer_that_does_not_come_is_a_failure(webhooks: Webhooks, bearer: Bearer, receiver: Receiver) -> None:
    never = asyncio.Event()
    receiver.then(held(never))
    await webhooks.send(bearer, receiver.url())

    async with webhooks.deliverer(timeout=timedelta(milliseconds=100)) as impatient:
        await impatient.run_once()
    never.set()

    delivery = await webhooks.only()
    assert (delivery.status, delivery.last_response_status) == ("pending", None)
    assert delivery.last_error == "no answer within 0.1 s"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0177.0.0.1", "[::ffff:127.0.0.1]", "0"])
async def test_private_address_is_refused_however_it_is_spelled(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, host: str
) -> None:
    await webhooks.send(bearer, receiver.url(host=host))

    async with webhooks.deliverer(allowed_networks=()) as guarded:
        await guarded.run_once()

    delivery = await webhooks.only()
    assert delivery.status == "pending"
    assert "is not a" in (delivery.last_error or "")
    assert receiver.received == []


async def test_endpoint_that_cannot_be_reached_is_failing_until_it_answers(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    receiver.then(status(500))
    for _ in range(3):
        await webhooks.send(bearer, receiver.url())

    async with webhooks.deliverer(endpoint_slots=1) as one_at_a_time:
        await one_at_a_time.run_once()
    assert await deliverer.run_once() == 1
    assert await deliverer.run_once() == 1
    await webhooks.wait_until_due()
    await deliverer.run_once()

    assert await webhooks.statuses() == ["delivered"] * 3


async def test_events_of_a_deleted_bearer_end(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver, deliverer: Deliverer
) -> None:
    await webhooks.send(bearer, receiver.url(), count=2)
    async with webhooks.db.begin() as tx:
        await bearers.delete_bearer(tx, bearer_id=bearer.id, end_of_bearer=endpoints.disable_all)
    await webhooks.send(bearer, receiver.url())

    assert await deliverer.run_once() == 0

    assert await webhooks.statuses() == ["dead_lettered", "dead_lettered"]


async def test_event_without_url_has_no_delivery(webhooks: Webhooks, bearer: Bearer) -> None:
    await webhooks.send(bearer, None)

    assert await webhooks.all() == []
