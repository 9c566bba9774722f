"""What becomes of attempts that have ended, and are recorded in groups."""

import asyncio

from structlog.testing import capture_logs

from tests.webhooks.receiver import Receiver, held
from tests.webhooks.support import Bearer, Webhooks

_REFUSE = "ALTER TABLE webhook_attempts ADD CONSTRAINT nothing CHECK (false) NOT VALID"
_ACCEPT = "ALTER TABLE webhook_attempts DROP CONSTRAINT IF EXISTS nothing"


async def test_attempts_that_could_not_be_recorded_are_told_as_such_all_of_them(
    webhooks: Webhooks, bearer: Bearer, receiver: Receiver
) -> None:
    answered = asyncio.Event()
    receiver.always(held(answered))
    for _ in range(5):
        await webhooks.send(bearer, receiver.url())
    await webhooks.db.execute(_REFUSE)
    try:
        async with webhooks.deliverer() as deliverer:
            with capture_logs() as logs:
                running = asyncio.create_task(deliverer.run_once())
                await receiver.wait_for(5)
                answered.set()
                await running
    finally:
        await webhooks.db.execute(_ACCEPT)

    assert [line["event"] for line in logs] == ["delivery.attempt_failed"] * 5
    assert await webhooks.statuses() == ["pending"] * 5
