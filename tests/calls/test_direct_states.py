"""What becomes of a browser's call: the facts of its callbacks, in whatever order they come and however often."""

from typing import Any

import pytest
from commonservices.v1 import call_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.calls.tables import VoiceTokenRow
from server.db import Database
from tests.calls.browsers import calls_of, connect, get, new_token, respond, tokens_of, told
from tests.calls.twilio import CALLS_PATH, Script, Twilio, call_sid
from tests.clients import Client
from tests.conftest import PUBLIC_BASE_URL
from tests.factories import RECEIVER, SERVICE_SID, make_messaging_service

any_time = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# What Twilio says of the dialled leg last, and of the dial, by what becomes of the call.
ENDS = {
    "finished": ("completed", "completed"),
    "busy": ("busy", "busy"),
    "no_answer": ("no-answer", "no-answer"),
    "failed": ("failed", "failed"),
    "canceled": ("canceled", "canceled"),
}


@pytest.fixture
async def token(client: Client, db: Database) -> VoiceTokenRow:
    """A token for a contact."""
    await make_messaging_service(db)
    await new_token(client, phone_number=RECEIVER, messaging_service_sid=SERVICE_SID)
    [row] = await tokens_of(db)
    return row


class Dialled:
    """A browser's call and the callbacks about it, each a thing to post."""

    def __init__(self, twilio: Twilio, script: Script, browser: str) -> None:
        self._twilio = twilio
        self._script = script
        self._browser = browser
        self._contact = call_sid()

    async def post(self, kind: str, value: str | None) -> None:
        """Post one of `story`."""
        if kind == "result":
            assert value is not None
            answer = await self._twilio.dialled(self._script, value, sid=self._browser, dial_call_sid=self._contact)
            assert answer.verbs == ["Hangup"]
        elif kind == "browser":
            url = f"{PUBLIC_BASE_URL}{CALLS_PATH}/participant_status_changes"
            await self._twilio.follow(url, {"CallSid": self._browser, "CallStatus": value or ""})
        elif kind == "detected":
            await self._twilio.progress(self._script, None, sid=self._contact, answered_by=value)
        else:
            error_code = "13227" if value == "failed" else None
            await self._twilio.progress(
                self._script, value, sid=self._contact, parent=self._browser, error_code=error_code
            )


HUNG_UP = ("browser", "completed")


def story(end: str, answered_by: str | None) -> list[tuple[str, str | None]]:
    """All that is told of a call that ends so, in order."""
    status, result = ENDS[end]
    steps: list[tuple[str, str | None]] = [("leg", "initiated"), ("leg", "ringing")]
    if end == "finished":
        steps += [("leg", "in-progress"), *([("detected", answered_by)] if answered_by else [])]
    return [*steps, ("leg", status), ("result", result)]


async def made(twilio: Twilio, row: VoiceTokenRow) -> tuple[Dialled, Script]:
    """A call to be told of."""
    sid = call_sid()
    script = await connect(twilio, row, sid=sid)
    return Dialled(twilio, script, sid), script


def lasting(call: call_pb2.Call) -> dict[str, Any]:
    """What of a call is not its own."""
    return {
        name: getattr(call, name)
        for name in ("internal_status", "provider_status", "machine_detected", "error_code", "participant_number")
    } | {"has_failed_at": call.HasField("failed_at"), "is_known": call.HasField("machine_detected")}


@pytest.mark.parametrize(
    ("end", "provider_status"),
    [
        ("finished", "completed"),
        ("busy", "busy"),
        ("no_answer", "no-answer"),
        ("failed", "failed"),
        ("canceled", "canceled"),
    ],
)
async def test_call_is_told_as_it_goes(
    twilio: Twilio, client: Client, db: Database, token: VoiceTokenRow, end: str, provider_status: str
) -> None:
    dialled, script = await made(twilio, token)

    for step in story(end, None):
        await dialled.post(*step)

    call = await get(client, script.call_uuid)
    [stored] = await calls_of(db)
    assert (call.internal_status, call.provider_status) == (end, provider_status)
    assert call.HasField("failed_at") == (end == "failed")
    assert call.error_code == ("13227" if end == "failed" else "")
    statuses = await told(db, script.call_uuid)
    assert statuses == ["pending"] * (len(statuses) - 1) + [end]
    assert stored.legs[1].ended_at is not None
    assert stored.legs[1].check_at is None


@pytest.mark.parametrize(
    ("answered_by", "machine_detected"), [("human", False), ("machine_start", True), ("fax", True), ("unknown", None)]
)
async def test_machine_is_told_of_when_it_is_known(
    twilio: Twilio, client: Client, token: VoiceTokenRow, answered_by: str, machine_detected: bool | None
) -> None:
    dialled, script = await made(twilio, token)

    for step in story("finished", answered_by):
        await dialled.post(*step)

    call = await get(client, script.call_uuid)
    assert (call.machine_detected if call.HasField("machine_detected") else None) == machine_detected


