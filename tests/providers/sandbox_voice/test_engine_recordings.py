import wave
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path

import pytest

from server.providers.sandbox.misbehaviour import Callbacks
from server.providers.sandbox.voice_audio import seconds_of
from server.providers.sandbox.voice_phones import Phone, Pickup
from server.providers.sandbox.voice_records import NotFound, NotInProgress, RecordingStatus
from tests.providers.sandbox_voice.engine import OTHER_PHONE, SANDBOX_URL, Engine, running_engine
from tests.providers.servers import ACCOUNT_SID

ALL = "in-progress completed absent"
RECORD = f"""<Record action='/voicemail' recordingStatusCallback='/recording' recordingStatusCallbackEvent='{ALL}'/>
    <Redirect>/nothing</Redirect>"""
MESSAGE = "Hello, this is the father of Ann"


def loudness(wav: bytes) -> list[int]:
    """Of each channel the loudest sample."""
    with wave.open(BytesIO(wav)) as file:
        samples = memoryview(file.readframes(file.getnframes())).cast("h")
        return [
            max(abs(sample) for sample in samples[index :: file.getnchannels()]) for index in range(file.getnchannels())
        ]


async def test_a_voicemail_is_recorded_until_silence(engine: Engine) -> None:
    call = engine.come_in(engine.answers("/voice", RECORD), phone=Phone(says=(MESSAGE,)))

    left = (await engine.get("/voicemail"))[0]
    told = {each["RecordingStatus"]: each for each in await engine.get("/recording", 2)}

    recording = engine.exchange.recordings()[0]
    assert (left["Digits"], left["RecordingSid"], left["CallStatus"]) == ("", recording.sid, "in-progress")
    assert left["RecordingUrl"] == f"{SANDBOX_URL}/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/{recording.sid}"
    completed = told["completed"]
    assert parsedate_to_datetime(completed.pop("RecordingStartTime")).tzinfo is not None
    assert completed == {
        "AccountSid": ACCOUNT_SID,
        "CallSid": call.sid,
        "ErrorCode": "0",
        "RecordingChannels": "1",
        "RecordingDuration": left["RecordingDuration"],
        "RecordingSid": recording.sid,
        "RecordingSource": "RecordVerb",
        "RecordingStatus": "completed",
        "RecordingTrack": "both",
        "RecordingUrl": left["RecordingUrl"],
    }
    assert "RecordingDuration" not in told["in-progress"]
    wav = engine.exchange.recording_file(recording.sid)
    assert seconds_of(wav) == int(left["RecordingDuration"])
    assert loudness(wav)[0] > 1000


async def test_a_file_holds_all_that_was_said_though_it_takes_longer_than_was_thought(engine: Engine) -> None:
    long_words = "Internationalization antidisestablishmentarianism"
    engine.come_in(engine.answers("/voice", RECORD), phone=Phone(says=(long_words,)))

    thought = (await engine.get("/voicemail"))[0]
    told = {each["RecordingStatus"]: each for each in await engine.get("/recording", 2)}["completed"]

    assert int(told["RecordingDuration"]) > int(thought["RecordingDuration"]) == 1
    assert seconds_of(engine.exchange.recording_file(told["RecordingSid"])) == int(told["RecordingDuration"])


async def test_a_voicemail_ends_with_a_key(engine: Engine) -> None:
    voice = engine.answers("/voice", "<Record action='/voicemail' timeout='0' finishOnKey='#'/>")
    call = engine.come_in(voice, phone=Phone(says=(MESSAGE,)))
    await engine.until_it_does(call, "record")

    engine.exchange.press(call.sid, "1#")

    assert (await engine.get("/voicemail"))[0]["Digits"] == "#"


async def test_a_voicemail_ends_when_the_caller_hangs_up(engine: Engine) -> None:
    call = engine.come_in(
        engine.answers("/voice", RECORD.replace("<Record", "<Record timeout='0'")), phone=Phone(says=(MESSAGE,))
    )
    await engine.until_it_does(call, "record")

    engine.exchange.hang_up(call.sid)

    left = (await engine.get("/voicemail"))[0]
    assert (left["Digits"], left["CallStatus"]) == ("hangup", "completed")
    assert {each["RecordingStatus"] for each in await engine.get("/recording", 2)} == {"in-progress", "completed"}
    assert engine.got("/nothing") == []


