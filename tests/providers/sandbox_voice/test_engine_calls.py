import math
from datetime import datetime
from email.utils import parsedate_to_datetime

import pytest

from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.voice_phones import Phone, Pickup
from server.providers.sandbox.voice_records import CallStatus, MachineDetection, NotFound, NotInProgress
from tests.providers.sandbox_voice.engine import OUR_NUMBER, PHONE, PROGRESS, SANDBOX_URL, Engine, in_order
from tests.providers.servers import ACCOUNT_SID


async def test_a_call_is_told_from_its_first_ring_to_its_end(engine: Engine) -> None:
    call = engine.call(engine.answers("/voice", "<Say>Hello there</Say>"), status_callback=engine.told("/progress"))
    assert (call.status, call.rest_status) == (CallStatus.QUEUED, "queued")

    told = in_order(await engine.get("/progress", 4))

    assert [each["CallStatus"] for each in told] == ["initiated", "ringing", "in-progress", "completed"]
    assert [each["SequenceNumber"] for each in told] == ["0", "1", "2", "3"]
    geography = {
        f"{side}{part}": "US" if part == "Country" else ""
        for side in ("From", "To", "Caller", "Called")
        for part in ("City", "State", "Zip", "Country")
    }
    common = geography | {
        "AccountSid": ACCOUNT_SID,
        "ApiVersion": "2010-04-01",
        "CallSid": call.sid,
        "CallbackSource": "call-progress-events",
        "Called": PHONE,
        "Caller": OUR_NUMBER,
        "Direction": "outbound-api",
        "From": OUR_NUMBER,
        "To": PHONE,
    }
    own = ("CallStatus", "SequenceNumber", "Timestamp")
    assert {name: value for name, value in told[0].items() if name not in own} == common
    ending = {name: value for name, value in told[3].items() if name not in (*own, *common)}
    assert call.duration is not None
    assert call.duration >= 1
    assert ending == {
        "CallDuration": str(call.duration),
        "Duration": str(math.ceil(call.duration / 60)),
        "SipResponseCode": "200",
    }
    assert parsedate_to_datetime(told[0]["Timestamp"]).tzinfo is not None
    assert isinstance(parsedate_to_datetime(told[0]["Timestamp"]), datetime)


async def test_its_document_is_asked_for_when_somebody_has_answered(engine: Engine) -> None:
    call = engine.call(engine.answers("/voice", "<Hangup/>"))

    asked = (await engine.get("/voice"))[0]

    assert (asked["CallSid"], asked["CallStatus"], asked["Direction"]) == (call.sid, "in-progress", "outbound-api")
    assert "AnsweredBy" not in asked
    await engine.until(call)


async def test_only_the_events_asked_for_are_told_and_numbered(engine: Engine) -> None:
    engine.call("<Response/>", status_callback=engine.told("/progress", "answered", "completed"))

    told = in_order(await engine.get("/progress", 2))

    assert [(each["CallStatus"], each["SequenceNumber"]) for each in told] == [("in-progress", "0"), ("completed", "1")]


@pytest.mark.parametrize(
    ("pickup", "statuses", "sip_code"),
    [
        (Pickup.NO_ANSWER, ["initiated", "ringing", "no-answer"], "487"),
        (Pickup.BUSY, ["initiated", "busy"], "486"),
        (Pickup.UNREACHABLE, ["initiated", "failed"], "404"),
    ],
)
async def test_a_call_that_nobody_takes_asks_for_no_document(
    engine: Engine, pickup: Pickup, statuses: list[str], sip_code: str
) -> None:
    voice = engine.answers("/voice", "<Hangup/>")

    call = engine.call(voice, phone=Phone(pickup), status_callback=engine.told("/progress"), timeout=5)

    told = in_order(await engine.get("/progress", len(statuses)))
    assert [each["CallStatus"] for each in told] == statuses
    assert (told[-1]["CallDuration"], told[-1]["SipResponseCode"]) == ("0", sip_code)
    assert (call.duration, call.started) == (0, None)
    await engine.settled()
    assert engine.got("/voice") == []


async def test_a_phone_that_takes_longer_than_the_timeout_does_not_answer(engine: Engine) -> None:
    slow = engine.call("<Response/>", phone=Phone(answers_after_ms=6_000), timeout=5)
    await engine.until(slow, "no-answer")

    quick = engine.call("<Response/>", phone=Phone(answers_after_ms=4_000), timeout=5)
    await engine.until(quick, "completed")