@any_time
@given(data=st.data(), end=st.sampled_from(sorted(ENDS)), answered_by=st.sampled_from([None, "human", "fax"]))
async def test_any_order_and_repetition_ends_as_the_ordered_story(
    twilio: Twilio,
    client: Client,
    db: Database,
    token: VoiceTokenRow,
    data: st.DataObject,
    end: str,
    answered_by: str | None,
) -> None:
    steps = story(end, answered_by)
    again = data.draw(st.lists(st.sampled_from(steps), max_size=3))
    shuffled = data.draw(st.permutations([*steps, *again]))
    # Whatever is told of the contact's leg, its call was begun: the browser's end is told after that.
    begun = min(i for i, (kind, _) in enumerate(shuffled) if kind in ("leg", "result")) + 1
    for _ in range(data.draw(st.integers(0, 2))):
        shuffled.insert(data.draw(st.integers(begun, len(shuffled))), HUNG_UP)
    ordered, one = await made(twilio, token)
    jumbled, other = await made(twilio, token)

    for step in steps:
        await ordered.post(*step)
    for step in shuffled:
        await jumbled.post(*step)

    assert lasting(await get(client, one.call_uuid)) == lasting(await get(client, other.call_uuid))
    statuses = await told(db, other.call_uuid)
    assert statuses == sorted(statuses, key=lambda status: status != "pending"), "an end is final"
    assert set(statuses) == {"pending", end}


@any_time
@given(data=st.data(), end=st.sampled_from(sorted(ENDS)))
async def test_loss_of_all_but_one_of_the_ends_changes_nothing(
    twilio: Twilio, client: Client, token: VoiceTokenRow, data: st.DataObject, end: str
) -> None:
    steps = story(end, None)
    last = data.draw(st.sampled_from(steps[-2:]))
    kept = [step for step in steps[:-2] if data.draw(st.booleans())]
    heard = data.draw(st.permutations([*kept, last]))
    dialled, script = await made(twilio, token)

    for step in heard:
        await dialled.post(*step)

    call = await get(client, script.call_uuid)
    assert (call.internal_status, call.provider_status) == (end, ENDS[end][0])


@pytest.mark.parametrize(
    ("status", "end"), [("no-answer", "canceled"), ("completed", "canceled"), ("failed", "failed")]
)
async def test_browser_that_ends_before_the_contact_is_called_is_the_end(
    twilio: Twilio, client: Client, db: Database, token: VoiceTokenRow, status: str, end: str
) -> None:
    dialled, script = await made(twilio, token)

    for _ in range(2):
        await dialled.post("browser", status)

    [call] = await calls_of(db)
    assert (await get(client, script.call_uuid)).internal_status == end
    assert await told(db, script.call_uuid) == ["pending", end]
    assert [leg.check_at for leg in call.legs] == [None, None]


async def test_end_of_a_call_that_is_not_there_is_taken(twilio: Twilio, db: Database) -> None:
    url = f"{PUBLIC_BASE_URL}{CALLS_PATH}/participant_status_changes"

    answer = await twilio.follow(url, {"CallSid": call_sid(), "CallStatus": "completed"})

    assert answer.verbs == []
    assert await calls_of(db) == []


async def test_result_names_the_legs_of_an_api_callers_call(
    twilio: Twilio, client: Client, db: Database, token: VoiceTokenRow
) -> None:
    script = await respond(client, client_conversation_id="conversation-1", To=RECEIVER)
    browser, contact = call_sid(), call_sid()

    for _ in range(2):
        await twilio.dialled(script, "completed", sid=browser, dial_call_sid=contact)

    [call] = await calls_of(db)
    assert [leg.call_sid for leg in call.legs] == [browser, contact]
    assert call.row.internal_status == "finished"
    assert call.row.expires_at is None
    assert call.legs[0].check_at is not None


async def test_dial_that_reached_nobody_has_failed(
    twilio: Twilio, client: Client, db: Database, token: VoiceTokenRow
) -> None:
    sid = call_sid()
    script = await connect(twilio, token, sid=sid)

    await twilio.dialled(script, "failed", sid=sid)

    call = await get(client, script.call_uuid)
    assert (call.internal_status, call.provider_status) == ("failed", "failed")
    assert call.HasField("failed_at")


async def test_result_of_a_call_that_is_not_there_is_the_end(twilio: Twilio, db: Database) -> None:
    url = "/api/v1/twilio_calls/dial_results?call_uuid=0198c8a4-2b1c-7000-8000-00000000000c"

    answer = await twilio.follow(f"http://shunkan_ido{url}", {"CallSid": call_sid(), "DialCallStatus": "busy"})

    assert answer.verbs == ["Hangup"]
