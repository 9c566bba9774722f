import pytest

from server.providers.sandbox.voice_phones import Phone, Pickup
from server.providers.sandbox.voice_records import Call, Direction
from tests.providers.sandbox_voice.engine import OTHER_PHONE, OUR_NUMBER, PHONE, SANDBOX_URL, Engine, in_order
from tests.providers.servers import ACCOUNT_SID

EVENTS = "initiated ringing answered completed"


def child_of(engine: Engine, parent: Call) -> Call:
    return next(call for call in engine.exchange.calls() if call.parent_call_sid == parent.sid)


async def test_whoever_is_dialled_is_connected_until_they_hang_up(engine: Engine) -> None:
    dial = f"""<Dial action='/done' callerId='{OUR_NUMBER}'>
        <Number statusCallback='/progress' statusCallbackEvent='{EVENTS}'>{OTHER_PHONE}</Number></Dial>"""
    engine.exchange.phones.put(OTHER_PHONE, Phone(hangs_up_after_ms=3_000))

    call = engine.come_in(engine.answers("/voice", dial))

    done = (await engine.get("/done"))[0]
    child = child_of(engine, call)
    assert (child.direction, child.from_, child.to) == (Direction.DIAL, OUR_NUMBER, OTHER_PHONE)
    assert {name: value for name, value in done.items() if name.startswith("Dial")} == {
        "DialBridged": "true",
        "DialCallDuration": str(child.duration),
        "DialCallSid": child.sid,
        "DialCallStatus": "completed",
    }
    assert (done["CallSid"], done["CallStatus"]) == (call.sid, "in-progress")
    told = in_order(await engine.get("/progress", 4))
    assert [each["CallStatus"] for each in told] == ["initiated", "ringing", "in-progress", "completed"]
    assert {(each["ParentCallSid"], each["Direction"]) for each in told} == {(call.sid, "outbound-dial")}
    await engine.until(call)


@pytest.mark.parametrize(
    ("pickup", "status"),
    [(Pickup.NO_ANSWER, "no-answer"), (Pickup.BUSY, "busy"), (Pickup.UNREACHABLE, "failed")],
)
async def test_a_dial_in_vain_tells_why(engine: Engine, pickup: Pickup, status: str) -> None:
    engine.exchange.phones.put(OTHER_PHONE, Phone(pickup))

    call = engine.come_in(engine.answers("/voice", f"<Dial action='/done' timeout='5'>{OTHER_PHONE}</Dial>"))

    done = (await engine.get("/done"))[0]
    assert (done["DialCallStatus"], done["DialBridged"]) == (status, "false")
    assert done["DialCallSid"] == child_of(engine, call).sid
    assert "DialCallDuration" not in done
    assert child_of(engine, call).from_ == PHONE


async def test_an_unregistered_browser_is_told_at_once_as_not_answering(engine: Engine) -> None:
    engine.come_in(engine.answers("/voice", "<Dial action='/done' timeout='600'><Client>staff</Client></Dial>"))

    assert (await engine.get("/done"))[0]["DialCallStatus"] == "no-answer"


async def test_without_an_action_the_caller_goes_on_with_the_next_verb(engine: Engine) -> None:
    engine.exchange.phones.put(OTHER_PHONE, Phone(hangs_up_after_ms=1_000))

    engine.come_in(engine.answers("/voice", f"<Dial>{OTHER_PHONE}</Dial><Redirect>/after</Redirect>"))

    assert (await engine.get("/after"))[0]["CallStatus"] == "in-progress"


async def test_a_caller_hears_it_ring_until_whoever_is_dialled_answers_where_that_is_asked_for(engine: Engine) -> None:
    engine.exchange.phones.put(OTHER_PHONE, Phone(answers_after_ms=40_000, hangs_up_after_ms=20_000))
    dial = f"<Dial answerOnBridge='true' timeout='600' action='/done'>{OTHER_PHONE}</Dial>"

    call = engine.come_in(engine.answers("/voice", dial))

    assert (await engine.get("/done"))[0]["CallStatus"] == "in-progress"
    child = child_of(engine, call)
    assert call.started is not None
    assert child.started is not None
    assert call.started >= child.started > call.created + 0.1


async def test_a_caller_whom_nobody_answered_still_rings_for_the_action(engine: Engine) -> None:
    engine.exchange.phones.put(OTHER_PHONE, Phone(Pickup.BUSY))
    dial = f"<Dial answerOnBridge='true' action='/done'>{OTHER_PHONE}</Dial>"

    call = engine.come_in(engine.answers("/voice", dial))

    assert (await engine.get("/done"))[0]["CallStatus"] == "ringing"
    await engine.until(call)


