import pytest

from server.providers.sandbox.voice_phones import Phone, Scenario
from tests.providers.sandbox_voice.engine import Engine

CONFERENCE = """<Dial><Conference statusCallback='conference_status_changes?conference_uuid=1'
    statusCallbackEvent='start end join'>the-uuid</Conference></Dial>"""


async def test_the_mocked_order_comes_as_it_was_seen(engine: Engine) -> None:
    voice = engine.answers("/twilio_calls/voice_responses", CONFERENCE)
    progress = engine.told("/twilio_calls/participant_status_changes")

    call = engine.call(voice, phone=Phone(scenario=Scenario.MOCKED), status_callback=progress)

    await engine.get("/twilio_calls/create_voicemail")
    seen = [
        (
            each.path.removeprefix("/twilio_calls/"),
            each.fields.get("CallStatus") or each.fields.get("StatusCallbackEvent") or each.fields["RecordingStatus"],
            each.fields.get("AnsweredBy"),
        )
        for each in engine.asked
    ]
    assert seen == [
        ("voice_responses", "ringing", "unknown"),
        ("conference_status_changes", "conference-end", None),
        ("participant_status_changes", "ringing", "unknown"),
        ("participant_status_changes", "completed", "human"),
        ("voice_responses", "completed", "human"),
        ("create_voicemail", "completed", None),
    ]
    ended, voicemail = engine.asked[1].fields, engine.asked[5].fields
    assert (ended["FriendlyName"], ended["conference_uuid"]) == ("the-uuid", "1")
    assert (voicemail["CallSid"], voicemail["RecordingSource"]) == (call.sid, "RecordVerb")
    assert engine.exchange.recording_file(voicemail["RecordingSid"])
    assert (call.status, call.status_callback) == ("completed", progress)


@pytest.mark.parametrize("page", [500, "<Sing/>", "<Hangup/>"])
async def test_the_mocked_order_goes_on_without_a_conference(engine: Engine, page: str | int) -> None:
    voice = engine.answers("/voice", page)

    engine.call(voice, phone=Phone(scenario=Scenario.MOCKED))

    await engine.get("/create_voicemail")
    assert [each["CallStatus"] for each in engine.got("/voice")] == ["ringing", "completed"]