async def test_an_unregistered_browser_does_not_answer_and_a_registered_one_does(engine: Engine) -> None:
    await engine.until(engine.call("<Response/>", to="client:nobody"), "no-answer")

    await engine.until(engine.call("<Response/>", to="client:staff", phone=Phone()), "completed")


async def test_the_time_limit_ends_a_call(engine: Engine) -> None:
    call = engine.call("<Response><Say loop='0'>Hello</Say></Response>", time_limit=10)

    await engine.until(call)

    assert call.duration is not None
    assert call.duration >= 10


async def test_whoever_answers_may_hang_up_by_and_by(engine: Engine) -> None:
    call = engine.call("<Response><Say loop='0'>Hello</Say></Response>", phone=Phone(hangs_up_after_ms=3_000))

    await engine.until(call)

    assert call.duration is not None
    assert call.duration >= 3


async def test_whoever_is_called_may_hang_up_or_decline(engine: Engine) -> None:
    answered = engine.call("<Response><Pause length='1000'/></Response>")
    await engine.until(answered, "in-progress")
    assert engine.exchange.hang_up(answered.sid).status is CallStatus.COMPLETED

    ringing = engine.call("<Response/>", phone=Phone(Pickup.NO_ANSWER))
    await engine.until(ringing, "ringing")
    assert engine.exchange.hang_up(ringing.sid).status is CallStatus.BUSY

    with pytest.raises(NotInProgress, match=ringing.sid):
        engine.exchange.hang_up(ringing.sid)


async def test_the_account_cancels_a_call_that_rings_and_ends_one_that_lasts(engine: Engine) -> None:
    ringing = engine.call("<Response/>", phone=Phone(Pickup.NO_ANSWER), status_callback=engine.told("/progress"))
    await engine.until(ringing, "ringing")

    assert engine.exchange.update_call(ringing.sid, status="canceled").status is CallStatus.CANCELED

    told = in_order(await engine.get("/progress", 3))
    assert [each["CallStatus"] for each in told] == ["initiated", "ringing", "canceled"]
    lasting = engine.call("<Response><Pause length='1000'/></Response>", phone=Phone())
    await engine.until(lasting, "in-progress")
    with pytest.raises(NotInProgress):
        engine.exchange.update_call(lasting.sid, status="canceled")
    assert engine.exchange.update_call(lasting.sid, status="completed").status is CallStatus.COMPLETED
    assert engine.exchange.update_call(lasting.sid, status="completed").status is CallStatus.COMPLETED


async def test_a_call_canceled_before_it_is_dialled_never_rings(engine: Engine) -> None:
    call = engine.call("<Response/>", status_callback=engine.told("/progress"))

    engine.exchange.update_call(call.sid, status="canceled")

    told = await engine.get("/progress")
    await engine.settled()
    assert [each["CallStatus"] for each in engine.got("/progress")] == ["canceled"]
    assert told[0]["CallDuration"] == "0"


async def test_a_redirected_call_does_what_the_new_document_says(engine: Engine) -> None:
    call = engine.call("<Response><Pause length='1000'/></Response>", status_callback=engine.told("/progress"))
    with pytest.raises(NotInProgress):
        engine.exchange.update_call(call.sid, document="<Response/>")
    await engine.until(call, "in-progress")

    engine.exchange.update_call(call.sid, document=engine.answers("/elsewhere", "<Hangup/>"))

    assert (await engine.get("/elsewhere"))[0]["CallStatus"] == "in-progress"
    await engine.until(call)


@pytest.mark.parametrize(
    ("pickup", "mode", "answered_by"),
    [
        (Pickup.HUMAN, "Enable", "human"),
        (Pickup.MACHINE, "Enable", "machine_start"),
        (Pickup.HUMAN, "DetectMessageEnd", "human"),
        (Pickup.MACHINE, "DetectMessageEnd", "machine_end_beep"),
    ],
)
async def test_detection_is_heard_out_before_the_document_is_asked_for(
    engine: Engine, pickup: Pickup, mode: str, answered_by: str
) -> None:
    engine.call(
        engine.answers("/voice", "<Hangup/>"),
        phone=Phone(pickup),
        machine_detection=MachineDetection(mode),
        status_callback=engine.told("/progress"),
    )

    assert (await engine.get("/voice"))[0]["AnsweredBy"] == answered_by
    told = in_order(await engine.get("/progress", 4))
    assert [each.get("AnsweredBy") for each in told] == [None, None, None, answered_by]


