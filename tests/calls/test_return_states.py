"""What becomes of a contact's call: the facts of digits, dials and callbacks, in whatever order and however often."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from commonservices.v1 import call_pb2
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from server.db import Database
from tests.calls.browsers import get, new_token, told
from tests.calls.twilio import CALLS_PATH, Script, Twilio, call_sid
from tests.clients import Client
from tests.conftest import PUBLIC_BASE_URL
from tests.factories import create_message, make_messaging_service

any_time = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# One thing that is posted: of what, and what it says.
Step = tuple[str, str]

MENU = [("press", ""), ("press", "9")]
HUNG_UP = ("contact", "completed")

# What happens to the end, in order, by what becomes of the call. A digit is pressed before anything else of a browser.
STORIES: dict[str, tuple[list[Step], str]] = {
    "hangs up in the menu": ([*MENU, HUNG_UP], "no_answer"),
    "stops calls": ([("press", "3"), HUNG_UP], "no_answer"),
    "leaves a voicemail": ([("press", "9"), ("press", "2"), HUNG_UP], "voicemail"),
    "is answered": (
        [
            ("press", "1"),
            ("browser", "initiated"),
            ("browser", "ringing"),
            ("browser", "in-progress"),
            ("browser", "completed"),
            ("result", "completed"),
            HUNG_UP,
        ],
        "finished",
    ),
    "is not answered": (
        [
            ("press", "1"),
            ("browser", "ringing"),
            ("browser", "no-answer"),
            ("result", "no-answer"),
            HUNG_UP,
        ],
        "voicemail",
    ),
    "hangs up while it rings": (
        [("press", "1"), ("browser", "ringing"), ("browser", "no-answer"), ("result", "no-answer/completed"), HUNG_UP],
        "no_answer",
    ),
}


@dataclass
class Caller:
    """A contact on the phone, and all that is told of their call."""

    twilio: Twilio
    sid: str
    menu: Script
    browser: str
    ring: Script | None = None

    async def post(self, kind: str, value: str) -> None:
        """Post a step."""
        if kind == "press":
            script = await self.twilio.press(self.menu, value, sid=self.sid)
            self.ring = script if value == "1" else self.ring
        elif kind == "contact":
            url = f"{PUBLIC_BASE_URL}{CALLS_PATH}/participant_status_changes"
            await self.twilio.follow(url, {"CallSid": self.sid, "CallStatus": value})
        else:
            assert self.ring is not None, "a browser rings after 1"
            if kind == "browser":
                await self.twilio.progress(self.ring, value, sid=self.browser, parent=self.sid)
            else:
                # `no-answer/completed`: with what Twilio says of the caller's own call.
                dial_status, _, call_status = value.partition("/")
                await self.twilio.dialled(
                    self.ring,
                    dial_status,
                    sid=self.sid,
                    dial_call_sid=self.browser,
                    call_status=call_status or "in-progress",
                )

    async def post_all(self, steps: Sequence[Step]) -> None:
        """Post them; what cannot be without a browser that rings comes after the first 1."""
        late = [step for step in steps if step[0] in ("browser", "result")]
        place = steps.index(("press", "1")) + 1 if late else 0
        early = [step for step in steps[:place] if step in late]
        for step in (*(s for s in steps[:place] if s not in late), *early, *steps[place:]):
            await self.post(*step)


async def call_in(twilio: Twilio) -> Caller:
    """Somebody calls."""
    sid = call_sid()
    return Caller(twilio, sid, await twilio.phone(sid=sid), call_sid())


def lasting(call: call_pb2.Call) -> dict[str, Any]:
    """What of a call is not its own."""
    names = ("internal_status", "provider_status", "error_code", "kind", "participant_number")
    found = {name: getattr(call, name) for name in names}
    return found | {
        "has_voicemail": call.HasField("voicemail"),
        "voicemail": call.voicemail.internal_status,
        "has_failed_at": call.HasField("failed_at"),
    }


@pytest.fixture
async def paired(client: Client, db: Database) -> None:
    """A contact who was written to, and a staff member with a browser."""
    await make_messaging_service(db)
    await create_message(client)
    await new_token(client)


@pytest.mark.usefixtures("paired")
@pytest.mark.parametrize("name", STORIES)
async def test_story_ends_as_it_is_told(twilio: Twilio, client: Client, db: Database, name: str) -> None:
    steps, status = STORIES[name]
    caller = await call_in(twilio)

    await caller.post_all(steps)

    call = await get(client, caller.menu.call_uuid)
    statuses = await told(db, caller.menu.call_uuid)
    assert (call.internal_status, call.provider_status) == (status, "completed")
    assert call.HasField("voicemail") == (status == "voicemail")
    assert statuses == sorted(statuses, key=lambda each: each != "pending")
    assert set(statuses) == {"pending", status}


@pytest.mark.usefixtures("paired")
@any_time
@given(data=st.data(), name=st.sampled_from(sorted(STORIES)))
async def test_any_order_and_repetition_ends_as_the_ordered_story(
    twilio: Twilio, client: Client, data: st.DataObject, name: str
) -> None:
    steps, _status = STORIES[name]
    again = data.draw(st.lists(st.sampled_from(steps), max_size=4))
    shuffled = data.draw(st.permutations([*steps, *again]))
    ordered, jumbled = await call_in(twilio), await call_in(twilio)

    await ordered.post_all(steps)
    await jumbled.post_all(shuffled)

    one, other = await get(client, ordered.menu.call_uuid), await get(client, jumbled.menu.call_uuid)
    assert lasting(one) == lasting(other)


@pytest.mark.usefixtures("paired")
@any_time
@given(data=st.data(), name=st.sampled_from(sorted(STORIES)))
async def test_loss_of_what_only_repeats_it_changes_nothing(
    twilio: Twilio, client: Client, data: st.DataObject, name: str
) -> None:
    """A digit is asked for until it is answered, and a dial's result too: only callbacks are lost."""
    steps, _status = STORIES[name]
    kept = [step for step in steps if step[0] in ("press", "result") or step == HUNG_UP or data.draw(st.booleans())]
    ordered, lossy = await call_in(twilio), await call_in(twilio)

    await ordered.post_all(steps)
    await lossy.post_all(kept)

    one, other = await get(client, ordered.menu.call_uuid), await get(client, lossy.menu.call_uuid)
    assert lasting(one) == lasting(other)


@pytest.mark.usefixtures("paired")
@any_time
@example(presses=["1", "2", "3"], result="no-answer")
@given(
    presses=st.lists(st.sampled_from(["1", "2", "3", "9", "", "7", "**"]), max_size=6),
    result=st.sampled_from(["completed", "no-answer", "busy", "failed", "canceled", "no-answer/completed"]),
)
async def test_whatever_is_pressed_the_call_ends_in_a_state_that_follows(
    twilio: Twilio, client: Client, db: Database, presses: list[str], result: str
) -> None:
    caller = await call_in(twilio)
    steps = [("press", digits) for digits in presses]
    if "1" in presses:
        steps.append(("result", result))

    await caller.post_all([*steps, HUNG_UP])

    call = await get(client, caller.menu.call_uuid)
    unanswered = "1" in presses and result not in ("completed", "canceled", "no-answer/completed")
    if "2" in presses or unanswered:
        assert call.internal_status == "voicemail"
    elif "1" in presses and result == "completed":
        assert call.internal_status == "finished"
    else:
        assert call.internal_status == "no_answer"
    statuses = await told(db, caller.menu.call_uuid)
    assert statuses[-1] == call.internal_status