async def test_a_voicemail_ends_at_its_longest(engine: Engine) -> None:
    engine.come_in(
        engine.answers("/voice", "<Record action='/voicemail' timeout='0' maxLength='10'/>"),
        phone=Phone(says=("one",)),
    )

    assert (await engine.get("/voicemail"))[0]["Digits"] == ""


async def test_who_says_nothing_leaves_no_voicemail(engine: Engine) -> None:
    engine.come_in(engine.answers("/voice", RECORD))

    await engine.get("/nothing")

    assert engine.got("/voicemail") == []
    absent = {each["RecordingStatus"]: each for each in await engine.get("/recording", 2)}["absent"]
    assert absent["RecordingDuration"] == "0"
    recording = engine.exchange.recordings()[0]
    assert (recording.status, recording.duration) == (RecordingStatus.ABSENT, 0)
    with pytest.raises(NotInProgress, match="absent"):
        engine.exchange.recording_file(recording.sid)


async def test_what_is_said_by_hand_is_recorded_and_puts_off_the_end(engine: Engine) -> None:
    call = engine.come_in(
        engine.answers("/voice", "<Say>Welcome</Say>" + RECORD.replace("<Record", "<Record timeout='60'"))
    )
    await engine.until(call, "in-progress")

    engine.exchange.say(call.sid, MESSAGE)
    await engine.until_it_does(call, "record")
    engine.exchange.say(call.sid, "And " * 100)

    left = (await engine.get("/voicemail"))[0]
    assert int(left["RecordingDuration"]) > 15


def dial(record: str) -> str:
    return f"""<Dial action='/done' record='{record}' recordingStatusCallback='/recording'
        recordingStatusCallbackEvent='{ALL}'>{OTHER_PHONE}</Dial>"""


async def test_both_sides_of_a_dial_are_heard_apart(engine: Engine) -> None:
    engine.exchange.phones.put(OTHER_PHONE, Phone(says=("Hello Ann",)))
    call = engine.come_in(engine.answers("/voice", dial("record-from-answer-dual")), phone=Phone(says=("Hello Ben",)))
    child = await engine.talking(call)

    engine.exchange.hang_up(child.sid)

    done = (await engine.get("/done"))[0]
    completed = {each["RecordingStatus"]: each for each in await engine.get("/recording", 2)}["completed"]
    assert done["RecordingUrl"] == completed["RecordingUrl"]
    assert (completed["CallSid"], completed["RecordingSource"], completed["RecordingChannels"]) == (
        call.sid,
        "DialVerb",
        "2",
    )
    assert all(loud > 1000 for loud in loudness(engine.exchange.recording_file(completed["RecordingSid"])))


async def test_a_machine_is_recorded_with_its_greeting(engine: Engine) -> None:
    engine.exchange.phones.put(OTHER_PHONE, Phone(Pickup.MACHINE))
    call = engine.come_in(engine.answers("/voice", dial("record-from-answer-dual")))
    child = await engine.talking(call)

    engine.exchange.hang_up(child.sid)

    completed = {each["RecordingStatus"]: each for each in await engine.get("/recording", 2)}["completed"]
    caller, machine = loudness(engine.exchange.recording_file(completed["RecordingSid"]))
    assert (caller, machine > 1000) == (0, True)


async def test_a_dial_in_vain_is_not_recorded(engine: Engine) -> None:
    engine.exchange.phones.put(OTHER_PHONE, Phone(Pickup.BUSY))

    engine.come_in(engine.answers("/voice", dial("record-from-answer")))

    assert "RecordingUrl" not in (await engine.get("/done"))[0]
    assert (engine.exchange.recordings(), engine.got("/recording")) == ([], [])


async def test_of_a_dial_in_vain_that_is_recorded_from_its_ringing_nothing_is_left(engine: Engine) -> None:
    engine.exchange.phones.put(OTHER_PHONE, Phone(Pickup.BUSY))

    engine.come_in(engine.answers("/voice", dial("record-from-ringing")))

    assert "RecordingUrl" not in (await engine.get("/done"))[0]
    assert {each["RecordingStatus"] for each in await engine.get("/recording", 2)} == {"in-progress", "absent"}


async def test_of_an_answer_that_is_hung_up_at_once_nothing_is_left(engine: Engine) -> None:
    engine.exchange.phones.put(OTHER_PHONE, Phone(hangs_up_after_ms=0))

    engine.come_in(engine.answers("/voice", dial("record-from-answer")))

    assert (await engine.get("/done"))[0]["DialCallStatus"] == "completed"
    assert {each["RecordingStatus"] for each in await engine.get("/recording", 2)} == {"in-progress", "absent"}