async def test_whoever_hangs_up_during_detection_is_never_asked_for(engine: Engine) -> None:
    call = engine.call(
        engine.answers("/voice", "<Hangup/>"),
        phone=Phone(hangs_up_after_ms=500),
        machine_detection=MachineDetection(),
    )

    await engine.until(call)

    await engine.settled()
    assert engine.got("/voice") == []


async def test_asynchronous_detection_is_told_apart(engine: Engine) -> None:
    call = engine.call(
        engine.answers("/voice", "<Pause length='30'/>"),
        phone=Phone(Pickup.MACHINE),
        machine_detection=MachineDetection(async_callback=engine.url("/amd")),
    )

    told = (await engine.get("/amd"))[0]

    assert told == {
        "AccountSid": ACCOUNT_SID,
        "AnsweredBy": "machine_start",
        "CallSid": call.sid,
        "MachineDetectionDuration": "3000",
    }
    assert "AnsweredBy" not in engine.got("/voice")[0]


async def test_duplicated_callbacks_come_twice_under_one_token(engine: Engine) -> None:
    engine.call("<Response/>", status_callback=engine.told("/progress"), callbacks=Callbacks.DUPLICATED)

    told = in_order(await engine.get("/progress", 8))

    assert [each["SequenceNumber"] for each in told] == list("00112233")
    assert len({each.token for each in engine.asked}) == 4


async def test_reordered_callbacks_come_last_first(engine: Engine) -> None:
    engine.call("<Response/>", status_callback=engine.told("/progress"), phone=Phone(callbacks=Callbacks.REORDERED))

    told = await engine.get("/progress", 4)

    assert [each["SequenceNumber"] for each in told] == list("3210")


async def test_missing_callbacks_never_come(engine: Engine) -> None:
    call = engine.call("<Response/>", status_callback=engine.told("/progress"), callbacks=Callbacks.MISSING)

    await engine.until(call)

    await engine.settled()
    assert engine.asked == []


async def test_calls_are_listed_newest_first_and_unknown_ones_are_not_there(engine: Engine) -> None:
    calls = [engine.call("<Response/>") for _ in range(3)]

    assert engine.exchange.calls() == calls[::-1]
    assert engine.exchange.call(calls[0].sid) is calls[0]
    with pytest.raises(NotFound, match="CA0"):
        engine.exchange.call("CA0")


async def test_a_reset_forgets_all_and_tells_nobody(engine: Engine) -> None:
    call = engine.call(
        "<Response><Say loop='0'>Hello</Say></Response>",
        status_callback=engine.told("/progress", "completed"),
        time_limit=20,
    )
    await engine.until(call, "in-progress")

    await engine.exchange.reset()

    assert (engine.exchange.calls(), engine.exchange.recordings(), engine.exchange.conferences()) == ([], [], [])
    await engine.settled()
    assert engine.asked == []
    again = engine.call("<Response/>", status_callback=engine.told("/again", *PROGRESS))
    await engine.until(again)
    await engine.get("/again", 4)


async def test_the_end_of_a_call_that_comes_in_is_told(engine: Engine) -> None:
    voice = engine.answers("/voice", "<Say>Welcome</Say>")

    call = engine.come_in(voice, status_callback=engine.told("/status", "completed"))

    (told,) = await engine.get("/status")
    assert (told["CallSid"], told["CallStatus"], told["Direction"]) == (call.sid, "completed", "inbound")
    assert (told["SequenceNumber"], told["CallbackSource"]) == ("0", "call-progress-events")
    assert told["CallDuration"] == str(call.duration)
    assert parsedate_to_datetime(told["Timestamp"]).tzinfo is not None


@pytest.mark.parametrize(("callbacks", "times"), [(Callbacks.DUPLICATED, 2), (Callbacks.MISSING, 0)])
async def test_the_end_of_a_browsers_call_is_told_as_it_misbehaves(
    engine: Engine, callbacks: Callbacks, times: int
) -> None:
    call = engine.exchange.client_connects(
        identity="staff",
        application_sid="AP1",
        document=engine.answers("/app", "<Hangup/>"),
        parameters={},
        base_url=SANDBOX_URL,
        status_callback=engine.told("/status", "completed"),
        callbacks=callbacks,
    )

    await engine.until(call)

    await engine.get("/status", times)
    await engine.settled()
    assert [each["From"] for each in engine.got("/status")] == ["client:staff"] * times
    assert len({each.token for each in engine.asked if each.path == "/status"}) == min(times, 1)