async def test_the_first_of_several_who_answers_is_connected_and_the_others_stop_ringing(engine: Engine) -> None:
    engine.exchange.phones.put("client:staff", Phone(answers_after_ms=4_000, hangs_up_after_ms=3_000))
    engine.exchange.phones.put(OTHER_PHONE, Phone(Pickup.NO_ANSWER))
    dial = f"<Dial action='/done'><Number>{OTHER_PHONE}</Number><Client>staff</Client><Client>nobody</Client></Dial>"

    engine.come_in(engine.answers("/voice", dial))

    done = (await engine.get("/done"))[0]
    children = {call.to: call for call in engine.exchange.calls() if call.parent_call_sid is not None}
    assert done["DialCallSid"] == children["client:staff"].sid
    assert {to: call.status.value for to, call in children.items()} == {
        OTHER_PHONE: "canceled",
        "client:staff": "completed",
        "client:nobody": "no-answer",
    }


async def test_a_caller_who_hangs_up_leaves_nobody_ringing_and_the_action_is_told(engine: Engine) -> None:
    engine.exchange.phones.put(OTHER_PHONE, Phone(Pickup.NO_ANSWER))
    dial = f"<Dial action='/done' timeout='600'>{OTHER_PHONE}</Dial><Redirect>/after</Redirect>"
    call = engine.come_in(engine.answers("/voice", dial))
    await engine.dialled(call, "ringing")

    engine.exchange.hang_up(call.sid)

    done = (await engine.get("/done"))[0]
    assert (done["CallStatus"], done["DialCallStatus"]) == ("completed", "no-answer")
    assert child_of(engine, call).status == "no-answer"
    await engine.settled()
    assert engine.got("/after") == []


async def test_a_caller_who_hangs_up_ends_the_call_of_whom_they_talk_with(engine: Engine) -> None:
    call = engine.come_in(engine.answers("/voice", f"<Dial action='/done'>{OTHER_PHONE}</Dial>"))
    child = await engine.talking(call)

    engine.exchange.hang_up(call.sid)

    done = (await engine.get("/done"))[0]
    assert (done["CallStatus"], done["DialCallStatus"]) == ("completed", "completed")
    assert child.status == "completed"


async def test_the_time_limit_of_a_dial_ends_what_it_connected(engine: Engine) -> None:
    call = engine.come_in(engine.answers("/voice", f"<Dial action='/done' timeLimit='5'>{OTHER_PHONE}</Dial>"))

    done = (await engine.get("/done"))[0]

    assert (done["CallStatus"], done["DialCallStatus"]) == ("in-progress", "completed")
    assert int(done["DialCallDuration"]) >= 5
    await engine.until(call)


async def test_a_redirected_caller_leaves_whom_they_talk_with_behind(engine: Engine) -> None:
    call = engine.come_in(engine.answers("/voice", f"<Dial action='/done'>{OTHER_PHONE}</Dial>"))
    child = await engine.talking(call)

    engine.exchange.update_call(call.sid, document=engine.answers("/elsewhere", "<Hangup/>"))

    await engine.until(call)
    await engine.until(child)
    await engine.settled()
    assert engine.got("/done") == []


async def test_a_redirected_child_goes_on_by_itself(engine: Engine) -> None:
    call = engine.come_in(engine.answers("/voice", f"<Dial action='/done'>{OTHER_PHONE}</Dial>"))
    child = await engine.talking(call)

    engine.exchange.update_call(child.sid, document=engine.answers("/elsewhere", "<Pause length='10000'/>"))

    assert (await engine.get("/elsewhere"))[0]["CallSid"] == child.sid
    done = (await engine.get("/done"))[0]
    assert (done["DialCallStatus"], "DialCallDuration" in done) == ("completed", False)
    assert child.status == "in-progress"


async def test_detection_on_a_number_is_told_apart(engine: Engine) -> None:
    engine.exchange.phones.put(OTHER_PHONE, Phone(Pickup.MACHINE, hangs_up_after_ms=60_000))
    dial = f"""<Dial><Number machineDetection='Enable' amdStatusCallback='/amd' statusCallback='/progress'
        statusCallbackEvent='{EVENTS}'>{OTHER_PHONE}</Number></Dial>"""

    call = engine.come_in(engine.answers("/voice", dial))

    told = (await engine.get("/amd"))[0]
    assert told == {
        "AccountSid": ACCOUNT_SID,
        "AnsweredBy": "machine_start",
        "CallSid": child_of(engine, call).sid,
        "MachineDetectionDuration": "3000",
    }
    ended = in_order(await engine.get("/progress", 4))[-1]
    assert ended["AnsweredBy"] == "machine_start"


async def test_a_browser_cannot_call_a_telephone_without_a_number_of_ours(engine: Engine) -> None:
    engine.exchange.client_connects(
        identity="staff",
        application_sid="AP1",
        document=engine.answers("/app", f"<Dial action='/done'>{OTHER_PHONE}</Dial>"),
        parameters={},
        base_url=SANDBOX_URL,
    )

    assert (await engine.get("/done"))[0]["DialCallStatus"] == "failed"
    assert [each.code for each in engine.exchange.problems()] == [13214]