async def test_a_conference_is_recorded_from_its_start_without_who_is_muted(engine: Engine) -> None:
    noun = f"""<Conference endConferenceOnExit='true' statusCallback='/conference' statusCallbackEvent='join'
        record='record-from-start' recordingStatusCallback='/recording'
        recordingStatusCallbackEvent='{ALL}'>room</Conference>"""
    moderator = engine.call(engine.answers("/voice", f"<Dial>{noun}</Dial>"))
    await engine.get("/conference")
    assert engine.exchange.recordings() == []

    contact = engine.call(
        "<Response><Dial><Conference muted='true'>room</Conference></Dial></Response>", to=OTHER_PHONE
    )
    await engine.get("/recording")
    engine.exchange.say(contact.sid, "Can you hear me")
    engine.exchange.hang_up(moderator.sid)

    completed = {each["RecordingStatus"]: each for each in await engine.get("/recording", 2)}["completed"]
    conference = engine.exchange.conferences()[0]
    assert (completed["ConferenceSid"], completed["RecordingSource"]) == (conference.sid, "Conference")
    assert "CallSid" not in completed
    assert loudness(engine.exchange.recording_file(completed["RecordingSid"])) == [0]


async def test_who_talks_in_a_conference_is_recorded(engine: Engine) -> None:
    noun = """<Conference endConferenceOnExit='true' statusCallback='/conference' statusCallbackEvent='join start'
        record='record-from-start' recordingStatusCallback='/recording'>"""
    moderator = engine.call(engine.answers("/voice", f"<Dial>{noun}room</Conference></Dial>"))
    await engine.get("/conference")
    engine.call("<Response><Dial><Conference>room</Conference></Dial></Response>", to=OTHER_PHONE)
    await engine.get("/conference", 3)
    engine.exchange.say(moderator.sid, "Hello everybody")
    engine.exchange.hang_up(moderator.sid)

    completed = (await engine.get("/recording"))[0]

    assert loudness(engine.exchange.recording_file(completed["RecordingSid"]))[0] > 1000


async def test_a_long_silence_is_cut(engine: Engine) -> None:
    call = engine.come_in(engine.answers("/voice", dial("record-from-answer")))
    child = await engine.talking(call)

    engine.exchange.hang_up(child.sid)

    completed = {each["RecordingStatus"]: each for each in await engine.get("/recording", 2)}["completed"]
    assert completed["RecordingDuration"] == "10"


async def test_recording_callbacks_are_missing_where_they_are_asked_to_be(engine: Engine) -> None:
    engine.come_in(engine.answers("/voice", RECORD), phone=Phone(says=(MESSAGE,), callbacks=Callbacks.MISSING))

    await engine.get("/voicemail")

    await engine.recorded()
    await engine.settled()
    assert engine.got("/recording") == []


async def test_recordings_outlive_a_restart_and_are_gone_when_deleted(tmp_path: Path) -> None:
    async with running_engine(data_dir=tmp_path) as engine:
        engine.come_in(engine.answers("/voice", RECORD), phone=Phone(says=(MESSAGE,)))
        await engine.get("/recording", 2)
        before = engine.exchange.recordings()[0]
        wav = engine.exchange.recording_file(before.sid)

    async with running_engine(data_dir=tmp_path) as engine:
        assert engine.exchange.recordings() == [before]
        assert engine.exchange.recording_file(before.sid) == wav
        engine.exchange.delete_recording(before.sid)
        with pytest.raises(NotFound, match=before.sid):
            engine.exchange.recording(before.sid)
        assert list((tmp_path / "recordings").iterdir()) == []


async def test_a_recording_that_is_deleted_before_its_file_is_there_never_comes_to_be(engine: Engine) -> None:
    voice = engine.answers(
        "/voice", "<Record action='/done' timeout='0' maxLength='2' recordingStatusCallback='/recording'/>"
    )
    engine.come_in(voice, phone=Phone(says=("one",)))
    await engine.eventually(engine.exchange.recordings)
    recording = engine.exchange.recordings()[0]
    await engine.eventually(lambda: recording.status is RecordingStatus.PROCESSING)

    engine.exchange.delete_recording(recording.sid)

    engine.come_in(voice, phone=Phone(says=("two",)))
    later = await engine.recorded()
    await engine.settled()
    assert recording.status is RecordingStatus.PROCESSING
    assert {each["RecordingSid"] for each in engine.got("/recording")} == {later.sid}
